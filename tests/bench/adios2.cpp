// Steps of ADIOS2 from one process to another: this engine beside SST, and BP on tmpfs, in one run.
// Usage: adios2-bench [MIB...]. A line for each size and engine: throughput, and its ratio to
// SST's.
#include <adios2.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

struct EngineChoice {
  const char* name;
  adios2::Params parameters;
};

adios2::IO declare(adios2::ADIOS& adios, const EngineChoice& choice) {
  adios2::IO io = adios.DeclareIO("bench");
  io.SetEngine(std::string(choice.name) == "hobbes" ? "plugin" : choice.name);
  io.SetParameters(choice.parameters);
  return io;
}

void write(const EngineChoice& choice, const std::string& file, std::size_t count,
           std::size_t steps) {
  adios2::ADIOS adios;
  adios2::IO io = declare(adios, choice);
  auto field = io.DefineVariable<double>("field", {count}, {0}, {count});
  std::vector<double> data(count, 1.0);
  adios2::Engine engine = io.Open(file, adios2::Mode::Write);
  for (std::size_t step = 0; step < steps; ++step) {
    data[step % count] = static_cast<double>(step);
    engine.BeginStep();
    engine.Put(field, data.data());
    engine.EndStep();
  }
  engine.Close();
}

// Seconds for the steps behind the first, which the engines need for their preparations.
double read(const EngineChoice& choice, const std::string& file, std::size_t count,
            std::size_t steps) {
  adios2::ADIOS adios;
  adios2::IO io = declare(adios, choice);
  std::vector<double> data(count);
  adios2::Engine engine = io.Open(file, adios2::Mode::Read);
  Clock::time_point begun;
  std::size_t seen = 0;
  for (;;) {
    const adios2::StepStatus status = engine.BeginStep(adios2::StepMode::Read, 30);
    if (status == adios2::StepStatus::NotReady) continue;
    if (status != adios2::StepStatus::OK) break;
    auto field = io.InquireVariable<double>("field");
    field.SetSelection({{0}, {count}});
    engine.Get(field, data.data());
    engine.EndStep();
    if (seen++ == 0) begun = Clock::now();
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - begun).count();
  engine.Close();
  return seen == steps ? seconds : -1;
}

double measure(const EngineChoice& choice, const std::string& folder, std::size_t count,
               std::size_t steps) {
  static int number = 0;  // a file engine would find the steps of the run before
  const std::string file = folder + "/stream-" + std::to_string(number++);
  const pid_t writer = ::fork();
  if (writer == 0) {
    try {
      write(choice, file, count, steps);
    } catch (const std::exception& e) {
      std::fprintf(stderr, "%s: %s\n", choice.name, e.what());
      ::_exit(1);
    }
    ::_exit(0);
  }
  double out = -1;
  try {
    out = read(choice, file, count, steps);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s: %s\n", choice.name, e.what());
  }
  ::waitpid(writer, nullptr, 0);
  return out;
}

}  // namespace

int main(int count, char** words) {
  char folder[] = "/dev/shm/adios2-bench.XXXXXX";
  if (::mkdtemp(folder) == nullptr || ::chdir(folder) != 0) return 1;
  std::vector<std::size_t> sizes;
  for (int i = 1; i < count; ++i) sizes.push_back(std::strtoul(words[i], nullptr, 10));
  if (sizes.empty()) sizes = {1, 16, 128, 1024};
  const std::vector<EngineChoice> engines = {
      {"SST", {{"QueueLimit", "2"}, {"RendezvousReaderCount", "1"}}},
      {"SST", {{"QueueLimit", "2"}, {"RendezvousReaderCount", "1"}, {"DataTransport", "WAN"}}},
      {"BP4", {{"OpenTimeoutSecs", "10"}, {"BeginStepPollingFrequencySecs", "0.001"}}},
      {"hobbes",
       {{"PluginName", "bench"}, {"PluginLibrary", "hobbes_adios2"}, {"QueueLimit", "2"}}}};
  ::setenv("UCX_LOG_LEVEL", "fatal", 1);  // of SST's transport
  std::printf("%8s  %-8s %12s %12s %10s\n", "MiB/step", "engine", "ms/step", "GiB/s", "of SST");
  for (std::size_t mib : sizes) {
    const std::size_t steps = std::clamp<std::size_t>(2048 / mib, 4, 200);
    double of_sst = 0;
    for (const EngineChoice& engine : engines) {
      const char* label = engine.parameters.count("DataTransport") != 0 ? "SST WAN" : engine.name;
      std::vector<double> runs;
      for (int run = 0; run < 3; ++run)
        if (double seconds = measure(engine, folder, mib << 17U, steps); seconds > 0)
          runs.push_back(seconds / static_cast<double>(steps - 1));
      if (runs.empty()) {
        std::printf("%8zu  %-8s %12s\n", mib, label, "failed");
        continue;
      }
      std::sort(runs.begin(), runs.end());
      const double step = runs[runs.size() / 2], rate = static_cast<double>(mib) / 1024 / step;
      if (of_sst == 0) of_sst = rate;
      std::printf("%8zu  %-8s %12.3f %12.2f %10.2f\n", mib, label, step * 1000, rate,
                  rate / of_sst);
      std::fflush(stdout);
    }
  }
  return std::system((std::string("rm -r ") + folder).c_str());
}
