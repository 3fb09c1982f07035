#include "remora/composition.h"

#include <algorithm>
#include <functional>
#include <pugixml.hpp>
#include <set>

#include "core/file.h"
#include "core/identity.h"

namespace hobbes {
namespace {

bool is_utf8(const std::string& text) {
  for (std::size_t i = 0; i < text.size();) {
    auto c = static_cast<unsigned char>(text[i]);
    std::size_t more = c < 0x80                       ? 0
                       : (c >> 5U) == 6 && c >= 0xc2  ? 1
                       : (c >> 4U) == 14              ? 2
                       : (c >> 3U) == 30 && c <= 0xf4 ? 3
                                                      : 9;
    if (more == 9 || i + more >= text.size() + (more == 0 ? 1 : 0)) return false;
    for (std::size_t k = 1; k <= more; ++k)
      if ((static_cast<unsigned char>(text[i + k]) >> 6U) != 2) return false;
    i += more + 1;
  }
  return true;
}

// An upper bound of the nesting, found without building a tree: pugixml's own walk of a deep tree
// is recursive.
unsigned depth_of(const std::string& text) {
  unsigned depth = 0, deepest = 0;
  for (std::size_t at = text.find('<'); at != std::string::npos && at + 1 < text.size();
       at = text.find('<', at + 1)) {
    char next = text[at + 1];
    if (next == '/') {
      if (depth > 0) --depth;
    } else if (next != '!' && next != '?') {
      std::size_t end = text.find('>', at);
      if (end != std::string::npos && text[end - 1] == '/') continue;
      deepest = std::max(deepest, ++depth);
    }
  }
  return deepest;
}

class Reader {
 public:
  Reader(const std::string& text, const std::string& folder, CompositionCheck& out)
      : text_(text), folder_(folder), out_(out) {}

  void read() {
    pugi::xml_document document;
    auto parsed =
        document.load_buffer(text_.data(), text_.size(), pugi::parse_default, pugi::encoding_utf8);
    if (!parsed) {
      unclosed(parsed);
      return;
    }
    if (too_deep(document)) return;
    pugi::xml_node root = document.document_element();
    if (std::string(root.name()) != "composition") {
      wrong(root, "<" + std::string(root.name()) + ">", "<composition> as the outermost element",
            "");
      return;
    }
    only_attributes(root, {"name", "mpiComm", "version"});
    if (std::string version = root.attribute("version").as_string("1"); version != "1")
      wrong(root, "version=\"" + version + "\"", "version 1", "use a newer remora");
    Composition& c = out_.composition;
    c.name = root.attribute("name").as_string(c.name.c_str());
    if (!check_id(c.name))
      wrong(root, "name=\"" + c.name + "\"", "letters, digits and _ + - .", "rename it");
    c.universe = root.attribute("mpiComm").as_string("universe");
    add_space(root, c.universe);
    collect_spaces(root);
    for (pugi::xml_node child : root.children()) {
      if (child.type() != pugi::node_element) continue;
      if (std::string(child.name()) == "enclave")
        read_enclave(child, -1, {c.universe});
      else
        wrong(child, "<" + std::string(child.name()) + ">", "<enclave> inside <composition>",
              "put apps inside an enclave");
    }
    if (c.apps.empty() && out_.problems.empty())
      wrong(root, "no app", "at least one <app> inside an <enclave>", "add one");
    std::stable_partition(c.apps.begin(), c.apps.end(),
                          [](const CompositionApp& app) { return app.mpi; });
    unsigned rank = 0;
    for (CompositionApp& app : c.apps) {
      app.first_rank = rank;
      rank += app.ranks;
    }
    if (rank > composition_rank_limit)
      wrong(root, std::to_string(rank) + " ranks",
            "at most " + std::to_string(composition_rank_limit), "use fewer");
  }

