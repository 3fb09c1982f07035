#include "remora/programs.h"

#include <stdlib.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <pugixml.hpp>
#include <sstream>
#include <utility>

#include "bundle/bundle.h"
#include "core/file.h"
#include "core/identity.h"
#include "core/number.h"
#include "core/size.h"

namespace hobbes {
namespace {

constexpr const char* universe = "universe";  // the name of the outermost space

struct Program {
  unsigned ranks = 1, cores = 0;
  std::uint64_t memory = 0;
  std::string bundle, directory, path, name;
  std::vector<std::string> args;
  bool mpi = true;
};

Error wrong(const std::string& word, const std::string& why) {
  return {Code::invalid, "read the list of programs at '" + word + "'", why,
          "write `remora run -np N PROGRAM ARGS : -np N PROGRAM ARGS`"};
}

// One program's words.
Result<Program> read_program(const std::vector<std::string>& words) {
  Program out;
  std::size_t at = 0;
  for (; at < words.size() && words[at].rfind('-', 0) == 0; ++at) {
    const std::string& option = words[at];
    if (option == "--no-mpi") {
      out.mpi = false;
      continue;
    }
    if (at + 1 == words.size()) return wrong(option, "its value is missing");
    const std::string& value = words[++at];
    if (Programs::begins(option) || option == "--cores") {
      auto number = whole_number(value, composition_rank_limit);
      if (!number || *number == 0)
        return wrong(option + " " + value,
                     "it is no number from 1 to " + std::to_string(composition_rank_limit));
      (option == "--cores" ? out.cores : out.ranks) = static_cast<unsigned>(*number);
    } else if (option == "--memory") {
      HOBBES_TRY(bytes, parse_size(value));
      out.memory = bytes;
    } else if (option == "--bundle") {
      out.bundle = absolute(value);
    } else if (option == "--wdir" || option == "-wdir") {
      out.directory = absolute(value);
    } else {
      return wrong(
          option,
          "a program has no such option; those of remora itself stand before the first -np");
    }
  }
  if (at == words.size()) return wrong(words.empty() ? ":" : words.back(), "no program is named");
  if (!out.bundle.empty() && (out.cores != 0 || out.memory != 0))
    return wrong("--bundle", "cores and memory are the bundle's to say");
  out.path = words[at].find('/') == std::string::npos ? words[at] : absolute(words[at]);
  out.name = out.path.substr(out.path.rfind('/') + 1);
  for (char& c : out.name)
    if (!check_id(std::string("a") + c)) c = '_';
  if (!check_id(out.name)) out.name = "app";
  out.args.assign(words.begin() + static_cast<std::ptrdiff_t>(at) + 1, words.end());
  return out;
}

// An enclave of kind linux that shows the host's root, with cores of its own where the user wants
// some.
Json bundle_for(const Program& program) {
  Json config = example_config(Kind::linux_, true);
  config["process"].erase("args");
  config["process"]["args"] = {"true"};  // ranks are further processes; this one never runs
  config["linux"]["namespaces"] = {{{"type", "mount"}}, {{"type", "ipc"}}};
  config["hobbes"].erase("cores");
  config["hobbes"].erase("memory");
  if (program.cores != 0) config["hobbes"]["cores"] = {{"count", program.cores}};
  if (program.memory != 0) config["hobbes"]["memory"] = {{"size", program.memory}};
  return config;
}

std::string document_of(const std::vector<Program>& programs) {
  pugi::xml_document document;
  pugi::xml_node root = document.append_child("composition");
  root.append_attribute("mpiComm") = universe;
  for (const Program& program : programs) {
    pugi::xml_node enclave = root.append_child("enclave");
    enclave.append_attribute("name") = program.name.c_str();
    enclave.append_attribute("bundle") = program.bundle.c_str();
    if (program.name != universe) enclave.append_attribute("mpiComm") = program.name.c_str();
    pugi::xml_node app = enclave.append_child("app");
    app.append_attribute("name") = program.name.c_str();
    app.append_attribute("path") = program.path.c_str();
    app.append_attribute("ranks") = program.ranks;
    if (!program.directory.empty()) app.append_attribute("cwd") = program.directory.c_str();
    if (!program.mpi) app.append_attribute("mpi") = "no";
    for (const std::string& arg : program.args)
      app.append_child("arg").append_child(pugi::node_pcdata).set_value(arg.c_str());
  }
  std::ostringstream text;
  document.save(text, "", pugi::format_raw);
  return text.str();
}

}  // namespace

bool Programs::begins(const std::string& word) {
  return word == "-np" || word == "-n" || word == "--np" || word == "-c";
}

Result<Programs> Programs::read(const std::vector<std::string>& words) {
  std::vector<Program> programs;
  for (auto begin = words.begin(); begin != words.end();) {
    auto end = std::find(begin, words.end(), ":");
    HOBBES_TRY(program, read_program({begin, end}));
    for (unsigned number = 2; std::any_of(programs.begin(), programs.end(),
                                          [&](const Program& p) { return p.name == program.name; });
         ++number)
      program.name = program.name.substr(0, program.name.find_last_not_of("0123456789-") + 1) +
                     "-" + std::to_string(number);
    programs.push_back(std::move(program));
    if (end == words.end()) break;
    begin = end + 1;
    if (begin == words.end()) return wrong(":", "no program follows");
  }
  Programs out;
  char folder[] = "/tmp/remora-programs.XXXXXX";
  if (::mkdtemp(folder) == nullptr) return os_error("make a folder for bundles", errno);
  out.folder_ = folder;
  for (Program& program : programs) {
    if (!program.bundle.empty()) continue;
    program.bundle = out.folder_ + "/" + program.name;
    HOBBES_CHECK(make_directories(program.bundle, 0700));
    HOBBES_CHECK(replace_file(program.bundle + "/config.json", to_text(bundle_for(program), 2)));
  }
  CompositionCheck check =
      check_composition(document_of(programs), programs.front().name, out.folder_);
  if (!check.problems.empty())
    return Error{Code::invalid, "read the list of programs",
                 "\n" + report("command line", check.problems), "mend what is named"};
  out.composition_ = std::move(check.composition);
  return out;
}

Programs::Programs(Programs&& other) noexcept
    : folder_(std::exchange(other.folder_, "")), composition_(std::move(other.composition_)) {}

Programs::~Programs() {
  if (!folder_.empty()) (void)remove_tree(folder_);
}

}  // namespace hobbes
