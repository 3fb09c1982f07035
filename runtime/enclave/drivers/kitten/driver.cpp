#include "enclave/drivers/kitten/driver.h"

#include <fcntl.h>
#include <seccomp.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "abi/kitten.h"
#include "core/file.h"
#include "core/identity.h"
#include "core/paths.h"
#include "core/size.h"
#include "enclave/drivers/kitten/loader.h"
#include "enclave/drivers/kitten/machine_files.h"
#include "enclave/drivers/kitten/plan.h"
#include "enclave/drivers/service.h"
#include "ipc/message_socket.h"
#include "partition/memory_pool.h"

namespace hobbes {
namespace {

using std::chrono::milliseconds;

std::string control_socket(const EnclaveRecord& record) { return record.folder() + "/kitten.sock"; }
MemoryPool pool() { return MemoryPool(Files::system(), run_directory() + "/pool"); }

// What the module calls it: ids repeat among roots, hobbesd's handles never.
std::string module_name(const EnclaveRecord& record) {
  return record.id.substr(0, 32) + "#" + hex(record.handle);
}

std::uint64_t whole_frames(std::uint64_t bytes) {
  return (bytes + HOBBES_FRAME_SIZE - 1) / HOBBES_FRAME_SIZE * HOBBES_FRAME_SIZE;
}

Error not_for_kernels(const EnclaveRecord& record, const std::string& verb,
                      const std::string& remedy) {
  return {Code::unsupported, verb + " enclave '" + record.id + "'",
          "a co-kernel has cores of its own, which Linux cannot " + verb, remedy};
}

constexpr const char* control_id = "control";

// Of an enclave with programs, whose enclave process is its first program's proxy, the control
// process has a record of its own inside. Of others it is the enclave process.
EnclaveRecord control_of(const EnclaveRecord& record) {
  auto own = EnclaveRecord::load(record.folder(), control_id);
  return own ? std::move(*own) : record;
}
bool has_programs(const EnclaveRecord& record) {
  return ::access((record.folder() + "/" + control_id).c_str(), F_OK) == 0;
}

// How a proxy is started: its descriptors are behind those that the program is given.
struct ProxyStart {
  Fd view, program;
  std::vector<int> passed;
  Interpreter interpreter;
};
Result<ProxyStart> prepare_proxy(const ModuleEnclave& module, const std::vector<int>& passed,
                                 int preserved, const std::string& cpus = {}) {
  ProxyStart out;
  HOBBES_TRY(view, module.view());
  HOBBES_TRY(program, open_service_program("kitten-proxy"));
  out.view = std::move(view);
  out.program = std::move(program);
  out.passed = passed;
  for (int fd = 3 + static_cast<int>(passed.size()); fd < 3 + preserved; ++fd)
    out.passed.push_back(fd);
  const int first = 3 + static_cast<int>(out.passed.size());
  out.passed.push_back(out.view.get());
  out.passed.push_back(out.program.get());
  out.interpreter = {first + 1,
                     {"kitten-proxy", std::to_string(first), std::to_string(first + 1), "0",
                      cpus.empty() ? "-" : cpus}};
  return out;
}

// A copy of the descriptor that the control process holds: what is taken with it belongs to the
// enclave.
Result<ModuleEnclave> module_of(const EnclaveRecord& record) {
  HOBBES_TRY(process, control_of(record).process.open());
  Fd fd(static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), kitten_device, 0)));
  if (!fd)
    return os_error("reach the memory of enclave '" + record.id + "'", errno, "this needs root");
  auto target = read_link("/proc/self/fd/" + std::to_string(fd.get()));
  if (!target || *target != HOBBES_KMOD_DEVICE)
    return Error{Code::corrupt, "reach the memory of enclave '" + record.id + "'",
                 "its control process does not hold the device", "delete it"};
  return ModuleEnclave(std::move(fd));
}

