#include "partition/device_filter.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/fd.h"

namespace hobbes {
namespace {

// linux/bpf.h gives opcodes but no constructors.
bpf_insn instruction(int code, int destination, int source, int offset, int immediate) {
  bpf_insn out{};
  out.code = static_cast<__u8>(code);
  out.dst_reg = static_cast<__u8>(destination & 0xf);
  out.src_reg = static_cast<__u8>(source & 0xf);
  out.off = static_cast<__s16>(offset);
  out.imm = immediate;
  return out;
}
bpf_insn load_word(int destination, int source, int offset) {
  return instruction(BPF_LDX | BPF_MEM | BPF_W, destination, source, offset, 0);
}
bpf_insn set(int destination, int value) {
  return instruction(BPF_ALU64 | BPF_MOV | BPF_K, destination, 0, 0, value);
}
bpf_insn copy(int destination, int source) {
  return instruction(BPF_ALU64 | BPF_MOV | BPF_X, destination, source, 0, 0);
}
bpf_insn mask(int destination, int value) {
  return instruction(BPF_ALU64 | BPF_AND | BPF_K, destination, 0, 0, value);
}
bpf_insn shift_right(int destination, int bits) {
  return instruction(BPF_ALU64 | BPF_RSH | BPF_K, destination, 0, 0, bits);
}
bpf_insn skip_unless_equal(int reg, int value) {
  return instruction(BPF_JMP | BPF_JNE | BPF_K, reg, 0, 0, value);
}
bpf_insn leave() { return instruction(BPF_JMP | BPF_EXIT, 0, 0, 0, 0); }

int bits_of(const std::string& access) {
  int bits = 0;
  for (char c : access)
    bits |= c == 'm' ? BPF_DEVCG_ACC_MKNOD : c == 'r' ? BPF_DEVCG_ACC_READ : BPF_DEVCG_ACC_WRITE;
  return bits;
}

constexpr int type_register = 2, access_register = 3, major_register = 4, minor_register = 5,
              scratch = 6;

// One rule as a block that either exits with its verdict or falls through to the next (jump targets
// patched at the end).
std::vector<bpf_insn> block(const oci::DeviceRule& rule) {
  std::vector<bpf_insn> out;
  std::vector<std::size_t> skips;
  auto require = [&](int reg, int value) {
    skips.push_back(out.size());
    out.push_back(skip_unless_equal(reg, value));
  };
  if (rule.type != 'a') {
    require(type_register, rule.type == 'c' ? BPF_DEVCG_DEV_CHAR : BPF_DEVCG_DEV_BLOCK);
    int bits = bits_of(rule.access);
    out.push_back(copy(scratch, access_register));
    if (rule.allow) {  // every requested access must be among those allowed
      out.push_back(mask(scratch, ~bits & 7));
      require(scratch, 0);
    } else {  // any requested access among those denied is a refusal
      out.push_back(mask(scratch, bits));
      skips.push_back(out.size());
      out.push_back(instruction(BPF_JMP | BPF_JEQ | BPF_K, scratch, 0, 0, 0));
    }
    if (rule.major) require(major_register, static_cast<int>(*rule.major));
    if (rule.minor) require(minor_register, static_cast<int>(*rule.minor));
  }
  out.push_back(set(0, rule.allow ? 1 : 0));
  out.push_back(leave());
  for (std::size_t at : skips) out[at].off = static_cast<__s16>(out.size() - at - 1);
  return out;
}

}  // namespace

std::vector<bpf_insn> device_program(const std::vector<oci::DeviceRule>& rules) {
  std::vector<bpf_insn> out = {
      load_word(type_register, 1, 0),  copy(access_register, type_register),
      mask(type_register, 0xffff),     shift_right(access_register, 16),
      load_word(major_register, 1, 4), load_word(minor_register, 1, 8)};
  // The last matching rule decides, so blocks are tried from the last to the first.
  for (auto rule = rules.rbegin(); rule != rules.rend(); ++rule) {
    auto body = block(*rule);
    out.insert(out.end(), body.begin(), body.end());
    if (rule->type == 'a') return out;  // matches everything: what stands before it cannot matter
  }
  out.push_back(set(0, 0));
  out.push_back(leave());
  return out;
}

Result<void> attach_device_filter(const std::string& directory,
                                  const std::vector<oci::DeviceRule>& rules) {
  std::string attempt = "limit devices of control group " + directory;
  Fd group(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!group) return os_error(attempt, errno);
  std::vector<bpf_insn> program = device_program(rules);
  bpf_attr load;
  std::memset(&load, 0, sizeof load);
  load.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
  load.insns = reinterpret_cast<__u64>(program.data());
  load.insn_cnt = static_cast<__u32>(program.size());
  load.license = reinterpret_cast<__u64>("GPL");
  Fd loaded(static_cast<int>(::syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load)));
  if (!loaded) return os_error(attempt, errno, "CAP_BPF or root is needed");
  bpf_attr attach;
  std::memset(&attach, 0, sizeof attach);
  attach.target_fd = static_cast<__u32>(group.get());
  attach.attach_bpf_fd = static_cast<__u32>(loaded.get());
  attach.attach_type = BPF_CGROUP_DEVICE;
  if (::syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach) != 0)
    return os_error(attempt, errno);
  return {};
}

std::vector<oci::DeviceRule> device_rules(const std::vector<oci::DeviceRule>& own) {
  std::vector<oci::DeviceRule> out = {{false, 'a', {}, {}, "rwm"}};
  auto allow = [&](char type, std::optional<std::int64_t> major, std::optional<std::int64_t> minor,
                   const char* access) {
    out.push_back({true, type, major, minor, access});
  };
  for (oci::DeviceRule rule : own) {
    // Making device files is always allowed (below). On v1 a denial of it would be found first.
    if (!rule.allow && rule.type != 'a') std::erase(rule.access, 'm');
    if (!rule.access.empty()) out.push_back(std::move(rule));
  }
  allow('c', {}, {}, "m");
  allow('b', {}, {}, "m");
  for (std::int64_t minor : {3, 5, 7, 8, 9}) allow('c', 1, minor, "rwm");
  for (std::int64_t minor : {0, 1, 2}) allow('c', 5, minor, "rwm");
  allow('c', 136, {}, "rwm");
  return out;
}

}  // namespace hobbes
