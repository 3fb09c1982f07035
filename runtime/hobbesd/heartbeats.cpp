#include "hobbesd/heartbeats.h"

#include <algorithm>

#include "hobbesd/enclave_document.h"

namespace hobbes {

std::vector<hobbes_record> Heartbeats::silent(std::uint64_t now) {
  constexpr std::uint64_t attention_ns = 4'000'000'000;
  if (now - last_check_ > attention_ns) listening_since_ = now;
  last_check_ = now;
  std::vector<hobbes_record> out;
  for (const hobbes_record* record : nis_.all(HOBBES_ENCLAVE)) {
    if (record->state != HOBBES_RUNNING) continue;
    const std::int64_t limit = number_at(enclave_document(nis_, record->id), "heartbeat");
    const std::uint64_t last = std::max(record->body.enclave.heartbeat_ns, listening_since_);
    if (limit > 0 && now > last && now - last > static_cast<std::uint64_t>(limit) * 1'000'000'000U)
      out.push_back(*record);
  }
  return out;
}

}  // namespace hobbes
