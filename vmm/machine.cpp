#include "vmm/machine.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "vmm/seccomp_filter.h"

namespace hobbes::vmm {
namespace {

constexpr rlim_t own_descriptors = 512;  // of the monitor, whatever its guest does with folders

void signal_event(int event) {
  std::uint64_t one = 1;
  (void)!::write(event, &one, sizeof one);
}

Result<Fd> make_event() {
  Fd out(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!out) return os_error("make an event descriptor", errno);
  return out;
}

Result<void> bind_thread(pthread_t thread, unsigned cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (int error = ::pthread_setaffinity_np(thread, sizeof set, &set); error != 0)
    return os_error("run a vCPU on CPU " + std::to_string(cpu), error, "name a CPU of the enclave");
  return {};
}

}  // namespace

Result<Fd> Machine::interrupt_line(unsigned gsi) {
  HOBBES_TRY(event, make_event());
  HOBBES_CHECK(vm_.connect_interrupt(event, gsi));
  return std::move(event);
}

Result<void> Machine::add_virtio(VirtioDevice& device) {
  auto number = static_cast<unsigned>(transports_.size());
  Gpa at = virtio_at + number * virtio_stride;
  HOBBES_TRY(line, interrupt_line(virtio_gsi + number));
  events_.push_back(std::move(line));
  int interrupt = events_.back().get();
  auto kicks = std::make_shared<std::vector<int>>();
  transports_.push_back(std::make_unique<VirtioTransport>(
      memory_, device, [interrupt] { signal_event(interrupt); },
      [kicks](unsigned queue) { signal_event(kicks->at(queue)); }));
  VirtioTransport* transport = transports_.back().get();
  for (unsigned queue = 0; queue < device.queues(); ++queue) {
    HOBBES_TRY(event, make_event());
    HOBBES_CHECK(vm_.connect_write(event, at + virtio_notify_offset, queue));
    int fd = event.get();
    kicks->push_back(fd);
    HOBBES_CHECK(loop_.watch(fd, EPOLLIN, [fd, transport, queue](std::uint32_t) {
      std::uint64_t count = 0;
      (void)!::read(fd, &count, sizeof count);
      transport->notify(queue);
    }));
    events_.push_back(std::move(event));
  }
  registers_.add(at, virtio_stride, *transport);
  acpi_.virtio.push_back({at, virtio_gsi + number});
  return {};
}

Result<void> Machine::add_folder(SharedFolder folder, std::uint64_t limit) {
  Fd descriptors(::open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC));
  Fd kick(::eventfd(0, EFD_CLOEXEC));
  if (!descriptors || !kick) return os_error("share a folder with the guest", errno);
  std::unique_ptr<DaxWindow> window;
  if (folder.window != 0) {
    auto number = static_cast<unsigned>(folders_.size());
    HOBBES_TRY(made, DaxWindow::make(dax_at + number * dax_stride, folder.window));
    window = std::make_unique<DaxWindow>(std::move(made));
    HOBBES_CHECK(vm_.set_memory(first_dax_slot + number, window->address(), window->size(),
                                window->host(), false));
    memory_.add({window->address(), window->size(), static_cast<std::byte*>(window->host())});
  }
  auto files = std::make_unique<FileSystem>(Folder(std::move(folder.folder), std::move(descriptors),
                                                   limit, folder.read_only, window.get()),
                                            folder.tag, window.get(),
                                            [kick = kick.get()] { signal_event(kick); });
  folders_.push_back({std::move(window), std::move(files), std::move(kick)});
  return add_virtio(*folders_.back().files);
}

