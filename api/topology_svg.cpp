#include "api/topology_svg.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <vector>

#include "core/identity.h"
#include "core/size.h"
#include "enclave/describe.h"

namespace hobbes {
namespace {

constexpr int cell_width = 92, cell_height = 46, gap = 6, row_cells = 8;
constexpr int margin = 12, header = 24, bar = 14, legend_line = 22;
constexpr int width = 2 * 2 * margin + row_cells * (cell_width + gap) - gap;
// Colours that people with colour blindness tell apart (Okabe and Ito, Color Universal Design).
constexpr std::array<const char*, 8> palette = {"#56b4e9", "#e69f00", "#009e73", "#cc79a7",
                                                "#f0e442", "#0072b2", "#d55e00", "#999999"};

std::string escaped(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == '<')
      out += "&lt;";
    else if (c == '&')
      out += "&amp;";
    else if (c == '"')
      out += "&quot;";
    else
      out += c;
  }
  return out;
}

std::string text(int x, int y, const std::string& content, const char* kind, int size = 11) {
  return "<text x=\"" + std::to_string(x) + "\" y=\"" + std::to_string(y) + "\" class=\"" + kind +
         "\" font-size=\"" + std::to_string(size) + "\">" + escaped(content) + "</text>\n";
}

std::string box(int x, int y, int w, int h, const std::string& attributes) {
  return "<rect x=\"" + std::to_string(x) + "\" y=\"" + std::to_string(y) + "\" width=\"" +
         std::to_string(w) + "\" height=\"" + std::to_string(h) + "\" rx=\"4\" " + attributes +
         "/>\n";
}

std::string fitted(const std::string& name, std::size_t most) {
  return name.size() <= most ? name : name.substr(0, most - 1) + "…";
}

bool has_ended(const hobbes_record& enclave) {
  return enclave.state == HOBBES_STOPPED || enclave.state == HOBBES_CRASHED;
}

// What is drawn, in the order of the drawing.
class Drawing {
 public:
  explicit Drawing(NisReader& nis)
      : enclaves_(nis.all(HOBBES_ENCLAVE)),
        cores_(nis.all(HOBBES_CORE)),
        nodes_(nis.all(HOBBES_NUMA)) {
    auto by_id = [](const auto& a, const auto& b) { return a.id < b.id; };
    std::sort(enclaves_.begin(), enclaves_.end(), by_id);
    std::sort(cores_.begin(), cores_.end(),
              [](const auto& a, const auto& b) { return a.body.core.number < b.body.core.number; });
    std::sort(nodes_.begin(), nodes_.end(),
              [](const auto& a, const auto& b) { return a.body.numa.number < b.body.numa.number; });
  }

  std::string document() {
    std::set<unsigned> packages;
    for (const auto& core : cores_) packages.insert(core.body.core.package);
    for (const auto& node : nodes_) packages.insert(node.body.numa.package);
    for (unsigned package : packages) draw_socket(package);
    draw_legend();
    return "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + std::to_string(width) +
           " " + std::to_string(y_ + margin) +
           "\" font-family=\"system-ui, sans-serif\" role=\"img\" "
           "aria-label=\"Sockets, NUMA nodes and cores with their owners\">\n" +
           body_ + "</svg>\n";
  }

 private:
  // Its fill, and what ties a shape to its enclave.
  [[nodiscard]] std::string owned_by(std::uint64_t handle) const {
    auto at = std::find_if(enclaves_.begin(), enclaves_.end(),
                           [&](const auto& one) { return one.id == handle; });
    const auto number =
        static_cast<std::size_t>(std::distance(enclaves_.begin(), at)) % palette.size();
    return "fill=\"" + std::string(palette[number]) + "\" class=\"owned owner-" +
           std::to_string(number) + "\" data-enclave=\"" + hex(handle) + "\"";
  }
  [[nodiscard]] std::string name_of_owner(std::uint64_t handle) const {
    for (const auto& one : enclaves_)
      if (one.id == handle) return one.name;
    return "";
  }

  void draw_core(int x, int y, const hobbes_record& core) {
    const std::string owner = name_of_owner(core.enclave);
    std::string look = "fill=\"#ffffff\" stroke=\"#8a8f98\" class=\"core free\"", label = "free";
    if (core.state == HOBBES_CORE_RESERVED)
      look = "fill=\"#e4e6ea\" stroke=\"#8a8f98\" class=\"core host\"", label = "host";
    else if (core.state == HOBBES_CORE_OFFLINE)
      look = "fill=\"#e4e6ea\" stroke=\"#8a8f98\" stroke-dasharray=\"3 3\" class=\"core offline\"",
      label = "offline";
    else if (!owner.empty())
      look = owned_by(core.enclave) + " stroke=\"#30343b\"" +
             // Linux does not have it any more.
             (core.state == HOBBES_CORE_DETACHED ? " stroke-width=\"2.5\"" : ""),
      label = owner;
    const std::string name = "core " + std::to_string(core.body.core.number);
    body_ += "<g><title>" +
             escaped(name + ", CPU " + cpus_of(core.body.core.cpus).text() + ": " + label) +
             (core.state == HOBBES_CORE_DETACHED ? ", not Linux's" : "") + "</title>\n" +
             box(x, y, cell_width, cell_height, look) + text(x + 7, y + 17, name, "name") +
             text(x + 7, y + 35, fitted(label, 13), "owner", 12) + "</g>\n";
  }

