// See edgekd_runner.hpp. Sections: JSON, the bundle's files, vector loops, threads, filters of a resize, preparing an
// image, class maps, detections, masks, OpenVINO, TensorRT, the runner.
//
// Every number is defined by edgekd's Python in edgekd/board/. A resize is a sum of taps in float32, tap by tap, each
// product and each sum rounded: compile with -ffp-contract=off, or the results differ from one processor to the next.
#include "edgekd_runner.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <locale>
#include <mutex>
#include <set>
#include <sstream>
#include <thread>
#include <utility>

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(EDGEKD_OPENVINO)
#include <openvino/openvino.hpp>
#endif
#if defined(EDGEKD_TENSORRT)
#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>
#endif

// Loops below are compiled for several instruction sets, and the processor's best one is taken when the program starts.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they start after the choice
#define EDGEKD_LOOP __attribute__((target_clones("default", "avx2", "avx512f"), noinline)) void
#define EDGEKD_INLINE inline __attribute__((always_inline))
#elif defined(__GNUC__)
#define EDGEKD_LOOP void
#define EDGEKD_INLINE inline __attribute__((always_inline))
#else
#define EDGEKD_LOOP void
#define EDGEKD_INLINE inline
#endif
#if defined(__GNUC__) || defined(_MSC_VER)
#define EDGEKD_RESTRICT __restrict
#else
#define EDGEKD_RESTRICT
#endif

