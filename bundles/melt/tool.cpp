// The tool: draws what the analysis finds and keeps it as a table, in $REMORA_SHARE (or /tmp).
#include <cairo.h>
#include <mpi.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "attach.h"
#include "remora.h"

namespace {

class Picture {
 public:
  Picture(int width, int height)
      : surface_(cairo_image_surface_create(CAIRO_FORMAT_RGB24, width, height),
                 &cairo_surface_destroy),
        cairo_(cairo_create(surface_.get()), &cairo_destroy) {
    cairo_set_source_rgb(get(), 1, 1, 1);
    cairo_paint(get());
    cairo_select_font_face(get(), "sans-serif", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
  }
  cairo_t* get() { return cairo_.get(); }
  void text(double x, double y, double size, const std::string& words, bool centred = false) {
    cairo_set_font_size(get(), size);
    cairo_text_extents_t extents;
    cairo_text_extents(get(), words.c_str(), &extents);
    cairo_move_to(get(), centred ? x - extents.width / 2 : x, y);
    cairo_show_text(get(), words.c_str());
  }
  bool save(const std::string& path) {
    return cairo_surface_write_to_png(surface_.get(), path.c_str()) == CAIRO_STATUS_SUCCESS;
  }

 private:
  std::unique_ptr<cairo_surface_t, decltype(&cairo_surface_destroy)> surface_;
  std::unique_ptr<cairo_t, decltype(&cairo_destroy)> cairo_;
};

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

std::string number(double value, int digits) {
  char text[32];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

using Curve = std::array<double, melt::rdf_bins>;

bool draw_curve(const std::string& path, const Curve& first, const Curve& mean,
                std::int64_t steps) {
  Picture picture(960, 600);
  cairo_t* c = picture.get();
  const double left = 80, right = 920, top = 70, bottom = 520;
  double most = std::ceil(*std::max_element(mean.begin(), mean.end()) + 0.5);
  auto x_of = [&](double r) { return left + (right - left) * r / melt::rdf_range; };
  auto y_of = [&](double g) { return bottom - (bottom - top) * std::min(g, most) / most; };
  cairo_set_line_width(c, 1);
  for (int i = 0; i <= 5; ++i) {
    double r = melt::rdf_range * i / 5;
    cairo_set_source_rgb(c, 0.88, 0.88, 0.88);
    cairo_move_to(c, x_of(r), top);
    cairo_line_to(c, x_of(r), bottom);
    cairo_stroke(c);
    cairo_set_source_rgb(c, 0.2, 0.2, 0.2);
    picture.text(x_of(r), bottom + 24, 15, number(r, 1), true);
  }
  for (int g = 0; g <= static_cast<int>(most); ++g) {
    cairo_set_source_rgb(c, 0.88, 0.88, 0.88);
    cairo_move_to(c, left, y_of(g));
    cairo_line_to(c, right, y_of(g));
    cairo_stroke(c);
    cairo_set_source_rgb(c, 0.2, 0.2, 0.2);
    picture.text(left - 28, y_of(g) + 5, 15, number(g, 0));
  }
  auto plot = [&](const Curve& curve, double red, double green, double blue, double width) {
    cairo_new_path(c);
    cairo_set_source_rgb(c, red, green, blue);
    cairo_set_line_width(c, width);
    for (int bin = 0; bin < melt::rdf_bins; ++bin)
      cairo_line_to(c, x_of((bin + 0.5) * melt::rdf_range / melt::rdf_bins),
                    y_of(curve[static_cast<std::size_t>(bin)]));
    cairo_stroke(c);
  };
  plot(first, 0.75, 0.75, 0.78, 1.5);
  plot(mean, 0.10, 0.35, 0.70, 3);
  cairo_set_source_rgb(c, 0.1, 0.1, 0.1);
  picture.text(left, 40, 20, "Radial distribution function of the Lennard-Jones melt");
  picture.text(left, 60, 14,
               "blue: mean over " + std::to_string(steps) +
                   " steps of the liquid; grey: the crystal it started from (clipped)");
  picture.text((left + right) / 2, bottom + 52, 16, "distance r / sigma", true);
  picture.text(12, top - 14, 16, "g(r)");
  return picture.save(path);
}

// The box seen along z: near atoms over far ones, near ones lighter.
bool draw_atoms(const std::string& path, const melt::Frame& frame, std::uint32_t atoms) {
  Picture picture(760, 800);
  cairo_t* c = picture.get();
  const double left = 30, top = 70, size = 700;
  double side[3];
  for (int d = 0; d < 3; ++d) side[d] = frame.high[d] - frame.low[d];
  auto inside = [&](std::uint32_t i, int d) {
    double f = (frame.position[i][d] - frame.low[d]) / side[d];
    return f - std::floor(f);
  };
  std::vector<std::uint32_t> order(atoms);
  std::iota(order.begin(), order.end(), 0U);
  std::sort(order.begin(), order.end(),
            [&](std::uint32_t a, std::uint32_t b) { return inside(a, 2) < inside(b, 2); });
  double radius = 0.5 / side[0] * size;
  for (std::uint32_t i : order) {
    double x = left + inside(i, 0) * size, y = top + inside(i, 1) * size, near = inside(i, 2);
    cairo_pattern_t* ball =
        cairo_pattern_create_radial(x - radius * 0.3, y - radius * 0.3, radius * 0.1, x, y, radius);
    cairo_pattern_add_color_stop_rgb(ball, 0, 0.55 + 0.45 * near, 0.65 + 0.35 * near,
                                     0.8 + 0.2 * near);
    cairo_pattern_add_color_stop_rgb(ball, 1, 0.05 + 0.15 * near, 0.15 + 0.25 * near,
                                     0.25 + 0.45 * near);
    cairo_set_source(c, ball);
    cairo_arc(c, x, y, radius, 0, 2 * M_PI);
    cairo_fill(c);
    cairo_pattern_destroy(ball);
  }
  cairo_set_source_rgb(c, 0.1, 0.1, 0.1);
  cairo_rectangle(c, left, top, size, size);
  cairo_set_line_width(c, 1.5);
  cairo_stroke(c);
  picture.text(left, 40, 20,
               "The melt at step " + std::to_string(frame.step) + ": " + std::to_string(atoms) +
                   " atoms, seen along z");
  return picture.save(path);
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  const char* share = std::getenv("REMORA_SHARE");
  std::string folder = share != nullptr ? share : "/tmp";
  MPI_Barrier(MPI_COMM_UNIVERSE);  // the segment is there
  const melt::Segment& segment = melt::attach_frames("melt-tool");
  int app = 0, simulation = 0, analysis = 0, ranks = 0;
  if (remora_app("simulation", &app, &simulation, &ranks) != 0 ||
      remora_app("analysis", &app, &analysis, &ranks) != 0)
    MPI_Abort(MPI_COMM_WORLD, 1);

  std::unique_ptr<std::FILE, CloseFile> table(std::fopen((folder + "/rdf.csv").c_str(), "w"));
  if (!table) {
    std::fprintf(stderr, "melt-tool: cannot write %s/rdf.csv\n", folder.c_str());
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  std::fprintf(table.get(), "frame,step,bonds");
  for (int bin = 0; bin < melt::rdf_bins; ++bin)
    std::fprintf(table.get(), ",g(%.4f)", (bin + 0.5) * melt::rdf_range / melt::rdf_bins);
  std::fprintf(table.get(), "\n");

  Curve first{}, sum{};
  std::uint64_t averaged = 0;
  int told = 0;
  for (bool last = false; !last;) {
    melt::Announcement announcement{};
    melt::Result result{};
    MPI_Recv(&announcement, sizeof announcement, MPI_BYTE, simulation, melt::announcement_tag,
             MPI_COMM_UNIVERSE, MPI_STATUS_IGNORE);
    MPI_Recv(&result, sizeof result, MPI_BYTE, analysis, melt::result_tag, MPI_COMM_UNIVERSE,
             MPI_STATUS_IGNORE);
    last = announcement.last == 1;
    std::fprintf(table.get(), "%llu,%lld,%llu", static_cast<unsigned long long>(result.number),
                 static_cast<long long>(result.step),
                 static_cast<unsigned long long>(result.bonds));
    for (double g : result.rdf) std::fprintf(table.get(), ",%.9g", g);
    std::fprintf(table.get(), "\n");
    if (result.number == 0) std::copy(std::begin(result.rdf), std::end(result.rdf), first.begin());
    if (result.step * 10 >= announcement.last_step || last) {  // the crystal has melted by then
      for (std::size_t bin = 0; bin < sum.size(); ++bin) sum[bin] += result.rdf[bin];
      ++averaged;
    }
    int percent = announcement.last_step > 0
                      ? static_cast<int>(100 * announcement.step / announcement.last_step)
                      : 100;
    if (percent >= told) {
      std::printf("%3d %%  step %lld, %llu bonds\n", percent, static_cast<long long>(result.step),
                  static_cast<unsigned long long>(result.bonds));
      std::fflush(stdout);
      told = percent / 10 * 10 + 10;
    }
    if (last) {
      for (double& g : sum) g /= static_cast<double>(averaged);
      bool drawn =
          draw_curve(folder + "/rdf.png", first, sum, announcement.last_step) &&
          draw_atoms(folder + "/atoms.png", segment.frame[announcement.number % 2], segment.atoms);
      if (!drawn)
        std::fprintf(stderr, "melt-tool: cannot write the pictures to %s\n", folder.c_str());
      else
        std::printf("wrote %s/rdf.png, atoms.png and rdf.csv (%llu frames)\n", folder.c_str(),
                    static_cast<unsigned long long>(announcement.number + 1));
    }
    MPI_Send(&announcement.number, 1, MPI_UINT64_T, simulation, melt::acknowledgement_tag,
             MPI_COMM_UNIVERSE);
  }
  MPI_Finalize();
  return 0;
}
