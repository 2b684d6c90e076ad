// A command around edgekd_runner.hpp: results of images as JSON lines, golden outputs, times. Images are PPM (P6) or .npy files.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <sstream>

#include "edgekd_runner.hpp"

namespace {

using edgekd::Error;

const char* const kUsage =
    "usage: edgekd-run BUNDLE [IMAGE.ppm|IMAGE.npy ...] [--out FOLDER] [--threads N] [--engine-threads N] [--min-score S]\n"
    "       edgekd-run BUNDLE --check [--replay]\n"
    "       edgekd-run BUNDLE IMAGE ... --bench < COUNTS\n"
    "IMAGE ...  one line of JSON for each image on standard output\n"
    "--out      writes each image's input and result into FOLDER as .npy files\n"
    "--check    compares with the bundle's golden outputs and results\n"
    "--replay   uses the golden outputs instead of an engine, so that only what is around it is checked\n"
    "--bench    for each count on standard input: runs so many images, and prints the nanoseconds of each\n";

// -------------------------------------------------------------------------------------------------------------- arrays

constexpr std::size_t kMostBytes = std::size_t{1} << 30U;

/// An array of an .npy file.
struct Array {
  std::string descr;  // numpy's, e.g. "<f4"
  std::vector<std::int64_t> shape;
  std::vector<char> bytes;
  template <typename Value>
  const Value* as() const {
    return reinterpret_cast<const Value*>(bytes.data());
  }
  std::size_t count() const {
    std::size_t values = 1;
    for (const std::int64_t side : shape) values *= static_cast<std::size_t>(side);
    return values;
  }
};

std::string read_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (!in.good() && !in.eof()) throw Error(path + ": cannot be read");
  if (text.empty()) throw Error(path + ": no such file, or an empty one");
  if (text.size() > kMostBytes) throw Error(path + ": larger than 1 GiB");
  return text;
}

/// The text behind `'name': ` in the header of an .npy file.
std::string header_value(const std::string& path, const std::string& header, const std::string& name, char end) {
  const std::size_t at = header.find("'" + name + "': ");
  const std::size_t begin = at + name.size() + 4;
  const std::size_t stop = at == std::string::npos ? at : header.find(end, begin);
  if (stop == std::string::npos) throw Error(path + ": no .npy file: no " + name);
  return header.substr(begin, stop - begin);
}

Array read_npy(const std::string& path) {
  const std::string text = read_text(path);
  if (text.size() < 12 || text.compare(0, 6, "\x93NUMPY") != 0 || text[6] != 1) throw Error(path + ": expected an .npy file of version 1.0");
  const std::size_t begin = 10, length = static_cast<unsigned char>(text[8]) + 256U * static_cast<unsigned char>(text[9]);
  if (begin + length > text.size()) throw Error(path + ": no .npy file: it ends in its header");
  const std::string header = text.substr(begin, length);
  Array array;
  array.descr = header_value(path, header, "descr", ',');
  if (array.descr.size() != 5) throw Error(path + ": expected numbers, got " + array.descr);
  array.descr = array.descr.substr(1, 3);
  if (header_value(path, header, "fortran_order", ',') != "False") throw Error(path + ": expected C order");
  std::istringstream sides(header_value(path, header, "shape", ')').substr(1));
  std::string side;
  std::size_t bytes = static_cast<std::size_t>(array.descr[2] - '0');
  while (std::getline(sides, side, ',')) {
    if (side.find_first_of("0123456789") == std::string::npos) continue;
    array.shape.push_back(std::stoll(side));
    if (array.shape.back() < 0 || array.shape.back() > static_cast<std::int64_t>(kMostBytes)) throw Error(path + ": a side is out of range");
    bytes *= static_cast<std::size_t>(array.shape.back());
    if (bytes > kMostBytes) throw Error(path + ": larger than 1 GiB");
  }
  if (text.size() - begin - length != bytes) throw Error(path + ": no .npy file: its length is not that of its shape");
  array.bytes.assign(text.begin() + static_cast<std::ptrdiff_t>(begin + length), text.end());
  return array;
}