namespace edgekd {
namespace {

// A bundle can come from anybody: nothing of its files is believed before these bounds are checked.
constexpr std::size_t kMostJsonBytes = 4U << 20U;
constexpr std::size_t kMostEngineBytes = std::size_t{4} << 30U;
constexpr int kMostDepth = 32;
constexpr std::size_t kMostJsonValues = 100000, kMostMembers = 4096;
constexpr int kMostSide = 32768;
constexpr std::int64_t kMostValues = std::int64_t{1} << 28U;
constexpr std::size_t kMostTensors = 64;
constexpr std::size_t kSizes = 4;  // sizes of images whose buffers are kept
constexpr int kMostThreads = 64, kDefaultThreads = 4;
constexpr std::int64_t kPixelsPerThread = 40000, kValuesPerThread = 250000;

template <typename... Parts>
std::string text_of(const Parts&... parts) {
  std::ostringstream out;
  out.imbue(std::locale::classic());
  (out << ... << parts);
  return out.str();
}

/// Somebody else's text in an error: short, printable, quoted.
std::string in_quotes(const std::string& text) {
  std::string out = "'";
  for (const char c : text.substr(0, 60)) out += (c >= ' ' && c < 127) ? c : '?';
  return out + (text.size() > 60 ? "...'" : "'");
}

/// The first lines of a runtime's message as one line.
[[maybe_unused]] std::string one_line(const std::string& text) {
  std::string out;
  for (const char c : text.substr(0, 400)) out += (c == '\n' || c == '\r' || c == '\t') ? ' ' : c;
  while (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

std::size_t index_of(std::int64_t value) { return static_cast<std::size_t>(value); }

// ---- JSON

/// A JSON value of a small file.
struct Json {
  enum class Kind { null, boolean, number, text, list, object };
  Kind kind = Kind::null;
  double number = 0;
  std::string text;
  std::vector<Json> items;                            // of a list
  std::vector<std::pair<std::string, Json>> members;  // of an object

  const Json* find(const std::string& name) const {
    for (const auto& member : members)
      if (member.first == name) return &member.second;
    return nullptr;
  }
};

class JsonReader {
 public:
  JsonReader(const std::string& text, std::string file) : text_(text), file_(std::move(file)) {}

  Json read() {
    Json value = read_value(0);
    skip_space();
    if (at_ != text_.size()) fail("more text after the end");
    return value;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(text_of(file_, ": no JSON at byte ", at_, ": ", what, "; the bundle is damaged"));
  }
  void skip_space() {
    while (at_ < text_.size() && std::strchr(" \t\r\n", text_[at_]) != nullptr && text_[at_] != '\0') ++at_;
  }
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  void expect(const char* word) {
    const std::size_t length = std::strlen(word);
    if (text_.compare(at_, length, word) != 0) fail(text_of("expected ", word));
    at_ += length;
  }

  Json read_value(int depth) {
    if (depth > kMostDepth) fail("nested too deeply");
    if (++values_ > kMostJsonValues) fail("too many values");
    skip_space();
    Json value;
    switch (peek()) {
      case '{':
        return read_object(depth);
      case '[':
        return read_list(depth);
      case '"':
        value.kind = Json::Kind::text;
        value.text = read_text();
        return value;
      case 't':
        expect("true");
        value.kind = Json::Kind::boolean;
        value.number = 1;
        return value;
      case 'f':
        expect("false");
        value.kind = Json::Kind::boolean;
        return value;
      case 'n':
        expect("null");
        return value;
      default:
        return read_number();
    }
  }

  Json read_object(int depth) {
    Json value;
    value.kind = Json::Kind::object;
    ++at_;
    for (skip_space(); peek() != '}'; skip_space()) {
      if (!value.members.empty()) expect(",");
      skip_space();
      std::string name = read_text();
      if (value.members.size() >= kMostMembers) fail("too many names in an object");
      if (value.find(name) != nullptr) fail(text_of("the name ", in_quotes(name), " stands twice"));
      skip_space();
      expect(":");
      value.members.emplace_back(std::move(name), read_value(depth + 1));
    }
    ++at_;
    return value;
  }

  Json read_list(int depth) {
    Json value;
    value.kind = Json::Kind::list;
    ++at_;
    for (skip_space(); peek() != ']'; skip_space()) {
      if (!value.items.empty()) expect(",");
      value.items.push_back(read_value(depth + 1));
    }
    ++at_;
    return value;
  }

  Json read_number() {
    const std::size_t begin = at_;
    const auto digits = [this] {
      const std::size_t first = at_;
      while (peek() >= '0' && peek() <= '9') ++at_;
      if (at_ == first) fail("expected a value");
      return at_ - first;
    };
    if (peek() == '-') ++at_;
    const bool is_zero = peek() == '0';
    if (digits() > 1 && is_zero) fail("a number begins with 0");
    if (peek() == '.') {
      ++at_;
      digits();
    }
    if (peek() == 'e' || peek() == 'E') {
      ++at_;
      if (peek() == '+' || peek() == '-') ++at_;
      digits();
    }
    Json value;
    value.kind = Json::Kind::number;
    value.number = to_double(text_.substr(begin, at_ - begin));
    if (!std::isfinite(value.number)) fail("a number is too large");
    return value;
  }

  /// The nearest double, whatever the locale.
  static double to_double(const std::string& digits) {
    double value = std::numeric_limits<double>::infinity();
#if defined(__cpp_lib_to_chars) && __cpp_lib_to_chars >= 201611L
    const auto end = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (end.ec != std::errc()) value = std::numeric_limits<double>::infinity();
#else
    std::istringstream in(digits);
    in.imbue(std::locale::classic());
    if (!(in >> value)) value = std::numeric_limits<double>::infinity();
#endif
    return value;
  }

  std::string read_text() {
    if (peek() != '"') fail("expected a text");
    std::string out;
    for (++at_; peek() != '"'; ++at_) {
      if (at_ >= text_.size() || static_cast<unsigned char>(text_[at_]) < ' ') fail("a text has no end");
      if (text_[at_] == '\\') {
        ++at_;
        read_escape(out);
      } else {
        out += text_[at_];
      }
    }
    ++at_;
    return out;
  }

  void read_escape(std::string& out) {
    static const char* const kFrom = "\"\\/bfnrt";
    static const char* const kTo = "\"\\/\b\f\n\r\t";
    if (peek() == 'u') {
      unsigned code = read_hex();
      if (code >= 0xD800 && code < 0xDC00 && text_.compare(at_ + 1, 2, "\\u") == 0) {
        at_ += 2;
        const unsigned low = read_hex();
        if (low < 0xDC00 || low > 0xDFFF) fail("half a character");
        code = 0x10000 + ((code - 0xD800) << 10U) + (low - 0xDC00);
      } else if (code >= 0xD800 && code <= 0xDFFF) {
        fail("half a character");
      }
      append_utf8(out, code);
      return;
    }
    const char* found = peek() == '\0' ? nullptr : std::strchr(kFrom, peek());
    if (found == nullptr) fail("unknown escape");
    out += kTo[found - kFrom];
  }

  /// The code of \uXXXX; stands on the last digit afterwards.
  unsigned read_hex() {
    unsigned code = 0;
    for (int i = 0; i < 4; ++i) {
      ++at_;
      const char c = peek();
      const char* const digits = "0123456789abcdefABCDEF";
      const char* found = c == '\0' ? nullptr : std::strchr(digits, c);
      if (found == nullptr) fail("expected four hexadecimal digits");
      const auto digit = static_cast<unsigned>(found - digits);
      code = code * 16 + (digit > 15 ? digit - 6 : digit);
    }
    return code;
  }

  static void append_utf8(std::string& out, unsigned code) {
    const auto tail = [&out](unsigned bits) { out += static_cast<char>(0x80U | (bits & 0x3FU)); };
    if (code < 0x80) {
      out += static_cast<char>(code);
    } else if (code < 0x800) {
      out += static_cast<char>(0xC0U | (code >> 6U));
      tail(code);
    } else if (code < 0x10000) {
      out += static_cast<char>(0xE0U | (code >> 12U));
      tail(code >> 6U);
      tail(code);
    } else {
      out += static_cast<char>(0xF0U | (code >> 18U));
      tail(code >> 12U);
      tail(code >> 6U);
      tail(code);
    }
  }

  const std::string& text_;
  std::string file_;
  std::size_t at_ = 0, values_ = 0;
};

std::string read_file(const std::string& path, std::size_t most_bytes) {
  std::ifstream in(path, std::ios::binary);
  std::string text;
  char block[1 << 16];
  while (in.read(block, sizeof block) || in.gcount() > 0) {
    text.append(block, static_cast<std::size_t>(in.gcount()));
    if (text.size() > most_bytes) throw Error(text_of(path, ": larger than ", most_bytes, " bytes; this is no bundle"));
  }
  if (!in.eof()) throw Error(text_of(path, ": cannot be read; expected a file of an unpacked bundle"));
  return text;
}

/// An object of a file, whose members are read with checks of type and range. `where` begins the errors.
class Fields {
 public:
  Fields(const Json& json, std::string where) : json_(json), where_(std::move(where)) {
    if (json.kind != Json::Kind::object) throw Error(text_of(where_, ": expected an object"));
  }

  bool has(const std::string& name) const {
    const Json* found = json_.find(name);
    return found != nullptr && found->kind != Json::Kind::null;
  }
  const Json& get(const std::string& name, Json::Kind kind, const char* expected) const {
    const Json* found = json_.find(name);
    if (found == nullptr || found->kind != kind) fail(name, expected);
    return *found;
  }
  const std::string& text(const std::string& name) const { return get(name, Json::Kind::text, "a text").text; }
  std::string text_or(const std::string& name, const std::string& absent) const {
    return has(name) ? text(name) : absent;
  }
  const std::vector<Json>& list(const std::string& name) const { return get(name, Json::Kind::list, "a list").items; }
  Fields fields(const std::string& name) const {
    return {get(name, Json::Kind::object, "an object"), where_ + name + "."};
  }
  double number(const std::string& name) const { return get(name, Json::Kind::number, "a number").number; }
  std::int64_t integer(const std::string& name, std::int64_t low, std::int64_t high) const {
    return integer_of(get(name, Json::Kind::number, "an integer"), name, low, high);
  }
  std::vector<std::int64_t> integers(const std::string& name, std::int64_t low, std::int64_t high,
                                     std::size_t most) const {
    std::vector<std::int64_t> values;
    if (list(name).size() > most) fail(name, text_of("at most ", most, " integers"));
    for (const Json& item : list(name)) values.push_back(integer_of(item, name, low, high));
    return values;
  }
  /// The index of a text among `choices`.
  std::size_t choice(const std::string& name, const std::vector<std::string>& choices) const {
    const auto found = std::find(choices.begin(), choices.end(), text(name));
    std::string all;
    for (const std::string& one : choices) all += (all.empty() ? "" : " or ") + one;
    if (found == choices.end()) fail(name, all + ", got " + in_quotes(text(name)));
    return static_cast<std::size_t>(found - choices.begin());
  }
  [[noreturn]] void fail(const std::string& name, const std::string& expected) const {
    throw Error(text_of(where_, name, ": expected ", expected, "; the bundle is damaged or of a newer edgekd"));
  }

 private:
  std::int64_t integer_of(const Json& json, const std::string& name, std::int64_t low, std::int64_t high) const {
    const bool is_integer = json.kind == Json::Kind::number && json.number == std::floor(json.number);
    if (!is_integer || json.number < static_cast<double>(low) || json.number > static_cast<double>(high))
      fail(name, text_of("an integer from ", low, " to ", high));
    return static_cast<std::int64_t>(json.number);
  }

  const Json& json_;
  std::string where_;
};

// ---- the bundle's files

void check_schema(const Fields& fields, const std::string& absent, const std::string& expected) {
  const std::string found = fields.text_or("schema", absent);
  if (found != expected) fields.fail("schema", expected + ", got " + in_quotes(found));
}

TensorSpec tensor_of(const Json& json, const std::string& where) {
  static const std::vector<std::string> kNames = {"uint8", "int32", "int64", "float32"};
  const Fields fields(json, where);
  TensorSpec tensor;
  tensor.name = fields.text("name");
  tensor.role = fields.text("role");
  tensor.dtype = static_cast<DType>(fields.choice("dtype", kNames));
  tensor.shape = fields.integers("shape", 1, kMostValues, 8);
  std::int64_t count = 1;
  for (const std::int64_t side : tensor.shape) {
    count *= side;  // both factors are at most 2^28
    if (count > kMostValues) fields.fail("shape", text_of("at most ", kMostValues, " values"));
  }
  return tensor;
}

std::vector<TensorSpec> tensors_of(const Fields& fields, const std::string& name) {
  std::vector<TensorSpec> tensors;
  const std::vector<Json>& items = fields.list(name);
  if (items.empty() || items.size() > kMostTensors) fields.fail(name, text_of("1 to ", kMostTensors, " tensors"));
  for (std::size_t i = 0; i < items.size(); ++i)
    tensors.push_back(tensor_of(items[i], text_of("spec.json: ", name, "[", i, "].")));
  return tensors;
}

std::array<double, 3> triple(const Fields& fields, const std::string& name, bool is_divisor) {
  const std::vector<Json>& items = fields.list(name);
  std::array<double, 3> values{};
  if (items.size() != 3) fields.fail(name, "three numbers");
  for (std::size_t i = 0; i < 3; ++i) {
    values[i] = items[i].number;
    if (items[i].kind != Json::Kind::number || (is_divisor && values[i] == 0))
      fields.fail(name, is_divisor ? "three numbers other than 0" : "three numbers");
  }
  return values;
}

Preprocess preprocess_of(const Fields& fields) {
  Preprocess made;
  const std::vector<std::int64_t> size = fields.integers("size", 1, kMostSide, 2);
  if (size.size() != 2) fields.fail("size", "height and width");
  made.size = {static_cast<int>(size[0]), static_cast<int>(size[1])};
  made.mean = triple(fields, "mean", false);
  made.std = triple(fields, "std", true);
  made.is_planar = fields.choice("layout", {"NCHW", "NHWC"}) == 0;
  made.dtype = fields.choice("dtype", {"uint8", "float32"}) == 0 ? DType::uint8 : DType::float32;
  made.order = fields.choice("color_order", {"RGB", "BGR"}) == 0 ? ChannelOrder::rgb : ChannelOrder::bgr;
  made.is_letterbox = fields.choice("resize", {"stretch", "letterbox"}) == 1;
  return made;
}

ModelSpec read_spec(const std::string& folder) {
  const std::string text = read_file(folder + "/spec.json", kMostJsonBytes);
  const Json json = JsonReader(text, "spec.json").read();
  const Fields fields(json, "spec.json: ");
  check_schema(fields, "edgekd.model_spec/1", "edgekd.model_spec/1");
  ModelSpec spec;
  spec.task = static_cast<Task>(fields.choice("task", {"semantic", "detection", "instance"}));
  for (const Json& name : fields.list("classes")) {
    if (name.kind != Json::Kind::text) fields.fail("classes", "texts");
    spec.classes.push_back(name.text);
  }
  spec.ignore_index = static_cast<int>(fields.integer("ignore_index", -1, std::numeric_limits<int>::max()));
  std::vector<TensorSpec> inputs = tensors_of(fields, "inputs");
  if (inputs.size() != 1) fields.fail("inputs", "one image");
  spec.input = std::move(inputs[0]);
  spec.outputs = tensors_of(fields, "outputs");
  spec.preprocess = preprocess_of(fields.fields("preprocess"));
  const Preprocess& made = spec.preprocess;
  const std::vector<std::int64_t> planar = {1, 3, made.size.height, made.size.width};
  const std::vector<std::int64_t> interleaved = {1, made.size.height, made.size.width, 3};
  if (spec.input.shape != (made.is_planar ? planar : interleaved) || spec.input.dtype != made.dtype)
    fields.fail("inputs", "one image of the size, layout and dtype of `preprocess`");
  return spec;
}

/// Whether a path of a bundle names a file in its folder `engine`.
bool is_in_engine(const std::string& path) {
  std::istringstream parts(path);
  std::string part;
  bool is_first = true;
  while (std::getline(parts, part, '/')) {
    if (part == ".." || (is_first && part != "engine") || part.find('\\') != std::string::npos) return false;
    is_first = false;
  }
  return path.size() > std::strlen("engine/") && path.find('\0') == std::string::npos;
}

Manifest read_manifest(const std::string& folder) {
  const std::string text = read_file(folder + "/manifest.json", kMostJsonBytes);
  const Json json = JsonReader(text, "manifest.json").read();
  const Fields fields(json, "manifest.json: ");
  check_schema(fields, "", "edgekd.bundle/1");
  Manifest made;
  made.name = fields.text("name");
  made.task = fields.text("task");
  made.target = fields.text("target");
  made.precision = fields.text("precision");
  made.engine = fields.text("engine");
  if (!is_in_engine(made.engine)) fields.fail("engine", "a file in engine/, got " + in_quotes(made.engine));
  made.version = fields.integer("version", 0, std::int64_t{1} << 53U);
  made.golden = static_cast<int>(fields.integer("golden", 0, 16));
  const Fields tolerance = fields.fields("tolerance");
  made.golden_error = tolerance.number("error");
  made.golden_different = tolerance.number("different");
  const Fields options = fields.fields("options");
  made.device = options.text_or("device", "");
  made.inference_precision = options.text_or("inference_precision", "");
  made.performance_hint = options.text_or("performance_hint", "");
  if (options.has("num_threads")) made.engine_threads = static_cast<int>(options.integer("num_threads", 1, 1024));
  return made;
}

// ---- vector loops

EDGEKD_LOOP weigh_pixels(const std::uint8_t* const* rows, const float* weights, int taps, std::size_t count,
                         float* EDGEKD_RESTRICT out) {
  const std::uint8_t* first = rows[0];
  const float weight = weights[0];
  for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<float>(first[i]) * weight;
  for (int tap = 1; tap < taps; ++tap) {
    const std::uint8_t* row = rows[tap];
    const float share = weights[tap];
    for (std::size_t i = 0; i < count; ++i) out[i] += static_cast<float>(row[i]) * share;
  }
}

EDGEKD_LOOP weigh_rows(const float* const* rows, const float* weights, int taps, std::size_t count,
                       float* EDGEKD_RESTRICT out) {
  const float* first = rows[0];
  const float weight = weights[0];
  for (std::size_t i = 0; i < count; ++i) out[i] = first[i] * weight;
  for (int tap = 1; tap < taps; ++tap) {
    const float* row = rows[tap];
    const float share = weights[tap];
    for (std::size_t i = 0; i < count; ++i) out[i] += row[i] * share;
  }
}

/// out[i] = sum of source[places[i] + tap * step] * weights[tap * count + i], tap by tap.
EDGEKD_LOOP weigh_columns(const float* source, const std::int32_t* EDGEKD_RESTRICT places,
                          const float* EDGEKD_RESTRICT weights, int taps, int step, std::size_t count,
                          float* EDGEKD_RESTRICT out) {
  for (std::size_t i = 0; i < count; ++i) out[i] = source[places[i]] * weights[i];
  for (int tap = 1; tap < taps; ++tap) {
    const float* shifted = source + static_cast<std::ptrdiff_t>(tap) * step;
    const float* share = weights + static_cast<std::size_t>(tap) * count;
    for (std::size_t i = 0; i < count; ++i) out[i] += shifted[places[i]] * share[i];
  }
}

/// Rounds sums of 0 to 255 half up. They are never negative, so that cutting is the floor.
EDGEKD_LOOP round_half_up(float* values, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<float>(static_cast<std::int32_t>(values[i] + 0.5F));
}

EDGEKD_LOOP normalise(const float* EDGEKD_RESTRICT pixels, std::size_t count, float scale, float offset,
                      float* EDGEKD_RESTRICT out) {
  for (std::size_t i = 0; i < count; ++i) out[i] = pixels[i] * scale + offset;
}

EDGEKD_LOOP to_bytes(const float* EDGEKD_RESTRICT pixels, std::size_t count, std::uint8_t* EDGEKD_RESTRICT out) {
  for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(pixels[i]));
}

/// Cuts values to +-most. What is not a number stays, and `has_nan` says that there is some.
EDGEKD_LOOP cut(const float* EDGEKD_RESTRICT values, std::size_t count, float most, float* EDGEKD_RESTRICT out,
                bool& has_nan) {
  std::int32_t odd = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const float value = values[i];
    const float low = value < -most ? -most : value;
    out[i] = low > most ? most : low;
    odd |= value != value ? 1 : 0;
  }
  has_nan = odd != 0;
}

template <int kTaps>
EDGEKD_INLINE void keep_largest(const float* const* rows, const float* weights, std::int32_t index, std::size_t count,
                                float* EDGEKD_RESTRICT best, std::int32_t* EDGEKD_RESTRICT found) {
  for (std::size_t i = 0; i < count; ++i) {
    float value = rows[0][i] * weights[0];
    for (int tap = 1; tap < kTaps; ++tap) value += rows[tap][i] * weights[tap];
    const bool is_larger = value > best[i];  // the first class wins a tie
    best[i] = is_larger ? value : best[i];
    found[i] = is_larger ? index : found[i];
  }
}

/// For each class `index` in turn: the weighted sum of its rows, and where it is the largest so far. `sum` is scratch.
EDGEKD_LOOP keep_largest_of(const float* const* rows, const float* weights, int taps, std::int32_t index,
                            std::size_t count, float* EDGEKD_RESTRICT best, std::int32_t* EDGEKD_RESTRICT found,
                            float* EDGEKD_RESTRICT sum) {
  const float* local[4] = {rows[0], rows[taps > 1 ? 1 : 0], rows[taps > 2 ? 2 : 0], rows[taps > 3 ? 3 : 0]};
  switch (taps) {
    case 1:
      return keep_largest<1>(local, weights, index, count, best, found);
    case 2:
      return keep_largest<2>(local, weights, index, count, best, found);
    case 3:
      return keep_largest<3>(local, weights, index, count, best, found);
    case 4:
      return keep_largest<4>(local, weights, index, count, best, found);
    default:
      break;
  }
  for (std::size_t i = 0; i < count; ++i) sum[i] = rows[0][i] * weights[0];
  for (int tap = 1; tap < taps; ++tap) {
    const float* row = rows[tap];
    const float share = weights[tap];
    for (std::size_t i = 0; i < count; ++i) sum[i] += row[i] * share;
  }
  const float one = 1;
  const float* only[1] = {sum};
  keep_largest<1>(only, &one, index, count, best, found);
}

/// Adds `weight` times a row.
EDGEKD_LOOP add_row(const float* EDGEKD_RESTRICT row, float weight, std::size_t count, float* EDGEKD_RESTRICT out) {
  for (std::size_t i = 0; i < count; ++i) out[i] += row[i] * weight;
}

/// out[i] = whether the interpolation between cells low[i] and high[i] is above `limit`; `row` begins at cell `first`.
EDGEKD_LOOP is_above(const float* row, std::int32_t first, const std::int32_t* EDGEKD_RESTRICT low,
                     const std::int32_t* EDGEKD_RESTRICT high, const float* EDGEKD_RESTRICT share, float limit,
                     std::size_t count, std::uint8_t* EDGEKD_RESTRICT out) {
  for (std::size_t i = 0; i < count; ++i)
    out[i] = row[low[i] - first] * (1 - share[i]) + row[high[i] - first] * share[i] > limit ? 1 : 0;
}

// ---- threads

/// Threads that share the work on one image; they live as long as it.
class Team {
 public:
  explicit Team(int threads) {
    for (int i = 1; i < threads; ++i) threads_.emplace_back([this, i] { serve(i); });
  }
  ~Team() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      is_over_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  /// Calls `parts[i]()` for all parts at the same time, at most as many as threads, and returns when all have ended.
  template <typename Part>
  void run(std::vector<Part>& parts) {
    if (parts.size() > 1) {
      const std::lock_guard<std::mutex> lock(mutex_);
      work_ = [](void* all, std::size_t i) { (*static_cast<std::vector<Part>*>(all))[i](); };
      parts_ = &parts;
      count_ = parts.size();
      left_ = parts.size() - 1;
      ++round_;
    }
    if (parts.size() > 1) wake_.notify_all();
    parts[0]();
    if (parts.size() > 1) {
      std::unique_lock<std::mutex> lock(mutex_);
      done_.wait(lock, [this] { return left_ == 0; });
    }
  }

