package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// alone is the first argument of a process that trains with one optimizer for a few steps and then
// prints its peak memory.
const alone = "alone"

// aloneSteps are enough for the checks, the first inverses and the search for the damping at
// step 5.
const aloneSteps = 5

// peakOf starts such a process. It returns 0 where the system does not tell.
func peakOf(sub subject, optimizer string, s settings) int64 {
	program, err := os.Executable()
	if err != nil {
		return 0
	}
	run := exec.Command(program, alone,
		sub.model, sub.dtype, strconv.Itoa(sub.batch), strconv.Itoa(s.shrink), optimizer)
	run.Stderr = os.Stderr
	out, err := run.Output()
	if err != nil {
		return 0
	}
	peak, _ := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	return peak
}

// runAlone is the main of that process.
func runAlone(args []string) error {
	batch, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	shrink, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	t, err := newTrainer(args[4], newModel(args[1], batch, shrink, 1, models[args[0]].build), 1)
	if err != nil {
		return err
	}
	defer t.close()
	for range aloneSteps {
		t.model.nextBatch()
		if err := t.vm.RunAll(); err != nil {
			return err
		}
		if err := t.solver.Step(t.list); err != nil {
			return err
		}
		t.vm.Reset()
	}
	fmt.Println(highWater())
	return nil
}

// highWater is the peak memory of this process in bytes. It is 0 where there is no
// /proc/self/status.
func highWater() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		var kilobytes int64
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kilobytes); err == nil {
			return kilobytes << 10
		}
	}
	return 0
}
