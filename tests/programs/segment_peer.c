/* The other side of the segment tests, in C through hobbes.h.
 *   segment-peer sweep NAME SIZE small|huge; snapshot NAME TIMES: see there
 *   segment-peer make NAME SIZE MODE      makes it, writes "hello" and prints "made FRAME", waits
 * for a line, then ends segment-peer attach NAME ro|rw        attaches, prints the text, the frame
 * number and a checksum, and with rw writes "seen" segment-peer convert NAME             makes
 * existing memory a segment, in place segment-peer count NAME TIMES         adds 1 to the number in
 * it, TIMES times, atomically, and prints what it is then segment-peer ring NAME TIMES rings its
 * doorbell segment-peer hear NAME TIMES          prints "listens", then "rang" each time it is
 * rung, TIMES times; fails after 20 s of silence segment-peer bounce NAME TIMES FIRST  adds 1 and
 * rings whenever the number is even (FIRST 0) or odd (1), until it is TIMES segment-peer find
 * ENCLAVE             prints what the mirror says of an enclave segment-peer beat COUNT gives COUNT
 * signs of life, one a second, then is silent segment-peer manage BUNDLE            what a program
 * inside an enclave may do: lists, makes, launches, resizes, ends
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "hobbes.h"

/* The physical frame behind an address (proc(5), pagemap; root only): the proof that nothing was
 * copied. */
static uint64_t frame_of(const void* address) {
  uint64_t entry = 0;
  int fd = open("/proc/self/pagemap", O_RDONLY);
  if (fd < 0 ||
      pread(fd, &entry, sizeof entry, (off_t)((uintptr_t)address / 4096 * 8)) != sizeof entry)
    return 0;
  close(fd);
  return entry & ((UINT64_C(1) << 55) - 1);
}

static int fail(const char* what) {
  fprintf(stderr, "%s: %s\n", what, hobbes_error());
  return 1;
}

static int wait_for_line(void) {
  char line[16];
  fflush(stdout);
  return fgets(line, sizeof line, stdin) == NULL ? 0 : 0;
}

static const size_t page = 4096;

static uint64_t* first_of(void* base, size_t at) { return (uint64_t*)((char*)base + at); }
static uint64_t* last_of(void* base, size_t at) { return first_of(base, at + page - 8); }

/* sweep NAME SIZE small|huge: makes it, open to snapshots, and goes through its pages again and
 * again, writing the round's number at the beginning and the end of each, until stdin ends. */
static volatile int over;
static void* wait_for_end(void* unused) {
  char line[16];
  while (read(0, line, sizeof line) > 0) continue;
  over = 1;
  return unused;
}

static int sweep(const char* name, size_t size, const char* pages) {
  void* base = NULL;
  pthread_t waiter;
  unsigned flags = HOBBES_SNAPSHOTS | (strcmp(pages, "huge") == 0 ? HOBBES_HUGE_2M : 0);
  if (hobbes_segment_make(name, size, 0666, flags, &base) < 0) return fail("make");
  memset(base, 0, size);
  if (pthread_create(&waiter, NULL, wait_for_end, NULL) != 0) return 1;
  printf("sweeps\n");
  fflush(stdout);
  uint64_t round = 0, slowest = 0;
  while (!over) {
    ++round;
    for (size_t at = 0; at < size; at += page) {
      struct timespec before, after;
      clock_gettime(CLOCK_MONOTONIC, &before);
      __atomic_store_n(first_of(base, at), round, __ATOMIC_SEQ_CST);
      __atomic_store_n(last_of(base, at), round, __ATOMIC_SEQ_CST);
      clock_gettime(CLOCK_MONOTONIC, &after);
      uint64_t took = (uint64_t)(after.tv_sec - before.tv_sec) * 1000000000U +
                      (uint64_t)after.tv_nsec - (uint64_t)before.tv_nsec;
      if (took > slowest) slowest = took;
    }
  }
  printf("rounds %" PRIu64 ", the longest write took %" PRIu64 " ms\n", round, slowest / 1000000);
  return 0;
}

/* Whether pages show one instant of a sweep: those before some place one round, the others the
 * round before it. */