 private:
  void serve(int number) {
    const auto own = static_cast<std::size_t>(number);
    std::uint64_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      wake_.wait(lock, [&] { return is_over_ || (round_ != seen && own < count_); });
      if (is_over_) return;
      seen = round_;
      lock.unlock();
      work_(parts_, own);
      lock.lock();
      if (--left_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  void (*work_)(void*, std::size_t) = nullptr;
  void* parts_ = nullptr;
  std::size_t count_ = 0, left_ = 0;
  std::uint64_t round_ = 0;
  bool is_over_ = false;
  std::vector<std::thread> threads_;
};

/// The first row of share `i` of `count` even shares.
int share_start(int rows, int i, int count) { return static_cast<int>(static_cast<std::int64_t>(rows) * i / count); }

/// The physical cores that the process may use: affinity, siblings counted once, control-group quota.
int usable_cores() {
  const int all = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
#if defined(__linux__)
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return all;
  std::set<std::string> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    const std::string topology = text_of("/sys/devices/system/cpu/cpu", cpu, "/topology/");
    std::string siblings;
    if (!std::getline(std::ifstream(topology + "core_cpus_list"), siblings))
      std::getline(std::ifstream(topology + "thread_siblings_list"), siblings);
    cores.insert(siblings.empty() ? text_of(cpu) : siblings);
  }
  int count = std::max(1, static_cast<int>(cores.size()));
  double quota = 0, period = 0;
  std::ifstream cgroup("/sys/fs/cgroup/cpu.max");
  if (cgroup >> quota >> period && period > 0) count = std::min(count, std::max(1, static_cast<int>(quota / period)));
  return count;
#else
  return all;
#endif
}

// ---- filters of a resize

/// A linear map of an axis: out[i] = sum over j of weights[i * taps + j] * in[first[i] + j]. `board/filters.py`.
struct Filter {
  int length = 0;
  int taps = 1;
  std::vector<int> first;
  std::vector<double> weights;

  int size() const { return static_cast<int>(first.size()); }
  double weight(int i, int tap) const { return weights[index_of(i) * index_of(taps) + index_of(tap)]; }
  bool is_identity() const { return length == size() && taps == 1; }
};

/// The filter whose taps all lie on the old axis; those beyond it have no weight.
Filter fitted(int length, std::vector<int> first, const std::vector<double>& weights, int taps) {
  Filter made;
  made.length = length;
  made.taps = std::min(taps, length);
  made.weights.assign(first.size() * index_of(made.taps), 0.0);
  for (std::size_t i = 0; i < first.size(); ++i) {
    const int moved = std::max(first[i] - (length - made.taps), 0);
    for (int j = moved; j < made.taps; ++j)
      if (j - moved < taps)
        made.weights[i * index_of(made.taps) + index_of(j)] = weights[i * index_of(taps) + index_of(j - moved)];
    first[i] -= moved;
  }
  made.first = std::move(first);
  return made;
}

/// Bilinear with antialiasing, as Pillow: src/libImaging/Resample.c, precompute_coeffs with bilinear_filter.
Filter bilinear(int length, int new_length) {
  const double scale = static_cast<double>(length) / new_length;
  const double width = std::max(scale, 1.0);
  std::vector<int> first(index_of(new_length)), last(index_of(new_length));
  int taps = 0;
  for (int i = 0; i < new_length; ++i) {
    const double centre = (i + 0.5) * scale;
    first[index_of(i)] = static_cast<int>(std::max(std::floor(centre - width + 0.5), 0.0));
    last[index_of(i)] = static_cast<int>(std::min(std::floor(centre + width + 0.5), static_cast<double>(length)));
    taps = std::max(taps, last[index_of(i)] - first[index_of(i)]);
  }
  std::vector<double> weights(index_of(new_length) * index_of(taps));
  int used = 0;  // the last tap of an axis that keeps its length has no weight
  for (int i = 0; i < new_length; ++i) {
    const double centre = (i + 0.5) * scale;
    double sum = 0;
    double* row = &weights[index_of(i) * index_of(taps)];
    for (int j = 0; j < taps; ++j) {
      const int position = first[index_of(i)] + j;
      row[j] = position < last[index_of(i)] ? std::max(1 - std::fabs(position + 0.5 - centre) / width, 0.0) : 0.0;
      sum += row[j];
      if (row[j] != 0) used = std::max(used, j + 1);
    }
    for (int j = 0; j < taps; ++j) row[j] /= sum;
  }
  std::vector<double> counted;
  for (int i = 0; i < new_length; ++i)
    for (int j = 0; j < used; ++j) counted.push_back(weights[index_of(i) * index_of(taps) + index_of(j)]);
  return fitted(length, std::move(first), counted, used);
}

/// The filter of the new pixels `start` to `stop`, on the whole old axis.
Filter part_of(const Filter& filter, int start, int stop) {
  Filter made;
  made.length = filter.length;
  made.taps = filter.taps;
  made.first.assign(filter.first.begin() + start, filter.first.begin() + stop);
  const auto begin = filter.weights.begin();
  made.weights.assign(begin + static_cast<std::ptrdiff_t>(start) * filter.taps,
                      begin + static_cast<std::ptrdiff_t>(stop) * filter.taps);
  return made;
}

/// One filter and another one after it, as one.
Filter then(const Filter& one, const Filter& second) {
  std::vector<int> first;
  int taps = 0;
  for (const int source : second.first) {
    first.push_back(one.first[index_of(source)]);
    taps = std::max(taps, one.first[index_of(source + second.taps - 1)] + one.taps - first.back());
  }
  std::vector<double> weights(first.size() * index_of(taps), 0.0);
  for (int i = 0; i < second.size(); ++i) {
    for (int j = 0; j < second.taps; ++j) {
      const int source = second.first[index_of(i)] + j;
      for (int t = 0; t < one.taps; ++t) {
        const int place = one.first[index_of(source)] - first[index_of(i)] + t;
        if (place < taps)
          weights[index_of(i) * index_of(taps) + index_of(place)] += second.weight(i, j) * one.weight(source, t);
      }
    }
  }
  return fitted(one.length, std::move(first), weights, taps);
}

/// From an output's axis to the image's: resize to the input, cut out the image's part, resize.
Filter placed(int length, int full, int start, int size, int new_length) {
  return then(part_of(bilinear(length, full), start, start + size), bilinear(size, new_length));
}

/// Float32 weights for `weigh_columns`: tap after tap, each over all new pixels.
struct ColumnFilter {
  int taps = 0, step = 1;
  std::vector<std::int32_t> places;
  std::vector<float> weights;

  ColumnFilter() = default;
  ColumnFilter(const Filter& filter, int step_of_pixels) : taps(filter.taps), step(step_of_pixels) {
    for (const int pixel : filter.first) places.push_back(pixel * step);
    for (int tap = 0; tap < taps; ++tap)
      for (int i = 0; i < filter.size(); ++i) weights.push_back(static_cast<float>(filter.weight(i, tap)));
  }
  void operator()(const float* source, float* out) const {
    weigh_columns(source, places.data(), weights.data(), taps, step, places.size(), out);
  }
};

std::vector<float> as_floats(const std::vector<double>& values) { return {values.begin(), values.end()}; }

/// Where an image lies on the input. `board/frame.py`.
struct Frame {
  Size image, input, part;
  int top = 0, left = 0;
  bool is_whole() const { return part == input; }
};

Frame frame_of(Size image, const Preprocess& preprocess) {
  Frame frame{image, preprocess.size, preprocess.size, 0, 0};
  if (!preprocess.is_letterbox) return frame;
  const std::int64_t height = image.height, width = image.width;
  const std::int64_t full_height = frame.input.height, full_width = frame.input.width;
  if (height * full_width <= width * full_height) {
    frame.part.height = static_cast<int>(std::max<std::int64_t>(1, (2 * height * full_width + width) / (2 * width)));
  } else {
    frame.part.width = static_cast<int>(std::max<std::int64_t>(1, (2 * width * full_height + height) / (2 * height)));
  }
  frame.top = (frame.input.height - frame.part.height) / 2;
  frame.left = (frame.input.width - frame.part.width) / 2;
  return frame;
}

// ---- preparing an image

/// The rows of a window that moves down, each computed once. Row r is in slot r modulo the number of slots.
class RowWindow {
 public:
  RowWindow() = default;
  RowWindow(int rows, std::size_t row_values)
      : rows_(rows), row_values_(row_values), values_(index_of(rows) * row_values) {}
  void restart() { next_ = -1; }
  float* row(int number) { return &values_[index_of(number % rows_) * row_values_]; }
  /// Calls make(number, row) for the rows `first` to `stop` that are not there.
  template <typename Make>
  void advance(int first, int stop, const Make& make) {
    for (int number = std::max(first, next_); number < stop; ++number) make(number, row(number));
    next_ = std::max(next_, stop);
  }