Result<std::unique_ptr<Machine>> Machine::make(MachineConfig config, EventLoop& loop,
                                               std::function<void(std::string_view)> console) {
  HOBBES_TRY(memory, GuestMemory::make(config.memory, config.page_size, config.spare));
  HOBBES_TRY(vm, Vm::make(config.kvm));
  std::unique_ptr<Machine> out(new Machine(std::move(memory), std::move(vm), loop));
  Machine& machine = *out;
  machine.cpus_ = config.cpus;
  HOBBES_TRY(ended, make_event());
  machine.ended_ = std::move(ended);
  unsigned slot = 0;
  for (const Region& region : machine.memory_.regions())
    HOBBES_CHECK(machine.vm_.set_memory(slot++, region.address, region.size, region.host, false));
  const Region& spare = machine.memory_.spare();
  if (spare.size != 0)
    HOBBES_CHECK(machine.vm_.set_memory(slot++, spare.address, spare.size, spare.host, false));

  HOBBES_TRY(serial_line, machine.interrupt_line(serial_gsi));
  machine.events_.push_back(std::move(serial_line));
  int serial_interrupt = machine.events_.back().get();
  machine.printed_ = std::move(console);
  machine.serial_ = std::make_unique<Serial>(
      [raw = out.get()](char c) {
        raw->print({&c, 1});
      },
      [serial_interrupt] { signal_event(serial_interrupt); });
  machine.ports_.add(serial_port, 8, *machine.serial_);
  HOBBES_TRY(power_button, machine.interrupt_line(power_button_gsi));
  machine.power_button_ = std::move(power_button);
  struct EndPort {
    std::uint16_t port, size;
    std::uint8_t agreed, reads_as;
    Ending how;
  };
  for (const EndPort& one :
       {EndPort{sleep_port, 2, HOBBES_VM_POWER_OFF, 0, Ending::powered_off},
        EndPort{reset_port, 1, HOBBES_VM_RESET, 0, Ending::rebooted},
        EndPort{panic_port, 1, HOBBES_VM_PANICKED, HOBBES_VM_PANICKED, Ending::panicked}}) {
    machine.ends_.push_back(std::make_unique<EndRegister>(
        one.agreed, one.reads_as, [raw = out.get(), how = one.how] { raw->finish(how, ""); }));
    machine.ports_.add(one.port, one.size, *machine.ends_.back());
  }
  HOBBES_TRY(reset_kick, make_event());
  int kick = reset_kick.get();
  machine.events_.push_back(std::move(reset_kick));
  machine.vsock_ = std::make_unique<Vsock>(loop, [kick] { signal_event(kick); });
  HOBBES_CHECK(loop.watch(kick, EPOLLIN, [kick, raw = out.get()](auto) {
    std::uint64_t count = 0;
    (void)!::read(kick, &count, sizeof count);
    raw->vsock_->tend();
  }));
  HOBBES_CHECK(machine.add_virtio(*machine.vsock_));
  HOBBES_CHECK(machine.add_virtio(machine.entropy_));
  machine.console_ =
      std::make_unique<Console>([raw = out.get()](std::string_view text) { raw->print(text); });
  HOBBES_CHECK(machine.add_virtio(*machine.console_));
  if (config.disk) {
    HOBBES_TRY(block, Block::make(std::move(config.disk), config.disk_read_only));
    machine.block_.emplace(std::move(block));
    HOBBES_CHECK(machine.add_virtio(*machine.block_));
  }

  if (spare.size != 0) {
    machine.virtio_mem_.emplace(spare);
    HOBBES_CHECK(machine.add_virtio(*machine.virtio_mem_));
  }

  rlimit descriptors{};
  (void)::getrlimit(RLIMIT_NOFILE, &descriptors);
  std::uint64_t for_folders =
      descriptors.rlim_cur - std::min(descriptors.rlim_cur, own_descriptors);
  for (SharedFolder& folder : config.folders)
    HOBBES_CHECK(machine.add_folder(std::move(folder), for_folders / config.folders.size()));

  auto count = static_cast<unsigned>(config.cpus.size());
  machine.acpi_.cpus = count;
  HOBBES_TRY(acpi_root, write_acpi(machine.memory_, machine.acpi_));
  HOBBES_TRY(entry, load_guest(machine.memory_, config.image, acpi_root));
  for (unsigned i = 0; i < count; ++i) {
    HOBBES_TRY(vcpu, machine.vm_.make_vcpu(i, count, config.enclave));
    machine.vcpus_.push_back(std::move(vcpu));
    machine.exits_.push_back(std::make_unique<Exits>());
  }
  HOBBES_CHECK(machine.vcpus_.front().start_at(entry));
  return out;
}