static int is_one_instant(void* base, size_t size) {
  const uint64_t newer = *first_of(base, 0);
  uint64_t expected = newer;
  for (size_t at = 0; at < size; at += page) {
    uint64_t first = *first_of(base, at), last = *last_of(base, at);
    if (first != expected && first + 1 == newer) expected = newer - 1;
    if (first != expected) return 0;
    if (last != expected) { /* between its two writes */
      if (last + 1 != newer || expected != newer) return 0;
      expected = newer - 1;
    }
  }
  return 1;
}

static int snapshot(const char* name, long times) {
  uint64_t rounds[2] = {0, 0};
  hobbes_segid segment = hobbes_segment_search(name);
  if (segment < 0) return fail("search");
  for (long i = 0; i < times; ++i) {
    const void* base = NULL;
    hobbes_segid taken = hobbes_segment_snapshot(segment, NULL, 0444, 0, 5000, &base);
    if (taken < 0) return fail("snapshot");
    hobbes_apid access = hobbes_segment_get(taken, HOBBES_RDONLY);
    if (access < 0) return fail("get");
    if (hobbes_segment_get(taken, HOBBES_RDWR) != -EACCES) return 3;
    size_t size = (size_t)hobbes_segment_size(access);
    if (!is_one_instant((void*)(uintptr_t)base, size)) {
      fprintf(stderr, "snapshot %ld shows no instant\n", i);
      return 4;
    }
    rounds[i != 0] = *first_of((void*)(uintptr_t)base, 0);
    if (hobbes_segment_release(access) != 0 || hobbes_segment_detach((void*)(uintptr_t)base) != 0)
      return fail("detach");
  }
  printf("%ld instants, rounds %s\n", times, rounds[1] > rounds[0] ? "went on" : "stood still");
  return 0;
}

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const char* verb = argv[1];
  const char* name = argv[2];
  if (strcmp(verb, "manage") == 0) {
    char ids[4096];
    struct hobbes_record record;
    const char* const program[] = {"sh", "-c", "exit 11", NULL};
    printf("self %s, enclaves %d\n", hobbes_self(), hobbes_enclave_list(ids, sizeof ids));
    fflush(stdout);
    if (hobbes_enclave_launch(hobbes_self(), program) != 11) return fail("launch in self");
    if (hobbes_enclave_create("child", name, 1) != 0) return fail("create");
    if (hobbes_enclave_find("child", &record) != 0 || record.state != HOBBES_RUNNING)
      return fail("find");
    if (hobbes_enclave_launch("child", program) != 11) return fail("launch");
    if (hobbes_enclave_resize("child", 0, 64 << 20) != 0) return fail("resize");
    if (hobbes_enclave_signal("child", 9) != 0) return fail("signal");
    if (hobbes_enclave_delete("child") != 0) return fail("delete");
    if (hobbes_enclave_find("child", &record) != -ENOENT) return fail("find after delete");
    printf("managed\n");
    return 0;
  }
  if (strcmp(verb, "make") == 0) {
    void* place = NULL;
    unsigned flags = argc > 5 && strcmp(argv[5], "persistent") == 0 ? HOBBES_PERSISTENT : 0;
    if (hobbes_segment_make(name, strtoul(argv[3], NULL, 0), (unsigned)strtoul(argv[4], NULL, 8),
                            flags, &place) < 0)
      return fail("make");
    strcpy(place, "hello");
    printf("made %" PRIu64 "\n", frame_of(place));
    return wait_for_line();
  }
  if (strcmp(verb, "beat") == 0) {
    for (long left = strtol(name, NULL, 10); left > 0; --left) {
      if (hobbes_beat() != 0) return fail("beat");
      sleep(1);
    }
    printf("silent\n");
    return wait_for_line() + (int)sleep(1000);
  }
  if (strcmp(verb, "convert") == 0) {
    char* memory = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    strcpy(memory + 4096, "kept");
    void* place = memory;
    if (hobbes_segment_make(name, 8192, 0600, 0, &place) < 0) return fail("convert");
    printf("%s at %s\n", place == memory ? "in place" : "moved", memory + 4096);
    return wait_for_line();
  }
  if (strcmp(verb, "find") == 0) {
    struct hobbes_record record;
    uint64_t cursor = 0;
    hobbes_nis* nis = hobbes_nis_open(NULL);
    if (nis == NULL) return fail("open");
    while (hobbes_nis_next(nis, HOBBES_ENCLAVE, &cursor, &record) == 0)
      if (strcmp(record.name, name) == 0)
        printf("%s kind %u state %u\n", record.name, record.body.enclave.kind, record.state);
    hobbes_nis_close(nis);
    return 0;
  }
  if (strcmp(verb, "count") == 0) {
    hobbes_apid access = hobbes_segment_get(hobbes_segment_search(name), HOBBES_RDWR);
    uint64_t* number = access < 0 ? NULL : hobbes_segment_attach(access, 0, 0);
    if (number == NULL) return fail("attach");
    for (long left = strtol(argv[3], NULL, 10); left > 0; --left)
      __atomic_add_fetch(number, 1, __ATOMIC_SEQ_CST);
    printf("%" PRIu64 "\n", __atomic_load_n(number, __ATOMIC_SEQ_CST));
    return 0;
  }
  if (strcmp(verb, "ring") == 0) {
    hobbes_apid access = hobbes_segment_get(hobbes_segment_search(name), HOBBES_RDONLY);
    if (access < 0) return fail("get");
    for (long left = strtol(argv[3], NULL, 10); left > 0; --left)
      if (hobbes_segment_ring(access) != 0) return fail("ring");
    return 0;
  }
  if (strcmp(verb, "hear") == 0) {
    hobbes_apid access = hobbes_segment_get(hobbes_segment_search(name), HOBBES_RDONLY);
    if (access < 0 || hobbes_segment_listen(access) < 0) return fail("listen");
    puts("listens");
    fflush(stdout);
    for (long left = strtol(argv[3], NULL, 10); left > 0; --left) {
      if (hobbes_segment_wait(access, 20000) != 0) return fail("wait");
      puts("rang");
      fflush(stdout);
    }
    return 0;
  }
  if (strcmp(verb, "bounce") == 0) {
    uint64_t end = strtoul(argv[3], NULL, 10), mine = strtoul(argv[4], NULL, 10);
    hobbes_apid access = hobbes_segment_get(hobbes_segment_search(name), HOBBES_RDWR);
    uint64_t* number = access < 0 ? NULL : hobbes_segment_attach(access, 0, 0);
    if (number == NULL || hobbes_segment_listen(access) < 0) return fail("listen");
    for (;;) {
      uint64_t now = __atomic_load_n(number, __ATOMIC_SEQ_CST);
      if (now >= end) break;
      if (now % 2 == mine) {
        __atomic_store_n(number, now + 1, __ATOMIC_SEQ_CST);
        if (hobbes_segment_ring(access) != 0) return fail("ring");
      } else if (hobbes_segment_wait(access, 20000) != 0) {
        return fail("wait");
      }
    }
    printf("%" PRIu64 "\n", __atomic_load_n(number, __ATOMIC_SEQ_CST));
    return 0;
  }
  if (strcmp(verb, "sweep") == 0) return sweep(name, strtoul(argv[3], NULL, 0), argv[4]);
  if (strcmp(verb, "snapshot") == 0) return snapshot(name, strtol(argv[3], NULL, 10));
  if (strcmp(verb, "attach") == 0) {
    int write = strcmp(argv[3], "rw") == 0;
    hobbes_segid segment = hobbes_segment_search(name);
    if (segment < 0) return fail("search");
    hobbes_apid access = hobbes_segment_get(segment, write ? HOBBES_RDWR : HOBBES_RDONLY);
    if (access < 0) return fail("get");
    char* place = hobbes_segment_attach(access, 0, 0);
    if (place == NULL) return fail("attach");
    volatile char touched = *place; /* a page has a frame once it is touched */
    (void)touched;
    printf("%s %" PRIu64 " %" PRId64 "\n", place, frame_of(place), hobbes_segment_size(access));
    if (hobbes_segment_attach(access, 4096 * 1000000ULL, 4096) != NULL ||
        hobbes_segment_attach(access, 1, 10) != NULL)
      return 3;
    if (write) strcpy(place, "seen");
    if (hobbes_segment_release(access) != 0 || hobbes_segment_detach(place) != 0)
      return fail("detach");
    if (hobbes_segment_detach(place) == 0) return 4;
    return 0;
  }
  return 2;
}
