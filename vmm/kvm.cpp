#include "vmm/kvm.h"

#include <sys/ioctl.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace hobbes::vmm {
namespace {

Result<int> call(int fd, unsigned long request, const std::string& what,
                 unsigned long argument = 0) {
  int rc = ::ioctl(fd, request, argument);
  if (rc < 0) return os_error(what, errno, errno == ENOMEM ? "" : "see the kernel log");
  return rc;
}
template <class T>
Result<int> call(int fd, unsigned long request, const std::string& what, T* argument) {
  return call(fd, request, what, reinterpret_cast<unsigned long>(argument));
}

kvm_segment segment(std::uint16_t selector, std::uint8_t type, bool code64) {
  kvm_segment out{};
  out.limit = 0xffffffff;
  out.selector = selector;
  out.type = type;
  out.present = 1;
  out.s = 1;
  out.g = 1;
  out.db = code64 ? 0 : 1;
  out.l = code64 ? 1 : 0;
  return out;
}

// Lists in the API are a head and entries. Linux's headers say so with a member that C++ counts as
// one byte, so sizes and request numbers made from them are wrong here; these are the right ones.
struct ListHead {
  std::uint32_t count, padding;
};
constexpr unsigned long get_supported_cpuid = _IOWR(KVMIO, 0x05, ListHead);
constexpr unsigned long set_cpuid2 = _IOW(KVMIO, 0x90, ListHead);
constexpr unsigned long set_msrs = _IOW(KVMIO, 0x89, ListHead);

template <class Entry>
class List {
 public:
  explicit List(std::size_t count) : space_(sizeof(ListHead) + count * sizeof(Entry)) {
    head().count = static_cast<std::uint32_t>(count);
  }
  ListHead& head() { return *reinterpret_cast<ListHead*>(space_.data()); }
  Entry* entries() { return reinterpret_cast<Entry*>(space_.data() + sizeof(ListHead)); }

 private:
  std::vector<std::byte> space_;
};

constexpr std::uint32_t mtrr_default = 0x2ff, misc_enable = 0x1a0;

}  // namespace

Result<Vm> Vm::make(const Fd& kvm) {
  const std::string attempt = "make a virtual machine";
  HOBBES_TRY(version, call(kvm.get(), KVM_GET_API_VERSION, attempt));
  if (version != KVM_API_VERSION)
    return Error{Code::unavailable, attempt, "KVM has API version " + std::to_string(version),
                 "use a newer kernel"};
  struct Need {
    int capability;
    const char* what;
  };
  for (const Need& need :
       {Need{KVM_CAP_IRQCHIP, "interrupt controllers"},
        Need{KVM_CAP_USER_MEMORY, "memory of processes"}, Need{KVM_CAP_IRQFD, "irqfd"},
        Need{KVM_CAP_IOEVENTFD, "ioeventfd"}, Need{KVM_CAP_EXT_CPUID, "CPUID tables"},
        Need{KVM_CAP_IMMEDIATE_EXIT, "immediate exits"},
        Need{KVM_CAP_TSC_DEADLINE_TIMER, "TSC deadline timers"}}) {
    HOBBES_TRY(has, call(kvm.get(), KVM_CHECK_EXTENSION, attempt,
                         static_cast<unsigned long>(need.capability)));
    if (has == 0)
      return Error{Code::unavailable, attempt, std::string("this kernel's KVM has no ") + need.what,
                   "use a newer kernel"};
  }
  Vm out;
  HOBBES_TRY(read_only, call(kvm.get(), KVM_CHECK_EXTENSION, attempt,
                             static_cast<unsigned long>(KVM_CAP_READONLY_MEM)));
  out.read_only_memory_ = read_only != 0;
  HOBBES_TRY(size, call(kvm.get(), KVM_GET_VCPU_MMAP_SIZE, attempt));
  out.run_size_ = static_cast<std::size_t>(size);
  HOBBES_TRY(fd, call(kvm.get(), KVM_CREATE_VM, attempt));
  out.fd_.reset(fd);
  HOBBES_CHECK(call(fd, KVM_SET_TSS_ADDR, attempt, static_cast<unsigned long>(task_state_at)));
  std::uint64_t identity = identity_map_at;
  HOBBES_CHECK(call(fd, KVM_SET_IDENTITY_MAP_ADDR, attempt, &identity));
  HOBBES_CHECK(call(fd, KVM_CREATE_IRQCHIP, attempt));

  constexpr std::size_t limit = 256;
  List<kvm_cpuid_entry2> features(limit);
  HOBBES_CHECK(
      call(kvm.get(), get_supported_cpuid, "ask KVM for its CPU features", &features.head()));
  out.features_.assign(features.entries(),
                       features.entries() + std::min<std::size_t>(features.head().count, limit));
  return out;
}

