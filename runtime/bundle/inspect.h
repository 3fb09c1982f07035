// A JSON value with its pointer: reads typed values and reports every misfit instead of stopping at
// the first.
#pragma once
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "bundle/bundle.h"

namespace hobbes {

/// A view into a document; the document and the problem list must outlive it.
class Inspect {
 public:
  Inspect(const Json* json, std::string pointer, std::vector<Problem>* problems)
      : json_(json), pointer_(std::move(pointer)), problems_(problems) {}

  [[nodiscard]] bool present() const { return json_ != nullptr && !json_->is_null(); }
  [[nodiscard]] const Json& json() const { return *json_; }
  [[nodiscard]] const std::string& pointer() const { return pointer_; }

  /// From now on every member that is asked for is entered in `pointers`, also by views made from
  /// this one.
  void note_in(std::set<std::string>* pointers) { noted_ = pointers; }

  /// A member, absent when this is no object or has no such key.
  [[nodiscard]] Inspect at(const std::string& key) const;
  /// Reports a problem here.
  void wrong(const std::string& allowed, const std::string& remedy = {}) const;
  /// Reports `key` as missing.
  void missing(const std::string& key, const std::string& allowed) const;

  // Each reads the value when present and well-formed; a present but ill-formed one is reported.
  bool object() const;  ///< true when it is an object
  std::optional<std::string> text() const;
  std::optional<bool> boolean() const;
  std::optional<std::int64_t> integer(std::int64_t least, std::int64_t most) const;
  std::optional<std::uint64_t> size() const;  ///< a byte count: a number or "512MiB"
  std::optional<CpuSet> list() const;
  std::vector<std::string> texts() const;
  std::map<std::string, std::string> text_map() const;
  void each(const std::function<void(const Inspect&)>& visit) const;
  /// Calls `visit` with the name and the value of each member; one that is no object is reported.
  void members(
      const std::function<void(const std::string& name, const Inspect& value)>& visit) const;
  /// Index into `names`, reported with the allowed names otherwise.
  std::optional<std::size_t> one_of(const std::vector<std::string>& names) const;
  /// An absolute path.
  std::optional<std::string> absolute_path() const;
  /// Reports every key that is not in `known`.
  void only(const std::vector<std::string>& known) const;

 private:
  const Json* json_;
  std::string pointer_;
  std::vector<Problem>* problems_;
  std::set<std::string>* noted_ = nullptr;
};

}  // namespace hobbes
