// A command around edgekd_runner.hpp: results of images as JSON lines, golden outputs, times. Images are PPM (P6) or
// .npy files.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <sstream>

#include "arrays.hpp"
#include "edgekd_runner.hpp"
#include "golden.hpp"

namespace {

using edgekd::Error;
using files::Array;
using files::read_image;
using files::view_of;
using files::write_npy;

const char* const kUsage =
    "usage: edgekd-run BUNDLE [IMAGE.ppm|IMAGE.npy ...] [--out FOLDER] [--threads N] [--engine-threads N] [--min-score "
    "S] [--replay]\n"
    "       edgekd-run BUNDLE --check [--replay]\n"
    "       edgekd-run BUNDLE IMAGE ... --bench < COUNTS\n"
    "IMAGE ...  one line of JSON for each image on standard output, as docs/reference/results-json.md\n"
    "--out      writes each image's input and result into FOLDER as .npy files\n"
    "--check    compares with the bundle's golden outputs and results\n"
    "--replay   takes golden outputs instead of an engine: with --check each image's, else those of the first\n"
    "--bench    for each count on standard input: runs so many images, and prints the nanoseconds of each\n";

// ---- output

std::string as_json(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    char escape[8];
    std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(static_cast<unsigned char>(c)));
    out += static_cast<unsigned char>(c) < ' ' ? std::string(escape) : std::string(1, c);
  }
  return out + '"';
}

std::string class_name(const edgekd::ModelSpec& spec, std::size_t label) {
  return as_json(label < spec.classes.size() ? spec.classes[label] : std::to_string(label));
}

/// A number with at most so many decimals.
std::string rounded(double value, int decimals) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}

/// Shares of the classes in a class map, the largest first.
std::string shares_json(const edgekd::ClassMap& map, const edgekd::ModelSpec& spec) {
  std::vector<std::pair<std::size_t, std::size_t>> counts;  // pixels, class
  for (std::size_t k = 0; k < 256; ++k) counts.emplace_back(0, k);
  for (const std::uint8_t found : map.classes) ++counts[found].first;
  std::stable_sort(counts.begin(), counts.end(),
                   [](const auto& one, const auto& other) { return one.first > other.first; });
  std::string out;
  for (const auto& [pixels, k] : counts) {
    if (pixels == 0) break;
    out += (out.empty() ? "" : ",") + class_name(spec, k) + ":" +
           rounded(static_cast<double>(pixels) / static_cast<double>(map.classes.size()), 4);
  }
  return "{" + out + "}";
}

/// Run lengths of a mask over the whole image, column by column, zeros first, as COCO counts them.
std::string runs_json(const edgekd::Detections& found, std::size_t object) {
  const edgekd::Mask& mask = found.masks[object];
  const std::uint8_t* pixels = found.pixels_of(object);
  const std::int64_t height = found.size.height, end = height * found.size.width;
  std::int64_t begin = 0;
  std::uint8_t value = 0;
  std::string out;
  const auto turn = [&](std::int64_t at) {
    out += std::to_string(at - begin) + ",";
    begin = at;
    value = value == 0 ? 1 : 0;
  };
  for (std::int64_t x = mask.x1; x < mask.x2; ++x) {
    if (value == 1 && mask.y1 > 0) turn(x * height);
    for (std::int64_t y = mask.y1; y < mask.y2; ++y)
      if (pixels[(y - mask.y1) * (mask.x2 - mask.x1) + x - mask.x1] != value) turn(x * height + y);
    if (value == 1 && mask.y2 < height) turn(x * height + mask.y2);
  }
  if (value == 1) turn(mask.x2 * height);
  return "[" + out + std::to_string(end - begin) + "]";
}

std::string objects_json(const edgekd::Detections& found, const edgekd::ModelSpec& spec) {
  std::string out;
  for (std::size_t i = 0; i < found.boxes.size(); ++i) {
    const edgekd::Box& box = found.boxes[i];
    out += std::string(i > 0 ? "," : "") + "{\"class\":" + class_name(spec, static_cast<std::size_t>(found.labels[i])) +
           ",\"score\":" + rounded(found.scores[i], 4) + ",\"box_xyxy\":[" + rounded(box.x1, 2) + "," +
           rounded(box.y1, 2) + "," + rounded(box.x2, 2) + "," + rounded(box.y2, 2) + "]";
    if (found.has_masks)
      out += ",\"mask\":{\"size\":[" + std::to_string(found.size.height) + "," + std::to_string(found.size.width) +
             "],\"counts\":" + runs_json(found, i) + "}";
    out += "}";
  }
  return "[" + out + "]";
}

