/* A counter in a segment that enclaves of all three kinds share; libhobbes is the same in all.
 * Usage: counter SEGMENT TIMES
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "hobbes.h"

static const char* const kinds[] = {"?", "linux", "kitten", "palacios"};

static int give_up(const char* what) {
  fprintf(stderr, "counter: %s: %s\n", what, hobbes_error());
  return 1;
}

/* What every enclave of the node sees of the others, without asking anybody. */
static int list_enclaves(void) {
  struct hobbes_record record;
  uint64_t cursor = 0;
  hobbes_nis* nis = hobbes_nis_open(NULL);
  if (nis == NULL) return give_up("open the mirror");
  printf("sees");
  while (hobbes_nis_next(nis, HOBBES_ENCLAVE, &cursor, &record) == 0)
    printf(" %s (%s)", record.name,
           record.body.enclave.kind < 4 ? kinds[record.body.enclave.kind] : "?");
  printf("\n");
  hobbes_nis_close(nis);
  return 0;
}

int main(int argc, char** argv) {
  struct utsname system;
  if (argc != 3) return 2;
  setvbuf(stdout, NULL, _IOLBF, 0);
  uname(&system);
  printf("runs on %s %s, host name %s\n", system.sysname, system.release, system.nodename);
  int tries = 0;
  while (list_enclaves() != 0)
    if (++tries == 20 || sleep(1) != 0) return 1;
  hobbes_segid segment = -1;
  for (tries = 0; (segment = hobbes_segment_search(argv[1])) < 0; ++tries)
    if (tries == 20 || sleep(1) != 0) return give_up("find the segment");
  hobbes_apid access = hobbes_segment_get(segment, HOBBES_RDWR);
  uint64_t* count = access < 0 ? NULL : hobbes_segment_attach(access, 0, 0);
  if (count == NULL) return give_up("attach the segment");
  for (long i = 0, times = strtol(argv[2], NULL, 10); i < times; ++i) {
    uint64_t now = __atomic_add_fetch(count, 1, __ATOMIC_SEQ_CST);
    if (i % 10 == 9) printf("counted %ld times, the number is %" PRIu64 "\n", i + 1, now);
    usleep(100000);
  }
  return 0;
}