void Machine::print(std::string_view text) {
  printed_(text);
  // What a dying kernel says is the cause that people will read.
  std::scoped_lock guard(lock_);
  for (char c : text) {
    if (c != '\n') {
      if (line_.size() < 512) line_ += c;
      continue;
    }
    if (std::size_t at = line_.find("Kernel panic - not syncing");
        at != std::string::npos && panic_text_.empty())
      panic_text_ = line_.substr(at, line_.find_last_not_of("\r ") - at + 1);
    line_.clear();
  }
}

std::size_t Machine::type(std::string_view keys) {
  return console_->used() ? console_->type(keys) : serial_->type(keys);
}

void Machine::press_power_button() { signal_event(power_button_.get()); }

void Machine::on_room(const std::function<void()>& room) {
  serial_->on_room(room);
  console_->on_room(room);
}

Result<void> Machine::start() {
  for (unsigned i = 0; i < vcpus_.size(); ++i) {
    threads_.emplace_back([this, i] { run_vcpu(i); });
    ::pthread_setname_np(threads_.back().native_handle(), ("vcpu" + std::to_string(i)).c_str());
  }
  for (ServedFolder& one : folders_)
    std::thread([this, &one] { serve_folder(*one.files, one.kick.get()); }).detach();
  return {};
}

// Paths begin at the folder for this thread. What the process has open, and /proc by way of it,
// stay in its reach.
void Machine::serve_folder(FileSystem& files, int kick) {
  sigset_t signals;
  sigfillset(&signals);
  ::pthread_sigmask(SIG_SETMASK, &signals, nullptr);
  ::pthread_setname_np(::pthread_self(), "files");
  if (::unshare(CLONE_FS) != 0 || ::fchdir(files.folder().root()) != 0 || ::chroot(".") != 0)
    return finish(Ending::failed, os_error("enter a shared folder", errno).text());
  ::umask(0);  // the guest's kernel has applied its own
  if (auto confined = install_seccomp_filter(ThreadKind::files); !confined)
    return finish(Ending::failed, confined.error().text());
  for (std::uint64_t rings = 0;
       ::read(kick, &rings, sizeof rings) == sizeof rings || errno == EINTR;)
    files.serve();
}

Result<void> Machine::pin(const std::vector<unsigned>& cpus) {
  if (cpus.empty()) return Error{Code::invalid, "move the vCPUs", "there are no CPUs for them", ""};
  for (std::size_t i = 0; i < threads_.size(); ++i)
    HOBBES_CHECK(bind_thread(threads_[i].native_handle(), cpus[i % cpus.size()]));
  cpus_ = cpus;
  return {};
}

std::vector<unsigned> Machine::cpus() const {
  std::vector<unsigned> out;
  for (std::size_t i = 0; i < vcpus_.size(); ++i) out.push_back(cpus_[i % cpus_.size()]);
  return out;
}

void Machine::kick() {
  for (std::size_t i = 0; i < threads_.size(); ++i) {
    vcpus_[i].kick();
    ::pthread_kill(threads_[i].native_handle(), kick_signal);
  }
}

void Machine::pause() {
  std::scoped_lock guard(lock_);
  paused_ = true;
  kick();
}

void Machine::resume() {
  std::scoped_lock guard(lock_);
  paused_ = false;
  changed_.notify_all();
}

void Machine::finish(Ending how, const std::string& detail) {
  {
    std::scoped_lock guard(lock_);
    if (end_) return;
    if (!panic_text_.empty()) how = Ending::panicked;
    end_ = End{how, how == Ending::panicked && detail.empty() ? panic_text_ : detail};
  }
  stopping_ = true;
  signal_event(ended_.get());
}

Machine::End Machine::end() const {
  std::scoped_lock guard(lock_);
  return end_.value_or(End{Ending::failed, ""});
}

Result<void> Machine::show(unsigned slot, Gpa address, std::uint64_t size, void* host,
                           bool read_only) {
  if (read_only && !vm_.has_read_only_memory())
    return Error{Code::unavailable, "show memory to the guest",
                 "this kernel's KVM has no read-only memory", "use a newer kernel"};
  return vm_.set_memory(slot, address, size, host, read_only);
}

