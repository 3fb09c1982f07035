// The simulation: LAMMPS's melt example, driven through its C library interface. Every k-th step it
// publishes the atoms in the XEMEM segment "melt", without stopping for those who read them unless
// they are two frames behind.
// While it runs it is the service "melt": `hobbes call melt set '{"every": 50}'` changes how often.
//   melt-simulation [steps] [every] [input file] [file for LAMMPS's own rdf of the last frame]
#define LAMMPS_LIB_MPI
#include <lammps/library.h>
#include <mpi.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "frame.h"
#include "hobbes.h"
#include "ipc/service.h"
#include "remora.h"

namespace {

void die(const std::string& why) {
  std::fprintf(stderr, "melt-simulation: %s\n", why.c_str());
  MPI_Abort(MPI_COMM_WORLD, 1);
}

// The example as it is, but for its own `run` and `dump`s.
void read_input(void* lammps, const std::string& path) {
  std::ifstream input(path);
  if (!input) die("cannot read " + path + "; install the package lammps-examples");
  for (std::string line; std::getline(input, line);) {
    if (line.rfind("run", 0) == 0 || line.find("dump") != std::string::npos) continue;
    if (!line.empty() && line[0] != '#') lammps_command(lammps, line.c_str());
  }
}

// Those who read the frames: the universe ranks of the other apps.
std::vector<int> readers() {
  std::vector<int> out;
  for (const char* app : {"analysis", "tool"}) {
    int number = 0, first = 0, ranks = 0;
    if (remora_app(app, &number, &first, &ranks) == 0) out.push_back(first);
  }
  return out;
}

struct Settings {
  int every = 0;
  static hobbes::Json schema() {
    return {{"type", "object"},
            {"required", {"every"}},
            {"properties", {{"every", {{"type", "integer"}, {"minimum", 1}}}}}};
  }
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Settings, every)

// What can be asked of a running simulation, between two of its frames.
class Steering {
 public:
  Steering(int* every, const int* step, int steps) {
    auto service = hobbes::Service::open("melt");
    if (!service) {
      std::printf("cannot be steered: %s\n", service.error().text().c_str());
      return;
    }
    service_.emplace(std::move(*service));
    service_->add("set", "a frame every so many steps from now on",
                  [=](const Settings& wanted) -> hobbes::Result<Settings> {
                    if (wanted.every < 1 || wanted.every > steps)
                      return hobbes::Error{hobbes::Code::invalid, "set how often is published",
                                           "\"every\" is not from 1 to " + std::to_string(steps),
                                           ""};
                    *every = wanted.every;
                    return wanted;
                  });
    service_->add("status", "how far it is", [=](const hobbes::Json&) {
      return hobbes::Json{{"step", *step}, {"steps", steps}, {"every", *every}};
    });
  }
  void answer() {
    if (service_) (void)service_->serve(std::chrono::milliseconds(0));
  }

 private:
  std::optional<hobbes::Service> service_;
};

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int steps = argc > 1 ? std::atoi(argv[1]) : 20000, every = argc > 2 ? std::atoi(argv[2]) : 100;
  std::string input =
      argc > 3 && *argv[3] != '\0' ? argv[3] : "/usr/share/lammps/examples/melt/in.melt";
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  const char* quiet[] = {"melt", "-log", "none", "-screen", "none"};
  void* lammps = lammps_open(5, const_cast<char**>(quiet), MPI_COMM_WORLD, nullptr);
  if (lammps == nullptr) die("LAMMPS does not start");
  read_input(lammps, input);
  if (argc > 4) {
    lammps_command(lammps, ("compute own_rdf all rdf " + std::to_string(melt::rdf_bins)).c_str());
    std::string every_text = std::to_string(every);
    lammps_command(lammps, ("fix own_rdf all ave/time " + every_text + " 1 " + every_text +
                            " c_own_rdf[*] file " + argv[4] + " mode vector")
                               .c_str());
  }
  auto atoms = static_cast<std::uint32_t>(lammps_get_natoms(lammps));
  if (atoms > melt::atom_limit) die("too many atoms");

