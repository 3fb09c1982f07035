/* A counter in a segment that enclaves of all three kinds share; libhobbes is the same in all.
 * Usage: counter [--make] SEGMENT TIMES
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

/* The number in the segment, which somebody makes sooner or later. */
static uint64_t* attach(const char* name) {
  hobbes_segid segment = -1;
  for (int tries = 0; (segment = hobbes_segment_search(name)) < 0; ++tries)
    if (tries == 20 || sleep(1) != 0) return NULL;
  hobbes_apid access = hobbes_segment_get(segment, HOBBES_RDWR);
  return access < 0 ? NULL : hobbes_segment_attach(access, 0, 0);
}

static uint64_t* make(const char* name) {
  void* place = NULL;
  return hobbes_segment_make(name, 4096, 0666, 0, &place) < 0 ? NULL : place;
}

int main(int argc, char** argv) {
  struct utsname system;
  const int makes = argc == 4 && strcmp(argv[1], "--make") == 0;
  if (argc != 3 + makes) return 2;
  const char* name = argv[1 + makes];
  setvbuf(stdout, NULL, _IOLBF, 0);
  uname(&system);
  printf("runs on %s %s, host name %s\n", system.sysname, system.release, system.nodename);
  int tries = 0;
  while (list_enclaves() != 0)
    if (++tries == 20 || sleep(1) != 0) return 1;
  uint64_t* count = makes ? make(name) : attach(name);
  if (count == NULL) return give_up(makes ? "make the segment" : "attach the segment");
  if (makes) printf("made segment %s\n", name);
  for (long i = 0, times = strtol(argv[2 + makes], NULL, 10); i < times; ++i) {
    uint64_t now = __atomic_add_fetch(count, 1, __ATOMIC_SEQ_CST);
    if (i % 10 == 9) printf("counted %ld times, the number is %" PRIu64 "\n", i + 1, now);
    usleep(100000);
  }
  return 0;
}
