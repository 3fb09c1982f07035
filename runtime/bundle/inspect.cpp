#include "bundle/inspect.h"

#include <algorithm>

#include "core/size.h"

namespace hobbes {
namespace {

std::string escaped(const std::string& key) {  // RFC 6901
  std::string out;
  for (char c : key) out += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  return out;
}

std::string shortened(const Json& json) {
  std::string text = to_text(json);
  return text.size() > 60 ? text.substr(0, 57) + "..." : text;
}

// The known name nearest to a misspelt one, if any is near (Levenshtein distance at most 2).
std::string nearest(const std::string& word, const std::vector<std::string>& known) {
  std::string best;
  std::size_t best_distance = 3;
  for (const std::string& candidate : known) {
    std::vector<std::size_t> row(candidate.size() + 1);
    for (std::size_t j = 0; j <= candidate.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= word.size(); ++i) {
      std::size_t diagonal = row[0];
      row[0] = i;
      for (std::size_t j = 1; j <= candidate.size(); ++j) {
        std::size_t substituted = diagonal + (word[i - 1] == candidate[j - 1] ? 0 : 1);
        diagonal = row[j];
        row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
      }
    }
    if (row.back() < best_distance) {
      best_distance = row.back();
      best = candidate;
    }
  }
  return best;
}

std::string joined(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& name : names) out += (out.empty() ? "" : ", ") + name;
  return out;
}

}  // namespace

Inspect Inspect::at(const std::string& key) const {
  const Json* member = nullptr;
  if (json_ != nullptr && json_->is_object()) {
    if (auto found = json_->find(key); found != json_->end()) member = &*found;
  }
  Inspect out(member, pointer_ + "/" + escaped(key), problems_);
  out.noted_ = noted_;
  if (noted_ != nullptr) noted_->insert(out.pointer_);
  return out;
}

void Inspect::wrong(const std::string& allowed, const std::string& remedy) const {
  problems_->push_back(
      {pointer_, json_ != nullptr ? shortened(*json_) : "nothing", allowed, remedy});
}

void Inspect::missing(const std::string& key, const std::string& allowed) const {
  problems_->push_back({pointer_ + "/" + escaped(key), "nothing", allowed, "add it"});
}

bool Inspect::object() const {
  if (!present()) return false;
  if (json_->is_object()) return true;
  wrong("an object");
  return false;
}

std::optional<std::string> Inspect::text() const {
  if (!present()) return std::nullopt;
  if (!json_->is_string()) {
    wrong("a string");
    return std::nullopt;
  }
  auto value = json_->get<std::string>();
  if (value.find('\0') != std::string::npos) {
    wrong("a string without NUL characters");
    return std::nullopt;
  }
  return value;
}

std::optional<bool> Inspect::boolean() const {
  if (!present()) return std::nullopt;
  if (json_->is_boolean()) return json_->get<bool>();
  wrong("true or false");
  return std::nullopt;
}

std::optional<std::int64_t> Inspect::integer(std::int64_t least, std::int64_t most) const {
  if (!present()) return std::nullopt;
  bool fits = json_->is_number_integer() &&
              !(json_->is_number_unsigned() && json_->get<std::uint64_t>() > INT64_MAX);
  if (fits) {
    auto value = json_->get<std::int64_t>();
    if (value >= least && value <= most) return value;
  }
  wrong("a whole number from " + std::to_string(least) + " to " + std::to_string(most));
  return std::nullopt;
}

std::optional<std::uint64_t> Inspect::size() const {
  if (!present()) return std::nullopt;
  if (json_->is_number_unsigned()) return json_->get<std::uint64_t>();
  if (json_->is_string()) {
    if (auto parsed = parse_size(json_->get<std::string>())) return *parsed;
  }
  wrong("a byte count, as a number or with a unit", "write for example \"512MiB\"");
  return std::nullopt;
}

std::optional<CpuSet> Inspect::list() const {
  if (!present()) return std::nullopt;
  if (json_->is_string()) {
    if (auto parsed = CpuSet::parse(json_->get<std::string>())) return *parsed;
  }
  wrong("a list of numbers below " + std::to_string(CpuSet::capacity),
        "write for example \"0-3,8\"");
  return std::nullopt;
}

std::vector<std::string> Inspect::texts() const {
  std::vector<std::string> out;
  each([&](const Inspect& item) {
    if (!item.present()) item.wrong("a string");
    if (auto value = item.text()) out.push_back(*value);
  });
  return out;
}

std::map<std::string, std::string> Inspect::text_map() const {
  std::map<std::string, std::string> out;
  if (!object()) return out;
  for (const auto& [key, unused] : json_->items())
    if (auto value = at(key).text()) out[key] = *value;
  return out;
}

void Inspect::members(
    const std::function<void(const std::string& name, const Inspect& value)>& visit) const {
  if (!object()) return;
  for (const auto& [name, unused] : json_->items()) visit(name, at(name));
}

void Inspect::each(const std::function<void(const Inspect&)>& visit) const {
  if (!present()) return;
  if (!json_->is_array()) {
    wrong("an array");
    return;
  }
  for (std::size_t i = 0; i < json_->size(); ++i) {
    Inspect item(&(*json_)[i], pointer_ + "/" + std::to_string(i), problems_);
    item.noted_ = noted_;
    visit(item);
  }
}

std::optional<std::size_t> Inspect::one_of(const std::vector<std::string>& names) const {
  auto value = text();
  if (!value) return std::nullopt;
  auto found = std::find(names.begin(), names.end(), *value);
  if (found != names.end()) return static_cast<std::size_t>(found - names.begin());
  std::string near = nearest(*value, names);
  wrong("one of " + joined(names), near.empty() ? "" : "did you mean \"" + near + "\"?");
  return std::nullopt;
}

std::optional<std::string> Inspect::absolute_path() const {
  auto value = text();
  if (value && (value->empty() || value->front() != '/')) {
    wrong("an absolute path", "start it with /");
    return std::nullopt;
  }
  return value;
}

void Inspect::only(const std::vector<std::string>& known) const {
  if (!present() || !json_->is_object()) return;
  for (const auto& [key, unused] : json_->items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    std::string near = nearest(key, known);
    at(key).wrong("only the keys " + joined(known),
                  near.empty() ? "remove \"" + key + "\"" : "did you mean \"" + near + "\"?");
  }
}

}  // namespace hobbes
