/* What the hook component tells libremora; internal to remora/. */
#ifndef REMORA_SPACES_H
#define REMORA_SPACES_H

#include <mpi.h>

enum { REMORA_SPACE_LIMIT = 256 };

struct remora_space {
  char name[128];
  MPI_Comm comm; /* MPI_COMM_NULL where this rank is no member */
};

extern MPI_Comm remora_universe;
extern struct remora_space remora_spaces[REMORA_SPACE_LIMIT];
extern int remora_space_count;

#endif