 private:
  [[nodiscard]] unsigned line_at(std::ptrdiff_t offset) const {
    auto end = text_.begin() + std::min<std::ptrdiff_t>(std::max<std::ptrdiff_t>(offset, 0),
                                                        static_cast<std::ptrdiff_t>(text_.size()));
    return static_cast<unsigned>(std::count(text_.begin(), end, '\n')) + 1;
  }
  void wrong(pugi::xml_node at, const std::string& found, const std::string& allowed,
             const std::string& remedy) {
    if (out_.problems.size() < 100)
      out_.problems.push_back({line_at(at.offset_debug()), found, allowed, remedy});
  }

  // Without recursion: comments and attributes can hide nesting from the first, cheap look at the
  // text.
  bool too_deep(pugi::xml_node document) {
    unsigned depth = 0;
    for (pugi::xml_node at = document.first_child(); at;) {
      if (at.first_child()) {
        at = at.first_child();
        if (++depth <= composition_depth_limit) continue;
        wrong(at, "elements nested too deep", "at most " + std::to_string(composition_depth_limit),
              "nest less");
        return true;
      }
      while (at && at != document && !at.next_sibling()) {
        at = at.parent();
        --depth;
      }
      at = at == document ? pugi::xml_node() : at.next_sibling();
    }
    return false;
  }

  // Names the element that was left open: the parser itself only knows where it noticed.
  void unclosed(const pugi::xml_parse_result& parsed) {
    std::vector<std::pair<std::string, unsigned>> open;
    for (std::size_t at = text_.find('<'); at != std::string::npos; at = text_.find('<', at + 1)) {
      std::size_t end = text_.find('>', at);
      if (end == std::string::npos) break;
      if (text_[at + 1] == '!' || text_[at + 1] == '?') continue;
      bool closing = text_[at + 1] == '/';
      std::size_t begin = at + (closing ? 2 : 1);
      std::string name = text_.substr(begin, text_.find_first_of(" \t\r\n/>", begin) - begin);
      unsigned line = line_at(static_cast<std::ptrdiff_t>(at));
      if (closing) {
        if (open.empty() || open.back().first != name) {
          std::string found = open.empty() ? "</" + name + "> without an open element"
                                           : "</" + name + "> on line " + std::to_string(line) +
                                                 " while <" + open.back().first + "> is open";
          std::string remedy = open.empty() ? "remove it"
                                            : "close it with </" + open.back().first +
                                                  "> or write <" + open.back().first + "/>";
          out_.problems.push_back({open.empty() ? line : open.back().second, found,
                                   "every element closed inside its parent", remedy});
          return;
        }
        open.pop_back();
      } else if (text_[end - 1] != '/') {
        open.emplace_back(name, line);
      }
    }
    std::string remedy = open.empty() ? "mend the XML" : "close <" + open.back().first + ">";
    unsigned line = open.empty() ? line_at(parsed.offset) : open.back().second;
    out_.problems.push_back({line, parsed.description(), "well-formed XML", remedy});
  }

  void only_attributes(pugi::xml_node at, const std::vector<std::string>& known) {
    std::set<std::string> seen;
    for (pugi::xml_attribute attribute : at.attributes()) {
      std::string name = attribute.name();
      if (!seen.insert(name).second)
        wrong(at, "attribute " + name + " twice", "each attribute once", "remove one");
      if (std::find(known.begin(), known.end(), name) != known.end()) continue;
      std::string allowed;
      for (const std::string& one : known) allowed += (allowed.empty() ? "" : ", ") + one;
      wrong(at, "attribute " + name, "on <" + std::string(at.name()) + "> only " + allowed,
            "remove it");
    }
  }

  unsigned number(pugi::xml_node at, const char* name, unsigned least, unsigned most,
                  unsigned fallback) {
    pugi::xml_attribute attribute = at.attribute(name);
    if (!attribute) return fallback;
    std::string text = attribute.value();
    char* end = nullptr;
    unsigned long value = std::strtoul(text.c_str(), &end, 10);
    bool digits = !text.empty() && text.find_first_not_of("0123456789") == std::string::npos &&
                  text.size() < 10;
    if (digits && value >= least && value <= most) return static_cast<unsigned>(value);
    wrong(at, std::string(name) + "=\"" + text.substr(0, 40) + "\"",
          "a whole number from " + std::to_string(least) + " to " + std::to_string(most), "");
    return fallback;
  }