  // Memory of a NUMA node: what the host keeps, what each enclave holds, what is free.
  void draw_memory(int x, int y, int w, const hobbes_record& node) {
    const hobbes_numa& numa = node.body.numa;
    body_ += box(x, y, w, bar, "fill=\"#ffffff\" stroke=\"#8a8f98\" class=\"memory free\"");
    if (numa.total == 0 || numa.number >= HOBBES_NUMA_NODES) return;
    int at = x;
    auto part = [&](std::uint64_t size, const std::string& what, const std::string& look) {
      const auto share = static_cast<int>(static_cast<double>(std::min(size, numa.total)) /
                                          static_cast<double>(numa.total) * w);
      const int wide = std::min(std::max(share, size > 0 ? 2 : 0), x + w - at);
      if (wide <= 0) return;
      body_ += "<g><title>" + escaped(what + ": " + format_size(size)) + "</title>" +
               box(at, y, wide, bar, look) + "</g>\n";
      at += wide;
    };
    part(numa.reserved, "host", "fill=\"#e4e6ea\" class=\"memory host\"");
    for (const auto& one : enclaves_)
      if (!has_ended(one)) part(one.body.enclave.memory[numa.number], one.name, owned_by(one.id));
  }

  void draw_node(const hobbes_record& node, unsigned package) {
    std::vector<const hobbes_record*> inside;
    for (const auto& core : cores_)
      if (core.body.core.package == package && core.body.core.numa == node.body.numa.number)
        inside.push_back(&core);
    if (inside.empty() && node.body.numa.package != package) return;
    const int rows = static_cast<int>((inside.size() + row_cells - 1) / row_cells);
    const int height = header + bar + 2 * margin + rows * (cell_height + gap);
    const int x = 2 * margin, w = width - 4 * margin;
    body_ += box(x - margin / 2, y_, w + margin, height,
                 "fill=\"none\" stroke=\"#8a8f98\" class=\"numa\"");
    body_ += text(x, y_ + 17,
                  "NUMA node " + std::to_string(node.body.numa.number) + ": " +
                      format_size(node.body.numa.total) + " memory, " +
                      format_size(node.body.numa.leased) + " leased",
                  "label", 12);
    draw_memory(x, y_ + header, w, node);
    const int top = y_ + header + bar + margin;
    for (std::size_t i = 0; i < inside.size(); ++i)
      draw_core(x + static_cast<int>(i % row_cells) * (cell_width + gap),
                top + static_cast<int>(i / row_cells) * (cell_height + gap), *inside[i]);
    y_ += height + gap;
  }

  void draw_socket(unsigned package) {
    const std::size_t before = body_.size();
    const int top = y_;
    y_ += header;
    for (const auto& node : nodes_) draw_node(node, package);
    const std::string inside = body_.substr(before);
    body_.resize(before);
    body_ += box(margin / 2, top, width - margin, y_ - top + gap,
                 "fill=\"#f6f7f9\" stroke=\"#30343b\" class=\"socket\"") +
             text(2 * margin, top + 18, "Socket " + std::to_string(package), "label", 13) + inside;
    y_ += margin + gap;
  }

  void draw_legend() {
    constexpr int column = width / 4;
    std::size_t shown = 0;
    for (const auto& one : enclaves_) {
      if (has_ended(one)) continue;
      const int x = 2 * margin + static_cast<int>(shown % 4) * column;
      const int y = y_ + static_cast<int>(shown / 4) * legend_line;
      body_ += box(x, y, 14, 14, owned_by(one.id) + " stroke=\"#30343b\"") +
               text(x + 20, y + 11,
                    fitted(one.name, 16) + " (" + text_at(describe(one), "kind") + ")", "label");
      ++shown;
    }
    y_ += static_cast<int>((shown + 3) / 4) * legend_line;
  }

  std::vector<hobbes_record> enclaves_, cores_, nodes_;
  std::string body_;
  int y_ = margin / 2;
};

}  // namespace

std::string topology_svg(NisReader& nis) { return Drawing(nis).document(); }

}  // namespace hobbes
