/* What each rank tells the launcher about itself in a file that all of them share, version 1: one
 * cache line per rank of the universe, written by the hook component inside the rank. The launcher
 * reads it and believes none of it but for telling a deadlock.
 */
#ifndef REMORA_PROGRESS_H
#define REMORA_PROGRESS_H

#include <stdint.h>

struct remora_progress {
  uint64_t messages; /* begun, sent and received, collectives included */
  uint64_t waits;    /* odd while it is inside of a call that returns only when another rank does
                        something; changes whenever such a call begins or returns */
  uint64_t unused[6];
};

#ifdef __cplusplus
static_assert(sizeof(remora_progress) == 64);
#endif

#endif
