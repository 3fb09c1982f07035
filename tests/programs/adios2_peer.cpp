// An ordinary program of ADIOS2, which knows nothing of Hobbes: the engine comes from its XML file.
//   adios2-peer write XML STEPS SIZE [SECONDS]   SIZE x 4 doubles a step, then SECONDS of work
//   adios2-peer read XML [SECONDS]               checks each step, then SECONDS of work
//   adios2-peer write-kinds XML; read-kinds XML  every shape, type and selection once
#include <adios2.h>

#include <chrono>
#include <complex>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

namespace {

void expect(bool good, const std::string& what) {
  if (good) return;
  std::fprintf(stderr, "wrong: %s\n", what.c_str());
  std::exit(1);
}

void work(const char* seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(std::atof(seconds)));
}

double value_at(std::size_t step, std::size_t i, std::size_t j) {
  return static_cast<double>(step) * 1e6 + static_cast<double>(i) * 4 + static_cast<double>(j);
}

int write(const char* xml, std::size_t steps, std::size_t size, const char* seconds) {
  adios2::ADIOS adios(xml);
  adios2::IO io = adios.DeclareIO("coupling");
  auto field = io.DefineVariable<double>("field", {size, 4}, {0, 0}, {size, 4});
  auto time = io.DefineVariable<double>("time");
  io.DefineAttribute<std::string>("unit", "K", "field");
  adios2::Engine engine = io.Open("melt", adios2::Mode::Write);
  std::vector<double> data(size * 4);
  for (std::size_t step = 0; step < steps; ++step) {
    for (std::size_t i = 0; i < size; ++i)
      for (std::size_t j = 0; j < 4; ++j) data[i * 4 + j] = value_at(step, i, j);
    engine.BeginStep();
    engine.Put(time, static_cast<double>(step) / 2);
    engine.Put(field, data.data());
    engine.EndStep();
    std::printf("wrote %zu\n", step);
    std::fflush(stdout);
    work(seconds);
  }
  engine.Close();
  return 0;
}

int read(const char* xml, const char* seconds) {
  adios2::ADIOS adios(xml);
  adios2::IO io = adios.DeclareIO("coupling");
  adios2::Engine engine = io.Open("melt", adios2::Mode::Read);
  std::vector<double> data, part(6);
  for (;;) {
    const adios2::StepStatus status = engine.BeginStep(adios2::StepMode::Read, 20);
    if (status == adios2::StepStatus::EndOfStream) break;
    if (status != adios2::StepStatus::OK) {
      std::printf("status %d\n", static_cast<int>(status));
      engine.Close();
      return 3;
    }
    auto field = io.InquireVariable<double>("field");
    auto time = io.InquireVariable<double>("time");
    expect(field && time, "the variables are there");
    expect(io.InquireAttribute<std::string>("unit", "field").Data().at(0) == "K", "the attribute");
    double now = -1;
    engine.Get(time, now, adios2::Mode::Sync);
    const auto step = static_cast<std::size_t>(now * 2);
    const std::size_t size = field.Shape().at(0);
    data.assign(size * 4, -1);
    field.SetSelection({{0, 0}, {size, 4}});
    engine.Get(field, data.data());
    engine.PerformGets();
    field.SetSelection({{1, 1}, {2, 3}});
    engine.Get(field, part.data(), adios2::Mode::Deferred);
    work(seconds);
    engine.EndStep();
    for (std::size_t i = 0; i < size; ++i)
      for (std::size_t j = 0; j < 4; ++j)
        expect(data[i * 4 + j] == value_at(step, i, j), "every value of a step is that step's");
    expect(part[0] == value_at(step, 1, 1) && part[5] == value_at(step, 2, 3), "a selection");
    std::printf("read %zu\n", step);
    std::fflush(stdout);
  }
  engine.Close();
  std::puts("end");
  return 0;
}

