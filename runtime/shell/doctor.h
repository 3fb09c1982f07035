// `hobbes doctor`: what this node can host, what is misconfigured, and what to do about it.
#pragma once
#include <string>
#include <vector>

#include "shell/views.h"

namespace hobbes {

struct Finding {
  enum class Level { good, limited, wrong };
  Level level = Level::good;
  std::string topic, text, remedy;
};

/// Looks at the node with the caller's rights and changes nothing.
std::vector<Finding> examine_node();
/// A line for each finding, or a JSON array of {level, topic, text, remedy}.
std::string findings_view(const std::vector<Finding>& findings, const Style& style);

}  // namespace hobbes
