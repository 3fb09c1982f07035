// Every parser of untrusted text, one libFuzzer target: the first byte chooses which.
#include <cstdint>
#include <string>

#include "api/request_framing.h"
#include "bundle/bundle.h"
#include "bundle/device_edits.h"
#include "core/cpu_set.h"
#include "core/size.h"
#include "hobbesd/cdi.h"
#include "nis/view.h"
#include "remora/composition.h"
#include "tests/unit/made_up_files.h"

namespace {

class OneFile final : public hobbes::MadeUpFiles {
 public:
  OneFile(std::string name, std::string text) : name_(std::move(name)), text_(std::move(text)) {}
  hobbes::Result<std::string> read(const std::string&, std::size_t) const override { return text_; }
  hobbes::Result<std::vector<std::string>> list(const std::string&) const override {
    return std::vector<std::string>{name_};
  }
  bool exists(const std::string&) const override { return true; }

 private:
  std::string name_, text_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hobbes;
  if (size == 0) return 0;
  std::string text(reinterpret_cast<const char*>(data + 1), size - 1);
  switch (data[0] % 8) {
    case 0:
      if (auto json = parse_json(text, "fuzz")) {
        Validation validation = validate_config("/bundle", *json);
        if (validation.bundle.has_value() != validation.problems.empty()) __builtin_trap();
        (void)report(validation.problems);
      }
      break;
    case 1:
      (void)report("fuzz", check_composition(text, "fuzz", "/folder").problems);
      break;
    case 2:
      if (auto set = CpuSet::parse(text)) {
        if (!(*CpuSet::parse(set->text()) == *set)) __builtin_trap();
      }
      break;
    case 3:
      (void)parse_size(text);
      break;
    case 5: {
      RequestFrame frame = frame_request(text, 1000);
      bool whole = frame.state == RequestFrame::State::whole;
      if (whole && (frame.size == 0 || frame.size > text.size())) __builtin_trap();
      // More bytes never change what the first ones were.
      if (whole && frame_request(text.substr(0, frame.size), 1000).size != frame.size)
        __builtin_trap();
      if ((frame.state == RequestFrame::State::refused) != (frame.status >= 400)) __builtin_trap();
      break;
    }
    case 6:
    case 7: {
      // The folder holds this text alone, whichever file of it is read.
      const std::string name = data[0] % 8 == 6 ? "a.json" : "a.yaml";
      const CdiRegistry registry = CdiRegistry::read({"/cdi"}, OneFile(name, text));
      for (const auto& [device, described] : registry.devices()) {
        Validation plain = validate_config("/bundle", example_config(Kind::linux_, false));
        if (!plain.bundle) __builtin_trap();
        const Json before = plain.bundle->config;
        if (!apply_device_edits(*plain.bundle, described.edits) && plain.bundle->config != before)
          __builtin_trap();
      }
      break;
    }
    default: {
      alignas(64) static unsigned char mapping[16384];
      std::size_t used = std::min(sizeof mapping, text.size());
      std::copy_n(text.begin(), used, mapping);
      NisView view(mapping, used);
      if (view.check() != NisView::Status::good) break;
      hobbes_record record;
      hobbes_change change;
      std::uint64_t cursor = 0;
      for (int i = 0; i < 100 && view.next(HOBBES_FREE, &cursor, &record) == NisView::Status::good;
           ++i) {
      }
      (void)view.by_name(HOBBES_ENCLAVE, 0, "a", &record);
      (void)view.change(1, &change);
    }
  }
  return 0;
}
