// Golden images of a bundle, compared with what the engine gives here: edgekd/runner/golden.py and
// edgekd/board/parity.py.
#pragma once

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "edgekd_runner.hpp"

namespace golden {

using edgekd::Error;
using files::Array;

/// One golden image. An output that the bundle does not have is without bytes.
struct GoldenImage {
  Array image;
  std::vector<Array> outputs;
};

inline std::string folder_of(const std::string& bundle, int number) {
  return bundle + "/golden/" + std::to_string(number);
}

inline Array read_array(const std::string& path, const std::string& descr, const std::vector<std::int64_t>& shape) {
  Array array = files::read_npy(path);
  if (array.descr != descr || array.shape != shape)
    throw Error(path + ": not the array that spec.json and the image make it");
  return array;
}

inline const char* descr_of(edgekd::DType dtype) {
  switch (dtype) {
    case edgekd::DType::uint8:
      return "|u1";
    case edgekd::DType::int32:
      return "<i4";
    case edgekd::DType::int64:
      return "<i8";
    default:
      return "<f4";
  }
}

inline GoldenImage read(const std::string& bundle, int number, const edgekd::ModelSpec& spec) {
  const std::string folder = folder_of(bundle, number);
  GoldenImage golden;
  golden.image = files::read_image(folder + "/image.npy");
  for (std::size_t i = 0; i < spec.outputs.size(); ++i) {
    const std::string path = folder + "/outputs/" + std::to_string(i) + ".npy";
    const bool is_there = std::ifstream(path).good();
    golden.outputs.push_back(is_there ? read_array(path, descr_of(spec.outputs[i].dtype), spec.outputs[i].shape)
                                      : Array{});
  }
  return golden;
}

/// Returns golden outputs instead of running a network.
class Replay final : public edgekd::Engine {
 public:
  void set(const GoldenImage& golden) {
    recorded_ = golden.outputs;
    outputs_.clear();
    for (const Array& array : recorded_) outputs_.push_back({array.bytes.data(), array.bytes.size()});
  }
  const std::vector<edgekd::TensorView>& infer(const edgekd::TensorView&) override { return outputs_; }
  std::string description() const override { return "golden outputs"; }

 private:
  std::vector<Array> recorded_;
  std::vector<edgekd::TensorView> outputs_;
};

/// Sums over the values of one output of all images.
struct Sums {
  double count = 0, largest = 1e-12, total = 0, squares = 0, squared_error = 0;

