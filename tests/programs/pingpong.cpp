// Half round trip of small and large messages between two universe ranks. Prints "latency_us
// bandwidth_GBps".
//   pingpong PEER [ROUNDS]   (rank 0 with universe rank PEER; 20000 small ones, and a fortieth of
//   large ones)
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "remora.h"

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0, peer = argc > 1 ? std::atoi(argv[1]) : 1,
      rounds = argc > 2 ? std::atoi(argv[2]) : 20000;
  MPI_Comm all = MPI_COMM_UNIVERSE;
  MPI_Comm_rank(all, &rank);
  std::vector<char> buffer(1 << 20);
  auto measure = [&](int bytes, int times) {
    double begin = MPI_Wtime();
    for (int i = 0; i < times; ++i) {
      if (rank == 0) {
        MPI_Send(buffer.data(), bytes, MPI_BYTE, peer, 1, all);
        MPI_Recv(buffer.data(), bytes, MPI_BYTE, peer, 1, all, MPI_STATUS_IGNORE);
      } else if (rank == peer) {
        MPI_Recv(buffer.data(), bytes, MPI_BYTE, 0, 1, all, MPI_STATUS_IGNORE);
        MPI_Send(buffer.data(), bytes, MPI_BYTE, 0, 1, all);
      }
    }
    return (MPI_Wtime() - begin) / times / 2;
  };
  measure(8, rounds / 20);
  double small = measure(8, rounds);
  measure(1 << 20, rounds / 1000);
  double large = measure(1 << 20, rounds / 40);
  if (rank == 0) std::printf("%.4f %.3f\n", small * 1e6, (1 << 20) / large * 1e-9);
  MPI_Finalize();
  return 0;
}
