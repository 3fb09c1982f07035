#include "enclave/drivers/palacios/trial_guest.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "core/file.h"
#include "core/identity.h"
#include "core/json.h"
#include "core/process.h"

namespace hobbes {
namespace {

// On an emulated or busy machine the time that others take counts as the guest's, so a second look
// is longer.
constexpr std::array<long, 2> processor_time_ns = {100'000'000, 900'000'000};
constexpr int patience_ms = 5000;
constexpr const char* trying = "try whether KVM runs a guest";

// The guest's memory: code, then three levels of page tables that map the first 2 MiB to
// themselves.
constexpr std::size_t memory_size = 0x10000;
constexpr std::uint64_t code_at = 0x1000, pml4_at = 0x2000, pdpt_at = 0x3000, directory_at = 0x4000;
constexpr std::uint8_t port = 0xf4;
constexpr std::uint8_t code[] = {
    0x31, 0xc0,              // xor eax, eax
    0x0f, 0xa2,              // cpuid: the highest leaf, at least 1
    0x48, 0x8b, 0x1c, 0x25,  // mov rbx, [code_at]: a load through the page tables
    0x00, 0x10, 0x00, 0x00,  //
    0x66, 0x0f, 0x6e, 0xc0,  // movd xmm0, eax: vector registers, which every compiled program uses
    0x66, 0x0f, 0x7e, 0xc0,  // movd eax, xmm0
    0xe6, port,              // out port, al
    0xf4,                    // hlt
};

// What the child tells: the pipe holds one of these, or nothing when it was killed.
struct Report {
  enum : int { ran, strange, refused } kind;
  int detail;  // an errno, or KVM's exit reason
  char call[40];
};

kvm_segment flat(std::uint16_t selector, std::uint8_t type, bool executable) {
  kvm_segment out{};
  out.limit = 0xffffffff;
  out.selector = selector;
  out.type = type;
  out.present = 1;
  out.s = 1;
  out.g = 1;
  out.l = executable ? 1 : 0;
  out.db = executable ? 0 : 1;
  return out;
}

class Trial {
 public:
  explicit Trial(int kvm) : kvm_(kvm) {}

  Report run() {
    if (!prepared()) return refusal_;
    // The port write first, then HLT, which ends in user space since the guest has no interrupt
    // controller.
    if (!enters()) return refusal_;
    if (run_->exit_reason != KVM_EXIT_IO || run_->io.port != port) return strange();
    const auto* value = reinterpret_cast<const std::uint8_t*>(run_) + run_->io.data_offset;
    if (*value == 0) return strange();
    if (!enters()) return refusal_;
    if (run_->exit_reason != KVM_EXIT_HLT) return strange();
    return {Report::ran, 0, ""};
  }

 private:
  bool call(int fd, unsigned long request, unsigned long argument, const char* name,
            int* out = nullptr) {
    int rc = ::ioctl(fd, request, argument);
    if (out != nullptr) *out = rc;
    if (rc >= 0) return true;
    refusal_ = {Report::refused, errno, ""};
    std::strncpy(refusal_.call, name, sizeof refusal_.call - 1);
    return false;
  }
  template <class T>
  bool call(int fd, unsigned long request, T* argument, const char* name) {
    return call(fd, request, reinterpret_cast<unsigned long>(argument), name);
  }

