#include "hobbes-run/image.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <iterator>
#include <string_view>

#include "bundle/bundle.h"
#include "core/file.h"
#include "core/process.h"
#include "core/size.h"

namespace hobbes {
namespace {

constexpr std::chrono::hours pull_limit(1);  // for a slow registry

// Goes with what is in it.
class Folder {
 public:
  explicit Folder(std::string path) : path_(std::move(path)) {}
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    if (!path_.empty()) (void)remove_tree(path_);
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

volatile std::sig_atomic_t interrupted = 0;

// While it lives, a signal that asks for the end is noted, so that what was begun is taken back.
// Programs that are run hear it themselves.
class Interrupts {
 public:
  Interrupts() {
    struct sigaction note {};
    note.sa_handler = [](int) { interrupted = 1; };
    for (std::size_t i = 0; i < std::size(signals); ++i)
      ::sigaction(signals[i], &note, &before_[i]);
  }
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;
  ~Interrupts() {
    for (std::size_t i = 0; i < std::size(signals); ++i)
      ::sigaction(signals[i], &before_[i], nullptr);
  }

 private:
  static constexpr int signals[] = {SIGINT, SIGTERM, SIGHUP};
  struct sigaction before_[std::size(signals)]{};
};

std::string reference_of(const std::string& image) {
  static constexpr std::array<std::string_view, 8> transports = {
      "docker://", "oci:", "oci-archive:",        "docker-archive:",
      "dir:",      "sif:", "containers-storage:", "docker-daemon:"};
  bool named = std::any_of(transports.begin(), transports.end(),
                           [&](std::string_view one) { return image.rfind(one, 0) == 0; });
  return named ? image : "docker://" + image;
}

Result<void> carry_out(const std::string& attempt, std::vector<std::string> words) {
  if (!find_in_path(words.front()))
    return Error{Code::not_found, attempt, words.front() + " is not installed",
                 "install it: apt-get install skopeo umoci"};
  Command command;
  command.argv = std::move(words);
  command.deadline = pull_limit;
  HOBBES_TRY(outcome, run(command));
  if (interrupted != 0) return Error{Code::os, attempt, "it was interrupted", "begin again"};
  if (outcome.good()) return {};
  std::string said = outcome.timed_out
                         ? "it was not done within an hour"
                         : outcome.err.substr(0, outcome.err.find_last_not_of('\n') + 1);
  return Error{Code::os, attempt, command.argv.front() + " says: " + said,
               "check the image's name, its registry and your login there"};
}

// As hobbes-run expects it of a bundle that people start: without a terminal unless asked, and with
// the lease that was asked for.
Result<void> adapt_configuration(const ImageOptions& options, const std::string& folder) {
  HOBBES_TRY(text, Files::system().read(folder + "/config.json", json_size_limit));
  HOBBES_TRY(config, parse_json(text, folder + "/config.json"));
  if (!config.is_object())
    return Error{Code::corrupt, "read " + folder + "/config.json", "it is no JSON object", ""};
  if (config.contains("process") && config["process"].is_object())
    config["process"]["terminal"] = false;
  if (options.cores != 0) config["hobbes"]["cores"] = {{"count", options.cores}};
  if (!options.memory.empty()) config["hobbes"]["memory"] = {{"size", options.memory}};
  HOBBES_CHECK(replace_file(folder + "/config.json", to_text(config, 2) + "\n"));
  HOBBES_TRY(bundle, load_bundle(folder));
  (void)bundle;
  return {};
}

}  // namespace

Result<void> make_bundle_from_image(const ImageOptions& options) {
  const std::string attempt = "make a bundle of image " + options.image,
                    target = absolute(options.folder);
  if (!options.memory.empty()) HOBBES_CHECK(parse_size(options.memory));
  auto names = Files::system().list(target);
  if (names && !names->empty())
    return Error{Code::exists, attempt, target + " is not empty",
                 "name a folder that does not exist yet"};
  auto say = [&](const std::string& text) {
    if (!options.quiet) std::fprintf(stderr, "hobbes-run: %s\n", text.c_str());
  };
  Interrupts noted;
  // Beside the target, so that what is done can be moved there in one step.
  std::string pattern = target + ".part.XXXXXX";
  if (::mkdtemp(pattern.data()) == nullptr) return os_error(attempt + " in " + pattern, errno);
  Folder part(pattern);
  std::string layout = part.path() + "/image", unpacked = part.path() + "/bundle";
  say("copying " + reference_of(options.image));
  HOBBES_CHECK(carry_out(attempt, {"skopeo", "copy", "--quiet", reference_of(options.image),
                                   "oci:" + layout + ":latest"}));
  say("unpacking it");
  std::vector<std::string> unpack = {"umoci", "unpack", "--image", layout + ":latest"};
  if (::geteuid() != 0) unpack.emplace_back("--rootless");
  unpack.push_back(unpacked);
  HOBBES_CHECK(carry_out(attempt, std::move(unpack)));
  // What umoci needs to pack it again is of no use to an enclave.
  if (auto made = Files::system().list(unpacked))
    for (const std::string& name : *made)
      if (name != "config.json" && name != "rootfs")
        (void)::unlink((unpacked + "/" + name).c_str());
  HOBBES_CHECK(adapt_configuration(options, unpacked));
  if (::rename(unpacked.c_str(), target.c_str()) != 0)
    return os_error("move the bundle to " + target, errno);
  say(target + " is ready: hobbes-run run --bundle " + target + " NAME");
  return {};
}

}  // namespace hobbes