 private:
  int rows_ = 1, next_ = -1;
  std::size_t row_values_ = 0;
  std::vector<float> values_;
};

/// Images of one size become the engine's input. `board/preprocess.py`.
class Preparation {
 public:
  Preparation(const Frame& frame, const Preprocess& preprocess, int threads) : frame_(frame), preprocess_(preprocess) {
    const std::int64_t pixels = std::max(std::int64_t{1} * frame.image.height * frame.image.width,
                                         std::int64_t{1} * frame.part.height * frame.part.width);
    const int count = static_cast<int>(
        std::max<std::int64_t>(1, std::min<std::int64_t>({threads, frame.part.height, pixels / kPixelsPerThread})));
    for (std::size_t c = 0; c < 3; ++c) {
      scale_[c] = static_cast<float>(1 / (255 * preprocess.std[c]));
      offset_[c] = static_cast<float>(-preprocess.mean[c] / preprocess.std[c]);
    }
    const std::size_t values = 3 * index_of(frame.input.height) * index_of(frame.input.width);
    input_.resize(values * size_bytes(preprocess.dtype));
    paint_black();
    is_same_ = frame.part == frame.image;
    rows_first_ = frame.part.height <= frame.image.height;
    down_ = bilinear(frame.image.height, frame.part.height);
    down_weights_ = as_floats(down_.weights);
    const Filter across = bilinear(frame.image.width, frame.part.width);
    is_across_identity_ = across.is_identity();
    across_ = ColumnFilter(across, 3);
    for (int i = 0; i < count; ++i) {
      parts_.emplace_back(*this, share_start(frame.part.height, i, count),
                          share_start(frame.part.height, i + 1, count));
    }
  }
  Preparation(const Preparation&) = delete;
  Preparation& operator=(const Preparation&) = delete;

  TensorView operator()(const ImageView& image, Team& team) {
    image_ = image;
    if (image_.row_bytes == 0) image_.row_bytes = std::ptrdiff_t{3} * image.width;
    team.run(parts_);
    return {input_.data(), input_.size()};
  }

 private:
  /// Some rows of the image's part of the input.
  struct Part {
    Preparation* all;
    int start, stop;
    std::vector<float> mixed;  // one row (image width, 3), mixed along the column
    std::vector<float> wide;   // one row (3, part width)
    RowWindow window;          // rows (3, part width), where rows are widened first
    std::vector<const std::uint8_t*> pixels;
    std::vector<const float*> rows;

    Part(Preparation& whole, int from, int to)
        : all(&whole),
          start(from),
          stop(to),
          mixed(3 * index_of(whole.frame_.image.width)),
          wide(3 * index_of(whole.frame_.part.width)),
          pixels(index_of(whole.down_.taps)),
          rows(index_of(whole.down_.taps)) {
      if (!whole.rows_first_) window = RowWindow(whole.down_.taps, wide.size());
    }
    void operator()() {
      window.restart();
      for (int y = start; y < stop; ++y) {
        all->make_row(*this, y);
        all->store(wide.data(), y);
      }
    }
  };

  const std::uint8_t* pixels_of(int row) const { return image_.data + row * image_.row_bytes; }

  /// Writes row y of the image's part into `part.wide`: pixels (3, width), whole numbers.
  void make_row(Part& part, int y) const {
    const std::size_t width = index_of(frame_.part.width), row_values = 3 * index_of(frame_.image.width);
    const int first = down_.first[index_of(y)];
    const float* weights = &down_weights_[index_of(y) * index_of(down_.taps)];
    const float one = 1;
    if (is_same_) {
      const std::uint8_t* pixels = pixels_of(y);
      for (std::size_t x = 0; x < width; ++x)
        for (std::size_t c = 0; c < 3; ++c) part.wide[c * width + x] = static_cast<float>(pixels[3 * x + c]);
      return;
    }
    if (rows_first_) {
      for (int tap = 0; tap < down_.taps; ++tap) part.pixels[index_of(tap)] = pixels_of(first + tap);
      weigh_pixels(part.pixels.data(), weights, down_.taps, row_values, part.mixed.data());
      widen(part.mixed.data(), part.wide.data());
    } else {
      part.window.advance(first, first + down_.taps, [&](int number, float* row) {
        const std::uint8_t* pixels = pixels_of(number);
        weigh_pixels(&pixels, &one, 1, row_values, part.mixed.data());
        widen(part.mixed.data(), row);
      });
      for (int tap = 0; tap < down_.taps; ++tap) part.rows[index_of(tap)] = part.window.row(first + tap);
      weigh_rows(part.rows.data(), weights, down_.taps, 3 * width, part.wide.data());
    }
    round_half_up(part.wide.data(), 3 * width);
  }

  /// From a row (image width, 3) to one (3, part width).
  void widen(const float* row, float* out) const {
    const std::size_t width = index_of(frame_.part.width);
    for (std::size_t c = 0; c < 3; ++c) {
      if (is_across_identity_) {
        for (std::size_t x = 0; x < width; ++x) out[c * width + x] = row[3 * x + c];
      } else {
        across_(row + c, out + c * width);
      }
    }
  }

  /// Writes a row of pixels (3, width) into the input, in its order, layout and dtype.
  void store(const float* row, int y) {
    const std::size_t width = index_of(frame_.part.width);
    const bool is_turned = preprocess_.order != image_.order;
    const std::size_t full = index_of(frame_.input.width);
    const std::size_t begin = index_of(frame_.top + y) * full + index_of(frame_.left);
    for (std::size_t c = 0; c < 3; ++c) {
      const float* pixels = row + (is_turned ? 2 - c : c) * width;
      if (preprocess_.is_planar) {
        const std::size_t at = c * full * index_of(frame_.input.height) + begin;
        if (preprocess_.dtype == DType::uint8) {
          to_bytes(pixels, width, bytes() + at);
        } else {
          normalise(pixels, width, scale_[c], offset_[c], floats() + at);
        }
      } else if (preprocess_.dtype == DType::uint8) {
        for (std::size_t x = 0; x < width; ++x) bytes()[3 * (begin + x) + c] = static_cast<std::uint8_t>(pixels[x]);
      } else {
        for (std::size_t x = 0; x < width; ++x) floats()[3 * (begin + x) + c] = pixels[x] * scale_[c] + offset_[c];
      }
    }
  }

  /// The bars of a letterbox are black.
  void paint_black() {
    const std::size_t pixels = index_of(frame_.input.height) * index_of(frame_.input.width);
    if (preprocess_.dtype != DType::float32) return;  // made of zeros
    for (std::size_t c = 0; c < 3; ++c)
      for (std::size_t i = 0; i < pixels; ++i)
        floats()[preprocess_.is_planar ? c * pixels + i : 3 * i + c] = 0.0F * scale_[c] + offset_[c];
  }

  std::uint8_t* bytes() { return input_.data(); }
  float* floats() { return reinterpret_cast<float*>(input_.data()); }  // the allocator aligns for every type

  Frame frame_;
  Preprocess preprocess_;
  std::array<float, 3> scale_{}, offset_{};
  std::vector<std::uint8_t> input_;
  bool is_same_ = false, rows_first_ = true, is_across_identity_ = false;
  Filter down_;
  std::vector<float> down_weights_;
  ColumnFilter across_;
  ImageView image_;
  std::vector<Part> parts_;
};

// ---- class maps

/// Logits (classes, height, width) become class maps of one size. `board/class_maps.py`.
class ClassMaps {
 public:
  ClassMaps(int classes, Size logits, const Frame& frame, int threads)
      : classes_(classes), logits_(logits), image_(frame.image) {
    const std::int64_t values = std::int64_t{1} * classes * image_.height * image_.width;
    const int count = static_cast<int>(
        std::max<std::int64_t>(1, std::min<std::int64_t>({threads, image_.height, values / kValuesPerThread})));
    down_ = placed(logits.height, frame.input.height, frame.top, frame.part.height, image_.height);
    down_weights_ = as_floats(down_.weights);
    const Filter across = placed(logits.width, frame.input.width, frame.left, frame.part.width, image_.width);
    is_across_identity_ = across.is_identity();
    across_ = ColumnFilter(across, 1);
    for (int i = 0; i < count; ++i) {
      parts_.emplace_back(*this, share_start(image_.height, i, count), share_start(image_.height, i + 1, count));
    }
  }
  ClassMaps(const ClassMaps&) = delete;
  ClassMaps& operator=(const ClassMaps&) = delete;

  void operator()(const float* logits, ClassMap& found, Team& team) {
    source_ = logits;
    found.size = image_;
    found.classes.resize(index_of(image_.height) * index_of(image_.width));
    out_ = found.classes.data();
    team.run(parts_);
  }

 private:
  struct Part {
    ClassMaps* all;
    int start, stop;
    RowWindow window;  // rows (classes, image width)
    std::vector<float> narrow, sum, best;
    std::vector<std::int32_t> found;
    std::vector<const float*> rows;
    bool has_nan = false;

    Part(ClassMaps& whole, int from, int to)
        : all(&whole),
          start(from),
          stop(to),
          window(whole.down_.taps, index_of(whole.classes_) * index_of(whole.image_.width)),
          narrow(index_of(whole.logits_.width)),
          sum(index_of(whole.image_.width)),
          best(sum.size()),
          found(sum.size()),
          rows(index_of(whole.down_.taps)) {}
    void operator()() {
      window.restart();
      has_nan = false;
      for (int y = start; y < stop; ++y) all->make_row(*this, y);
    }
  };

  void make_row(Part& part, int y) const {
    const int first = down_.first[index_of(y)], taps = down_.taps;
    part.window.advance(first, first + taps, [&](int number, float* row) { widen(part, number, row); });
    const float* weights = &down_weights_[index_of(y) * index_of(taps)];
    const std::size_t width = index_of(image_.width);
    std::fill(part.best.begin(), part.best.end(), -std::numeric_limits<float>::infinity());
    std::fill(part.found.begin(), part.found.end(), 0);
    for (int k = 0; k < classes_; ++k) {
      for (int tap = 0; tap < taps; ++tap)
        part.rows[index_of(tap)] = part.window.row(first + tap) + index_of(k) * width;
      keep_largest_of(part.rows.data(), weights, taps, k, width, part.best.data(), part.found.data(), part.sum.data());
      if (part.has_nan) mark_nan(part, weights, taps);
    }
    std::uint8_t* out = out_ + index_of(y) * width;
    for (std::size_t x = 0; x < width; ++x) out[x] = static_cast<std::uint8_t>(part.found[x]);
  }

  /// A pixel with a value that is not a number gets the last class.
  void mark_nan(Part& part, const float* weights, int taps) const {
    const std::size_t width = index_of(image_.width);
    weigh_rows(part.rows.data(), weights, taps, width, part.sum.data());
    for (std::size_t x = 0; x < width; ++x) {
      if (!std::isnan(part.sum[x])) continue;
      part.best[x] = std::numeric_limits<float>::infinity();
      part.found[x] = classes_ - 1;
    }
  }

  /// Row `number` of all classes' logits, at the image's width. Infinite logits would spoil neighbours without weight.
  void widen(Part& part, int number, float* row) const {
    constexpr float kMost = std::numeric_limits<float>::max() / 2;
    const std::size_t narrow = index_of(logits_.width), width = index_of(image_.width);
    for (int k = 0; k < classes_; ++k) {
      const float* from = source_ + (index_of(k) * index_of(logits_.height) + index_of(number)) * narrow;
      float* to = row + index_of(k) * width;
      bool has_nan = false;
      cut(from, narrow, kMost, is_across_identity_ ? to : part.narrow.data(), has_nan);
      part.has_nan = part.has_nan || has_nan;
      if (!is_across_identity_) across_(part.narrow.data(), to);
    }
  }