  void add_space(pugi::xml_node at, const std::string& name) {
    auto& spaces = out_.composition.spaces;
    if (!check_id(name))
      wrong(at, "mpiComm=\"" + name.substr(0, 40) + "\"", "letters, digits and _ + - .",
            "rename it");
    if (std::find(spaces.begin(), spaces.end(), name) != spaces.end())
      wrong(at, "the space \"" + name + "\" a second time", "each space named once",
            "rename one of the two");
    else
      spaces.push_back(name);
  }

  void collect_spaces(pugi::xml_node at) {
    for (pugi::xml_node child : at.children("enclave")) {
      if (pugi::xml_attribute space = child.attribute("mpiComm")) add_space(child, space.value());
      collect_spaces(child);
    }
  }

  void read_enclave(pugi::xml_node at, int parent, const std::vector<std::string>& spaces) {
    only_attributes(at, {"name", "num", "bundle", "use", "mpiComm"});
    std::string name = at.attribute("name").value();
    if (name.empty() || !check_id(name))
      wrong(at, "name=\"" + name.substr(0, 40) + "\"", "a name of letters, digits and _ + - .",
            "name the enclave");
    // Instances of an outer enclave bring their inner ones again, told apart by their suffix.
    if (!enclave_names_.insert(name + instance_).second)
      wrong(at, "a second enclave \"" + name + "\"", "each name once", "rename it, or use num");
    unsigned num = number(at, "num", 1, 64, 1);
    std::string bundle = at.attribute("bundle").value(), existing = at.attribute("use").value();
    if (!bundle.empty() && !existing.empty())
      wrong(at, "bundle and use", "one of the two", "remove one");
    if (!existing.empty() && num > 1)
      wrong(at, "use with num", "one instance of an existing enclave", "remove num");
    if (!bundle.empty() && bundle.front() != '/') bundle = folder_ + "/" + bundle;
    std::vector<std::string> inner = spaces;
    std::string space = at.attribute("mpiComm").value();
    if (!space.empty()) inner.push_back(space);
    for (unsigned i = 0; i < num; ++i) {
      std::string before = instance_;
      if (num > 1) instance_ += "." + std::to_string(i);
      if (out_.composition.enclaves.size() > 1024) return;
      std::size_t index = out_.composition.enclaves.size();
      out_.composition.enclaves.push_back({name + instance_, bundle.empty() ? "" : absolute(bundle),
                                           existing, space, parent, line_at(at.offset_debug())});
      bool has_apps = false;
      for (pugi::xml_node child : at.children()) {
        if (child.type() != pugi::node_element) continue;
        std::string kind = child.name();
        if (kind == "enclave") {
          read_enclave(child, static_cast<int>(index), inner);
        } else if (kind == "app") {
          read_app(child, index, inner);
          has_apps = true;
        } else {
          wrong(child, "<" + kind + ">", "<enclave> or <app> inside <enclave>", "remove it");
        }
      }
      if (has_apps && bundle.empty() && existing.empty())
        out_.needs.push_back("enclave \"" + name + "\" (line " +
                             std::to_string(line_at(at.offset_debug())) +
                             ") needs bundle=\"FOLDER\" or use=\"ID\"");
      instance_ = before;
      if (!out_.problems.empty()) return;  // further instances would only repeat them
    }
  }

