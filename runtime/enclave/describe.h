// NIS records in words: the one JSON form that the shell, the REST API and hobbesd's answers share.
#pragma once
#include "abi/nis.h"
#include "core/cpu_set.h"
#include "core/json.h"

namespace hobbes {

/// Every field a person or a client can use; the type decides which. Unknown types give an empty
/// object.
Json describe(const hobbes_record& record);
/// {"sequence", "kind": appeared|changed|gone, "type", "handle", "state", "timeNs"}
Json describe(const hobbes_change& change);

/// "enclave", "segment", ...; "?" for an unknown one.
const char* name_of_type(std::uint16_t type);
/// "running", "free", "planned", ... by type; "" where a type has no states.
const char* name_of_state(std::uint16_t type, std::uint32_t state);

CpuSet cpus_of(const std::uint64_t* words);
void set_cpus(std::uint64_t* words, const CpuSet& cpus);

}  // namespace hobbes