/// One line of JSON, schema edgekd.results/1.
void print(const std::string& source, std::size_t index, const edgekd::ImageView& image, const edgekd::ModelSpec& spec,
           const edgekd::Result& result, std::size_t most) {
  std::string line = "{\"schema\":\"edgekd.results/1\",\"source\":" + as_json(source) +
                     ",\"index\":" + std::to_string(index) + ",\"width\":" + std::to_string(image.width) +
                     ",\"height\":" + std::to_string(image.height);
  if (const auto* map = std::get_if<edgekd::ClassMap>(&result)) {
    line += ",\"classes\":" + shares_json(*map, spec);
  } else {
    const auto& found = std::get<edgekd::Detections>(result);
    line +=
        ",\"objects\":" + objects_json(found, spec) + ",\"more\":" + (found.boxes.size() >= most ? "true" : "false");
  }
  std::cout << line << "}" << std::endl;
}

void save(const std::string& stem, const edgekd::ModelSpec& spec, const edgekd::TensorView& input,
          const edgekd::Result& result) {
  write_npy(stem + ".input.npy", spec.input.dtype == edgekd::DType::uint8 ? "|u1" : "<f4", spec.input.shape, input.data,
            input.bytes);
  if (const auto* map = std::get_if<edgekd::ClassMap>(&result)) {
    write_npy(stem + ".class_map.npy", "|u1", {map->size.height, map->size.width}, map->classes.data(),
              map->classes.size());
    return;
  }
  const auto& found = std::get<edgekd::Detections>(result);
  const auto count = static_cast<std::int64_t>(found.boxes.size());
  write_npy(stem + ".boxes.npy", "<f4", {count, 4}, found.boxes.data(), found.boxes.size() * sizeof(edgekd::Box));
  write_npy(stem + ".scores.npy", "<f4", {count}, found.scores.data(), found.scores.size() * sizeof(float));
  write_npy(stem + ".labels.npy", "<i8", {count}, found.labels.data(), found.labels.size() * sizeof(std::int64_t));
  if (!found.has_masks) return;
  std::vector<std::int64_t> corners;
  for (const edgekd::Mask& mask : found.masks)
    for (const int side : {mask.x1, mask.y1, mask.x2, mask.y2}) corners.push_back(side);
  write_npy(stem + ".corners.npy", "<i8", {count, 4}, corners.data(), corners.size() * sizeof(std::int64_t));
  write_npy(stem + ".mask_pixels.npy", "|u1", {static_cast<std::int64_t>(found.mask_pixels.size())},
            found.mask_pixels.data(), found.mask_pixels.size());
}

// ---- bench

void bench(edgekd::Runner& runner, const std::vector<Array>& images) {
  using Clock = std::chrono::steady_clock;
  const auto ns = [](Clock::time_point from, Clock::time_point to) {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(to - from).count();
  };
  std::size_t count = 0, next = 0;
  while (std::cin >> count) {
    std::ostringstream out;
    for (std::size_t i = 0; i < std::min<std::size_t>(count, 1000000); ++i) {
      const edgekd::ImageView view = view_of(images[next++ % images.size()]);
      const auto start = Clock::now();
      const edgekd::TensorView input = runner.prepare(view);
      const auto prepared = Clock::now();
      const std::vector<edgekd::TensorView>& outputs = runner.run(input);
      const auto ran = Clock::now();
      runner.finish(outputs, {view.height, view.width});
      const auto end = Clock::now();
      out << (i > 0 ? ", " : "") << "[" << ns(start, prepared) << ", " << ns(prepared, ran) << ", " << ns(ran, end)
          << "]";
    }
    std::cout << "[" << out.str() << "]" << std::endl;
  }
}

