#include "remora/mpi_library.h"

#include <fcntl.h>
#include <gelf.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <vector>

#include "core/beneath.h"
#include "core/fd.h"
#include "core/file.h"

namespace hobbes {
namespace {

constexpr const char* open_mpi_name = "libmpi.so.40";  // of the releases 4.0 to 5.0

bool is_mpi(const std::string& name) {
  for (const char* prefix : {"libmpi.so.", "libmpich.so.", "libmpi_cxx.so.", "libmpicxx.so.",
                             "libmpi_mpifh.so.", "libmpifort.so."})
    if (name.rfind(prefix, 0) == 0) return true;
  return false;
}

struct Needs {
  std::vector<std::string> libraries, folders;  // DT_NEEDED; DT_RUNPATH and DT_RPATH
};

std::optional<Needs> needs_of(int program) {
  if (elf_version(EV_CURRENT) == EV_NONE) return std::nullopt;
  std::unique_ptr<Elf, decltype(&elf_end)> elf(elf_begin(program, ELF_C_READ, nullptr), elf_end);
  if (!elf || elf_kind(elf.get()) != ELF_K_ELF) return std::nullopt;
  Needs out;
  for (Elf_Scn* section = elf_nextscn(elf.get(), nullptr); section != nullptr;
       section = elf_nextscn(elf.get(), section)) {
    GElf_Shdr header;
    if (gelf_getshdr(section, &header) == nullptr || header.sh_type != SHT_DYNAMIC) continue;
    Elf_Data* data = elf_getdata(section, nullptr);
    GElf_Dyn entry;
    for (int i = 0; data != nullptr && gelf_getdyn(data, i, &entry) != nullptr; ++i) {
      if (entry.d_tag == DT_NULL) break;
      if (entry.d_tag != DT_NEEDED && entry.d_tag != DT_RUNPATH && entry.d_tag != DT_RPATH)
        continue;
      const char* text = elf_strptr(elf.get(), header.sh_link, entry.d_un.d_val);
      if (text != nullptr)
        (entry.d_tag == DT_NEEDED ? out.libraries : out.folders).emplace_back(text);
    }
  }
  return out;
}

// Where the dynamic linker looks, in its order. Nothing: one of the places is not understood, and
// so is not what it would find.
std::optional<std::vector<std::string>> places_of(const Needs& needs, const std::string& program,
                                                  bool is_host) {
  std::vector<std::string> lists = needs.folders, out;
  if (const char* paths = std::getenv("LD_LIBRARY_PATH"); paths != nullptr && is_host)
    lists.insert(lists.begin(), paths);
  lists.emplace_back(
      "/usr/local/lib:/lib/x86_64-linux-gnu:/usr/lib/x86_64-linux-gnu:/lib64:/usr/lib64:/lib:"
      "/usr/lib:/usr/lib64/openmpi/lib");
  for (const std::string& list : lists)
    for (std::size_t begin = 0; begin <= list.size();) {
      const std::size_t end = std::min(list.find(':', begin), list.size());
      std::string folder = list.substr(begin, end - begin);
      begin = end + 1;
      for (const char* origin : {"$ORIGIN", "${ORIGIN}"})
        if (folder.rfind(origin, 0) == 0)
          folder.replace(0, std::string(origin).size(), program.substr(0, program.rfind('/')));
      if (folder.empty()) continue;
      if (folder.front() != '/' || folder.find('$') != std::string::npos) return std::nullopt;
      out.push_back(std::move(folder));
    }
  return out;
}

// The name of the file that is found, where links have led.
std::string file_of(int root, const std::string& name, const std::vector<std::string>& places) {
  for (const std::string& folder : places) {
    auto found = open_beneath(root, folder + "/" + name, O_PATH);
    if (!found) continue;
    auto path = read_link("/proc/self/fd/" + std::to_string(found->get()));
    return path ? path->substr(path->rfind('/') + 1) : "";
  }
  return "";
}

}  // namespace

std::string MpiLibrary::open_mpi_release() const {
  constexpr std::array<std::pair<const char*, const char*>, 3> releases = {
      {{"libmpi.so.40.20.", "4.0"}, {"libmpi.so.40.30.", "4.1"}, {"libmpi.so.40.40.", "5.0"}}};
  for (const auto& [begin, release] : releases)
    if (file.rfind(begin, 0) == 0) return release;
  return "";
}

std::string MpiLibrary::text() const {
  const std::string what = file.empty() ? name : file;
  if (std::string release = open_mpi_release(); !release.empty())
    return "Open MPI " + release + " (" + what + ")";
  return (name == open_mpi_name ? "a release of Open MPI that is not known ("
                                : "MPICH or a relative of it (") +
         what + ")";
}

std::optional<MpiLibrary> mpi_library_of(const std::string& root, const std::string& program) {
  Fd top(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!top) return std::nullopt;
  auto file = open_beneath(top.get(), program, O_RDONLY | O_NONBLOCK | O_NOCTTY);
  auto needs = file ? needs_of(file->get()) : std::nullopt;
  // The dynamic linker's $ORIGIN is where links have led.
  auto path = file ? read_link("/proc/self/fd/" + std::to_string(file->get())) : file.error();
  auto base = read_link("/proc/self/fd/" + std::to_string(top.get()));
  if (!needs || !path || !base) return std::nullopt;
  const std::string origin =
      root == "/" || path->rfind(*base + "/", 0) != 0 ? *path : path->substr(base->size());
  for (const std::string& name : needs->libraries) {
    if (!is_mpi(name)) continue;
    // The bindings of other languages have the number of the library that they come with.
    const std::string library =
        name.rfind("libmpich", 0) == 0 ? name : "libmpi" + name.substr(name.find(".so."));
    auto places = places_of(*needs, origin, root == "/");
    return MpiLibrary{library, places ? file_of(top.get(), library, *places) : ""};
  }
  return std::nullopt;
}

}  // namespace hobbes