  bool prepared() {
    int vm = -1, vcpu = -1, size = 0;
    if (!call(kvm_, KVM_CREATE_VM, 0, "KVM_CREATE_VM", &vm) ||
        !call(vm, KVM_SET_TSS_ADDR, 0xfffbd000, "KVM_SET_TSS_ADDR") ||
        !call(kvm_, KVM_GET_VCPU_MMAP_SIZE, 0, "KVM_GET_VCPU_MMAP_SIZE", &size))
      return false;
    void* memory =
        ::mmap(nullptr, memory_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return no_memory();
    auto* bytes = static_cast<std::uint8_t*>(memory);
    std::memcpy(bytes + code_at, code, sizeof code);
    auto entry = [&](std::uint64_t at, std::uint64_t value) {
      std::memcpy(bytes + at, &value, sizeof value);
    };
    entry(pml4_at, pdpt_at | 3);
    entry(pdpt_at, directory_at | 3);
    entry(directory_at, 0x83);  // one page of 2 MiB
    kvm_userspace_memory_region region{0, 0, 0, memory_size,
                                       reinterpret_cast<std::uint64_t>(memory)};
    if (!call(vm, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION") ||
        !call(vm, KVM_CREATE_VCPU, 0, "KVM_CREATE_VCPU", &vcpu))
      return false;
    void* run = ::mmap(nullptr, static_cast<std::size_t>(size), PROT_READ | PROT_WRITE, MAP_SHARED,
                       vcpu, 0);
    if (run == MAP_FAILED) return no_memory();
    run_ = static_cast<kvm_run*>(run);
    vcpu_ = vcpu;
    kvm_sregs system{};
    if (!call(vcpu, KVM_GET_SREGS, &system, "KVM_GET_SREGS")) return false;
    system.cs = flat(0x8, 0xb, true);
    system.ds = system.es = system.fs = system.gs = system.ss = flat(0x10, 0x3, false);
    system.cr3 = pml4_at;
    system.cr4 = 0x620;        // PAE, and SSE as operating systems enable it
    system.cr0 = 0x80000013U;  // paging, protection, no emulation of the coprocessor
    system.efer = 0x500;       // long mode
    kvm_regs general{};
    general.rip = code_at;
    general.rflags = 2;
    // The description first: since Linux 6.11, KVM refuses a mode that the processor does not have.
    return describe(vcpu) && call(vcpu, KVM_SET_SREGS, &system, "KVM_SET_SREGS") &&
           call(vcpu, KVM_SET_REGS, &general, "KVM_SET_REGS");
  }

  // What KVM itself supports, so that CPUID and long mode are as in a real guest.
  bool describe(int vcpu) {
    struct {
      std::uint32_t count, padding;
      kvm_cpuid_entry2 entries[256];
    } features{256, 0, {}};
    struct Head {
      std::uint32_t count, padding;
    };
    return call(kvm_, _IOWR(KVMIO, 0x05, Head), &features, "KVM_GET_SUPPORTED_CPUID") &&
           call(vcpu, _IOW(KVMIO, 0x90, Head), &features, "KVM_SET_CPUID2");
  }

  bool enters() { return call(vcpu_, KVM_RUN, 0, "KVM_RUN"); }
  Report strange() { return {Report::strange, static_cast<int>(run_->exit_reason), ""}; }
  bool no_memory() {
    refusal_ = {Report::refused, errno, "mmap"};
    return false;
  }

  int kvm_, vcpu_ = -1;
  kvm_run* run_ = nullptr;
  Report refusal_{};
};

[[noreturn]] void run_in_child(int kvm, int out, long time_ns) {
  timer_t timer{};
  sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGKILL;
  itimerspec limit{{0, 0}, {0, time_ns}};
  if (::timer_create(CLOCK_PROCESS_CPUTIME_ID, &event, &timer) != 0 ||
      ::timer_settime(timer, 0, &limit, nullptr) != 0)
    ::_exit(1);
  Report report = Trial(kvm).run();
  (void)!::write(out, &report, sizeof report);
  ::_exit(0);
}

}  // namespace

namespace {

// Nothing when the child did not end in its time.
Result<std::optional<Report>> try_once(const Fd& kvm, long time_ns) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return os_error(trying, errno);
  Fd from_child(ends[0]), to_parent(ends[1]);
  pid_t child = ::fork();
  if (child < 0) return os_error(trying, errno);
  if (child == 0) run_in_child(kvm.get(), to_parent.get(), time_ns);
  to_parent.reset();
  Report report{};
  pollfd readable{from_child.get(), POLLIN, 0};
  bool told = ::poll(&readable, 1, patience_ms) == 1 &&
              ::read(from_child.get(), &report, sizeof report) == sizeof report;
  ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  return told ? std::optional<Report>(report) : std::nullopt;
}

}  // namespace

Result<std::optional<std::string>> run_trial_guest(const Fd& kvm) {
  std::optional<Report> told;
  for (long time_ns : processor_time_ns) {
    HOBBES_TRY(report, try_once(kvm, time_ns));
    told = report;
    if (told) break;
  }
  if (!told)
    return std::optional<std::string>(
        "a guest of seven instructions did not end within a second of processor time");
  const Report& report = *told;
  if (report.kind == Report::refused) {
    Error error = os_error(trying, report.detail, "see the kernel log");
    error.cause = std::string(report.call) + ": " + error.cause;
    return error;
  }
  if (report.kind == Report::strange)
    return std::optional<std::string>(
        "a guest of seven instructions ended with KVM's exit reason " +
        std::to_string(report.detail));
  return std::optional<std::string>();
}

Result<std::optional<std::string>> remembered_trial(const Fd& kvm, const std::string& note) {
  HOBBES_TRY(boot, boot_id());
  struct stat info {};
  if (::lstat(note.c_str(), &info) == 0 && S_ISREG(info.st_mode) &&
      (info.st_uid == 0 || info.st_uid == ::geteuid()))
    if (auto text = Files::system().read(note))
      if (auto json = parse_json(*text, note); json && json->is_object() &&
                                               text_at(*json, "boot") == boot &&
                                               json->contains("obstacle")) {
        std::string why = text_at(*json, "obstacle");
        return why.empty() ? std::optional<std::string>() : std::optional(why);
      }
  HOBBES_TRY(why, run_trial_guest(kvm));
  (void)replace_file(
      note, to_text({{"boot", boot},
                     {"obstacle", why.value_or("")}}));  // who may not write it tries again
  return std::move(why);
}

}  // namespace hobbes
