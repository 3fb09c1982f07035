/* What the component does to communicators, whose layout each release of Open MPI arranges anew:
 * communicator_4_1.c and communicator_5_0.c, of which the build takes the one that fits. */
#ifndef REMORA_COMMUNICATOR_H
#define REMORA_COMMUNICATOR_H

#include "ompi/communicator/communicator.h"
#include "ompi_config.h"

/* Whether MPI_COMM_WORLD looks as this was compiled for: another libmpi shows a different picture
 * in fields from the first to the last. */
bool communicator_layout_is_known(void);

/* Each becomes what the other was. Stays in place: object header, lock, name, Fortran index,
 * attributes, error handler, and what makes a handle predefined. */
void exchange_communicators(ompi_communicator_t* a, ompi_communicator_t* b);

void name_communicator(ompi_communicator_t* comm, const char* name);

/* For use in exchange_communicators. */
#define EXCHANGE(type, field) \
  do {                        \
    type kept = a->field;     \
    a->field = b->field;      \
    b->field = kept;          \
  } while (0)

/* The flags that belong to the handle, not to what it stands for. */
static inline void exchange_flags(ompi_communicator_t* a, ompi_communicator_t* b) {
  const uint32_t keep = OMPI_COMM_INTRINSIC | OMPI_COMM_NAMEISSET;
  const uint32_t flags_a = a->c_flags, flags_b = b->c_flags;
  a->c_flags = (flags_b & ~keep) | (flags_a & keep);
  b->c_flags = (flags_a & ~keep) | (flags_b & keep);
}

#endif
