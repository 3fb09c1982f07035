// Files that a test makes up: what it does not override is refused.
#pragma once
#include <cerrno>

#include "core/file.h"

namespace hobbes {

class MadeUpFiles : public Files {
 public:
  Result<void> write(const std::string& path, std::string_view) const override {
    return os_error("write " + path, EROFS);
  }
  Result<void> write_within(const std::string& path, std::string_view,
                            std::chrono::milliseconds) const override {
    return os_error("write " + path, EROFS);
  }
  Result<void> make_directory(const std::string& path, mode_t) const override {
    return os_error("make " + path, EROFS);
  }
  Result<void> remove_directory(const std::string& path) const override {
    return os_error("remove " + path, EROFS);
  }
};

}  // namespace hobbes