  int classes_;
  Size logits_, image_;
  bool is_across_identity_ = false;
  Filter down_;
  std::vector<float> down_weights_;
  ColumnFilter across_;
  const float* source_ = nullptr;
  std::uint8_t* out_ = nullptr;
  std::vector<Part> parts_;
};

/// An integer value of a tensor.
std::int64_t integer_at(const TensorView& tensor, DType dtype, std::size_t i) {
  switch (dtype) {
    case DType::uint8:
      return static_cast<const std::uint8_t*>(tensor.data)[i];
    case DType::int32:
      return static_cast<const std::int32_t*>(tensor.data)[i];
    case DType::int64:
      return static_cast<const std::int64_t*>(tensor.data)[i];
    default:
      return static_cast<std::int64_t>(static_cast<const float*>(tensor.data)[i]);
  }
}

/// A class map that the graph made is resized to the nearest pixel. `board/resize.py`, `board/postprocess.py`.
class NearestMap {
 public:
  NearestMap(const TensorSpec& tensor, const Frame& frame) : dtype_(tensor.dtype), image_(frame.image) {
    const auto height = static_cast<int>(tensor.shape[1]), width = static_cast<int>(tensor.shape[2]);
    width_ = index_of(width);
    rows_ = sources(height, frame.input.height, frame.top, frame.part.height, image_.height, frame.is_whole());
    columns_ = sources(width, frame.input.width, frame.left, frame.part.width, image_.width, frame.is_whole());
  }
  void operator()(const TensorView& tensor, ClassMap& found) const {
    found.size = image_;
    found.classes.resize(rows_.size() * columns_.size());
    std::uint8_t* out = found.classes.data();
    for (const std::size_t row : rows_)
      for (const std::size_t column : columns_)
        *out++ = static_cast<std::uint8_t>(integer_at(tensor, dtype_, row * width_ + column));
  }

 private:
  static std::vector<std::size_t> sources(int length, int full, int start, int size, int new_length, bool is_whole) {
    const auto nearest = [](std::int64_t i, std::int64_t from, std::int64_t to) {
      return (2 * i + 1) * from / (2 * to);
    };
    std::vector<std::size_t> places;
    for (int i = 0; i < new_length; ++i)
      places.push_back(index_of(is_whole ? nearest(i, length, new_length)
                                         : nearest(start + nearest(i, size, new_length), length, full)));
    return places;
  }
  DType dtype_;
  Size image_;
  std::size_t width_ = 0;
  std::vector<std::size_t> rows_, columns_;
};

// ---- masks

/// Bilinear interpolation between cells along one axis: which two each pixel takes, and the second one's share.
struct Between {
  std::vector<std::int32_t> low, high;
  std::vector<float> share;

  void clear() {
    low.clear();
    high.clear();
    share.clear();
  }
  /// Adds a pixel at a fraction of the side that the cells fill.
  void add(double fraction, int cells) {
    const double position = std::min(std::max(0.0, fraction * cells - 0.5), cells - 1.0);  // 0 for what is not a number
    low.push_back(static_cast<std::int32_t>(std::floor(position)));
    high.push_back(std::min(low.back() + 1, cells - 1));
    share.push_back(static_cast<float>(position - low.back()));
  }
};

Between over_input(int start, int part, int input, int image, int cells) {
  const double scale = static_cast<double>(part) / image;
  Between made;
  for (int i = 0; i < image; ++i) made.add((start + (i + 0.5) * scale) / input, cells);
  return made;
}

/// The first pixel whose centre is not before a box's edge.
int first_pixel(float edge, int limit) {
  const float pixel = std::ceil(edge - 0.5F);
  return static_cast<int>(std::min(std::max(0.0F, pixel), static_cast<float>(limit)));
}

/// The pixels whose centres lie in a box; where there is none, x2 = x1 and y2 = y1.
Mask corners_of(const Box& box, Size image) {
  Mask mask{first_pixel(box.x1, image.width), first_pixel(box.y1, image.height), first_pixel(box.x2, image.width),
            first_pixel(box.y2, image.height), 0};
  if (mask.x2 <= mask.x1 || mask.y2 <= mask.y1) {
    mask.x2 = mask.x1;
    mask.y2 = mask.y1;
  }
  return mask;
}

// ---- detections

/// Outputs of a detector by role, as indices into the spec's outputs.
struct Heads {
  enum class Form { levels, decoded, found };
  Form form = Form::levels;
  std::vector<std::size_t> scores, boxes, coefficients;  // one per level; one each where the graph decodes
  std::size_t labels = 0, prototypes = 0, masks = 0;
  bool has_coefficients = false, has_masks = false;
};

std::vector<std::size_t> with_role(const ModelSpec& spec, const std::string& role) {
  std::vector<std::size_t> found;
  for (std::size_t i = 0; i < spec.outputs.size(); ++i)
    if (spec.outputs[i].role == role) found.push_back(i);
  return found;
}

[[noreturn]] void refuse_outputs(const std::string& expected) {
  throw Error(text_of("spec.json: outputs: expected ", expected, "; the bundle is damaged or of a newer edgekd"));
}

void check(bool holds, const char* expected) {
  if (!holds) refuse_outputs(expected);
}

bool is_floats(const TensorSpec& tensor, std::size_t axes) {
  return tensor.dtype == DType::float32 && tensor.shape.size() == axes && tensor.shape[0] == 1;
}

void check_levels(const ModelSpec& spec, const Heads& heads) {
  const std::vector<TensorSpec>& out = spec.outputs;
  check(!heads.scores.empty() && heads.boxes.size() == heads.scores.size(), "scores and boxes of each level");
  check(!heads.has_coefficients || heads.coefficients.size() == heads.scores.size(), "coefficients of each level");
  for (std::size_t i = 0; i < heads.scores.size(); ++i) {
    const TensorSpec &scores = out[heads.scores[i]], &boxes = out[heads.boxes[i]];
    check(is_floats(scores, 4) && is_floats(boxes, 4), "float32 heads (1, C, h, w)");
    check(boxes.shape[1] % 4 == 0 && boxes.shape[1] == out[heads.boxes[0]].shape[1], "boxes (1, 4 * bins, h, w)");
    check(scores.shape[2] == boxes.shape[2] && scores.shape[3] == boxes.shape[3], "heads of a level of one size");
    if (!heads.has_coefficients) continue;
    const TensorSpec& mixes = out[heads.coefficients[i]];
    check(is_floats(mixes, 4) && mixes.shape[1] == out[heads.prototypes].shape[1], "a coefficient for each prototype");
    check(mixes.shape[2] == boxes.shape[2] && mixes.shape[3] == boxes.shape[3], "heads of a level of one size");
  }
}

void check_decoded(const ModelSpec& spec, const Heads& heads) {
  const std::vector<TensorSpec>& out = spec.outputs;
  check(heads.scores.size() == 1 && heads.boxes.size() == 1, "decoded_boxes and decoded_scores");
  const TensorSpec &scores = out[heads.scores[0]], &boxes = out[heads.boxes[0]];
  check(is_floats(scores, 3) && is_floats(boxes, 3) && boxes.shape[1] == 4 && boxes.shape[2] == scores.shape[2],
        "decoded_boxes (1, 4, N) and decoded_scores (1, K, N)");
  if (!heads.has_coefficients) return;
  const TensorSpec& mixes = out[heads.coefficients[0]];
  check(is_floats(mixes, 3) && mixes.shape[1] == out[heads.prototypes].shape[1] && mixes.shape[2] == scores.shape[2],
        "decoded_coefficients (1, P, N)");
}

void check_found(const ModelSpec& spec, const Heads& heads) {
  const std::vector<TensorSpec>& out = spec.outputs;
  check(heads.boxes.size() == 1 && heads.scores.size() == 1, "found_boxes, found_scores and found_labels");
  const TensorSpec &boxes = out[heads.boxes[0]], &scores = out[heads.scores[0]], &labels = out[heads.labels];
  check(is_floats(boxes, 3) && boxes.shape[2] == 4 && is_floats(scores, 2) && scores.shape[1] == boxes.shape[1] &&
            labels.count() == scores.count(),
        "found_boxes (1, N, 4), found_scores (1, N) and found_labels (1, N)");
  if (heads.has_coefficients) {
    const TensorSpec& mixes = out[heads.coefficients[0]];
    check(is_floats(mixes, 3) && mixes.shape[1] == boxes.shape[1] && mixes.shape[2] == out[heads.prototypes].shape[1],
          "found_coefficients (1, N, P)");
  }
  if (heads.has_masks)
    check(is_floats(out[heads.masks], 4) && out[heads.masks].shape[1] == boxes.shape[1], "found_masks (1, N, h, w)");
}

Heads heads_of(const ModelSpec& spec) {
  Heads heads;
  std::string prefix;
  if (!with_role(spec, "found_boxes").empty()) {
    heads.form = Heads::Form::found;
    prefix = "found_";
  } else if (!with_role(spec, "decoded_boxes").empty()) {
    heads.form = Heads::Form::decoded;
    prefix = "decoded_";
  }
  heads.scores = with_role(spec, prefix + "scores");
  heads.boxes = with_role(spec, prefix + "boxes");
  heads.coefficients = with_role(spec, prefix + "coefficients");
  heads.has_coefficients = !heads.coefficients.empty();
  const std::vector<std::size_t> prototypes = with_role(spec, "prototypes"), masks = with_role(spec, "found_masks");
  if (heads.has_coefficients) {
    check(prototypes.size() == 1 && is_floats(spec.outputs[prototypes[0]], 4),
          "prototypes (1, P, h, w) beside coefficients");
    heads.prototypes = prototypes[0];
  }
  if (heads.form == Heads::Form::found) {
    const std::vector<std::size_t> labels = with_role(spec, "found_labels");
    check(labels.size() == 1, "found_labels");
    heads.labels = labels[0];
    heads.has_masks = !masks.empty();
    if (heads.has_masks) heads.masks = masks[0];
    check_found(spec, heads);
  } else if (heads.form == Heads::Form::decoded) {
    check_decoded(spec, heads);
  } else {
    check_levels(spec, heads);
  }
  return heads;
}

/// A candidate for an object. `order`: the earlier of equal scores comes first.
struct Candidate {
  float score;  // a logit, where the network does not decode
  std::size_t order;
  std::size_t level, cell;
  std::int64_t label;
  Box on_input, on_image;
};

bool is_better(const Candidate& one, const Candidate& other) {
  return one.score != other.score ? one.score > other.score : one.order < other.order;
}

/// The smallest logit of a score: minus infinity for 0, infinity for 1.
float logit_of(double score) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  if (score > 0 && score < 1) return static_cast<float>(std::log(score / (1 - score)));
  return score <= 0 ? -kInfinity : kInfinity;
}

/// From a detector's outputs to detections on an image. `board/detection.py`, `board/suppression.py`, `board/masks.py`.
class Detector {
 public:
  Detector(const ModelSpec& spec, const Selection& selection)
      : spec_(spec), selection_(selection), heads_(heads_of(spec)) {
    min_logit_ = logit_of(selection.min_score);
    // The sigmoid of 20 rounds to 1.
    min_score_ =
        selection.min_score < 1 ? static_cast<float>(selection.min_score) : std::numeric_limits<float>::infinity();
  }

  /// Interpolation between the prototypes' cells for images of one size.
  struct Grid {
    Between rows, columns;
  };
  Grid grid_of(const Frame& frame) const {
    Grid grid;
    if (!heads_.has_coefficients) return grid;
    const std::vector<std::int64_t>& shape = spec_.outputs[heads_.prototypes].shape;
    grid.rows =
        over_input(frame.top, frame.part.height, frame.input.height, frame.image.height, static_cast<int>(shape[2]));
    grid.columns =
        over_input(frame.left, frame.part.width, frame.input.width, frame.image.width, static_cast<int>(shape[3]));
    return grid;
  }

  void operator()(const std::vector<TensorView>& outputs, const Frame& frame, const Grid& grid, Detections& found) {
    outputs_ = &outputs;
    found.size = frame.image;
    found.has_masks = heads_.has_coefficients || heads_.has_masks;
    kept_.clear();
    if (heads_.form == Heads::Form::found) {
      select_found(frame);
    } else {
      const std::size_t few = std::min(selection_.candidates, kFew * selection_.most);
      const std::size_t all = select(frame, few);
      // Better candidates do not depend on worse ones: with as many as are asked for, the rest would change nothing.
      if (few < selection_.candidates && few < all && kept_.size() < selection_.most)
        select(frame, selection_.candidates);
    }
    store(found);
    if (heads_.has_coefficients) mix_masks(grid, frame.image, found);
    if (heads_.has_masks) paste_masks(frame, found);
  }

