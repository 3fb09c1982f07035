/* A file that several kernels map.
 *   mapped-file count FILE TIMES   adds 1 to its first number, TIMES times, atomically, and prints
 *                                  what it is then
 *   mapped-file hold FILE SIZE     maps SIZE bytes and prints "holds"; then, for each line of
 *                                  standard input, reads and writes every page and prints "alive"
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static volatile char* map(const char* path, size_t size) {
  int fd = open(path, O_RDWR);
  if (fd < 0) return NULL;
  void* out = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  return out == MAP_FAILED ? NULL : out;
}

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const size_t number = strtoul(argv[3], NULL, 10);
  const int counts = strcmp(argv[1], "count") == 0;
  volatile char* base = map(argv[2], counts ? 4096 : number);
  if (base == NULL) {
    perror(argv[2]);
    return 1;
  }
  if (counts) {
    uint64_t* first = (uint64_t*)(uintptr_t)base;
    for (size_t i = 0; i < number; ++i) __atomic_add_fetch(first, 1, __ATOMIC_SEQ_CST);
    printf("%" PRIu64 "\n", __atomic_load_n(first, __ATOMIC_SEQ_CST));
    return 0;
  }
  puts("holds");
  fflush(stdout);
  for (char line[16]; fgets(line, sizeof line, stdin) != NULL;) {
    for (size_t at = 0; at < number; at += 4096) ++base[at];
    puts("alive");
    fflush(stdout);
  }
  return 0;
}