struct Arguments {
  std::string bundle, out;
  std::vector<std::string> images;
  bool is_check = false, is_replay = false, is_bench = false;
  edgekd::Options options;
};

Arguments parse(int count, char** texts) {
  Arguments asked;
  const auto number = [&](int& i, double most) {
    char* end = nullptr;
    const double value = i + 1 < count ? std::strtod(texts[i + 1], &end) : -1;
    if (end == nullptr || *end != '\0' || !(value >= 0 && value <= most))
      throw Error(std::string(texts[i]) + ": expected a number from 0 to " + std::to_string(most));
    ++i;
    return value;
  };
  for (int i = 1; i < count; ++i) {
    const std::string text = texts[i];
    if (text == "--check")
      asked.is_check = true;
    else if (text == "--replay")
      asked.is_replay = true;
    else if (text == "--bench")
      asked.is_bench = true;
    else if (text == "--threads")
      asked.options.threads = static_cast<int>(number(i, 64));
    else if (text == "--engine-threads")
      asked.options.engine_threads = static_cast<int>(number(i, 1024));
    else if (text == "--min-score")
      asked.options.selection.min_score = number(i, 1);
    else if (text == "--out" && i + 1 < count)
      asked.out = texts[++i];
    else if (text.rfind("--", 0) == 0)
      throw Error("unknown option " + text + "\n" + kUsage);
    else if (asked.bundle.empty())
      asked.bundle = text;
    else
      asked.images.push_back(text);
  }
  const bool has_work = asked.is_check || !asked.images.empty();
  if (asked.bundle.empty() || !has_work)
    throw Error(std::string("expected a bundle's folder, and images or --check\n") + kUsage);
  return asked;
}

/// Whether the engine's answers are within the bundle's tolerance.
bool is_golden(const std::string& bundle, edgekd::Runner& runner, golden::Replay* replay) {
  const edgekd::Manifest& manifest = runner.manifest();
  if (manifest.golden == 0) throw Error(bundle + ": no golden images; make the bundle with some");
  const golden::Report report = golden::check(bundle, runner, replay);
  const bool has_passed = report.error <= manifest.golden_error && report.different <= manifest.golden_different;
  std::cout << "{\"golden\":" << manifest.golden << ",\"error\":" << report.error
            << ",\"different\":" << report.different << ",\"compared\":" << report.compared
            << ",\"passed\":" << (has_passed ? "true" : "false") << "}" << std::endl;
  return has_passed;
}

int run(const Arguments& asked) {
  auto recorded = std::make_unique<golden::Replay>();
  golden::Replay* replay = asked.is_replay ? recorded.get() : nullptr;
  edgekd::Runner runner = replay != nullptr ? edgekd::Runner::open(asked.bundle, std::move(recorded), asked.options)
                                            : edgekd::Runner::open(asked.bundle, asked.options);
  std::cerr << runner.manifest().name << ": " << runner.engine() << std::endl;
  if (asked.is_check) return is_golden(asked.bundle, runner, replay) ? 0 : 1;
  if (replay != nullptr) replay->set(golden::read(asked.bundle, 0, runner.spec()));
  if (asked.is_bench) {
    std::vector<Array> images;
    for (const std::string& path : asked.images) images.push_back(read_image(path));
    bench(runner, images);
    return 0;
  }
  for (std::size_t i = 0; i < asked.images.size(); ++i) {
    const std::string& path = asked.images[i];
    const Array image = read_image(path);
    const edgekd::ImageView view = view_of(image);
    const edgekd::TensorView input = runner.prepare(view);
    const edgekd::Result& result = runner.finish(runner.run(input), {view.height, view.width});
    print(path, i, view, runner.spec(), result, asked.options.selection.most);
    if (asked.out.empty()) continue;
    const std::size_t slash = path.find_last_of('/'), begin = slash == std::string::npos ? 0 : slash + 1;
    save(asked.out + "/" + path.substr(begin, path.find_last_of('.') - begin), runner.spec(), input, result);
  }
  return 0;
}

}  // namespace

int main(int count, char** texts) {
  try {
    return run(parse(count, texts));
  } catch (const std::exception& error) {
    std::cerr << "edgekd-run: " << error.what() << std::endl;
    return 1;
  }
}