 private:
  static constexpr std::size_t kFew = 4;  // candidates per detection that are decoded first

  const float* floats(std::size_t output) const { return static_cast<const float*>((*outputs_)[output].data); }
  std::size_t side(std::size_t output, std::size_t axis) const { return index_of(spec_.outputs[output].shape[axis]); }

  /// Puts the best among `most` candidates into `kept_`, best first, and returns how many candidates there are.
  std::size_t select(const Frame& frame, std::size_t most) {
    collect();
    const std::size_t all = candidates_.size();
    if (all > most) {
      std::nth_element(candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(most), candidates_.end(),
                       is_better);
      candidates_.resize(most);
    }
    for (Candidate& candidate : candidates_) decode(candidate);
    keep_on_image(frame);
    std::sort(candidates_.begin(), candidates_.end(), is_better);
    suppress();
    return all;
  }

  /// All places with a score that is high enough.
  void collect() {
    candidates_.clear();
    const bool is_decoded = heads_.form == Heads::Form::decoded;
    const float least = is_decoded ? min_score_ : min_logit_;
    std::size_t before = 0;
    for (std::size_t level = 0; level < heads_.scores.size(); ++level) {
      const TensorSpec& tensor = spec_.outputs[heads_.scores[level]];
      const std::size_t count = tensor.count(), cells = count / index_of(tensor.shape[1]);
      const float* scores = floats(heads_.scores[level]);
      for (std::size_t i = 0; i < count; ++i)
        if (scores[i] >= least)
          candidates_.push_back(
              {scores[i], before + i, level, i % cells, static_cast<std::int64_t>(i / cells), {}, {}});
      before += count;
    }
  }

  void decode(Candidate& one) const {
    const float* boxes = floats(heads_.boxes[one.level]);
    if (heads_.form == Heads::Form::decoded) {
      const std::size_t cells = side(heads_.boxes[0], 2);
      one.on_input = {boxes[one.cell], boxes[cells + one.cell], boxes[2 * cells + one.cell],
                      boxes[3 * cells + one.cell]};
      return;
    }
    const std::size_t height = side(heads_.boxes[one.level], 2), width = side(heads_.boxes[one.level], 3);
    const auto stride =
        static_cast<float>(static_cast<double>(spec_.preprocess.size.height) / static_cast<double>(height));
    const float x = (static_cast<float>(one.cell % width) + 0.5F) * stride;
    const float y = (static_cast<float>(one.cell / width) + 0.5F) * stride;
    std::array<double, 4> sides{};
    const std::size_t bins = side(heads_.boxes[one.level], 1) / 4, cells = height * width;
    for (std::size_t s = 0; s < 4; ++s)
      sides[s] = expectation(boxes + s * bins * cells + one.cell, bins, cells) * stride;
    one.on_input = {static_cast<float>(x - sides[0]), static_cast<float>(y - sides[1]),
                    static_cast<float>(x + sides[2]), static_cast<float>(y + sides[3])};
    one.score = static_cast<float>(1 / (1 + std::exp(-static_cast<double>(one.score))));
  }

  /// Mean of the bins' numbers under the softmax of `logits`, which stand `step` apart.
  static double expectation(const float* logits, std::size_t bins, std::size_t step) {
    float most = logits[0];
    for (std::size_t bin = 1; bin < bins; ++bin) most = std::max(most, logits[bin * step]);
    double total = 0, mean = 0;
    for (std::size_t bin = 0; bin < bins; ++bin) {
      const double weight = std::exp(static_cast<double>(logits[bin * step]) - most);
      total += weight;
      mean += static_cast<double>(bin) * weight;
    }
    return mean / total;
  }

  static Box uncut(const Box& box, const Frame& frame) {
    const auto left = static_cast<float>(frame.left), top = static_cast<float>(frame.top);
    const auto across = static_cast<float>(static_cast<double>(frame.image.width) / frame.part.width);
    const auto down = static_cast<float>(static_cast<double>(frame.image.height) / frame.part.height);
    return {(box.x1 - left) * across, (box.y1 - top) * down, (box.x2 - left) * across, (box.y2 - top) * down};
  }
  static Box cut_to(const Box& box, Size image) {
    const auto within = [](float value, int limit) {
      return std::min(std::max(value, 0.0F), static_cast<float>(limit));
    };
    return {within(box.x1, image.width), within(box.y1, image.height), within(box.x2, image.width),
            within(box.y2, image.height)};
  }
  static bool is_number(const Box& box) {
    return !(std::isnan(box.x1) || std::isnan(box.y1) || std::isnan(box.x2) || std::isnan(box.y2));
  }

  /// A box of which no part is on the image, in the bars of a letterbox, is none.
  void keep_on_image(const Frame& frame) {
    const auto is_off = [&frame](Candidate& one) {
      const Box box = uncut(one.on_input, frame);
      if (!is_number(box)) return true;
      one.on_image = cut_to(box, frame.image);
      return !(one.on_image.x2 > one.on_image.x1 && one.on_image.y2 > one.on_image.y1);
    };
    candidates_.erase(std::remove_if(candidates_.begin(), candidates_.end(), is_off), candidates_.end());
  }

  /// Greedy non-maximum suppression within each class, of boxes on the input.
  void suppress() {
    const double share = selection_.iou / (1 + selection_.iou);
    kept_.clear();
    shares_.clear();
    for (const Candidate& one : candidates_) {
      if (kept_.size() >= selection_.most) return;
      const Box& box = one.on_input;
      const double own = static_cast<double>(box.x2 - box.x1) * (box.y2 - box.y1) * share;
      bool is_kept = true;
      for (std::size_t i = 0; i < kept_.size() && is_kept; ++i) {
        if (kept_[i].label != one.label) continue;
        const Box& better = kept_[i].on_input;
        const float width = std::min(better.x2, box.x2) - std::max(better.x1, box.x1);
        const float height = std::max(std::min(better.y2, box.y2) - std::max(better.y1, box.y1), 0.0F);
        is_kept = !(width * height > shares_[i] + own);
      }
      if (!is_kept) continue;
      kept_.push_back(one);
      shares_.push_back(own);
    }
  }

  /// Puts the best of what the network found by itself into `kept_`.
  void select_found(const Frame& frame) {
    const float* scores = floats(heads_.scores[0]);
    const float* boxes = floats(heads_.boxes[0]);
    const TensorSpec& labels = spec_.outputs[heads_.labels];
    candidates_.clear();
    for (std::size_t i = 0; i < spec_.outputs[heads_.scores[0]].count(); ++i) {
      if (!(scores[i] > 0 && scores[i] >= static_cast<float>(selection_.min_score))) continue;
      const Box box{boxes[4 * i], boxes[4 * i + 1], boxes[4 * i + 2], boxes[4 * i + 3]};
      candidates_.push_back({scores[i], i, 0, i, integer_at((*outputs_)[heads_.labels], labels.dtype, i), box, {}});
    }
    std::sort(candidates_.begin(), candidates_.end(), is_better);
    keep_on_image(frame);
    kept_.assign(candidates_.begin(),
                 candidates_.begin() + static_cast<std::ptrdiff_t>(std::min(candidates_.size(), selection_.most)));
  }

  void store(Detections& found) const {
    found.boxes.clear();
    found.scores.clear();
    found.labels.clear();
    found.masks.clear();
    for (const Candidate& one : kept_) {
      found.boxes.push_back(one.on_image);
      found.scores.push_back(one.score);
      found.labels.push_back(one.label);
    }
  }

  /// Makes room for the mask of each box. The box is that on the image, or the uncut one of a pasted mask.
  void place_masks(Size image, Detections& found, const std::vector<Box>& boxes) const {
    std::size_t offset = 0;
    for (const Box& box : boxes) {
      Mask mask = corners_of(box, image);
      mask.offset = offset;
      offset += index_of(mask.x2 - mask.x1) * index_of(mask.y2 - mask.y1);
      found.masks.push_back(mask);
    }
    found.mask_pixels.resize(offset);
  }

  float coefficient(const Candidate& one, std::size_t prototype) const {
    const float* mixes = floats(heads_.coefficients[one.level]);
    if (heads_.form == Heads::Form::found) return mixes[one.cell * side(heads_.coefficients[0], 2) + prototype];
    const TensorSpec& tensor = spec_.outputs[heads_.coefficients[one.level]];
    return mixes[prototype * (tensor.count() / index_of(tensor.shape[1])) + one.cell];
  }

  /// Masks of mixed prototypes: positive pixels inside the box.
  void mix_masks(const Grid& grid, Size image, Detections& found) {
    place_masks(image, found, found.boxes);
    const float* prototypes = floats(heads_.prototypes);
    const std::size_t count = side(heads_.prototypes, 1), height = side(heads_.prototypes, 2),
                      width = side(heads_.prototypes, 3);
    for (std::size_t i = 0; i < kept_.size(); ++i) {
      const Mask& mask = found.masks[i];
      if (mask.x2 == mask.x1) continue;
      const auto left = index_of(grid.columns.low[index_of(mask.x1)]), top = index_of(grid.rows.low[index_of(mask.y1)]);
      const std::size_t across = index_of(grid.columns.high[index_of(mask.x2 - 1)]) + 1 - left;
      const std::size_t down = index_of(grid.rows.high[index_of(mask.y2 - 1)]) + 1 - top;
      logits_.assign(across * down, 0.0F);
      for (std::size_t p = 0; p < count; ++p) {
        const float weight = coefficient(kept_[i], p);
        for (std::size_t row = 0; row < down; ++row)
          add_row(prototypes + (p * height + top + row) * width + left, weight, across, &logits_[row * across]);
      }
      interpolate(logits_.data(), across, {left, top}, grid, index_of(mask.x1), index_of(mask.y1), 0.0F, mask, found);
    }
  }

  struct Corner {
    std::size_t left, top;
  };

  /// Writes where values of cells, interpolated, are above a limit. `corner` is the first cell, x and y the first pixel
  /// in `grid`.
  void interpolate(const float* cells, std::size_t across, Corner corner, const Grid& grid, std::size_t x,
                   std::size_t y, float limit, const Mask& mask, Detections& found) {
    row_.resize(across);
    const auto width = index_of(mask.x2 - mask.x1), height = index_of(mask.y2 - mask.y1);
    std::uint8_t* out = found.mask_pixels.data() + mask.offset;
    for (std::size_t i = 0; i < height; ++i) {
      const float share = grid.rows.share[y + i];
      const float* rows[2] = {cells + (index_of(grid.rows.low[y + i]) - corner.top) * across,
                              cells + (index_of(grid.rows.high[y + i]) - corner.top) * across};
      const float weights[2] = {1 - share, share};
      weigh_rows(rows, weights, 2, across, row_.data());
      is_above(row_.data(), static_cast<std::int32_t>(corner.left), &grid.columns.low[x], &grid.columns.high[x],
               &grid.columns.share[x], limit, width, out + i * width);
    }
  }