// A core whose former co-kernel has just ended may be on its way back still.
Result<unsigned> take_core(const ModuleEnclave& module, unsigned cpu) {
  auto taken = module.take_core(cpu);
  if (taken || taken.error().code != Code::busy) return taken;
  HOBBES_CHECK(module.settle());
  return module.take_core(cpu);
}

MachineFiles machine_files(const EnclaveRecord& record) {
  return MachineFiles(record.folder() + "/machine");
}

std::map<unsigned, std::uint64_t> memory_of(const KittenPlan& plan) {
  std::map<unsigned, std::uint64_t> out;
  for (const Extent& extent : plan.extents) out[extent.node] += extent.size;
  return out;
}

Result<void> resize_cores(const EnclaveRecord& record, const ModuleEnclave& module,
                          const KittenPlan& plan, const CpuSet& wanted) {
  CpuSet held;
  for (const TakenCore& core : plan.cores) held.add(core.cpu);
  for (unsigned cpu : (held - wanted).members())
    HOBBES_CHECK(ask_control(record, {{"op", "removeCore"}, {"cpu", cpu}}));
  for (unsigned cpu : (wanted - held).members()) {
    HOBBES_TRY(apic_id, take_core(module, cpu));
    auto added = ask_control(record, {{"op", "addCore"}, {"cpu", cpu}, {"apicId", apic_id}});
    if (added) continue;
    (void)module.return_core(cpu);
    return std::move(added).error();
  }
  return {};
}

Result<void> grow_memory(const EnclaveRecord& record, const ModuleEnclave& module, unsigned node,
                         std::uint64_t bytes) {
  HOBBES_TRY(extents, pool().take(module, node, bytes));
  std::optional<Error> refusal;
  for (const Extent& extent : extents) {
    if (!refusal) {
      auto added = ask_control(record, {{"op", "addMemory"},
                                        {"address", extent.address},
                                        {"size", extent.size},
                                        {"node", node},
                                        {"slot", extent.slot}});
      if (added) continue;
      refusal = std::move(added).error();
    }
    (void)module.return_extent(extent.slot);
  }
  if (refusal) return std::move(*refusal);
  return {};
}

// Whole extents only; the first one holds the kernel and stays.
Result<void> shrink_memory(const EnclaveRecord& record, const KittenPlan& plan, unsigned node,
                           std::uint64_t surplus) {
  std::vector<Extent> removable;
  for (std::size_t i = 1; i < plan.extents.size(); ++i)
    if (plan.extents[i].node == node) removable.push_back(plan.extents[i]);
  std::sort(removable.begin(), removable.end(),
            [](const Extent& a, const Extent& b) { return a.size > b.size; });
  std::vector<Extent> chosen;
  std::string sizes;
  for (const Extent& extent : removable) {
    sizes += (sizes.empty() ? "" : ", ") + format_size(extent.size);
    if (extent.size > surplus) continue;
    surplus -= extent.size;
    chosen.push_back(extent);
  }
  if (surplus != 0)
    return Error{
        Code::busy,
        "take memory of NUMA node " + std::to_string(node) + " from enclave '" + record.id + "'",
        sizes.empty() ? "its one piece there holds its kernel"
                      : "it can give back whole pieces only, which are of " + sizes,
        "choose a size that whole pieces make up"};
  for (const Extent& extent : chosen)
    HOBBES_CHECK(ask_control(record, {{"op", "removeMemory"}, {"slot", extent.slot}}));
  return {};
}

}  // namespace

Result<Json> ask_control(const EnclaveRecord& record, const Json& request, milliseconds deadline) {
  return ask_service(control_socket(record),
                     "ask the control process of enclave '" + record.id + "'", request, deadline);
}

std::optional<Error> KittenDriver::obstacle() const {
  if (auto missing = ModuleEnclave::obstacle())
    return std::move(*missing).within("host enclaves of kind kitten");
  return std::nullopt;
}

