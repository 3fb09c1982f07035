#include "parameters.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <stdexcept>

namespace hobbes::adios {
namespace {

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

double number(const std::string& name, const std::string& text) {
  std::size_t end = 0;
  double out = -1;
  try {
    out = std::stod(text, &end);
  } catch (const std::exception&) {
    end = 0;
  }
  if (end != text.size() || !(out >= 0) || out > 1e6)
    throw std::invalid_argument("hobbes engine: " + name + " is '" + text +
                                "', which is no number from 0 to 1e6");
  return out;
}

}  // namespace

Parameters read_parameters(const adios2::Params& given) {
  Parameters out;
  for (const auto& [key, value] : given) {
    const std::string name = lower(key);
    if (name == "rendezvousreadercount") {
      out.rendezvous_readers = static_cast<std::size_t>(number(key, value));
    } else if (name == "queuelimit") {
      out.queue_limit = static_cast<std::size_t>(number(key, value));
    } else if (name == "opentimeoutsecs") {
      out.open_timeout = std::chrono::milliseconds(
          static_cast<std::int64_t>(std::ceil(number(key, value) * 1000)));
    } else if (name == "queuefullpolicy") {
      const std::string policy = lower(value);
      if (policy != "block" && policy != "discard")
        throw std::invalid_argument("hobbes engine: QueueFullPolicy is '" + value +
                                    "'; choose Block or Discard");
      out.discard = policy == "discard";
    } else if (name == "alwaysprovidelatesttimestep") {
      const std::string wish = lower(value);
      const bool yes = wish == "true" || wish == "on" || wish == "1" || wish == "yes";
      if (!yes && wish != "false" && wish != "off" && wish != "0" && wish != "no")
        throw std::invalid_argument("hobbes engine: AlwaysProvideLatestTimestep is '" + value +
                                    "', which is neither true nor false");
      out.newest = yes;
    } else if (name == "mode") {
      if (value.empty() || value.size() > 4 ||
          value.find_first_not_of("01234567") != std::string::npos)
        throw std::invalid_argument("hobbes engine: Mode is '" + value +
                                    "', which is no octal number as of chmod");
      out.mode = (static_cast<unsigned>(std::stoul(value, nullptr, 8)) & 0444U) | 0200U;
    }
  }
  return out;
}

std::string stream_name(const std::string& file) {
  constexpr std::size_t longest = 80;  // a segment's name has a rank and a number behind it
  std::string out = "adios.";
  for (unsigned char c : file)
    out += std::isalnum(c) != 0 || c == '.' || c == '-' || c == '_' ? static_cast<char>(c) : '_';
  if (out.size() > longest)
    throw std::invalid_argument("hobbes engine: the name of the stream '" + file + "' is too long");
  return out;
}

}  // namespace hobbes::adios