  /// Masks that the network gives over each box, above a half.
  void paste_masks(const Frame& frame, Detections& found) {
    uncut_.clear();
    for (const Candidate& one : kept_) uncut_.push_back(uncut(one.on_input, frame));
    place_masks(frame.image, found, uncut_);
    const auto height = static_cast<int>(side(heads_.masks, 2)), width = static_cast<int>(side(heads_.masks, 3));
    for (std::size_t i = 0; i < kept_.size(); ++i) {
      const Mask& mask = found.masks[i];
      const double left = uncut_[i].x1, top = uncut_[i].y1;
      const double across = std::max(uncut_[i].x2 - left, 1e-9), down = std::max(uncut_[i].y2 - top, 1e-9);
      pasted_.rows.clear();
      pasted_.columns.clear();
      for (int y = mask.y1; y < mask.y2; ++y) pasted_.rows.add((y + 0.5 - top) / down, height);
      for (int x = mask.x1; x < mask.x2; ++x) pasted_.columns.add((x + 0.5 - left) / across, width);
      const float* cells = floats(heads_.masks) + kept_[i].cell * index_of(height) * index_of(width);
      interpolate(cells, index_of(width), {0, 0}, pasted_, 0, 0, 0.5F, mask, found);
    }
  }

  const ModelSpec& spec_;
  Selection selection_;
  Heads heads_;
  float min_logit_ = 0, min_score_ = 0;
  const std::vector<TensorView>* outputs_ = nullptr;
  std::vector<Candidate> candidates_, kept_;
  std::vector<double> shares_;
  std::vector<float> logits_, row_;
  std::vector<Box> uncut_;
  Grid pasted_;
};

// ---- OpenVINO

#if defined(EDGEKD_OPENVINO)

/// One core for the life of the process: each core with the CPU device sets an alternate signal stack for its thread.
ov::Core& shared_core() {
  static ov::Core core;
  return core;
}

/// OpenVINO's message without its `Exception from` and `Check ... failed at` lines.
std::string reason_of(const std::exception& error) {
  std::istringstream lines(error.what());
  std::string line, text;
  while (std::getline(lines, line))
    if (!line.empty() && line.rfind("Exception from", 0) != 0 && line.rfind("Check '", 0) != 0)
      text += (text.empty() ? "" : " ") + line;
  return one_line(text.empty() ? error.what() : text);
}

/// Whether an Intel processor has both performance and efficiency cores; OpenVINO chooses its threads there.
bool is_hybrid() {
  return std::ifstream("/sys/bus/event_source/devices/cpu_core/type").good() &&
         std::ifstream("/sys/bus/event_source/devices/cpu_atom/type").good();
}

/// An IR or a blob on one device, with one infer request. The request reads the input and writes the outputs in place.
class OpenVinoEngine final : public Engine {
 public:
  OpenVinoEngine(const std::string& folder, const Manifest& manifest, const ModelSpec& spec, int threads) {
    const std::string path = folder + "/" + manifest.engine;
    try {
      open(path, manifest, threads);
      bind(path, spec);
    } catch (const Error&) {
      throw;
    } catch (const std::exception& error) {
      throw Error(
          text_of(path, ": OpenVINO ", ov::get_openvino_version().buildNumber, " refuses it: ", reason_of(error)));
    }
  }

  const std::vector<TensorView>& infer(const TensorView& input) override {
    try {
      if (input.data != bound_) {
        request_.set_input_tensor(
            ov::Tensor(input_.get_element_type(), input_.get_shape(), const_cast<void*>(input.data)));
        bound_ = input.data;
      }
      request_.infer();
    } catch (const std::exception& error) {
      throw Error(text_of("the engine fails on ", device_, ": ", reason_of(error)));
    }
    return outputs_;
  }

  std::string description() const override {
    return text_of("OpenVINO ", ov::get_openvino_version().buildNumber, ", ", device_, " in ", precision_, ", ",
                   threads_, " threads");
  }
  int threads() const { return threads_; }

 private:
  void open(const std::string& path, const Manifest& manifest, int threads) {
    ov::Core& core = shared_core();
    device_ = manifest.device.empty() ? "CPU" : manifest.device;
    for (const char* chooser :
         {"AUTO", "MULTI", "HETERO", "BATCH"})  // they choose by themselves what runs where, also the CPU
      if (device_.rfind(chooser, 0) == 0)
        throw Error(text_of("manifest.json: options.device: expected one device, got ", in_quotes(device_)));
    const bool is_blob = path.size() > 5 && path.compare(path.size() - 5, 5, ".blob") == 0;
    std::shared_ptr<ov::Model> model;
    if (!is_blob) model = core.read_model(path);
    precision_ = !manifest.inference_precision.empty() ? manifest.inference_precision
                 : is_blob                             ? precision_beside(path)
                                                       : marked(*model);
    const ov::AnyMap settings = settings_of(manifest, threads);
    if (is_blob) {
      std::istringstream blob(read_file(path, kMostEngineBytes));
      compiled_ = core.import_model(blob, device_, settings);
    } else {
      compiled_ = core.compile_model(model, device_, settings);
    }
    const auto supported = compiled_.get_property(ov::supported_properties);
    const auto has = [&supported](const std::string& name) {
      return std::find(supported.begin(), supported.end(), name) != supported.end();
    };
    if (has(ov::hint::inference_precision.name())) {
      const std::string actual = compiled_.get_property(ov::hint::inference_precision).to_string();
      if (actual != precision_)
        throw Error(text_of(path, ": expected ", device_, " to run in ", precision_, ", got ", actual));
    } else if (precision_ != "f16") {
      throw Error(text_of(path, ": ", device_, " does not say whether it runs in ", precision_));
    }
    if (has(ov::inference_num_threads.name()))
      threads_ = std::max(1, static_cast<int>(compiled_.get_property(ov::inference_num_threads)));
    request_ = compiled_.create_infer_request();
  }

  /// The precision of the float operators that edgekd wrote into the IR; f32 for an IR without it.
  static std::string marked(const ov::Model& model) {
    const std::vector<std::string> mark = {"edgekd", "inference_precision"};
    return model.has_rt_info(mark) ? model.get_rt_info<std::string>(mark) : "f32";
  }
  static std::string precision_beside(const std::string& blob) {
    const std::string file = blob.substr(0, blob.size() - 5) + ".json";
    const std::string text = read_file(file, kMostJsonBytes);
    const Json json = JsonReader(text, file).read();
    return Fields(json, file + ": ").text("inference_precision");
  }

  ov::AnyMap settings_of(const Manifest& manifest, int threads) const {
    static const std::vector<std::string> kPrecisions = {"f32", "f16", "bf16"};
    if (std::find(kPrecisions.begin(), kPrecisions.end(), precision_) == kPrecisions.end())
      throw Error(text_of("inference_precision: expected f32, f16 or bf16, got ", in_quotes(precision_)));
    const bool is_throughput = manifest.performance_hint == "THROUGHPUT";
    ov::AnyMap settings = {ov::hint::performance_mode(is_throughput ? ov::hint::PerformanceMode::THROUGHPUT
                                                                    : ov::hint::PerformanceMode::LATENCY),
                           {ov::hint::inference_precision.name(), precision_},
                           ov::hint::execution_mode(precision_ == "f32" ? ov::hint::ExecutionMode::ACCURACY
                                                                        : ov::hint::ExecutionMode::PERFORMANCE)};
    if (device_ == "CPU" && (threads > 0 || !is_hybrid()))
      settings.insert(ov::inference_num_threads(threads > 0 ? threads : usable_cores()));
    return settings;
  }

  /// Compares the engine's tensors with the contract, and binds the outputs.
  void bind(const std::string& path, const ModelSpec& spec) {
    if (compiled_.inputs().size() != 1)
      throw Error(text_of(path, ": expected one input, got ", compiled_.inputs().size()));
    input_ = compiled_.input();
    check_port(path, input_, spec.input);
    for (const TensorSpec& tensor : spec.outputs) {
      const ov::Output<const ov::Node>* found = nullptr;
      for (const auto& port : compiled_.outputs())
        if (port.get_names().count(tensor.name) > 0) found = &port;
      if (found == nullptr)
        throw Error(text_of(path, ": no output ", in_quotes(tensor.name), ", which spec.json names"));
      check_port(path, *found, tensor);
      tensors_.push_back(request_.get_tensor(*found));
      outputs_.push_back({tensors_.back().data(), tensors_.back().get_byte_size()});
    }
  }

  static void check_port(const std::string& path, const ov::Output<const ov::Node>& port, const TensorSpec& tensor) {
    const ov::PartialShape expected(std::vector<ov::Dimension>(tensor.shape.begin(), tensor.shape.end()));
    const std::string dtype = port.get_element_type().to_string() == "f32"  ? "float32"
                              : port.get_element_type() == ov::element::u8  ? "uint8"
                              : port.get_element_type() == ov::element::i32 ? "int32"
                              : port.get_element_type() == ov::element::i64 ? "int64"
                                                                            : port.get_element_type().to_string();
    if (port.get_partial_shape() != expected || dtype != name_of(tensor.dtype))
      throw Error(text_of(path, ": tensor ", in_quotes(tensor.name), ": expected ", name_of(tensor.dtype), " ",
                          expected.to_string(), ", got ", dtype, " ", port.get_partial_shape().to_string(),
                          "; engine and spec.json do not belong together"));
  }

  std::string device_, precision_;
  int threads_ = 1;
  ov::CompiledModel compiled_;
  ov::InferRequest request_;
  ov::Output<const ov::Node> input_;
  std::vector<ov::Tensor> tensors_;
  std::vector<TensorView> outputs_;
  const void* bound_ = nullptr;
};

#endif  // EDGEKD_OPENVINO

// ---- TensorRT

#if defined(EDGEKD_TENSORRT)

void check_cuda(cudaError_t code, const char* what) {
  if (code != cudaSuccess) throw Error(text_of("CUDA: ", what, " fails: ", cudaGetErrorString(code)));
}

class TensorRtLog final : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char* message) noexcept override {
    if (severity > Severity::kERROR) return;
    try {
      last_ = one_line(message);
    } catch (...) {
      last_.clear();
    }
  }
  const std::string& last() const { return last_; }

 private:
  std::string last_;
};

/// A plan on the first CUDA device: one stream, buffers allocated once. Not run on hardware.
class TensorRtEngine final : public Engine {
 public:
  TensorRtEngine(const std::string& folder, const Manifest& manifest, const ModelSpec& spec)
      : path_(folder + "/" + manifest.engine) {
    const std::string plan = read_file(path_, kMostEngineBytes);
    runtime_.reset(nvinfer1::createInferRuntime(log_));
    if (!runtime_) fail("has no runtime");
    engine_.reset(runtime_->deserializeCudaEngine(plan.data(), plan.size()));
    if (!engine_) fail("cannot load it");
    context_.reset(engine_->createExecutionContext());
    if (!context_) fail("has no execution context");
    cudaStream_t stream = nullptr;
    check_cuda(cudaStreamCreate(&stream), "a stream");
    stream_.reset(stream);
    if (index_of(engine_->getNbIOTensors()) != 1 + spec.outputs.size())
      throw Error(text_of(path_, ": expected the tensors of spec.json, got ", engine_->getNbIOTensors()));
    bind(spec.input, nvinfer1::TensorIOMode::kINPUT);
    for (const TensorSpec& tensor : spec.outputs) {
      bind(tensor, nvinfer1::TensorIOMode::kOUTPUT);
      host_.emplace_back(tensor.count() * size_bytes(tensor.dtype));
      outputs_.push_back({host_.back().data(), host_.back().size()});
    }
  }

  const std::vector<TensorView>& infer(const TensorView& input) override {
    check_cuda(cudaMemcpyAsync(device_[0].get(), input.data, input.bytes, cudaMemcpyHostToDevice, stream_.get()),
               "copying the input");
    if (!context_->enqueueV3(stream_.get())) fail("fails to run it");
    for (std::size_t i = 0; i < host_.size(); ++i)
      check_cuda(cudaMemcpyAsync(host_[i].data(), device_[i + 1].get(), host_[i].size(), cudaMemcpyDeviceToHost,
                                 stream_.get()),
                 "copying an output");
    check_cuda(cudaStreamSynchronize(stream_.get()), "the engine");
    return outputs_;
  }