Result<void> KittenDriver::create(const CreateRequest& request, EnclaveRecord& record) const {
  const HobbesSection& wishes = request.bundle.hobbes;
  std::string attempt = "create enclave '" + record.id + "'";
  HOBBES_TRY(cpus, CpuSet::parse(request.cpus));
  if (cpus.has(0))
    return Error{Code::invalid, attempt, "CPU 0 was chosen, which Linux cannot give up",
                 "reserve it in /etc/hobbes/hobbesd.json, or name other cores"};
  if (wishes.service_cores && !(*wishes.service_cores & cpus).empty())
    return Error{Code::invalid, attempt,
                 "CPU " + (*wishes.service_cores & cpus).text() +
                     " is both a service core and the co-kernel's own",
                 "name another service core"};

  // Held by this process until the enclave process has its copies.
  HOBBES_TRY(module, ModuleEnclave::open());
  HOBBES_CHECK(module.name(module_name(record)));
  HOBBES_CHECK(record.save());  // a cleaner needs that name
  KittenPlan plan;
  plan.name = record.id;
  plan.handle = record.handle;
  plan.programs = request.bundle.oci.process.has_value();
  HOBBES_CHECK(module.settle());  // cores of a kernel that has just ended may be on their way back
  const MachineFiles machine = machine_files(record);
  HOBBES_CHECK(machine.write(cpus, request.memory_by_node));
  auto shown = [&](Bundle& sandbox) {
    for (oci::Mount& mount : machine.mounts(sandbox))
      sandbox.oci.mounts.push_back(std::move(mount));
  };
  auto take = [&]() -> Result<void> {
    for (const auto& [node, bytes] : request.memory_by_node) {
      HOBBES_TRY(extents, pool().take(module, node, whole_frames(bytes)));
      plan.extents.insert(plan.extents.end(), extents.begin(), extents.end());
    }
    if (plan.extents.empty())
      return Error{Code::invalid, attempt, "no memory is leased for it",
                   "give the bundle a memory.size"};
    // The kernel itself lives in the largest piece.
    std::iter_swap(plan.extents.begin(),
                   std::max_element(plan.extents.begin(), plan.extents.end(),
                                    [](const auto& a, const auto& b) { return a.size < b.size; }));
    for (unsigned cpu : cpus.members()) {
      HOBBES_TRY(apic_id, take_core(module, cpu));
      plan.cores.push_back({cpu, apic_id});
    }
    std::string kernel = wishes.image.kernel.front() == '/'
                             ? wishes.image.kernel
                             : request.bundle.path + "/" + wishes.image.kernel;
    HOBBES_TRY(entry, load_kernel(kernel, wishes.image.cmdline, plan, module));
    plan.entry = entry;

    HOBBES_TRY(program, open_service_program("kitten-control"));
    HOBBES_TRY(socket, listen_at(control_socket(record), 0600, SOCK_SEQPACKET));
    std::string log = record.folder() + "/console.log";
    Fd console(::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0640));
    if (!console) return os_error("open " + log, errno);
    EnclaveRecord control = record;
    std::vector<int> passed = {module.fd(), program.get(), socket.get(), console.get()};
    Fd first_program;
    if (request.bundle.oci.process) {
      HOBBES_TRY(proxy, prepare_proxy(module, request.passed_fds, request.preserve_fds));
      CreateRequest sandbox = request;
      sandbox.cpus = wishes.service_cores ? wishes.service_cores->text() : "";
      sandbox.mems.clear();
      sandbox.memory = 0;
      sandbox.passed_fds = proxy.passed;
      sandbox.interpreter = std::move(proxy.interpreter);
      shown(sandbox.bundle);
      HOBBES_CHECK(service_.create(sandbox, record));
      HOBBES_TRY(process, record.process.open());
      first_program = std::move(process);
      HOBBES_CHECK(EnclaveRecord::claim(record.folder(), control_id));
      control = EnclaveRecord();
      control.root = record.folder();
      control.id = control_id;
      control.bundle = record.bundle;
      control.kind = record.kind;
      control.handle = record.handle;
      control.owner = record.owner;
      control.created_s = record.created_s;
      passed.push_back(first_program.get());
    }
    // Pins are locked memory.
    HOBBES_TRY(bundle, service_bundle(request.bundle, {kitten_program,
                                                       {to_text(plan.json())},
                                                       {"CAP_IPC_LOCK"},
                                                       {"mount", "ipc", "uts", "network"}}));
    CreateRequest service;
    service.bundle = std::move(bundle);
    if (wishes.service_cores) service.cpus = wishes.service_cores->text();
    service.no_pivot = request.no_pivot;
    service.no_new_keyring = request.no_new_keyring;
    service.passed_fds = passed;
    if (!request.bundle.oci.process) {
      shown(service.bundle);  // programs are executed there
      return service_.create(service, record);
    }
    service.bundle.oci.hooks = {};  // those of the bundle belong to the sandbox
    service.bundle.oci.linux_.cgroups_path.clear();
    service.delegated_cgroup.clear();
    return service_.create(service, control);
  };
  auto taken = take();
  if (taken) return {};
  // Closing the device gives back cores and extents; the blocks they were cut from follow.
  module = ModuleEnclave(Fd());
  (void)destroy(record, milliseconds(5000));
  return std::move(taken.error()).within(attempt);
}

