#include "library_error.h"

#include <cerrno>

#include "hobbes.h"

namespace hobbes {
namespace {

thread_local std::string last_error;

int number_of(Code code) {
  switch (code) {
    case Code::invalid:
      return EINVAL;
    case Code::not_found:
      return ENOENT;
    case Code::exists:
      return EEXIST;
    case Code::busy:
      return EBUSY;
    case Code::denied:
      return EACCES;
    case Code::exhausted:
      return ENOSPC;
    case Code::unavailable:
      return ECONNREFUSED;
    case Code::unsupported:
      return EOPNOTSUPP;
    case Code::timeout:
      return ETIMEDOUT;
    case Code::corrupt:
      return EBADMSG;
    case Code::os:
      return EIO;
  }
  return EIO;
}

}  // namespace

int failed(const Error& error) {
  last_error = error.text();
  errno = number_of(error.code);
  return -errno;
}

}  // namespace hobbes

extern "C" const char* hobbes_error(void) { return hobbes::last_error.c_str(); }
