#include "enclave/drivers/kitten/plan.h"

namespace hobbes {

Json KittenPlan::json() const {
  Json out = {{"name", name},           {"handle", handle},         {"entry", entry},
              {"cores", Json::array()}, {"extents", Json::array()}, {"programs", programs}};
  for (const TakenCore& core : cores) out["cores"].push_back({core.cpu, core.apic_id});
  for (const Extent& extent : extents)
    out["extents"].push_back({extent.address, extent.size, extent.node, extent.slot});
  return out;
}

Result<KittenPlan> KittenPlan::parse(const std::string& text) {
  HOBBES_TRY(json, parse_json(text, "the plan"));
  try {
    KittenPlan out;
    out.name = json.at("name").get<std::string>();
    out.handle = json.at("handle").get<std::uint64_t>();
    out.entry = json.at("entry").get<std::uint64_t>();
    out.programs = json.value("programs", false);
    for (const Json& core : json.at("cores"))
      out.cores.push_back({core.at(0).get<unsigned>(), core.at(1).get<unsigned>()});
    for (const Json& one : json.at("extents"))
      out.extents.push_back({one.at(0).get<std::uint64_t>(), one.at(1).get<std::uint64_t>(),
                             one.at(2).get<unsigned>(), one.at(3).get<unsigned>()});
    if (!out.cores.empty() && !out.extents.empty()) return out;
  } catch (const std::exception&) {
  }
  return Error{Code::invalid, "read the plan", "it is not one",
               "this program is started by hobbes-run"};
}

}  // namespace hobbes