// Boots the kernel if it does not run yet.
Result<void> KittenDriver::boot(const EnclaveRecord& record) const {
  const EnclaveRecord control = control_of(record);
  if (control.status() == Status::created) HOBBES_CHECK(service_.start(control));
  HOBBES_CHECK(ask_control(record, {{"op", "started"}}, std::chrono::seconds(60)));
  return {};
}

Result<void> KittenDriver::start(const EnclaveRecord& record) const {
  if (record.status() != Status::created)
    return Error{Code::busy, "start enclave '" + record.id + "'",
                 "its status is " + std::string(name_of(record.status())) + ", not created",
                 "create a new one with `hobbes-run create`"};
  HOBBES_CHECK(boot(record));
  return has_programs(record) ? service_.start(record) : Result<void>();
}

Result<void> KittenDriver::signal(const EnclaveRecord& record, int number, bool all) const {
  return service_.signal(record, number, all);
}

Result<void> KittenDriver::pause(const EnclaveRecord& record) const {
  return not_for_kernels(record, "pause", "use kind linux or palacios where pausing matters");
}
Result<void> KittenDriver::resume(const EnclaveRecord& record) const {
  return not_for_kernels(record, "resume", "it was never paused");
}

Result<void> KittenDriver::update(const EnclaveRecord& record, const UpdateRequest& request) const {
  if (!request.leased) return service_.update(record, request);
  HOBBES_TRY(module, module_of(record));
  HOBBES_TRY(layout, ask_control(record, {{"op", "layout"}}));
  HOBBES_TRY(plan, KittenPlan::parse(to_text(layout)));
  CpuSet cores;
  for (const TakenCore& core : plan.cores) cores.add(core.cpu);
  const CpuSet asked = request.cpus.empty() ? cores : request.cpus;
  // Those that come are Linux's still.
  HOBBES_CHECK(machine_files(record).write(cores | asked, memory_of(plan)));
  auto resize = [&]() -> Result<void> {
    if (!request.cpus.empty()) HOBBES_CHECK(resize_cores(record, module, plan, request.cpus));
    std::map<unsigned, std::uint64_t> held;
    for (const Extent& extent : plan.extents) held[extent.node] += extent.size;
    for (const auto& [node, bytes] : request.memory) held.try_emplace(node, 0);
    for (const auto& [node, bytes] : held) {
      auto at = request.memory.find(node);
      std::uint64_t wanted = at == request.memory.end() ? 0 : whole_frames(at->second);
      if (wanted > bytes) HOBBES_CHECK(grow_memory(record, module, node, wanted - bytes));
      if (wanted < bytes) HOBBES_CHECK(shrink_memory(record, plan, node, bytes - wanted));
    }
    return {};
  };
  auto resized = resize();
  auto returned = pool().give_back(module);  // also what a failed attempt has gathered
  if (auto layout_now = ask_control(record, {{"op", "layout"}})) {
    HOBBES_TRY(now, KittenPlan::parse(to_text(*layout_now)));
    CpuSet held;
    for (const TakenCore& core : now.cores) held.add(core.cpu);
    HOBBES_CHECK(machine_files(record).write(held, memory_of(now)));
  }
  return resized ? returned : resized;
}

