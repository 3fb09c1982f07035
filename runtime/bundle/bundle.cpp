#include "bundle/bundle.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "bundle/device_edits.h"
#include "bundle/inspect.h"
#include "bundle/mount_options.h"
#include "bundle/oci_config.h"
#include "core/file.h"
#include "core/identity.h"
#include "core/size.h"

namespace hobbes {
namespace {

const std::vector<std::string> kind_names = {"linux", "kitten", "palacios"};
const std::vector<std::string> policy_names = {"compact", "spread", "local"};
const std::vector<std::string> manage_names = {"none", "self", "node"};
constexpr const char* annotation_prefix = "org.hobbes.";

// Annotation values are strings; these leaves of the hobbes object are not.
bool is_json_leaf(const std::string& path) {
  static const std::array<std::string, 11> leaves = {
      "cores.count",    "cores.numa",        "cores.shared", "memory.numa",    "image.agent",
      "image.terminal", "image.bootSeconds", "segments",     "remora.timeout", "heartbeat",
      "devices"};
  return std::find(leaves.begin(), leaves.end(), path) != leaves.end();
}

// Writes one org.hobbes.* annotation into the hobbes object it stands for.
void merge_annotation(const std::string& path, const std::string& text, const Inspect& at,
                      Json& hobbes) {
  Json value = text;
  if (is_json_leaf(path)) {
    auto parsed = parse_json(text, "annotation");
    if (!parsed) {
      at.wrong("JSON text for " + path);
      return;
    }
    value = std::move(*parsed);
  }
  Json* place = &hobbes;
  std::string rest = path;
  while (true) {
    if (place->is_null()) *place = Json::object();
    if (!place->is_object()) {
      at.wrong("a key of the hobbes object", "its parent is no object");
      return;
    }
    // A label's name may itself hold dots.
    std::size_t dot = rest.find('.');
    if (path.rfind("labels.", 0) == 0 && rest != path) dot = std::string::npos;
    place = &(*place)[rest.substr(0, dot)];
    if (dot == std::string::npos) break;
    rest = rest.substr(dot + 1);
  }
  if (!place->is_null() && *place != value) {
    at.wrong("the same value as the hobbes object", "say it once");
    return;
  }
  *place = value;
}

CoreRequest read_cores(const Inspect& at) {
  CoreRequest cores;
  if (!at.object()) return cores;
  at.only({"count", "list", "numa", "policy", "shared"});
  if (auto count = at.at("count").integer(1, static_cast<std::int64_t>(CpuSet::capacity)))
    cores.count = static_cast<unsigned>(*count);
  cores.list = at.at("list").list();
  if (cores.list && cores.list->empty()) at.at("list").wrong("at least one CPU");
  if (at.at("list").present() && at.at("count").present())
    at.wrong("either \"count\" or \"list\"", "remove one of them");
  if (!at.at("list").present() && !at.at("count").present())
    at.missing("count", "how many cores, or a \"list\"");
  if (auto numa = at.at("numa").integer(0, 1023)) cores.numa = static_cast<unsigned>(*numa);
  if (auto policy = at.at("policy").one_of(policy_names))
    cores.policy = static_cast<Policy>(*policy);
  cores.shared = at.at("shared").boolean().value_or(false);
  return cores;
}

MemoryRequest read_memory(const Inspect& at) {
  MemoryRequest memory;
  if (!at.object()) return memory;
  at.only({"size", "numa", "pageSize", "segments"});
  if (!at.at("size").present()) at.missing("size", "a byte count such as \"512MiB\"");
  if (auto size = at.at("size").size()) {
    memory.size = *size;
    if (*size == 0) at.at("size").wrong("more than nothing");
  }
  if (auto numa = at.at("numa").integer(0, 1023)) memory.numa = static_cast<unsigned>(*numa);
  if (auto page = at.at("pageSize").size()) {
    memory.page_size = *page;
    if (*page != 4096 && *page != 2U << 20U && *page != 1U << 30U)
      at.at("pageSize").wrong("4KiB, 2MiB or 1GiB");
  }
  if (auto segments = at.at("segments").size()) {
    memory.segments = *segments;
    if (*segments > 1ULL << 40U) at.at("segments").wrong("at most 1TiB");
  }
  return memory;
}

void read_segments(const Inspect& at, std::vector<SegmentRequest>& out) {
  at.each([&](const Inspect& item) {
    if (!item.object()) return;
    item.only({"name", "size", "access", "composition"});
    SegmentRequest segment;
    segment.composition = item.at("composition").boolean().value_or(false);
    segment.size = item.at("size").size().value_or(0);
    if (!item.at("name").present() && !segment.composition)
      item.missing("name", "the segment's name");
    segment.name = item.at("name").text().value_or("*");
    std::string name = segment.name;  // a pattern is one of names
    if (segment.size == 0) std::replace(name.begin(), name.end(), '*', '_');
    if (!check_id(name))
      item.at("name").wrong("letters, digits and _ + - ., and * where it has no size");
    if (segment.size != 0 && segment.composition)
      item.at("composition").wrong("segments of others", "leave out the size");
    if (auto access = item.at("access").one_of({"ro", "rw"})) segment.writable = *access == 1;
    for (const SegmentRequest& other : out)
      if (other.name == segment.name && other.composition == segment.composition)
        item.at("name").wrong("each name once", "rename one of the two");
    out.push_back(std::move(segment));
  });
}

HobbesSection read_hobbes(const Inspect& at) {
  HobbesSection out;
  if (!at.object()) return out;
  at.only({"kind", "root", "cores", "memory", "image", "segments", "remora", "manage", "heartbeat",
           "serviceCores", "labels", "devices"});
  if (auto kind = at.at("kind").one_of(kind_names)) out.kind = static_cast<Kind>(*kind + 1);
  if (auto root = at.at("root").one_of({"host"})) out.host_root = true;
  out.cores = read_cores(at.at("cores"));
  out.memory = read_memory(at.at("memory"));
  Inspect image = at.at("image");
  if (image.object()) {
    image.only({"kernel", "initrd", "cmdline", "protocol", "agent", "terminal", "bootSeconds"});
    out.image.kernel = image.at("kernel").text().value_or("");
    out.image.initrd = image.at("initrd").text().value_or("");
    out.image.cmdline = image.at("cmdline").text().value_or("");
    out.image.agent = image.at("agent").boolean().value_or(false);
    out.image.terminal = image.at("terminal").boolean().value_or(false);
    out.image.boot_seconds =
        static_cast<unsigned>(image.at("bootSeconds").integer(1, 3600).value_or(120));
    if (image.at("protocol").one_of({"hobbes", "pisces"}))
      out.image.protocol = *image.at("protocol").text();
  }
  read_segments(at.at("segments"), out.segments);
  Inspect remora = at.at("remora");
  if (remora.object()) {
    remora.only({"composition", "app", "timeout"});
    RemoraRequest request;
    if (!remora.at("composition").present())
      remora.missing("composition", "a composition's name or file");
    if (!remora.at("app").present()) remora.missing("app", "the name of an app of the composition");
    request.composition = remora.at("composition").text().value_or("");
    request.app = remora.at("app").text().value_or("");
    request.timeout_seconds =
        static_cast<unsigned>(remora.at("timeout").integer(1, 86400).value_or(60));
    out.remora = std::move(request);
  }
  if (auto manage = at.at("manage").one_of(manage_names)) out.manage = static_cast<Manage>(*manage);
  out.heartbeat_seconds = static_cast<unsigned>(at.at("heartbeat").integer(1, 86400).value_or(0));
  out.service_cores = at.at("serviceCores").list();
  out.labels = at.at("labels").text_map();
  at.at("devices").each([&](const Inspect& item) {
    const std::string name = item.text().value_or("");
    if (item.present() && !is_device_name(name)) item.wrong("a name VENDOR/CLASS=DEVICE");
    if (std::find(out.devices.begin(), out.devices.end(), name) != out.devices.end())
      item.wrong("each device once", "remove one of the two");
    out.devices.push_back(name);
  });
  return out;
}

// What the objects must say together.
void check_whole(const Inspect& at, const Bundle& bundle) {
  const auto& spaces = bundle.oci.linux_.namespaces;
  bool names = std::any_of(spaces.begin(), spaces.end(),
                           [](const oci::Namespace& space) { return space.type == "uts"; });
  for (const char* key : {"hostname", "domainname"})
    if (has_sandbox(bundle) && !names && !at.at(key).text().value_or("").empty())
      at.at(key).wrong("a name together with a uts namespace",
                       "add {\"type\": \"uts\"} to linux.namespaces; it would rename the host");
  const HobbesSection& hobbes = bundle.hobbes;
  Inspect section = at.at("hobbes");
  bool is_linux = hobbes.kind == Kind::linux_;
  const bool sandboxed = has_sandbox(bundle);
  if (is_linux && !bundle.oci.process) at.missing("process", "the program to run");
  if (sandboxed && !hobbes.host_root && !at.at("root").present())
    at.missing("root", "a root file system, or \"root\": \"host\" in the hobbes object");
  if (hobbes.host_root && at.at("root").present())
    at.at("root").wrong("no root together with \"root\": \"host\" in the hobbes object",
                        "remove one of the two");
  if (is_linux && !hobbes.image.kernel.empty())
    section.at("image").at("kernel").wrong("no kernel for kind linux",
                                           "use kind kitten or palacios");
  if (hobbes.image.terminal &&
      (hobbes.kind != Kind::palacios || bundle.oci.process || hobbes.image.agent))
    section.at("image")
        .at("terminal")
        .wrong("false: only a virtual machine without an agent has its serial port for a terminal",
               "say process.terminal, or `exec --tty`");
  if (hobbes.kind != Kind::palacios && section.at("memory").at("segments").present())
    section.at("memory")
        .at("segments")
        .wrong("nothing: only of a virtual machine are they beyond its memory", "remove it");
  if (!sandboxed) {
    // A kernel of its own neither asks this one's security modules nor sees mounts whose ids are
    // mapped.
    for (const char* label : {"apparmorProfile", "selinuxLabel"})
      if (std::string name = at.at("process").at(label).text().value_or("");
          !name.empty() && name != "unconfined")
        at.at("process").at(label).wrong("no label: only enclaves of kind linux have one",
                                         "remove it");
    if (!bundle.oci.linux_.mount_label.empty())
      at.at("linux")
          .at("mountLabel")
          .wrong("no label: only enclaves of kind linux have one", "remove it");
    if (!bundle.oci.linux_.net_devices.empty())
      at.at("linux")
          .at("netDevices")
          .wrong("no devices: only enclaves of kind linux have them", "remove them");
    for (std::size_t i = 0; i < bundle.oci.mounts.size(); ++i)
      if (is_id_mapped(bundle.oci.mounts[i]))
        at.at("mounts")
            .at(std::to_string(i))
            .wrong("a mount without mapped ids: only enclaves of kind linux have them",
                   "remove the mapping");
    if (hobbes.host_root && hobbes.kind == Kind::kitten)
      section.at("root").wrong("no root without a process: a kernel alone has none");
  }
  if (!is_linux && !hobbes.devices.empty())
    section.at("devices").wrong("no devices: only enclaves of kind linux have them", "remove them");
  if (!is_linux) {
    bool kernel =
        !hobbes.image.kernel.empty() || (bundle.oci.vm && !bundle.oci.vm->kernel_path.empty());
    if (!kernel) section.at("image").missing("kernel", "the kernel image to boot");
    if (!hobbes.cores.wanted()) section.missing("cores", "the cores this kernel will own");
    if (hobbes.memory.size == 0) section.missing("memory", "the memory this kernel will own");
    if (hobbes.cores.shared)
      section.at("cores").at("shared").wrong("false: a kernel shares its cores with nobody",
                                             "remove it");
  }
}

void check_files(const Bundle& bundle, std::vector<Problem>& problems) {
  struct stat info {};
  if (has_sandbox(bundle) && !bundle.hobbes.host_root) {
    std::string rootfs = bundle.rootfs();
    if (::stat(rootfs.c_str(), &info) != 0)
      problems.push_back({"/root/path", "\"" + bundle.oci.root_path + "\"", "an existing directory",
                          rootfs + ": no such file or directory"});
    else if (!S_ISDIR(info.st_mode))
      problems.push_back(
          {"/root/path", "\"" + bundle.oci.root_path + "\"", "a directory", rootfs + " is a file"});
  }
  if (!bundle.hobbes.image.kernel.empty()) {
    std::string kernel = bundle.hobbes.image.kernel;
    if (kernel.front() != '/') kernel = bundle.path + "/" + kernel;
    if (::access(kernel.c_str(), R_OK) != 0)
      problems.push_back({"/hobbes/image/kernel", "\"" + bundle.hobbes.image.kernel + "\"",
                          "a readable file", kernel + ": no such file or directory"});
  }
}

}  // namespace

bool has_sandbox(const Bundle& bundle) {
  return bundle.hobbes.kind == Kind::linux_ ||
         (bundle.hobbes.kind == Kind::kitten && bundle.oci.process.has_value());
}

const char* name_of(Kind kind) { return kind_names.at(static_cast<std::size_t>(kind) - 1).c_str(); }
const char* name_of(Policy policy) {
  return policy_names.at(static_cast<std::size_t>(policy)).c_str();
}
const char* name_of(Manage manage) {
  return manage_names.at(static_cast<std::size_t>(manage)).c_str();
}

std::optional<Kind> kind_named(std::string_view name) {
  for (std::size_t i = 0; i < kind_names.size(); ++i)
    if (name == kind_names[i]) return static_cast<Kind>(i + 1);
  return std::nullopt;
}

std::string Bundle::source_of(const oci::Mount& mount) const {
  return mount.source.rfind('/', 0) == 0 ? mount.source : path + "/" + mount.source;
}

std::string Bundle::rootfs() const {
  if (hobbes.host_root) return {};
  return oci.root_path.rfind('/', 0) == 0 ? oci.root_path : path + "/" + oci.root_path;
}

Validation validate_config(const std::string& folder, const Json& config,
                           std::set<std::string>* looked_at) {
  Validation out;
  Inspect at(&config, "", &out.problems);
  at.note_in(looked_at);
  if (!config.is_object()) {
    at.wrong("an object");
    return out;
  }
  Bundle bundle;
  bundle.path = folder;
  bundle.config = config;
  bundle.oci = inspect_config(at);

  Json section = config.contains("hobbes") ? config["hobbes"] : Json();
  for (const auto& [name, text] : bundle.oci.annotations) {
    if (name.rfind(annotation_prefix, 0) != 0) continue;
    merge_annotation(name.substr(std::string(annotation_prefix).size()), text,
                     at.at("annotations").at(name), section);
  }
  // A runtime-spec `vm` object alone already says which kind this is.
  if (bundle.oci.vm && (section.is_null() || (section.is_object() && !section.contains("kind"))))
    section["kind"] = "palacios";
  bundle.hobbes = read_hobbes(Inspect(&section, "/hobbes", &out.problems));
  bundle.hobbes.present = section.is_object();
  if (const auto& vm = bundle.oci.vm) {
    if (!bundle.hobbes.cores.wanted()) bundle.hobbes.cores.count = static_cast<unsigned>(vm->vcpus);
    if (bundle.hobbes.memory.size == 0) bundle.hobbes.memory.size = vm->memory;
  }
  check_whole(at, bundle);
  if (out.problems.empty()) out.bundle = std::move(bundle);
  return out;
}

Result<Validation> validate_bundle(const std::string& folder, const std::string& config,
                                   const BundleOverrides& overrides) {
  std::string path = absolute(folder),
              file = config.empty() ? path + "/config.json" : absolute(config);
  auto text = Files::system().read(file, json_size_limit);
  if (!text) return std::move(text.error()).within("load bundle " + path);
  HOBBES_TRY(json, parse_json(*text, file));
  HOBBES_CHECK(overrides.apply(json, environment_of_caller()));
  Validation out = validate_config(path, json);
  if (out.bundle) {
    check_files(*out.bundle, out.problems);
    if (!out.problems.empty()) out.bundle.reset();
  }
  return out;
}

Result<Bundle> load_bundle(const std::string& folder, const std::string& config,
                           const BundleOverrides& overrides) {
  HOBBES_TRY(validation, validate_bundle(folder, config, overrides));
  if (validation.bundle) return std::move(*validation.bundle);
  return Error{Code::invalid, "load bundle " + absolute(folder),
               (config.empty() ? "config.json" : config) + " has " +
                   std::to_string(validation.problems.size()) + " problem(s)\n" +
                   report(validation.problems),
               "mend them and check with `hobbes-run validate --bundle " + absolute(folder) + "`"};
}

std::string report(const std::vector<Problem>& problems) {
  std::string out;
  for (const Problem& p : problems) {
    if (!out.empty()) out += "\n";
    out += "  " + (p.pointer.empty() ? "(document)" : p.pointer) + ": found " + p.found +
           ", allowed " + p.allowed;
    if (!p.remedy.empty()) out += "; " + p.remedy;
  }
  return out;
}

Json to_json(const std::vector<Problem>& problems) {
  Json out = Json::array();
  for (const Problem& p : problems)
    out.push_back(
        {{"pointer", p.pointer}, {"found", p.found}, {"allowed", p.allowed}, {"remedy", p.remedy}});
  return out;
}

std::optional<oci::Process> read_process(const Json& json, const std::string& pointer,
                                         std::vector<Problem>& problems) {
  std::size_t before = problems.size();
  Inspect at(&json, pointer, &problems);
  oci::Process process = inspect_process(at);
  if (!json.is_object() && problems.size() == before) at.wrong("an object");
  return problems.size() == before ? std::optional(std::move(process)) : std::nullopt;
}

std::optional<oci::Resources> read_resources(const Json& json, const std::string& pointer,
                                             std::vector<Problem>& problems) {
  std::size_t before = problems.size();
  oci::Resources resources = inspect_resources(Inspect(&json, pointer, &problems));
  return problems.size() == before ? std::optional(std::move(resources)) : std::nullopt;
}

}  // namespace hobbes