  melt::Segment* shared = nullptr;
  if (rank == 0) {
    void* place = nullptr;
    const auto make = [&](unsigned flags) {
      return hobbes_segment_make("melt", sizeof(melt::Segment), 0600, flags, &place);
    };
    hobbes_segid made = make(HOBBES_SNAPSHOTS);
    if (made == -EOPNOTSUPP) made = make(0);  // as on Kitten
    if (made < 0) die(hobbes_error());
    shared = static_cast<melt::Segment*>(place);
    shared->magic = melt::frame_magic;
    shared->version = melt::frame_version;
    shared->atoms = atoms;
    std::printf("%u atoms, %d steps, a frame every %d steps in segment \"melt\" (%zu KiB)\n", atoms,
                steps, every, sizeof(melt::Segment) / 1024);
    std::fflush(stdout);
  }
  MPI_Barrier(MPI_COMM_UNIVERSE);  // from here on the segment can be attached
  const std::vector<int> to = readers();

  std::vector<double> positions(3UL * atoms);
  lammps_command(lammps, "run 0 post no");
  int step = 0, reported = -steps, frames = 0;
  std::optional<Steering> steering;
  if (rank == 0) steering.emplace(&every, &step, steps);
  for (int number = 0; number == 0 || step < steps; ++number, ++frames) {
    if (steering) steering->answer();
    MPI_Bcast(&every, 1, MPI_INT, 0, MPI_COMM_WORLD);
    if (number > 0) {
      const int next = std::min(every, steps - step);
      lammps_command(lammps, ("run " + std::to_string(next) + " pre no post no").c_str());
      step += next;
    }
    char positions_name[] = "x", temperature_name[] = "temp";
    lammps_gather_atoms(lammps, positions_name, 1, 3, positions.data());
    const bool report = step - reported >= steps / 5 || step == steps;
    if (report) reported = step;
    double temperature =
        report ? lammps_get_thermo(lammps, temperature_name) : 0;  // all ranks take part
    if (rank != 0) continue;
    melt::Announcement announcement{static_cast<std::uint64_t>(number), step, steps,
                                    step == steps ? 1 : 0, 0};
    // The place for this frame is free when all have let go of the frame before the last.
    for (int reader : to) {
      std::uint64_t done = 0;
      if (number >= 2)
        MPI_Recv(&done, 1, MPI_UINT64_T, reader, melt::acknowledgement_tag, MPI_COMM_UNIVERSE,
                 MPI_STATUS_IGNORE);
    }
    melt::Frame& frame = shared->frame[number % 2];
    int periodic[3], change = 0;
    double xy = 0, yz = 0, xz = 0;
    lammps_extract_box(lammps, frame.low, frame.high, &xy, &yz, &xz, periodic, &change);
    std::memcpy(frame.position, positions.data(), positions.size() * sizeof(double));
    frame.step = announcement.step;
    // Last: a snapshot in between shows the older frame as the newest.
    __atomic_store_n(&frame.number, announcement.number, __ATOMIC_RELEASE);
    for (int reader : to)
      MPI_Send(&announcement, sizeof announcement, MPI_BYTE, reader, melt::announcement_tag,
               MPI_COMM_UNIVERSE);
    if (report) std::printf("step %d of %d, temperature %.3f\n", step, steps, temperature);
    std::fflush(stdout);
  }
  if (rank == 0)
    for (int reader : to)
      for (int i = 0; i < std::min(2, frames); ++i) {
        std::uint64_t done = 0;
        MPI_Recv(&done, 1, MPI_UINT64_T, reader, melt::acknowledgement_tag, MPI_COMM_UNIVERSE,
                 MPI_STATUS_IGNORE);
      }
  lammps_close(lammps);
  MPI_Finalize();
  return 0;
}
