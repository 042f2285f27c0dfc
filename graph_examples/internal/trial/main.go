package trial

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
)

// Main is the frame of a program. It reads the flags in args and calls run with a context that an
// interrupt (Ctrl-C) ends. A second interrupt ends the program at once. The exit status that it
// returns is 0, also after an interrupt; 1 after an error of run; 2 after a bad flag. An error is
// one line on stderr.
func Main(
	program string, args []string, defaults Settings, run func(context.Context, Settings) error, stderr io.Writer,
) int {
	settings, err := defaults.Parse(program, args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "%s: %v (-help lists the flags)\n", program, err)
		return 2
	}
	if err := settings.join(); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", program, err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	context.AfterFunc(ctx, stop)
	if err := settings.leave(run(ctx, settings)); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", program, err)
		return 1
	}
	return 0
}
