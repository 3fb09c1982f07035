// An ordinary MPI program of ADIOS2: each rank writes SIZE rows of an array, and reads a part that
// others have written.
//   adios2-mpi-peer write XML STEPS SIZE; read XML
#include <adios2.h>
#include <mpi.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

double value_at(std::size_t step, std::size_t row, std::size_t column) {
  return static_cast<double>(step) * 1e6 + static_cast<double>(row) * 10 +
         static_cast<double>(column);
}

int write(adios2::ADIOS& adios, std::size_t rank, std::size_t ranks, std::size_t steps,
          std::size_t size) {
  adios2::IO io = adios.DeclareIO("coupling");
  auto field = io.DefineVariable<double>("field", {ranks * size, 5}, {rank * size, 0}, {size, 5});
  auto where = io.DefineVariable<int>("where", {adios2::LocalValueDim});
  adios2::Engine engine = io.Open("melt", adios2::Mode::Write);
  std::vector<double> rows(size * 5);
  for (std::size_t step = 0; step < steps; ++step) {
    for (std::size_t i = 0; i < rows.size(); ++i)
      rows[i] = value_at(step, rank * size + i / 5, i % 5);
    engine.BeginStep();
    engine.Put(where, static_cast<int>(rank));
    engine.Put(field, rows.data());
    engine.EndStep();
  }
  engine.Close();
  return 0;
}

int read(adios2::ADIOS& adios, std::size_t rank, std::size_t ranks) {
  adios2::IO io = adios.DeclareIO("coupling");
  adios2::Engine engine = io.Open("melt", adios2::Mode::Read);
  std::size_t steps = 0;
  int wrong = 0;
  for (; engine.BeginStep() == adios2::StepStatus::OK; ++steps) {
    auto field = io.InquireVariable<double>("field");
    const std::size_t all = field.Shape()[0], begin = all * rank / ranks,
                      end = all * (rank + 1) / ranks;
    std::vector<double> rows((end - begin) * 3);
    field.SetSelection({{begin, 1}, {end - begin, 3}});
    engine.Get(field, rows.data());
    std::vector<int> where;
    engine.Get("where", where);
    engine.EndStep();
    for (std::size_t i = 0; i < rows.size(); ++i)
      wrong += rows[i] != value_at(steps, begin + i / 3, 1 + i % 3) ? 1 : 0;
    wrong += where.size() * field.Count()[0] == 0 ? 1 : 0;
    for (std::size_t i = 0; i < where.size(); ++i) wrong += where[i] != static_cast<int>(i) ? 1 : 0;
  }
  engine.Close();
  int all_wrong = 0;
  MPI_Reduce(&wrong, &all_wrong, 1, MPI_INT, MPI_SUM, 0, MPI_COMM_WORLD);
  if (rank == 0 && all_wrong == 0) std::printf("ranks agree on %zu steps\n", steps);
  return all_wrong == 0 ? 0 : 1;
}

}  // namespace

int main(int count, char** words) {
  MPI_Init(&count, &words);
  int rank = 0, ranks = 1, status = 2;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  try {
    adios2::ADIOS adios(count > 2 ? words[2] : "", MPI_COMM_WORLD);
    const auto own = static_cast<std::size_t>(rank), all = static_cast<std::size_t>(ranks);
    if (count == 5) status = write(adios, own, all, std::stoul(words[3]), std::stoul(words[4]));
    if (count == 3) status = read(adios, own, all);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    MPI_Abort(MPI_COMM_WORLD, 4);
  }
  MPI_Finalize();
  return status;
}
