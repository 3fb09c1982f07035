// What the shell shows, as text for people; each reads the mirror only, so hobbesd may be away.
#pragma once
#include <functional>
#include <string>

#include "nis/reader.h"

namespace hobbes {

struct Style {
  bool colour = false;
  bool json = false;
};

std::string node_view(NisReader& nis, const Style& style);
std::string topology_view(NisReader& nis, const Style& style);
/// A table of the records of one type that are `wanted`.
std::string table_view(
    NisReader& nis, std::uint16_t type, const Style& style,
    const std::function<bool(const hobbes_record&)>& wanted = [](const hobbes_record&) {
      return true;
    });
/// One line about a change, with the record's name when it still has one.
std::string change_view(NisReader& nis, const hobbes_change& change, const Style& style);

}  // namespace hobbes