Result<void> Vm::set_memory(unsigned slot, Gpa address, std::uint64_t size, void* host,
                            bool read_only) const {
  kvm_userspace_memory_region region{};
  region.slot = slot;
  region.flags = read_only ? static_cast<__u32>(KVM_MEM_READONLY) : 0U;
  region.guest_phys_addr = address;
  region.memory_size = size;
  region.userspace_addr = reinterpret_cast<std::uint64_t>(host);
  HOBBES_CHECK(call(fd_.get(), KVM_SET_USER_MEMORY_REGION,
                    "give the guest memory slot " + std::to_string(slot), &region));
  return {};
}

Result<void> Vm::connect_interrupt(const Fd& event, unsigned gsi) const {
  kvm_irqfd request{};
  request.fd = static_cast<__u32>(event.get());
  request.gsi = gsi;
  HOBBES_CHECK(
      call(fd_.get(), KVM_IRQFD, "connect interrupt line " + std::to_string(gsi), &request));
  return {};
}

Result<void> Vm::connect_write(const Fd& event, Gpa address, std::uint32_t value) const {
  kvm_ioeventfd request{};
  request.datamatch = value;
  request.addr = address;
  request.len = 4;
  request.fd = event.get();
  request.flags = KVM_IOEVENTFD_FLAG_DATAMATCH;
  HOBBES_CHECK(call(fd_.get(), KVM_IOEVENTFD, "connect a device's notifications", &request));
  return {};
}

