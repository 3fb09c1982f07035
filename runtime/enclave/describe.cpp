#include "enclave/describe.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "bundle/bundle.h"
#include "core/identity.h"
#include "nis/names.h"

namespace hobbes {
namespace {

Json enclave(const hobbes_record& record) {
  const hobbes_enclave& body = record.body.enclave;
  Json by_node = Json::object();
  std::uint64_t total = 0;
  for (unsigned node = 0; node < HOBBES_NUMA_NODES; ++node) {
    if (body.memory[node] == 0) continue;
    by_node[std::to_string(node)] = body.memory[node];
    total += body.memory[node];
  }
  bool ended = record.state == HOBBES_STOPPED || record.state == HOBBES_CRASHED;
  Json out = {{"id", record.name},
              {"kind", name_of(static_cast<Kind>(std::clamp(body.kind, 1U, 3U)))},
              {"pid", ended ? 0 : body.pid},
              {"cpus", cpus_of(body.cpus).text()},
              {"memory", total},
              {"memoryByNode", by_node},
              {"shared", (body.flags & 1U) != 0},
              {"createdNs", body.created_ns}};
  if (body.exit_status >= 0) out["exitStatus"] = body.exit_status;
  return out;
}

Json segment(const hobbes_record& record) {
  const hobbes_segment& body = record.body.segment;
  Json out = {{"size", body.size},           {"pageSize", body.page_size},
              {"inode", body.inode},         {"owner", body.owner_pid},
              {"mode", body.mode},           {"attachments", body.attachments},
              {"listeners", body.listeners}, {"persistent", (body.flags & 1U) != 0}};
  if (body.snapshot_of != 0) out["snapshotOf"] = hex(body.snapshot_of);
  return out;
}

// A name's value, for people and for JSON: bytes that do not print are written as \xNN.
std::string printable(const std::uint8_t* bytes, std::size_t size) {
  std::string out;
  for (std::size_t i = 0; i < size; ++i) {
    const auto byte = static_cast<char>(bytes[i]);
    if (byte >= ' ' && byte <= '~' && byte != '\\')
      out += byte;
    else
      out += "\\x" + hex(bytes[i], 2);
  }
  return out;
}

Json name(const hobbes_record& record) {
  const hobbes_name& body = record.body.name;
  Json out = {{"kind", name_of_name_kind(body.kind)},
              {"scope", name_of_scope(body.scope)},
              {"pid", body.owner_pid},
              {"mode", body.mode},
              {"persistent", (body.flags & HOBBES_NAME_PERSISTENT) != 0}};
  if (body.scope_id != 0) out["scopeHandle"] = hex(body.scope_id);
  if (body.kind == HOBBES_NAME_VALUE)
    out["value"] =
        printable(body.value, std::min<std::size_t>(body.value_size, HOBBES_NAME_VALUE_SIZE));
  if (body.kind == HOBBES_NAME_SEGMENT) out["segment"] = hex(body.target);
  if (body.kind == HOBBES_NAME_SERVICE) out["ring"] = body.ring;
  return out;
}

}  // namespace

CpuSet cpus_of(const std::uint64_t* words) {
  CpuSet out;
  for (unsigned cpu = 0; cpu < HOBBES_CPU_WORDS * 64; ++cpu)
    if ((words[cpu / 64] >> (cpu % 64) & 1U) != 0) out.add(cpu);
  return out;
}

void set_cpus(std::uint64_t* words, const CpuSet& cpus) {
  std::fill(words, words + HOBBES_CPU_WORDS, 0);
  for (unsigned cpu : cpus.members()) words[cpu / 64] |= std::uint64_t{1} << (cpu % 64);
}

const char* name_of_type(std::uint16_t type) {
  static constexpr std::array<const char*, HOBBES_RECORD_TYPES> names = {
      "free",    "enclave",    "app",         "process", "core", "numa",
      "segment", "attachment", "composition", "key",     "node", "name"};
  return type < names.size() ? names[type] : "?";
}

const char* name_of_state(std::uint16_t type, std::uint32_t state) {
  static constexpr std::array<const char*, 7> enclave_states = {
      "?", "creating", "created", "running", "paused", "stopped", "crashed"};
  static constexpr std::array<const char*, 6> core_states = {"?",        "free",    "leased",
                                                             "reserved", "offline", "detached"};
  static constexpr std::array<const char*, 6> phases = {"?",      "planned",   "started",
                                                        "in MPI", "finalized", "ended"};
  if (type == HOBBES_ENCLAVE) return enclave_states[state < enclave_states.size() ? state : 0];
  if (type == HOBBES_CORE) return core_states[state < core_states.size() ? state : 0];
  if (type == HOBBES_APP || type == HOBBES_PROCESS || type == HOBBES_COMPOSITION)
    return phases[state < phases.size() ? state : 0];
  return "";
}

Json describe(const hobbes_record& record) {
  Json out = Json::object();
  switch (record.type) {
    case HOBBES_ENCLAVE:
      out = enclave(record);
      break;
    case HOBBES_SEGMENT:
      out = segment(record);
      break;
    case HOBBES_APP: {
      const hobbes_app& body = record.body.app;
      out = {{"composition", hex(body.composition)},
             {"number", body.number},
             {"ranks", body.ranks},
             {"firstRank", body.first_rank}};
      break;
    }
    case HOBBES_PROCESS: {
      const hobbes_process& body = record.body.process;
      out = {{"composition", hex(body.composition)},
             {"app", hex(body.app)},
             {"pid", body.pid},
             {"appRank", body.app_rank},
             {"rank", body.global_rank},
             {"cpu", body.cpu}};
      if (body.exit_status >= 0) out["exitStatus"] = body.exit_status;
      if (body.role != 0) {
        static constexpr std::array<const char*, 4> roles = {"?", "rank", "init", "exec"};
        out["role"] = roles[body.role < roles.size() ? body.role : 0];
        out["program"] = printable(reinterpret_cast<const std::uint8_t*>(body.program),
                                   ::strnlen(body.program, sizeof body.program));
        out["startedNs"] = body.started_ns;
      }
      if (body.composition == 0)
        for (const char* field : {"composition", "app", "appRank", "rank", "cpu"}) out.erase(field);
      break;
    }
    case HOBBES_COMPOSITION: {
      const hobbes_composition& body = record.body.composition;
      out = {{"launcher", body.launcher_pid}, {"ranks", body.ranks}, {"apps", body.apps}};
      break;
    }
    case HOBBES_CORE: {
      const hobbes_core& body = record.body.core;
      out = {{"number", body.number},
             {"package", body.package},
             {"numa", body.numa},
             {"l3", body.l3},
             {"cpus", cpus_of(body.cpus).text()}};
      break;
    }
    case HOBBES_NUMA: {
      const hobbes_numa& body = record.body.numa;
      out = {{"number", body.number},     {"package", body.package},
             {"total", body.total},       {"leased", body.leased},
             {"reserved", body.reserved}, {"cpus", cpus_of(body.cpus).text()}};
      break;
    }
    case HOBBES_ATTACHMENT: {
      const hobbes_attachment& body = record.body.attachment;
      out = {{"segment", hex(body.segment)},
             {"pid", body.pid},
             {"writable", body.writable != 0},
             {"listens", body.bell != 0}};
      break;
    }
    case HOBBES_NODE: {
      const hobbes_node& body = record.body.node;
      out = {{"daemon", body.daemon_pid},
             {"cores", body.cores},
             {"packages", body.packages},
             {"numaNodes", body.numa_nodes},
             {"reserved", cpus_of(body.reserved_cpus).text()}};
      break;
    }
    case HOBBES_NAME:
      out = name(record);
      break;
    default:
      return out;
  }
  out["handle"] = hex(record.id);
  out["name"] = record.name;
  out["uid"] = record.uid;
  out["changedNs"] = record.changed_ns;
  if (record.enclave != 0) out["enclave"] = hex(record.enclave);
  if (const char* state = name_of_state(record.type, record.state); *state != '\0')
    out["state"] = state;
  return out;
}

namespace {

bool ends(std::uint16_t type) {
  return type == HOBBES_ENCLAVE || type == HOBBES_APP || type == HOBBES_PROCESS;
}

}  // namespace

Json describe(const hobbes_change& change) {
  static constexpr std::array<const char*, 4> kinds = {"?", "appeared", "changed", "gone"};
  Json out = {{"sequence", change.sequence},
              {"kind", kinds[change.kind < kinds.size() ? change.kind : 0]},
              {"type", name_of_type(change.type)},
              {"handle", hex(change.id)},
              {"timeNs", change.time_ns}};
  if (const char* state = name_of_state(change.type, change.state); *state != '\0')
    out["state"] = state;
  if (change.name[0] == '\0') return out;  // the mirror is of a version without them
  out["name"] = change.name;
  out["uid"] = change.uid;
  if (change.enclave != 0) out["enclave"] = hex(change.enclave);
  if (change.exit_status >= 0 && ends(change.type)) out["exitStatus"] = change.exit_status;
  return out;
}

}  // namespace hobbes
