// An ordinary MPI program with threads, duplicated communicators, one-sided communication and
// shared windows.
#include <mpi.h>

#include <cstdio>
#include <vector>

int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);
  int rank = 0, size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Comm copy;
  MPI_Comm_dup(MPI_COMM_WORLD, &copy);
  int *base = nullptr, next = (rank + 1) % size, before = (rank + size - 1) % size;
  MPI_Win window;
  MPI_Win_allocate(sizeof(int), sizeof(int), MPI_INFO_NULL, copy, &base, &window);
  *base = -1;
  MPI_Win_fence(0, window);
  MPI_Put(&rank, 1, MPI_INT, next, 0, 1, MPI_INT, window);
  MPI_Win_fence(0, window);
  bool good = *base == before;
  MPI_Win_free(&window);
  std::vector<char> large(1 << 20, static_cast<char>(rank));
  MPI_Sendrecv_replace(large.data(), static_cast<int>(large.size()), MPI_BYTE, next, 1, before, 1,
                       copy, MPI_STATUS_IGNORE);
  good = good && large[4711] == static_cast<char>(before);
  MPI_Comm_free(&copy);
  if (!good) MPI_Abort(MPI_COMM_WORLD, 4);
  std::printf("C++ rank %d of %d\n", rank, size);
  MPI_Finalize();
  return 0;
}
