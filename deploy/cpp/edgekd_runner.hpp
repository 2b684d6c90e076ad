// Runs an edgekd bundle in C++17: an RGB image goes in, a class map or detections come out.
//
// The results equal those of edgekd's Python `Predictor`, see docs/howto/use-from-cpp.md. The only dependency is the
// runtime of the engine: OpenVINO (EDGEKD_OPENVINO) or TensorRT (EDGEKD_TENSORRT, not run on hardware).
//
//     auto runner = edgekd::Runner::open("bundle");
//     const edgekd::Result& result = runner.infer({pixels, height, width});
//     if (const auto* map = std::get_if<edgekd::ClassMap>(&result)) { ... map->at(row, column) ... }
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

namespace edgekd {

/// What is wrong, on one line: a damaged bundle, an image that is none, or an engine that the runtime refuses.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Size {
  int height = 0;
  int width = 0;
  bool operator==(const Size& other) const { return height == other.height && width == other.width; }
  bool operator!=(const Size& other) const { return !(*this == other); }
};

enum class ChannelOrder { rgb, bgr };

/// A uint8 image (height, width, 3) in the caller's memory. OpenCV's images are `bgr`.
struct ImageView {
  const std::uint8_t* data = nullptr;
  int height = 0;
  int width = 0;
  std::ptrdiff_t row_bytes = 0;  ///< from one row to the next; 0: rows follow each other without a gap
  ChannelOrder order = ChannelOrder::rgb;
};

// ---- results

/// The class of each pixel of the image, row by row.
struct ClassMap {
  Size size;
  std::vector<std::uint8_t> classes;
  std::uint8_t at(int row, int column) const {
    return classes[static_cast<std::size_t>(row) * static_cast<std::size_t>(size.width) +
                   static_cast<std::size_t>(column)];
  }
};

/// Corners of a box in the image's pixels, inside the image.
struct Box {
  float x1, y1, x2, y2;
};

/// The pixels x1 <= x < x2, y1 <= y < y2 of an object; `offset` is where they begin in `Detections::mask_pixels`.
struct Mask {
  int x1, y1, x2, y2;
  std::size_t offset;
};

/// The objects of an image, best first. `masks` is empty for a network without masks.
struct Detections {
  Size size;
  std::vector<Box> boxes;
  std::vector<float> scores;
  std::vector<std::int64_t> labels;
  bool has_masks = false;
  std::vector<Mask> masks;
  std::vector<std::uint8_t> mask_pixels;  ///< 1 inside an object, 0 outside
  const std::uint8_t* pixels_of(std::size_t object) const { return mask_pixels.data() + masks[object].offset; }
};

using Result = std::variant<ClassMap, Detections>;

// ---- contract

enum class DType { uint8, int32, int64, float32 };
std::size_t size_bytes(DType dtype);
const char* name_of(DType dtype);

/// One input or output of the engine; roles are those of edgekd's `TensorSpec`.
struct TensorSpec {
  std::string name;
  DType dtype = DType::float32;
  std::vector<std::int64_t> shape;
  std::string role;
  std::size_t count() const;  ///< values
};

enum class Task { semantic, detection, instance };

/// How an image becomes the engine's input, as `edgekd.board.specs.Preprocess`.
struct Preprocess {
  Size size;
  std::array<double, 3> mean{};
  std::array<double, 3> std{};
  bool is_planar = true;      ///< NCHW; else NHWC
  bool is_letterbox = false;  ///< else the image is stretched
  DType dtype = DType::float32;
  ChannelOrder order = ChannelOrder::rgb;
};

/// The contract of an engine, read from `spec.json`.
struct ModelSpec {
  Task task = Task::semantic;
  std::vector<std::string> classes;
  int ignore_index = 255;
  TensorSpec input;
  std::vector<TensorSpec> outputs;
  Preprocess preprocess;
};

/// What `manifest.json` says of a bundle, as far as the runner needs it. Empty texts and 0: not said.
struct Manifest {
  std::string name, task, target, precision, engine;
  std::int64_t version = 0;
  int golden = 0;                                       ///< number of golden images
  double golden_error = 0.05, golden_different = 0.02;  ///< tolerances of the raw outputs and of the results
  std::string device, inference_precision, performance_hint;
  int engine_threads = 0;
};

// ---- engine

/// A tensor in somebody's memory, C order, of the dtype and shape that the spec gives.
struct TensorView {
  const void* data = nullptr;
  std::size_t bytes = 0;
};

/// A network loaded for inference. Write your own for a runtime that edgekd has none for.
class Engine {
 public:
  Engine() = default;
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  virtual ~Engine() = default;
  /// Runs once and returns the outputs in the spec's order, which are valid until the next call; Error.
  virtual const std::vector<TensorView>& infer(const TensorView& input) = 0;
  virtual std::string description() const = 0;
};

/// The rule that selects detections; the defaults are those of edgekd.
struct Selection {
  double min_score = 0.05;  ///< 0 takes every candidate, 1 none
  double iou = 0.6;         ///< NMS IoU threshold
  std::size_t candidates = 1000;
  std::size_t most = 100;  ///< max detections
};

struct Options {
  int threads = 0;         ///< that prepare an image and make the result; 0: as many as the engine has, at most 4
  int engine_threads = 0;  ///< of the runtime; 0: the bundle's, else the physical cores that the process may use
  Selection selection;
};

// ---- runner

/// Runs one bundle. One call at a time; a Runner per thread for more.
class Runner {
 public:
  /// Opens a bundle's folder with the engine of its target; Error.
  static Runner open(const std::string& folder, const Options& options = {});
  /// The same with the caller's engine, which is not checked against the spec.
  static Runner open(const std::string& folder, std::unique_ptr<Engine> engine, const Options& options = {});
  Runner(Runner&&) noexcept;
  Runner& operator=(Runner&&) noexcept;
  ~Runner();

  /// The result for an image. It is valid until the next call; copy it to keep it. Error.
  const Result& infer(const ImageView& image);

  /// The three steps of `infer`. The input is valid until the next image of its size, outputs until the next run.
  TensorView prepare(const ImageView& image);
  const std::vector<TensorView>& run(const TensorView& input);
  const Result& finish(const std::vector<TensorView>& outputs, Size image_size);

  const ModelSpec& spec() const;
  const Manifest& manifest() const;
  std::string engine() const;  ///< runtime, version, device and threads

 private:
  class Impl;
  explicit Runner(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace edgekd