void write_npy(const std::string& path, const std::string& descr, const std::vector<std::int64_t>& shape, const void* data, std::size_t bytes) {
  std::string sides;
  for (const std::int64_t side : shape) sides += std::to_string(side) + ", ";
  std::string header = "{'descr': '" + descr + "', 'fortran_order': False, 'shape': (" + sides + "), }";
  header.append(63 - (10 + header.size()) % 64, ' ');
  header += '\n';
  std::ofstream out(path, std::ios::binary);
  out << "\x93NUMPY" << '\x01' << '\0' << static_cast<char>(header.size() % 256) << static_cast<char>(header.size() / 256) << header;
  out.write(static_cast<const char*>(data), static_cast<std::streamsize>(bytes));
  out.close();
  if (!out) throw Error(path + ": cannot be written");
}

/// A PPM file (P6, 255) as an array (height, width, 3).
Array read_ppm(const std::string& path) {
  const std::string text = read_text(path);
  std::size_t at = 2;
  std::int64_t numbers[3] = {};
  for (std::int64_t& number : numbers) {
    while (at < text.size() && (std::isspace(static_cast<unsigned char>(text[at])) != 0 || text[at] == '#'))
      at = text[at] == '#' ? std::min(text.find('\n', at), text.size()) : at + 1;
    while (at < text.size() && std::isdigit(static_cast<unsigned char>(text[at])) != 0 && number < 100000) number = 10 * number + (text[at++] - '0');
  }
  const std::int64_t bytes = 3 * numbers[0] * numbers[1];
  if (text.compare(0, 2, "P6") != 0 || numbers[2] != 255 || static_cast<std::int64_t>(text.size() - std::min(at + 1, text.size())) != bytes)
    throw Error(path + ": expected a binary PPM file (P6) with 255 as its largest value");
  return {"|u1", {numbers[1], numbers[0], 3}, std::vector<char>(text.begin() + static_cast<std::ptrdiff_t>(at + 1), text.end())};
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

Array read_image(const std::string& path) {
  Array image = ends_with(path, ".npy") ? read_npy(path) : read_ppm(path);
  if (image.descr != "|u1" || image.shape.size() != 3 || image.shape[2] != 3) throw Error(path + ": expected uint8 pixels (height, width, 3)");
  return image;
}

edgekd::ImageView view_of(const Array& image) {
  return {image.as<std::uint8_t>(), static_cast<int>(image.shape[0]), static_cast<int>(image.shape[1])};
}

// --------------------------------------------------------------------------------------------------------------- output

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
  return label < spec.classes.size() ? spec.classes[label] : std::to_string(label);
}

void print(const std::string& name, const edgekd::ModelSpec& spec, const edgekd::Result& result) {
  std::ostringstream out;
  out.precision(9);
  out << "{\"image\": " << as_json(name);
  if (const auto* map = std::get_if<edgekd::ClassMap>(&result)) {
    std::vector<std::size_t> pixels(256);
    for (const std::uint8_t found : map->classes) ++pixels[found];
    const char* separator = "";
    out << ", \"size\": [" << map->size.height << ", " << map->size.width << "], \"pixels\": {";
    for (std::size_t k = 0; k < pixels.size(); ++k) {
      if (pixels[k] == 0) continue;
      out << separator << as_json(class_name(spec, k)) << ": " << pixels[k];
      separator = ", ";
    }
    out << "}}";
  } else {
    const auto& found = std::get<edgekd::Detections>(result);
    out << ", \"size\": [" << found.size.height << ", " << found.size.width << "], \"objects\": [";
    for (std::size_t i = 0; i < found.boxes.size(); ++i) {
      const edgekd::Box& box = found.boxes[i];
      out << (i > 0 ? ", " : "") << "{\"class\": " << as_json(class_name(spec, static_cast<std::size_t>(found.labels[i])))
          << ", \"score\": " << found.scores[i] << ", \"box\": [" << box.x1 << ", " << box.y1 << ", " << box.x2 << ", " << box.y2 << "]}";
    }
    out << "]}";
  }
  std::cout << out.str() << std::endl;
}

