/* libremora: the communicators of a composition, for programs that know they are part of one.
 *
 * A program started by `remora run` has as MPI_COMM_WORLD the ranks of its own app.
 * MPI_COMM_UNIVERSE holds the ranks of all apps, and remora_comm(name) those of a named rank space.
 * All are set inside MPI_Init and gone after MPI_Finalize; do not free them. In a program started
 * otherwise MPI_COMM_UNIVERSE is MPI_COMM_WORLD and no other space exists.
 */
#ifndef REMORA_H
#define REMORA_H

#include <mpi.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The intracommunicator over all ranks of the composition. Call between MPI_Init and MPI_Finalize.
 */
MPI_Comm remora_comm_universe(void);
#define MPI_COMM_UNIVERSE (remora_comm_universe())

/* The rank space `name` of the composition, or MPI_COMM_NULL when there is none or this rank is not
 * in it. */
MPI_Comm remora_comm(const char* name);
/* The same for Fortran: the name's length follows, and is 0 for the universe; the result is a
 * Fortran handle. remora_f08.f90 wraps it. */
MPI_Fint remora_comm_f(const char* name, int length);

/* The app with this name: its number, the universe rank of its rank 0 and its size. 0 on success,
 * -1 when there is none. */
int remora_app(const char* name, int* number, int* first_rank, int* ranks);

#ifdef __cplusplus
}
#endif
#endif
