// Checks the communicators of a composition from inside: sizes, ranks, isolation of traffic, 1 MiB
// messages, named spaces.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "remora.h"

#define CHECK(condition)                                                \
  do {                                                                  \
    if (!(condition)) {                                                 \
      std::printf("line %d: %s does not hold\n", __LINE__, #condition); \
      std::fflush(stdout);                                              \
      MPI_Abort(MPI_COMM_WORLD, 9);                                     \
    }                                                                   \
  } while (false)

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  auto number = [](const char* name) { return std::atoi(std::getenv(name)); };
  MPI_Comm all = MPI_COMM_UNIVERSE;
  int rank = 0, size = 0, global = 0, total = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Comm_rank(all, &global);
  MPI_Comm_size(all, &total);
  CHECK(rank == number("REMORA_APP_RANK") && size == number("REMORA_APP_SIZE"));
  CHECK(global == number("REMORA_RANK") && total == number("REMORA_SIZE"));
  int app = 0, first = 0, ranks = 0;
  CHECK(remora_app(std::getenv("REMORA_APP"), &app, &first, &ranks) == 0 &&
        first + rank == global && ranks == size);
  CHECK(remora_app("nobody", &app, &first, &ranks) == -1);
  CHECK(remora_comm("universe") == all && remora_comm("nobody") == MPI_COMM_NULL);
  if (argc > 1) {  // SPACE=SIZE: the named space has that many members, 0 when this rank is in none
    for (int i = 1; i < argc; ++i) {
      char name[100];
      int members = 0, found = 0;
      CHECK(std::sscanf(argv[i], "%99[^=]=%d", name, &members) == 2);
      MPI_Comm space = remora_comm(name);
      if (space != MPI_COMM_NULL) MPI_Comm_size(space, &found);
      CHECK(found == members);
    }
  }
  // Equal tags from any source in world and universe must not mix.
  std::vector<MPI_Request> requests;
  std::vector<int> to_all(static_cast<std::size_t>(total), global),
      to_world(static_cast<std::size_t>(size), 1000 + rank);
  for (int p = 0; p < total; ++p)
    MPI_Isend(&to_all[static_cast<std::size_t>(p)], 1, MPI_INT, p, 5, all,
              &requests.emplace_back());
  for (int p = 0; p < size; ++p)
    MPI_Isend(&to_world[static_cast<std::size_t>(p)], 1, MPI_INT, p, 5, MPI_COMM_WORLD,
              &requests.emplace_back());
  for (int p = 0; p < size; ++p) {
    int x = 0;
    MPI_Status status;
    MPI_Recv(&x, 1, MPI_INT, MPI_ANY_SOURCE, 5, MPI_COMM_WORLD, &status);
    CHECK(x == 1000 + status.MPI_SOURCE);
  }
  for (int p = 0; p < total; ++p) {
    int x = 0;
    MPI_Status status;
    MPI_Recv(&x, 1, MPI_INT, MPI_ANY_SOURCE, 5, all, &status);
    CHECK(x == status.MPI_SOURCE);
  }
  MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
  std::vector<char> large(1 << 20, static_cast<char>(global));
  for (int round = 0; round < 20; ++round)
    MPI_Sendrecv_replace(large.data(), 1 << 20, MPI_BYTE, (global + 1) % total, 1,
                         (global + total - 1) % total, 1, all, MPI_STATUS_IGNORE);
  CHECK(large[777777] == static_cast<char>((global + 20 * (total - 1)) % total));
  MPI_Comm split;
  MPI_Comm_split(all, global % 2, global, &split);
  MPI_Comm_free(&split);
  std::printf("ok %d/%d\n", global, total);
  MPI_Finalize();
  return 0;
}