void save(const std::string& stem, const edgekd::ModelSpec& spec, const edgekd::TensorView& input, const edgekd::Result& result) {
  write_npy(stem + ".input.npy", spec.input.dtype == edgekd::DType::uint8 ? "|u1" : "<f4", spec.input.shape, input.data, input.bytes);
  if (const auto* map = std::get_if<edgekd::ClassMap>(&result)) {
    write_npy(stem + ".class_map.npy", "|u1", {map->size.height, map->size.width}, map->classes.data(), map->classes.size());
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
  write_npy(stem + ".mask_pixels.npy", "|u1", {static_cast<std::int64_t>(found.mask_pixels.size())}, found.mask_pixels.data(), found.mask_pixels.size());
}

// --------------------------------------------------------------------------------------------------------------- golden

/// Returns outputs that were recorded, instead of running a network.
class Replay final : public edgekd::Engine {
 public:
  void set(std::vector<edgekd::TensorView> outputs) { outputs_ = std::move(outputs); }
  const std::vector<edgekd::TensorView>& infer(const edgekd::TensorView&) override { return outputs_; }
  std::string description() const override { return "golden outputs"; }

 private:
  std::vector<edgekd::TensorView> outputs_;
};

/// Root mean square of the differences, in units of the golden output's standard deviation.
double error_of(const edgekd::TensorView& output, const Array& golden) {
  const auto* found = static_cast<const float*>(output.data);
  const auto* expected = golden.as<float>();
  const auto count = static_cast<double>(golden.count());
  double mean = 0, variance = 0, square = 0;
  for (std::size_t i = 0; i < golden.count(); ++i) mean += expected[i] / count;
  for (std::size_t i = 0; i < golden.count(); ++i) {
    variance += (expected[i] - mean) * (expected[i] - mean) / count;
    square += std::pow(static_cast<double>(found[i]) - expected[i], 2) / count;
  }
  return square == 0 ? 0 : std::sqrt(square) / std::max(std::sqrt(variance), 1e-9);
}

std::vector<Array> golden_outputs(const std::string& folder, const edgekd::ModelSpec& spec) {
  std::vector<Array> outputs;
  for (std::size_t i = 0; i < spec.outputs.size(); ++i) {
    const edgekd::TensorSpec& tensor = spec.outputs[i];
    const std::string named = folder + "/outputs/" + tensor.name + ".npy";
    const bool is_named = tensor.name.find('/') == std::string::npos && std::ifstream(named).good();
    outputs.push_back(read_npy(is_named ? named : folder + "/outputs/" + std::to_string(i) + ".npy"));
    if (outputs.back().shape != tensor.shape || outputs.back().bytes.size() != tensor.count() * edgekd::size_bytes(tensor.dtype))
      throw Error(folder + ": the golden output " + tensor.name + " is not of the shape in spec.json");
  }
  return outputs;
}

/// The share of pixels or objects that differ from the golden result. Objects are compared in order, to 0.01 of a pixel.
double different_share(const std::string& folder, const edgekd::Result& result) {
  if (const auto* map = std::get_if<edgekd::ClassMap>(&result)) {
    const Array golden = read_npy(folder + "/class_map.npy");
    if (golden.bytes.size() != map->classes.size()) return 1;
    std::size_t different = 0;
    for (std::size_t i = 0; i < golden.bytes.size(); ++i) different += golden.as<std::uint8_t>()[i] != map->classes[i] ? 1U : 0U;
    return static_cast<double>(different) / static_cast<double>(golden.bytes.size());
  }
  const auto& found = std::get<edgekd::Detections>(result);
  const Array boxes = read_npy(folder + "/boxes.npy"), scores = read_npy(folder + "/scores.npy"), labels = read_npy(folder + "/labels.npy");
  const std::size_t count = std::max(found.boxes.size(), scores.count());
  std::size_t same = 0;
  for (std::size_t i = 0; i < std::min({found.boxes.size(), scores.count(), labels.count(), boxes.count() / 4}); ++i) {
    const float* golden = boxes.as<float>() + 4 * i;
    const edgekd::Box& box = found.boxes[i];
    const double off = std::max({std::fabs(golden[0] - box.x1), std::fabs(golden[1] - box.y1), std::fabs(golden[2] - box.x2), std::fabs(golden[3] - box.y2)});
    same += labels.as<std::int64_t>()[i] == found.labels[i] && off <= 0.01 && std::fabs(scores.as<float>()[i] - found.scores[i]) <= 1e-4 ? 1U : 0U;
  }
  return count == 0 ? 0 : static_cast<double>(count - same) / static_cast<double>(count);
}

int check_golden(const std::string& bundle, edgekd::Runner& runner, Replay* replay) {
  const edgekd::Manifest& manifest = runner.manifest();
  bool is_good = manifest.golden > 0;
  for (int number = 0; number < manifest.golden; ++number) {
    const std::string folder = bundle + "/golden/" + std::to_string(number);
    const Array image = read_image(folder + "/image.npy");
    const std::vector<Array> golden = golden_outputs(folder, runner.spec());
    if (replay != nullptr) {
      std::vector<edgekd::TensorView> views;
      for (const Array& array : golden) views.push_back({array.bytes.data(), array.bytes.size()});
      replay->set(views);
    }
    const edgekd::ImageView view = view_of(image);
    const std::vector<edgekd::TensorView>& outputs = runner.run(runner.prepare(view));
    double error = 0;
    for (std::size_t i = 0; i < golden.size(); ++i)
      if (golden[i].descr == "<f4") error = std::max(error, error_of(outputs[i], golden[i]));
    const double different = different_share(folder, runner.finish(outputs, {view.height, view.width}));
    const bool is_same = error <= manifest.golden_error && different <= manifest.golden_different;
    is_good = is_good && is_same;
    std::cout << "{\"golden\": " << number << ", \"error\": " << error << ", \"different\": " << different << ", \"passed\": " << (is_same ? "true" : "false")
              << "}" << std::endl;
  }
  return is_good ? 0 : 1;
}

// ---------------------------------------------------------------------------------------------------------------- bench

void bench(edgekd::Runner& runner, const std::vector<Array>& images) {
  using Clock = std::chrono::steady_clock;
  const auto ns = [](Clock::time_point from, Clock::time_point to) { return std::chrono::duration_cast<std::chrono::nanoseconds>(to - from).count(); };
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
      out << (i > 0 ? ", " : "") << "[" << ns(start, prepared) << ", " << ns(prepared, ran) << ", " << ns(ran, end) << "]";
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
    if (end == nullptr || *end != '\0' || !(value >= 0 && value <= most)) throw Error(std::string(texts[i]) + ": expected a number from 0 to " + std::to_string(most));
    ++i;
    return value;
  };
  for (int i = 1; i < count; ++i) {
    const std::string text = texts[i];
    if (text == "--check") asked.is_check = true;
    else if (text == "--replay") asked.is_replay = true;
    else if (text == "--bench") asked.is_bench = true;
    else if (text == "--threads") asked.options.threads = static_cast<int>(number(i, 64));
    else if (text == "--engine-threads") asked.options.engine_threads = static_cast<int>(number(i, 1024));
    else if (text == "--min-score") asked.options.selection.min_score = number(i, 1);
    else if (text == "--out" && i + 1 < count) asked.out = texts[++i];
    else if (text.rfind("--", 0) == 0) throw Error("unknown option " + text + "\n" + kUsage);
    else if (asked.bundle.empty()) asked.bundle = text;
    else asked.images.push_back(text);
  }
  const bool has_work = asked.is_check || !asked.images.empty();
  if (asked.bundle.empty() || !has_work || (asked.is_replay && !asked.is_check)) throw Error(std::string("expected a bundle's folder, and images or --check\n") + kUsage);
  return asked;
}

int run(const Arguments& asked) {
  auto recorded = std::make_unique<Replay>();
  Replay* replay = asked.is_replay ? recorded.get() : nullptr;
  edgekd::Runner runner = replay != nullptr ? edgekd::Runner::open(asked.bundle, std::move(recorded), asked.options)
                                            : edgekd::Runner::open(asked.bundle, asked.options);
  std::cerr << runner.manifest().name << ": " << runner.engine() << std::endl;
  if (asked.is_check) return check_golden(asked.bundle, runner, replay);
  if (asked.is_bench) {
    std::vector<Array> images;
    for (const std::string& path : asked.images) images.push_back(read_image(path));
    bench(runner, images);
    return 0;
  }
  for (const std::string& path : asked.images) {
    const Array image = read_image(path);
    const edgekd::ImageView view = view_of(image);
    const edgekd::TensorView input = runner.prepare(view);
    const edgekd::Result& result = runner.finish(runner.run(input), {view.height, view.width});
    print(path, runner.spec(), result);
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
