// Half round trip of small and large messages between two universe ranks. Prints "latency_us bandwidth_GBps".
//   pingpong PEER   (rank 0 with universe rank PEER)
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "remora.h"

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0, peer = argc > 1 ? std::atoi(argv[1]) : 1;
  MPI_Comm all = MPI_COMM_UNIVERSE;
  MPI_Comm_rank(all, &rank);
  std::vector<char> buffer(1 << 20);
  auto measure = [&](int bytes, int rounds) {
    double begin = MPI_Wtime();
    for (int i = 0; i < rounds; ++i) {
      if (rank == 0) {
        MPI_Send(buffer.data(), bytes, MPI_BYTE, peer, 1, all);
        MPI_Recv(buffer.data(), bytes, MPI_BYTE, peer, 1, all, MPI_STATUS_IGNORE);
      } else if (rank == peer) {
        MPI_Recv(buffer.data(), bytes, MPI_BYTE, 0, 1, all, MPI_STATUS_IGNORE);
        MPI_Send(buffer.data(), bytes, MPI_BYTE, 0, 1, all);
      }
    }
    return (MPI_Wtime() - begin) / rounds / 2;
  };
  measure(8, 1000);
  double small = measure(8, 20000);
  measure(1 << 20, 20);
  double large = measure(1 << 20, 500);
  if (rank == 0) std::printf("%.4f %.3f\n", small * 1e6, (1 << 20) / large * 1e-9);
  MPI_Finalize();
  return 0;
}
