// Package mpi joins the ranks of a training by kfac over MPI: one process each, started by mpirun.
//
//	c, err := mpi.New()
//	if err != nil {
//		log.Fatal(err)
//	}
//	if err := train(c); err != nil { // with kfac.New(kfac.WithCommunicator(c))
//		c.Abort(err)
//	}
//	err = c.Close()
//
// The program is built with a tag that says which MPI there is, and started so many times:
//
//	go build -tags mpi .      Open MPI: apt-get install gcc pkg-config libopenmpi-dev openmpi-bin
//	go build -tags mpich .    MPICH: apt-get install gcc pkg-config libmpich-dev mpich
//	mpirun -np 4 ./program
//
// Started without mpirun it is one rank, alone; that needs no tag. Without a tag a process can't
// find the others. [New] notices that, and refuses.
//
// # Failures
//
// MPI can't go on without a rank. So a rank that dies, or ends without Close, ends all others, and
// mpirun says which it was. [Communicator.Abort] ends all with a message of ours. Do not call Close
// by defer: it would keep a rank that panics from ending the others at once.
//
// Before each operation the ranks compare, in one small all-reduce, which operation they have
// called. So ranks that are out of step get an error in place of waiting for ever.
//
// A rank that is stopped is waited for until the limit of [WithTimeout]. Then all are ended, by a
// message that names it.
//
// # Bits
//
// All ranks get the same bits from each operation. In which order MPI adds may depend on how many
// ranks are on one machine. So the same bits in the next run need the same number of ranks, placed
// in the same way.
package mpi