  void read_app(pugi::xml_node at, std::size_t enclave, const std::vector<std::string>& spaces) {
    only_attributes(at, {"name", "path", "argv", "ranks", "cores", "cwd", "mpi"});
    Composition& c = out_.composition;
    CompositionApp app;
    app.line = line_at(at.offset_debug());
    app.enclave = enclave;
    app.path = at.attribute("path").value();
    // A path with a folder in it is relative to the document; a bare name is looked for in the
    // enclave's PATH.
    if (app.path.find('/') != std::string::npos && app.path.front() != '/')
      app.path = absolute(folder_ + "/" + app.path);
    app.name = at.attribute("name").value();
    if (app.name.empty())
      app.name =
          app.path.empty() ? c.enclaves[enclave].name : app.path.substr(app.path.rfind('/') + 1);
    app.name += app.name == c.enclaves[enclave].name ? "" : instance_;
    if (!check_id(app.name))
      wrong(at, "name=\"" + app.name.substr(0, 40) + "\"", "letters, digits and _ + - .",
            "rename it");
    for (const CompositionApp& other : c.apps)
      if (other.name == app.name)
        wrong(at, "a second app \"" + app.name + "\"", "each app named once",
              "give it a name=\"...\" of its own");
    if (app.path.empty())
      out_.needs.push_back("app \"" + app.name + "\" (line " + std::to_string(app.line) +
                           ") needs path=\"PROGRAM\"");
    app.directory = at.attribute("cwd").as_string("");
    if (at.attribute("cwd") && (app.directory.empty() || app.directory[0] != '/'))
      wrong(at, "cwd=\"" + app.directory + "\"", "an absolute path", "");
    app.ranks = number(at, "ranks", 1, composition_rank_limit, 1);
    if (pugi::xml_attribute cores = at.attribute("cores")) {
      auto list = CpuSet::parse(cores.value());
      if (list && !list->empty())
        app.cores = *list;
      else
        wrong(at, "cores=\"" + std::string(cores.value()) + "\"",
              "a list such as 0-1, counted inside the enclave", "");
    }
    split_words(at.attribute("argv").value(), app.args);
    std::string mpi = at.attribute("mpi").as_string("yes");
    if (mpi != "yes" && mpi != "no")
      wrong(at, "mpi=\"" + mpi.substr(0, 40) + "\"", "yes or no", "");
    app.mpi = mpi != "no";
    if (app.mpi) app.spaces = spaces;
    std::size_t unnamed = 0;
    for (pugi::xml_node child : at.children()) {
      if (child.type() != pugi::node_element) continue;
      std::string kind = child.name();
      if (kind == "arg") {
        app.args.emplace_back(child.text().get());
      } else if (kind == "env") {
        only_attributes(child, {"name", "value"});
        std::string name = child.attribute("name").value();
        if (name.empty() || name.find('=') != std::string::npos)
          wrong(child, "name=\"" + name + "\"", "a variable's name", "");
        app.env.push_back(name + "=" + child.attribute("value").value());
      } else if (kind == "mpiComm") {
        only_attributes(child, {"name"});
        if (!app.mpi)
          wrong(child, "<mpiComm> in an app with mpi=\"no\"", "none: it is a member of no space",
                "remove one of the two");
        join(child, spaces, app, unnamed);
      } else {
        wrong(child, "<" + kind + ">", "<arg>, <env> or <mpiComm> inside <app>", "remove it");
      }
    }
    c.apps.push_back(std::move(app));
  }

  // Without a name: the spaces of the enclosing enclaves, from the outside in, one after the other.
  // With one: that space.
  void join(pugi::xml_node at, const std::vector<std::string>& enclosing, CompositionApp& app,
            std::size_t& unnamed) {
    if (at.first_child())
      wrong(at, "content in <mpiComm>", "an empty element",
            "write <mpiComm/> or <mpiComm name=\"...\"/>");
    std::string name = at.attribute("name").value();
    if (!at.attribute("name")) {
      if (++unnamed >= enclosing.size())
        wrong(at, std::to_string(unnamed) + " <mpiComm/> without a name",
              "at most one for each of the " + std::to_string(enclosing.size() - 1) +
                  " enclosing spaces",
              "remove it, or name a space");
      return;
    }
    const auto& known = out_.composition.spaces;
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      std::string all;
      for (const std::string& one : known) all += (all.empty() ? "" : ", ") + one;
      wrong(at, "the space \"" + name + "\"", "a space of this composition: " + all,
            "name an enclave's mpiComm");
      return;
    }
    if (std::find(app.spaces.begin(), app.spaces.end(), name) == app.spaces.end())
      app.spaces.push_back(name);
  }