Result<pid_t> KittenDriver::exec(const EnclaveRecord& record, const ExecRequest& request) const {
  auto module = module_of(record);
  if (!module)
    return std::move(module.error()).within("execute a program in enclave '" + record.id + "'");
  // A program of its own may not have begun; others need only its kernel.
  if (record.status() == Status::created && has_programs(record)) HOBBES_CHECK(boot(record));
  HOBBES_TRY(proxy, prepare_proxy(*module, request.passed_fds, request.preserve_fds, request.cpus));
  ExecRequest with_proxy = request;
  with_proxy.cpus.clear();  // these are the kernel's, which binds the program
  with_proxy.passed_fds = proxy.passed;
  with_proxy.interpreter = std::move(proxy.interpreter);
  return service_.exec(record, with_proxy);
}

Result<std::vector<pid_t>> KittenDriver::processes(const EnclaveRecord& record) const {
  return service_.processes(record);
}

std::map<std::string, std::uint64_t> KittenDriver::statistics(const EnclaveRecord& record) const {
  auto out = service_.statistics(record);
  auto kernel = ask_control(record, {{"op", "statistics"}}, milliseconds(2000));
  if (!kernel) return out;
  for (const auto& [key, value] : kernel->items())
    if (value.is_number_unsigned()) out["kitten." + key] = value.get<std::uint64_t>();
  if (auto calls = kernel->find("calls"); calls != kernel->end())
    for (const auto& [number, count] : calls->items()) {
      char* name = ::seccomp_syscall_resolve_num_arch(SCMP_ARCH_X86_64, std::atoi(number.c_str()));
      out["kitten.calls." + (name != nullptr ? std::string(name) : number)] =
          count.get<std::uint64_t>();
      std::free(name);
    }
  if (auto cores = kernel->find("interrupts"); cores != kernel->end())
    for (std::size_t i = 0; i < cores->size(); ++i)
      out["kitten.interrupts." + std::to_string(i)] = (*cores)[i].get<std::uint64_t>();
  return out;
}

Result<Json> KittenDriver::ping(const EnclaveRecord& record) const {
  return ask_control(record, {{"op", "ping"}});
}

Result<void> KittenDriver::destroy(const EnclaveRecord& record, milliseconds deadline) const {
  if (has_programs(record)) HOBBES_CHECK(service_.destroy(control_of(record), deadline));
  HOBBES_CHECK(service_.destroy(record, deadline));
  ::unlink(control_socket(record).c_str());
  if (::access(HOBBES_KMOD_DEVICE, F_OK) != 0)
    return {};  // without the module there is nothing of it to give back
  HOBBES_TRY(module, ModuleEnclave::open());
  // The process that held the descriptor may be dying still, with its sockets closed and the device
  // not yet.
  auto limit = std::chrono::steady_clock::now() + deadline;
  for (;;) {
    HOBBES_CHECK(module.settle());
    auto report = ModuleReport::read();
    if (!report || report->holders.count(module_name(record)) == 0) break;
    if (std::chrono::steady_clock::now() > limit)
      return Error{Code::timeout, "take away enclave '" + record.id + "'",
                   "the module still holds its cores or memory",
                   "look for quarantined cores in " HOBBES_KMOD_DEVICE " and in the kernel log"};
    ::usleep(5'000);
  }
  return pool().give_back(module);
}

}  // namespace hobbes