  std::string description() const override { return text_of("TensorRT ", getInferLibVersion(), ", CUDA device 0"); }

 private:
  struct FreeDevice {
    void operator()(void* memory) const noexcept { cudaFree(memory); }
  };
  struct DestroyStream {
    using pointer = cudaStream_t;
    void operator()(cudaStream_t stream) const noexcept { cudaStreamDestroy(stream); }
  };

  [[noreturn]] void fail(const char* what) const {
    throw Error(text_of(path_, ": TensorRT ", what, ": ", log_.last()));
  }

  /// Compares a tensor with the contract and gives it memory on the device.
  void bind(const TensorSpec& tensor, nvinfer1::TensorIOMode mode) {
    const char* name = tensor.name.c_str();
    if (engine_->getTensorIOMode(name) != mode)
      throw Error(text_of(path_, ": no tensor ", in_quotes(tensor.name), ", which spec.json names"));
    const nvinfer1::Dims shape = engine_->getTensorShape(name);
    bool is_same = index_of(shape.nbDims) == tensor.shape.size() &&
                   dtype_of(engine_->getTensorDataType(name)) == name_of(tensor.dtype);
    for (std::size_t i = 0; is_same && i < tensor.shape.size(); ++i) is_same = shape.d[i] == tensor.shape[i];
    if (!is_same)
      throw Error(
          text_of(path_, ": tensor ", in_quotes(tensor.name), " has another shape or dtype than spec.json says"));
    void* memory = nullptr;
    check_cuda(cudaMalloc(&memory, tensor.count() * size_bytes(tensor.dtype)), "memory");
    device_.emplace_back(memory);
    if (!context_->setTensorAddress(name, memory)) fail("refuses a buffer");
  }

  static std::string dtype_of(nvinfer1::DataType dtype) {
    switch (dtype) {
      case nvinfer1::DataType::kFLOAT:
        return "float32";
      case nvinfer1::DataType::kINT32:
        return "int32";
      case nvinfer1::DataType::kINT64:
        return "int64";
      case nvinfer1::DataType::kUINT8:
        return "uint8";
      default:
        return "another dtype";
    }
  }

  std::string path_;
  TensorRtLog log_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;  // destroyed last of the three
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::unique_ptr<cudaStream_t, DestroyStream> stream_;
  std::vector<std::unique_ptr<void, FreeDevice>> device_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  std::vector<std::vector<std::uint8_t>> host_;
  std::vector<TensorView> outputs_;
};

#endif  // EDGEKD_TENSORRT

/// An engine and the threads that it runs with.
struct Opened {
  std::unique_ptr<Engine> engine;
  int threads = 1;
};

Opened open_engine(const std::string& folder, const Manifest& manifest, const ModelSpec& spec, int engine_threads) {
  Opened opened;
#if defined(EDGEKD_OPENVINO)
  if (manifest.target == "openvino") {
    auto made = std::make_unique<OpenVinoEngine>(folder, manifest, spec,
                                                 engine_threads > 0 ? engine_threads : manifest.engine_threads);
    opened.threads = made->threads();
    opened.engine = std::move(made);
  }
#endif
#if defined(EDGEKD_TENSORRT)
  if (manifest.target == "tensorrt" || manifest.target == "tensorrt_rtx")
    opened.engine = std::make_unique<TensorRtEngine>(folder, manifest, spec);
#endif
  (void)folder, (void)spec, (void)engine_threads;
  if (!opened.engine)
    throw Error(text_of("manifest.json: target ", in_quotes(manifest.target),
                        ": this program was built without a runtime for it; build it with ",
                        "EDGEKD_OPENVINO or EDGEKD_TENSORRT, or pass an Engine of your own"));
  return opened;
}

void check_size(int height, int width) {
  if (height < 1 || width < 1 || height > kMostSide || width > kMostSide)
    throw Error(text_of("image: expected a height and a width from 1 to ", kMostSide, ", got ", height, "x", width));
}

void check_image(const ImageView& image) {
  check_size(image.height, image.width);
  if (image.data == nullptr) throw Error("image: expected uint8 pixels (height, width, 3), got a null pointer");
  if (image.row_bytes != 0 && std::abs(image.row_bytes) < std::ptrdiff_t{3} * image.width)
    throw Error(
        text_of("image: expected rows of at least ", 3 * image.width, " bytes, got row_bytes ", image.row_bytes));
}

}  // namespace

// ---- the runner

std::size_t size_bytes(DType dtype) {
  switch (dtype) {
    case DType::uint8:
      return 1;
    case DType::int64:
      return 8;
    default:
      return 4;
  }
}

const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::uint8:
      return "uint8";
    case DType::int32:
      return "int32";
    case DType::int64:
      return "int64";
    default:
      return "float32";
  }
}

std::size_t TensorSpec::count() const {
  std::size_t values = 1;
  for (const std::int64_t side : shape) values *= index_of(side);
  return values;
}

class Runner::Impl {
 public:
  Impl(const std::string& folder, std::unique_ptr<Engine> engine, const Options& options)
      : manifest_(read_manifest(folder)), spec_(read_spec(folder)) {
    static const std::array<const char*, 3> kTasks = {"semantic", "detection", "instance"};
    if (manifest_.task != kTasks[static_cast<std::size_t>(spec_.task)])
      throw Error(text_of("manifest.json: task ", in_quotes(manifest_.task),
                          " is not that of spec.json; the bundle is damaged"));
    if (options.threads < 0 || options.engine_threads < 0 || options.selection.iou < 0 || options.selection.most < 1)
      throw Error("options: expected threads of 0 or more, an IoU of 0 or more and 1 detection or more");
    if (spec_.task == Task::semantic) {
      check_maps();
      result_ = ClassMap{};
    } else {
      detector_ = std::make_unique<Detector>(spec_, options.selection);
      result_ = Detections{};
    }
    int threads = options.threads;
    if (engine) {
      engine_ = std::move(engine);
    } else {
      Opened opened = open_engine(folder, manifest_, spec_, options.engine_threads);
      engine_ = std::move(opened.engine);
      if (threads == 0) threads = std::min(opened.threads, kDefaultThreads);
    }
    threads_ = std::min({std::max(threads, 1), usable_cores(), kMostThreads});
    team_ = std::make_unique<Team>(threads_);
  }

  TensorView prepare(const ImageView& image) {
    check_image(image);
    return tools({image.height, image.width}).prepare(image, *team_);
  }

  const std::vector<TensorView>& run(const TensorView& input) {
    if (input.data == nullptr || input.bytes != spec_.input.count() * size_bytes(spec_.input.dtype))
      throw Error(text_of("input: expected what `prepare` returns, got ", input.bytes, " bytes"));
    return engine_->infer(input);
  }

  const Result& finish(const std::vector<TensorView>& outputs, Size size) {
    if (outputs.size() != spec_.outputs.size())
      throw Error(text_of("outputs: expected ", spec_.outputs.size(), " tensors, got ", outputs.size()));
    for (std::size_t i = 0; i < outputs.size(); ++i)
      if (outputs[i].data == nullptr ||
          outputs[i].bytes != spec_.outputs[i].count() * size_bytes(spec_.outputs[i].dtype))
        throw Error(text_of("outputs: ", in_quotes(spec_.outputs[i].name),
                            ": another number of bytes than spec.json says: ", outputs[i].bytes));
    check_size(size.height, size.width);
    Tools& tool = tools(size);
    if (detector_) {
      (*detector_)(outputs, tool.frame, tool.grid, std::get<Detections>(result_));
    } else if (tool.maps) {
      (*tool.maps)(static_cast<const float*>(outputs[map_].data), std::get<ClassMap>(result_), *team_);
    } else {
      (*tool.nearest)(outputs[map_], std::get<ClassMap>(result_));
    }
    return result_;
  }

  const ModelSpec& spec() const { return spec_; }
  const Manifest& manifest() const { return manifest_; }
  std::string engine() const {
    return text_of(engine_->description(), "; images by ", threads_, threads_ == 1 ? " thread" : " threads");
  }

 private:
  /// What belongs to images of one size.
  struct Tools {
    Tools(const ModelSpec& spec, Size size, int threads)
        : frame(frame_of(size, spec.preprocess)), prepare(frame, spec.preprocess, threads) {}
    Frame frame;
    Preparation prepare;
    std::unique_ptr<ClassMaps> maps;
    std::unique_ptr<NearestMap> nearest;
    Detector::Grid grid;
  };

  void check_maps() {
    map_ = spec_.outputs.size();
    for (std::size_t i = spec_.outputs.size(); i-- > 0;)
      if (spec_.outputs[i].role == "logits" || spec_.outputs[i].role == "class_map") map_ = i;
    check(map_ < spec_.outputs.size(), "logits or a class_map");
    const TensorSpec& tensor = spec_.outputs[map_];
    if (tensor.role == "logits") {
      check(is_floats(tensor, 4) && tensor.shape[1] <= 256 && tensor.shape[2] <= kMostSide &&
                tensor.shape[3] <= kMostSide,
            "float32 logits (1, K, h, w) of at most 256 classes");
    } else {
      check(tensor.shape.size() == 3 && tensor.shape[0] == 1, "a class_map (1, h, w)");
    }
  }

  /// Keeps those of the sizes that came last.
  Tools& tools(Size size) {
    const auto found =
        std::find_if(tools_.begin(), tools_.end(), [size](const auto& one) { return one->frame.image == size; });
    if (found == tools_.end()) {
      auto made = std::make_unique<Tools>(spec_, size, threads_);
      if (detector_) {
        made->grid = detector_->grid_of(made->frame);
      } else {
        const TensorSpec& tensor = spec_.outputs[map_];
        if (tensor.role == "logits") {
          const Size logits = {static_cast<int>(tensor.shape[2]), static_cast<int>(tensor.shape[3])};
          made->maps = std::make_unique<ClassMaps>(static_cast<int>(tensor.shape[1]), logits, made->frame, threads_);
        } else {
          made->nearest = std::make_unique<NearestMap>(tensor, made->frame);
        }
      }
      if (tools_.size() == kSizes) tools_.pop_back();
      tools_.insert(tools_.begin(), std::move(made));
    } else {
      std::rotate(tools_.begin(), found, found + 1);
    }
    return *tools_.front();
  }

  Manifest manifest_;
  ModelSpec spec_;
  std::size_t map_ = 0;
  int threads_ = 1;
  std::unique_ptr<Detector> detector_;
  std::unique_ptr<Team> team_;
  std::vector<std::unique_ptr<Tools>> tools_;  // the size that came last first
  std::unique_ptr<Engine> engine_;             // goes before the inputs that it reads
  Result result_;
};

Runner::Runner(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Runner::Runner(Runner&&) noexcept = default;
Runner& Runner::operator=(Runner&&) noexcept = default;
Runner::~Runner() = default;

Runner Runner::open(const std::string& folder, const Options& options) { return open(folder, nullptr, options); }

Runner Runner::open(const std::string& folder, std::unique_ptr<Engine> engine, const Options& options) {
  return Runner(std::make_unique<Impl>(folder, std::move(engine), options));
}

const Result& Runner::infer(const ImageView& image) { return finish(run(prepare(image)), {image.height, image.width}); }
TensorView Runner::prepare(const ImageView& image) { return impl_->prepare(image); }
const std::vector<TensorView>& Runner::run(const TensorView& input) { return impl_->run(input); }
const Result& Runner::finish(const std::vector<TensorView>& outputs, Size image_size) {
  return impl_->finish(outputs, image_size);
}
const ModelSpec& Runner::spec() const { return impl_->spec(); }
const Manifest& Runner::manifest() const { return impl_->manifest(); }
std::string Runner::engine() const { return impl_->engine(); }

}  // namespace edgekd