  static void split_words(const std::string& text, std::vector<std::string>& out) {
    for (std::size_t begin = 0;
         (begin = text.find_first_not_of(" \t\r\n", begin)) != std::string::npos;) {
      std::size_t end = std::min(text.find_first_of(" \t\r\n", begin), text.size());
      out.push_back(text.substr(begin, end - begin));
      begin = end;
    }
  }

  const std::string& text_;
  const std::string& folder_;
  CompositionCheck& out_;
  std::set<std::string> enclave_names_;
  std::string instance_;
};

}  // namespace

unsigned Composition::ranks() const {
  unsigned sum = 0;
  for (const CompositionApp& app : apps) sum += app.mpi ? app.ranks : 0;
  return sum;
}

std::vector<unsigned> Composition::members(const std::string& space) const {
  std::vector<unsigned> out;
  for (const CompositionApp& app : apps)
    if (std::find(app.spaces.begin(), app.spaces.end(), space) != app.spaces.end())
      for (unsigned i = 0; i < app.ranks; ++i) out.push_back(app.first_rank + i);
  return out;
}

CompositionCheck check_composition(const std::string& text, const std::string& name,
                                   const std::string& folder) {
  CompositionCheck out;
  out.composition.name = name;
  if (text.size() > composition_size_limit) {
    out.problems.push_back({0, std::to_string(text.size()) + " bytes",
                            "at most " + std::to_string(composition_size_limit),
                            "make it smaller"});
  } else if (!is_utf8(text) || text.find('\0') != std::string::npos) {
    out.problems.push_back({0, "bytes that are not UTF-8 text", "UTF-8", "save the file as UTF-8"});
  } else if (depth_of(text) > composition_depth_limit) {
    out.problems.push_back({0, "elements nested " + std::to_string(depth_of(text)) + " deep",
                            "at most " + std::to_string(composition_depth_limit), "nest less"});
  } else {
    Reader(text, folder, out).read();
  }
  return out;
}

Result<CompositionCheck> check_composition_file(const std::string& path) {
  std::string whole = absolute(path);
  auto text = Files::system().read(whole, composition_size_limit + 1);
  if (!text) return std::move(text.error()).within("load composition " + whole);
  std::string folder = whole.substr(0, whole.rfind('/'));
  std::string name = whole.substr(whole.rfind('/') + 1);
  name = name.substr(0, name.rfind('.'));
  CompositionCheck out = check_composition(*text, name, folder);
  out.composition.file = whole;
  return out;
}

Result<Composition> load_composition(const std::string& path, bool open) {
  HOBBES_TRY(check, check_composition_file(path));
  if (!check.problems.empty())
    return Error{
        Code::invalid, "load composition " + path,
        std::to_string(check.problems.size()) + " problem(s)\n" + report(path, check.problems),
        "mend them and check with `remora validate " + path + "`"};
  if (!check.needs.empty() && !open) {
    std::string all;
    for (const std::string& need : check.needs) all += "\n  " + need;
    return Error{Code::invalid, "run composition " + path, "it is valid but not complete:" + all,
                 "add what is missing"};
  }
  return std::move(check.composition);
}

std::string report(const std::string& file, const std::vector<CompositionProblem>& problems) {
  std::string out;
  for (const CompositionProblem& p : problems) {
    if (!out.empty()) out += "\n";
    out += "  " + file + (p.line != 0 ? ":" + std::to_string(p.line) : "") + ": found " + p.found +
           ", allowed " + p.allowed;
    if (!p.remedy.empty()) out += "; " + p.remedy;
  }
  return out;
}

}  // namespace hobbes
