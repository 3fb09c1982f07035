// The JSON document that hobbesd keeps beside the record of an enclave: root, bundle, labels,
// annotations, heartbeat (seconds), makerPid, makerStart, bound, lent and cgroup (control groups),
// devices (by name) and deviceNodes (by number), cause (why it crashed).
#pragma once
#include <cstdint>
#include <string>

#include "core/identity.h"
#include "core/json.h"
#include "nis/nis.h"

namespace hobbes {

inline std::string enclave_document_name(std::uint64_t id) { return "volatile/enclave/" + hex(id); }

/// {} when there is none.
inline Json enclave_document(const Nis& nis, std::uint64_t id) {
  return nis.document(enclave_document_name(id)).value_or(Json::object());
}

/// Its process has ended, and what it held is free.
inline bool has_ended(const hobbes_record& enclave) {
  return enclave.state == HOBBES_STOPPED || enclave.state == HOBBES_CRASHED;
}

}  // namespace hobbes
