// Goes wrong in a named way on the last rank of the universe.
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "remora.h"

int main(int argc, char** argv) {
  std::string how = argc > 1 ? argv[1] : "";
  bool chosen = std::atoi(std::getenv("REMORA_RANK")) == std::atoi(std::getenv("REMORA_SIZE")) - 1;
  if (how == "never-init-exit" && chosen) return 0;
  if (how == "never-init-hang" && chosen) ::pause();
  MPI_Init(&argc, &argv);
  int size = 0, x = 0;
  MPI_Comm_size(MPI_COMM_UNIVERSE, &size);
  if (chosen) {
    if (how == "abort") MPI_Abort(MPI_COMM_WORLD, 42);
    if (how == "kill") ::raise(SIGKILL);
    if (how == "segv") ::raise(SIGSEGV);
    if (how == "exit3") std::_Exit(3);
    if (how == "exit0") std::_Exit(0);
    if (how == "finalize-early") {
      MPI_Finalize();
      return 0;
    }
    if (how == "late") {  // the others rightly wait in MPI_Finalize for long
      ::sleep(9);
    }
  }
  if (how == "finalize-early")
    MPI_Recv(&x, 1, MPI_INT, size - 1, 9, MPI_COMM_UNIVERSE, MPI_STATUS_IGNORE);
  if (how == "term") std::printf("ready\n"), std::fflush(stdout), ::pause();
  if (how == "stdin") {
    char line[100] = "";
    if (std::fgets(line, sizeof line, stdin) != nullptr) std::printf("read %s", line);
  }
  if (how != "late") MPI_Barrier(MPI_COMM_UNIVERSE);
  MPI_Finalize();
  return 0;
}