Result<Vcpu> Vm::make_vcpu(unsigned number, unsigned count, std::uint32_t enclave) const {
  std::string attempt = "make vCPU " + std::to_string(number);
  Vcpu out;
  HOBBES_TRY(fd, call(fd_.get(), KVM_CREATE_VCPU, attempt, static_cast<unsigned long>(number)));
  out.fd_.reset(fd);
  void* run = ::mmap(nullptr, run_size_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (run == MAP_FAILED) return os_error(attempt, errno);
  out.run_ = static_cast<kvm_run*>(run);
  out.size_ = run_size_;

  // One thread per core, the cores in one package: said by us, whatever KVM has of the node's own.
  std::vector<kvm_cpuid_entry2> entries;
  for (kvm_cpuid_entry2 entry : features_) {
    constexpr std::uint32_t hypervisor = 1U << 31U, tsc_deadline = 1U << 24U, threads = 1U << 28U;
    if (entry.function == 0xb || entry.function == 0x1f) continue;
    if (entry.function == 1) {
      entry.ebx = (entry.ebx & 0x0000ffffU) | count << 16U | number << 24U;
      entry.ecx |= hypervisor | tsc_deadline;
      entry.edx = count > 1 ? entry.edx | threads : entry.edx & ~threads;
    } else if (entry.function == 0x80000008) {
      entry.ecx = (entry.ecx & ~0xf0ffU) | (count - 1);
    } else if (entry.function == 0x8000001e) {
      entry.eax = number;
      entry.ebx = number;
      entry.ecx = 0;
    }
    entries.push_back(entry);
  }
  unsigned bits = 0;
  while (1U << bits < count) ++bits;
  for (std::uint32_t level = 0; level < 3; ++level) {
    kvm_cpuid_entry2 entry{};
    entry.function = 0xb;
    entry.index = level;
    entry.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    entry.eax = level == 1 ? bits : 0;
    entry.ebx = level == 0 ? 1 : level == 1 ? count : 0;
    entry.ecx = level | (level == 0 ? 1U << 8U : level == 1 ? 2U << 8U : 0U);
    entry.edx = number;
    entries.push_back(entry);
  }
  kvm_cpuid_entry2 identity{};
  identity.function = HOBBES_VM_LEAF;
  int khz = ::ioctl(fd, KVM_GET_TSC_KHZ, 0);
  identity.eax = khz > 0 ? static_cast<std::uint32_t>(khz) : 0;
  identity.ebx = HOBBES_VM_MAGIC;
  identity.edx = enclave;
  entries.push_back(identity);
  List<kvm_cpuid_entry2> table(entries.size());
  std::copy(entries.begin(), entries.end(), table.entries());
  HOBBES_CHECK(call(fd, set_cpuid2, "describe " + attempt.substr(5), &table.head()));

  List<kvm_msr_entry> registers(2);
  registers.entries()[0] = {misc_enable, 0, 1};
  registers.entries()[1] = {mtrr_default, 0,
                            0x800 | 6};  // all memory write-back, as firmware leaves it
  HOBBES_CHECK(call(fd, set_msrs, attempt, &registers.head()));
  return out;
}

Vcpu::~Vcpu() {
  if (run_ != nullptr) ::munmap(run_, size_);
}

Result<void> Vcpu::run() {
  if (::ioctl(fd_.get(), KVM_RUN, 0) == 0) return {};
  if (errno == EINTR || errno == EAGAIN) {
    __atomic_store_n(&run_->immediate_exit, 0, __ATOMIC_RELAXED);
    return Error{Code::busy, "run a vCPU", "it was interrupted", ""};
  }
  if (errno == EFAULT)
    return Error{Code::unavailable, "run a vCPU",
                 "it touched memory that is not there: a file of a shared folder that cannot grow, "
                 "or a place of a folder's window where nothing is mapped",
                 "see that the file systems of its shared folders are not full"};
  return os_error("run a vCPU", errno, "see the kernel log");
}

void Vcpu::kick() const { __atomic_store_n(&run_->immediate_exit, 1, __ATOMIC_RELAXED); }

void Vcpu::was_paused() const { (void)::ioctl(fd_.get(), KVM_KVMCLOCK_CTRL, 0); }

Result<void> Vcpu::start_at(const EntryState& entry) const {
  kvm_sregs system{};
  HOBBES_CHECK(call(fd_.get(), KVM_GET_SREGS, "read a vCPU's registers", &system));
  system.cs = segment(0x10, 0xb, entry.long_mode);
  system.ds = system.es = system.fs = system.gs = system.ss = segment(0x18, 0x3, false);
  system.gdt.base = gdt_at;
  system.gdt.limit = 31;
  system.idt.base = 0;
  system.idt.limit = 0;
  system.cr0 = 0x11;  // protected mode
  if (entry.long_mode) {
    system.cr3 = page_tables_at;
    system.cr4 = 0x20;
    system.cr0 |= 0x80000000;
    system.efer = 0x500;
  }
  HOBBES_CHECK(call(fd_.get(), KVM_SET_SREGS, "set a vCPU's registers", &system));
  kvm_regs general{};
  general.rip = entry.address;
  general.rbx = entry.rbx;
  general.rsi = entry.rsi;
  general.rflags = 2;
  HOBBES_CHECK(call(fd_.get(), KVM_SET_REGS, "set a vCPU's registers", &general));
  return {};
}

std::string Vcpu::registers() const {
  kvm_regs general{};
  kvm_sregs system{};
  if (::ioctl(fd_.get(), KVM_GET_REGS, &general) != 0 ||
      ::ioctl(fd_.get(), KVM_GET_SREGS, &system) != 0)
    return "";
  char text[160];
  std::snprintf(text, sizeof text, "rip %#llx rsp %#llx cr0 %#llx cr2 %#llx cr3 %#llx", general.rip,
                general.rsp, system.cr0, system.cr2, system.cr3);
  return text;
}

}  // namespace hobbes::vmm