Result<void> Machine::hide(unsigned slot) { return vm_.set_memory(slot, 0, 0, nullptr, false); }

bool Machine::maps_files() const {
  return std::all_of(folders_.begin(), folders_.end(),
                     [](const ServedFolder& one) { return !one.window || one.window->used(); });
}

bool Machine::follow_sizes() {
  bool changed = false;
  for (ServedFolder& one : folders_)
    if (one.window) changed = one.window->follow_sizes() || changed;
  return changed;
}

void Machine::run_vcpu(unsigned number) {
  sigset_t signals;
  sigfillset(&signals);
  sigdelset(&signals, kick_signal);
  ::pthread_sigmask(SIG_SETMASK, &signals, nullptr);
  // Before its first instruction: a guest never moves unless it is asked to.
  if (auto bound = bind_thread(::pthread_self(), cpus_[number % cpus_.size()]); !bound)
    return finish(Ending::failed, bound.error().text());
  if (auto confined = install_seccomp_filter(ThreadKind::vcpu); !confined)
    return finish(Ending::failed, confined.error().text());
  Vcpu& vcpu = vcpus_[number];
  Exits& exits = *exits_[number];
  kvm_run& run = vcpu.state();
  // A file that is mapped by a window may have been cut; another vCPU may have seen to it.
  unsigned fruitless = 0;
  constexpr unsigned fruitless_limit = 3;
  constexpr std::chrono::seconds together(1);  // what is further apart has another cause
  std::chrono::steady_clock::time_point last_missing{};
  while (!stopping_) {
    if (std::unique_lock guard(lock_); paused_) {
      changed_.wait(guard, [this] { return !paused_ || stopping_; });
      vcpu.was_paused();
    }
    auto done = vcpu.run();
    ++exits.all;
    if (!done) {
      if (done.error().code == Code::unavailable) {
        const auto now = std::chrono::steady_clock::now();
        if (now - last_missing > together) fruitless = 0;
        last_missing = now;
        fruitless = follow_sizes() ? 0 : fruitless + 1;
        if (fruitless < fruitless_limit) continue;
      }
      if (done.error().code != Code::busy) return finish(Ending::failed, done.error().text());
      ++exits.interrupted;
      continue;
    }
    fruitless = 0;
    switch (run.exit_reason) {
      case KVM_EXIT_IO: {
        ++exits.port;
        auto* data = reinterpret_cast<std::byte*>(&run) + run.io.data_offset;
        for (unsigned i = 0; i < run.io.count; ++i, data += run.io.size) {
          std::span<std::byte> bytes(data, run.io.size);
          if (run.io.direction == KVM_EXIT_IO_IN)
            ports_.read(run.io.port, bytes);
          else
            ports_.write(run.io.port, bytes);
        }
        break;
      }
      case KVM_EXIT_MMIO: {
        ++exits.memory;
        std::span<std::byte> bytes(reinterpret_cast<std::byte*>(run.mmio.data),
                                   std::min<std::size_t>(run.mmio.len, 8));
        if (run.mmio.is_write != 0)
          registers_.write(run.mmio.phys_addr, bytes);
        else
          registers_.read(run.mmio.phys_addr, bytes);
        break;
      }
      case KVM_EXIT_INTR:
        ++exits.interrupted;
        break;
      case KVM_EXIT_SHUTDOWN:
        return finish(Ending::triple_fault,
                      "vCPU " + std::to_string(number) + " at " + vcpu.registers());
      case KVM_EXIT_FAIL_ENTRY:
        return finish(Ending::failed,
                      "the processor refuses vCPU " + std::to_string(number) + ": reason " +
                          std::to_string(run.fail_entry.hardware_entry_failure_reason));
      case KVM_EXIT_INTERNAL_ERROR:
        return finish(Ending::failed, "KVM cannot go on with vCPU " + std::to_string(number) +
                                          ": suberror " + std::to_string(run.internal.suberror) +
                                          ", " + vcpu.registers());
      default:
        return finish(Ending::failed, "vCPU " + std::to_string(number) +
                                          " left the guest for reason " +
                                          std::to_string(run.exit_reason));
    }
  }
}

}  // namespace hobbes::vmm
