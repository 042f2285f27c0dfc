//go:build mpi || mpich

package mpi

// #cgo mpi pkg-config: ompi
// #cgo mpich pkg-config: mpich
// #include "mpi.h"
// static void kfacAbort(void) { MPI_Abort(MPI_COMM_WORLD, 1); }
// enum { kfacTag = 7142 };
// static void kfacTell(int to, long long number) {
// 	MPI_Send(&number, 1, MPI_LONG_LONG, to, kfacTag, MPI_COMM_WORLD);
// }
// static long long kfacHear(int from) {
// 	long long number = -1;
// 	for (int there = 1;;) {
// 		MPI_Iprobe(from, kfacTag, MPI_COMM_WORLD, &there, MPI_STATUS_IGNORE);
// 		if (!there) return number;
// 		MPI_Recv(&number, 1, MPI_LONG_LONG, from, kfacTag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
// 	}
// }
import "C"

// tagged says whether the program is built with MPI.
const tagged = true

// abort ends all ranks. That of the library below has 0 for the status of mpirun, as if all were
// well.
func abort() { C.kfacAbort() }

// tell sends a rank a number, in so small a message that it does not wait for it.
func tell(to int, number int64) { C.kfacTell(C.int(to), C.longlong(number)) }

// hear returns the last number that a rank has told since the last call, or -1.
func hear(from int) int64 { return int64(C.kfacHear(C.int(from))) }