int write_kinds(const char* xml) {
  adios2::ADIOS adios(xml);
  adios2::IO io = adios.DeclareIO("coupling");
  auto text = io.DefineVariable<std::string>("text");
  auto small = io.DefineVariable<std::int8_t>("small", {2, 3}, {0, 0}, {2, 3});
  auto complex = io.DefineVariable<std::complex<double>>("complex");
  auto local = io.DefineVariable<int>("local", {}, {}, {4});
  auto rank = io.DefineVariable<unsigned>("rank", {adios2::LocalValueDim});
  auto joined = io.DefineVariable<float>("joined", {adios2::JoinedDim, 2}, {}, {2, 2});
  auto ghosts = io.DefineVariable<double>("ghosts", {2, 2}, {0, 0}, {2, 2});
  auto growing = io.DefineVariable<int>("growing", {1}, {0}, {1});
  auto particles = io.DefineVariable<double>("particles", {}, {}, {1});
  io.DefineAttribute<int>("numbers", std::vector<int>{1, 2, 3}.data(), 3);
  io.DefineAttribute<double>("pi", 3.25);
  ghosts.SetMemorySelection({{1, 1}, {4, 4}});
  adios2::Engine engine = io.Open("melt", adios2::Mode::Write);
  const std::vector<std::int8_t> numbers = {1, 2, 3, 4, 5, 6};
  const std::vector<int> four = {10, 11, 12, 13}, other = {20, 21, 22, 23};
  const std::vector<float> rows = {1, 2, 3, 4};
  std::vector<double> with_ghosts(16);
  std::iota(with_ghosts.begin(), with_ghosts.end(), 0);
  for (int step = 0; step < 3; ++step) {
    engine.BeginStep();
    engine.Put(text, std::string("step ") + std::to_string(step));
    engine.Put(small, numbers.data());
    engine.Put(complex, std::complex<double>(step, -1));
    engine.Put(local, four.data());
    engine.Put(local, other.data());
    engine.Put(rank, 7U);
    engine.Put(joined, rows.data());
    engine.Put(joined, rows.data());
    if (step != 1) engine.Put(ghosts, with_ghosts.data());
    const auto length = static_cast<std::size_t>(step) + 1;
    const std::vector<int> more(length, step);
    growing.SetShape({length});
    growing.SetSelection({{0}, {length}});
    engine.Put(growing, more.data(), adios2::Mode::Sync);
    const std::vector<double> positions(static_cast<std::size_t>(step) * 3, step);
    particles.SetSelection({{}, {positions.size()}});
    engine.Put(particles, positions.data(), adios2::Mode::Sync);
    engine.EndStep();
  }
  engine.Close();
  return 0;
}

int read_kinds(const char* xml) {
  adios2::ADIOS adios(xml);
  adios2::IO io = adios.DeclareIO("coupling");
  adios2::Engine engine = io.Open("melt", adios2::Mode::Read);
  int step = 0;
  for (; engine.BeginStep() == adios2::StepStatus::OK; ++step) {
    std::string said;
    engine.Get("text", said, adios2::Mode::Sync);
    expect(said == "step " + std::to_string(step), "text");
    std::vector<std::int8_t> small;
    engine.Get("small", small, adios2::Mode::Sync);
    expect(small == std::vector<std::int8_t>{1, 2, 3, 4, 5, 6}, "all of an array");
    std::complex<double> z;
    engine.Get("complex", z, adios2::Mode::Sync);
    expect(z == std::complex<double>(step, -1), "a complex value");
    auto local = io.InquireVariable<int>("local");
    std::vector<int> block;
    local.SetBlockSelection(1);
    engine.Get(local, block, adios2::Mode::Sync);
    expect(block == std::vector<int>{20, 21, 22, 23}, "the second block of a local array");
    std::vector<unsigned> ranks;
    engine.Get("rank", ranks, adios2::Mode::Sync);
    expect(ranks == std::vector<unsigned>{7}, "a value of each rank");
    auto joined = io.InquireVariable<float>("joined");
    expect(joined.Shape() == adios2::Dims{4, 2}, "joined blocks");
    std::vector<float> all;
    engine.Get(joined, all, adios2::Mode::Sync);
    expect(all == std::vector<float>{1, 2, 3, 4, 1, 2, 3, 4}, "all joined blocks");
    auto ghosts = io.InquireVariable<double>("ghosts");
    expect(static_cast<bool>(ghosts) == (step != 1), "what a step does not have is not there");
    if (ghosts) {
      std::vector<double> inner;
      engine.Get(ghosts, inner, adios2::Mode::Sync);
      expect(inner == std::vector<double>{5, 6, 9, 10}, "a memory selection");
    }
    auto growing = io.InquireVariable<int>("growing");
    std::vector<int> more;
    engine.Get(growing, more, adios2::Mode::Sync);
    expect(more == std::vector<int>(static_cast<std::size_t>(step) + 1, step), "a new shape");
    expect(io.InquireAttribute<int>("numbers").Data() == std::vector<int>{1, 2, 3}, "numbers");
    expect(io.InquireAttribute<double>("pi").Data().at(0) == 3.25, "pi");
    joined.SetSelection({{3, 0}, {2, 2}});
    all.assign(4, -1);
    engine.Get(joined, all.data(), adios2::Mode::Sync);
    expect(all == std::vector<float>{3, 4, -1, -1},
           "of a selection beyond the shape what is there");
    auto particles = io.InquireVariable<double>("particles");
    std::vector<double> positions;
    engine.Get(particles, positions, adios2::Mode::Sync);
    expect(positions == std::vector<double>(static_cast<std::size_t>(step) * 3, step),
           "a local array that grows from nothing");
    engine.EndStep();
  }
  engine.Close();
  expect(step == 3, "three steps");
  std::puts("good");
  return 0;
}

}  // namespace

int main(int count, char** words) {
  const std::string verb = count > 2 ? words[1] : "";
  try {
    if (verb == "write" && count >= 5)
      return write(words[2], std::stoul(words[3]), std::stoul(words[4]),
                   count > 5 ? words[5] : "0");
    if (verb == "read") return read(words[2], count > 3 ? words[3] : "0");
    if (verb == "write-kinds") return write_kinds(words[2]);
    if (verb == "read-kinds") return read_kinds(words[2]);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 4;
  }
  return 2;
}