  void add(const float* expected, const float* found, std::size_t values) {
    for (std::size_t i = 0; i < values; ++i) {
      const double value = expected[i], error = found[i] - value;
      count += 1;
      largest = std::max(largest, std::fabs(value));
      total += value;
      squares += value * value;
      squared_error += std::isnan(error) ? HUGE_VAL : error * error;
    }
  }
  /// RMS of the differences over the standard deviation of the values, or over a hundredth of the largest.
  double rms_error() const {
    if (count == 0) return 0;
    const double deviation = std::sqrt(std::max(0.0, squares / count - total / count * (total / count)));
    return std::sqrt(squared_error / count) / std::max(deviation, 0.01 * largest);
  }
};

/// Detections, and each mask as bytes over the whole image.
struct Objects {
  std::vector<edgekd::Box> boxes;
  std::vector<float> scores;
  std::vector<std::int64_t> labels;
  std::vector<std::vector<std::uint8_t>> masks;
};

inline Objects objects_of(const edgekd::Detections& found) {
  Objects objects{found.boxes, found.scores, found.labels, {}};
  const auto width = static_cast<std::size_t>(found.size.width);
  for (std::size_t i = 0; i < found.masks.size(); ++i) {
    const edgekd::Mask& mask = found.masks[i];
    const std::uint8_t* pixels = found.pixels_of(i);
    objects.masks.emplace_back(static_cast<std::size_t>(found.size.height) * width);
    for (int y = mask.y1; y < mask.y2; ++y)
      for (int x = mask.x1; x < mask.x2; ++x)
        objects.masks.back()[static_cast<std::size_t>(y) * width + static_cast<std::size_t>(x)] = *pixels++;
  }
  return objects;
}

/// Reads run lengths, column by column and zeros first, into bytes row by row.
inline void read_masks(const std::string& folder, edgekd::Size size, Objects& objects) {
  const Array runs = files::read_npy(folder + "/mask_runs.npy"),
              counts = files::read_npy(folder + "/mask_run_counts.npy");
  if (runs.descr != "<u4" || counts.descr != "<u4" || counts.count() != objects.boxes.size())
    throw Error(folder + ": the golden masks are not those of its objects");
  const auto height = static_cast<std::size_t>(size.height), width = static_cast<std::size_t>(size.width);
  std::size_t next = 0;
  for (std::size_t i = 0; i < objects.boxes.size(); ++i) {
    objects.masks.emplace_back(height * width);
    std::size_t at = 0;
    for (std::size_t run = 0; run < counts.as<std::uint32_t>()[i]; ++run, ++next) {
      const std::size_t length = next < runs.count() ? runs.as<std::uint32_t>()[next] : height * width + 1;
      if (at + length > height * width) throw Error(folder + ": a golden mask is not of its image");
      for (const std::size_t end = at + length; at < end; ++at)
        if (run % 2 == 1) objects.masks.back()[at % height * width + at / height] = 1;
    }
  }
}

inline Objects read_objects(const std::string& folder, edgekd::Size size, bool has_masks) {
  const Array labels = files::read_npy(folder + "/labels.npy");
  const auto count = static_cast<std::int64_t>(labels.count());
  if (labels.descr != "<i8" || count > 10000)
    throw Error(folder + ": labels.npy: expected int64 labels of at most 10000 objects");
  const Array boxes = read_array(folder + "/boxes.npy", "<f4", {count, 4}),
              scores = read_array(folder + "/scores.npy", "<f4", {count});
  Objects objects;
  for (std::int64_t i = 0; i < count; ++i) {
    const float* box = boxes.as<float>() + 4 * i;
    objects.boxes.push_back({box[0], box[1], box[2], box[3]});
    objects.scores.push_back(scores.as<float>()[i]);
    objects.labels.push_back(labels.as<std::int64_t>()[i]);
  }
  if (has_masks) read_masks(folder, size, objects);
  return objects;
}

inline double box_iou(const edgekd::Box& one, const edgekd::Box& other) {
  const double width = std::min(one.x2, other.x2) - std::max(one.x1, other.x1);
  const double height = std::min(one.y2, other.y2) - std::max(one.y1, other.y1);
  const double shared = std::max(width, 0.0) * std::max(height, 0.0);
  const auto area = [](const edgekd::Box& box) { return static_cast<double>(box.x2 - box.x1) * (box.y2 - box.y1); };
  return shared / std::max(area(one) + area(other) - shared, 1e-9);
}

inline double mask_iou(const std::vector<std::uint8_t>& one, const std::vector<std::uint8_t>& other) {
  std::size_t shared = 0, either = 0;
  for (std::size_t i = 0; i < one.size(); ++i) {
    shared += one[i] & other[i];
    either += one[i] | other[i];
  }
  return either == 0 ? 1 : static_cast<double>(shared) / static_cast<double>(either);
}

/// When two detections of one class are the same: the least IoU, and the largest difference of scores.
struct Alike {
  double iou, score;
};

inline Alike alike_of(const std::string& precision) {
  if (precision == "fp32") return {0.99, 1e-3};
  if (precision == "fp16") return {0.9, 0.01};
  return {0.5, 0.1};
}

/// The number of objects of both without a counterpart in the other.
inline std::size_t lonely_objects(const Objects& one, const Objects& other, const Alike& alike) {
  std::vector<bool> has_pair(other.boxes.size());
  std::size_t lonely = 0;
  for (std::size_t i = 0; i < one.boxes.size(); ++i) {
    bool is_matched = false;
    for (std::size_t j = 0; j < other.boxes.size(); ++j) {
      const bool is_same = one.labels[i] == other.labels[j] && box_iou(one.boxes[i], other.boxes[j]) >= alike.iou &&
                           std::fabs(one.scores[i] - other.scores[j]) <= alike.score &&
                           (one.masks.empty() || other.masks.empty() ||
                            mask_iou(one.masks[i], other.masks[j]) >= std::min(alike.iou, 0.9));
      is_matched = is_matched || is_same;
      has_pair[j] = has_pair[j] || is_same;
    }
    lonely += is_matched ? 0U : 1U;
  }
  return lonely + static_cast<std::size_t>(std::count(has_pair.begin(), has_pair.end(), false));
}

/// How far an engine's answers are from the golden ones.
struct Report {
  double error = 0;      // largest RMS difference of an output over its standard deviation
  double different = 0;  // share of the pixels, or of the objects of both, whose result is another one
  std::size_t compared = 0;
};

/// Compares a result with the golden one: how many pixels or objects differ, and how many there are.
inline std::pair<std::size_t, std::size_t> compare(const std::string& folder, const edgekd::Result& result,
                                                   const Alike& alike) {
  if (const auto* map = std::get_if<edgekd::ClassMap>(&result)) {
    const Array expected = read_array(folder + "/class_map.npy", "|u1", {map->size.height, map->size.width});
    std::size_t different = 0;
    for (std::size_t i = 0; i < map->classes.size(); ++i)
      different += expected.as<std::uint8_t>()[i] != map->classes[i] ? 1U : 0U;
    return {different, map->classes.size()};
  }
  const auto& found = std::get<edgekd::Detections>(result);
  const Objects expected = read_objects(folder, found.size, found.has_masks), objects = objects_of(found);
  return {lonely_objects(expected, objects, alike), expected.boxes.size() + objects.boxes.size()};
}

/// Runs the engine on the golden images. `replay`: the engine, where it is none; nullptr for another one.
inline Report check(const std::string& bundle, edgekd::Runner& runner, Replay* replay) {
  const edgekd::ModelSpec& spec = runner.spec();
  std::vector<Sums> sums(spec.outputs.size());
  std::size_t different = 0;
  Report report;
  for (int number = 0; number < runner.manifest().golden; ++number) {
    const GoldenImage golden = read(bundle, number, spec);
    if (replay != nullptr) replay->set(golden);
    const edgekd::ImageView view = files::view_of(golden.image);
    const std::vector<edgekd::TensorView>& outputs = runner.run(runner.prepare(view));
    for (std::size_t i = 0; i < spec.outputs.size(); ++i) {
      const bool is_numeric =
          spec.outputs[i].dtype == edgekd::DType::float32 && spec.outputs[i].role.rfind("found_", 0) != 0;
      if (is_numeric && !golden.outputs[i].bytes.empty())
        sums[i].add(golden.outputs[i].as<float>(), static_cast<const float*>(outputs[i].data), spec.outputs[i].count());
    }
    const auto [differ, compared] =
        compare(folder_of(bundle, number), runner.finish(outputs, {view.height, view.width}),
                alike_of(runner.manifest().precision));
    different += differ;
    report.compared += compared;
  }
  for (const Sums& one : sums) report.error = std::max(report.error, one.rms_error());
  report.different = static_cast<double>(different) / static_cast<double>(std::max<std::size_t>(report.compared, 1));
  return report;
}

}  // namespace golden
