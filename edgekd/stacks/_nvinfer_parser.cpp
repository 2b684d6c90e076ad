// Output parsers for DeepStream's nvinfer. The tensors of the engine are in contract.h, which edgekd writes.
//
// nvinfer's own segmentation parser reads logits of the network's size only and takes a value below zero for no class; its own
// detection parser is one model's. These read what edgekd's engines give:
//
//   EdgekdParseSegmentation  logits of any size, or a class map                    -> class map of the network's size
//   EdgekdParseObjects       raw heads, decoded boxes, or suppressed detections    -> boxes; nvinfer suppresses (cluster-mode)
//   EdgekdParseInstances     the same with coefficients and prototypes             -> boxes and masks, suppressed here
//
// Build: g++ -O2 -shared -fPIC parser.cpp -o libedgekd_parser.so -I<DeepStream>/sources/includes -I<CUDA>/include

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "nvdsinfer_custom_impl.h"

#include "contract.h"

namespace {

using Layers = std::vector<NvDsInferLayerInfo>;

// Scores of a class below its threshold are left out.
using Thresholds = std::vector<float>;

struct Candidate {
  unsigned int label;
  float score;
  float x1, y1, x2, y2;       // on the network's input
  const float* coefficients;  // of the mask; `apart` values lie between two of them
  unsigned int apart;
};

// Returns the values of a tensor; null, with a line on stderr, when the engine has no such tensor.
const void* values(const Layers& layers, const Tensor& wanted) {
  for (const NvDsInferLayerInfo& layer : layers) {
    if (std::strcmp(layer.layerName, wanted.name) != 0) continue;
    if (layer.dataType == wanted.type && layer.inferDims.numElements == wanted.count) return layer.buffer;
    std::fprintf(stderr, "edgekd: output %s: expected %u values of type %d, got %u of type %d: not the engine of contract.h\n",
                 wanted.name, wanted.count, wanted.type, layer.inferDims.numElements, layer.dataType);
    return nullptr;
  }
  std::fprintf(stderr, "edgekd: no output %s; list it in output-blob-names\n", wanted.name);
  return nullptr;
}

const float* floats(const Layers& layers, const Tensor& wanted) {
  return static_cast<const float*>(values(layers, wanted));
}

// A place between two cells of an axis: pixel centres are aligned, and beyond the edge the last cell counts.
struct Between {
  unsigned int low, high;
  float share;  // of the higher cell

  Between(float place, unsigned int length) {
    const float inside = std::min(std::max(place, 0.0f), static_cast<float>(length - 1));
    low = static_cast<unsigned int>(inside);
    high = std::min(low + 1, length - 1);
    share = inside - static_cast<float>(low);
  }
};

float mixed(const float* plane, unsigned int width, const Between& row, const Between& column) {
  const float* top = plane + static_cast<size_t>(row.low) * width;
  const float* bottom = plane + static_cast<size_t>(row.high) * width;
  const float upper = top[column.low] + (top[column.high] - top[column.low]) * column.share;
  const float lower = bottom[column.low] + (bottom[column.high] - bottom[column.low]) * column.share;
  return upper + (lower - upper) * row.share;
}

Candidate clipped(Candidate one) {
  one.x1 = std::min(std::max(one.x1, 0.0f), kInputWidth);
  one.x2 = std::min(std::max(one.x2, 0.0f), kInputWidth);
  one.y1 = std::min(std::max(one.y1, 0.0f), kInputHeight);
  one.y2 = std::min(std::max(one.y2, 0.0f), kInputHeight);
  return one;
}

// Adds a candidate that has a part on the input. It is clipped after the suppression: nvinfer does it (crop-objects-to-roi-boundary).
void add(std::vector<Candidate>& found, const Candidate& one) {
  const Candidate inside = clipped(one);
  if (inside.x2 > inside.x1 && inside.y2 > inside.y1) found.push_back(one);
}

// Returns the distance to one side in strides: the expectation of its distribution (GFL, arXiv 2006.04388, equation 5).
float distance(const float* sides, unsigned int side, unsigned int bins, unsigned int cells, unsigned int cell) {
  const float* first = sides + static_cast<size_t>(side) * bins * cells + cell;
  float most = first[0];
  for (unsigned int bin = 1; bin < bins; ++bin) most = std::max(most, first[static_cast<size_t>(bin) * cells]);
  float total = 0, mean = 0;
  for (unsigned int bin = 0; bin < bins; ++bin) {
    const float weight = std::exp(first[static_cast<size_t>(bin) * cells] - most);
    total += weight;
    mean += weight * static_cast<float>(bin);
  }
  return mean / total;
}

bool read_heads(const Layers& layers, const Thresholds& least, std::vector<Candidate>& found) {
  for (const Level& level : kLevels) {
    const float* scores = floats(layers, level.scores);
    const float* sides = floats(layers, level.boxes);
    const float* coefficients = kMixes ? floats(layers, level.coefficients) : nullptr;
    if (!scores || !sides || (kMixes && !coefficients)) return false;
    const unsigned int cells = level.height * level.width, bins = level.boxes.count / (4 * cells);
    const float stride = kInputHeight / static_cast<float>(level.height);
    for (unsigned int label = 0; label < std::min<size_t>(kClasses, least.size()); ++label) {
      for (unsigned int cell = 0; cell < cells; ++cell) {
        const float score = 1 / (1 + std::exp(-scores[static_cast<size_t>(label) * cells + cell]));
        if (score < least[label]) continue;
        const float x = (static_cast<float>(cell % level.width) + 0.5f) * stride;
        const float y = (static_cast<float>(cell / level.width) + 0.5f) * stride;
        float side[4];
        for (unsigned int one = 0; one < 4; ++one) side[one] = distance(sides, one, bins, cells, cell) * stride;
        add(found, {label, score, x - side[0], y - side[1], x + side[2], y + side[3],
                    coefficients ? coefficients + cell : nullptr, cells});
      }
    }
  }
  return true;
}

bool read_decoded(const Layers& layers, const Thresholds& least, std::vector<Candidate>& found) {
  const float* scores = floats(layers, kScores);
  const float* boxes = floats(layers, kBoxes);
  const float* coefficients = kMixes ? floats(layers, kCoefficients) : nullptr;
  if (!scores || !boxes || (kMixes && !coefficients)) return false;
  const unsigned int points = kBoxes.count / 4;
  for (unsigned int label = 0; label < std::min<size_t>(kClasses, least.size()); ++label)
    for (unsigned int at = 0; at < points; ++at) {
      const float score = scores[static_cast<size_t>(label) * points + at];
      if (score >= least[label])
        add(found, {label, score, boxes[at], boxes[points + at], boxes[2 * points + at], boxes[3 * points + at],
                    coefficients ? coefficients + at : nullptr, points});
    }
  return true;
}

bool read_found(const Layers& layers, const Thresholds& least, std::vector<Candidate>& found) {
  const float* scores = floats(layers, kScores);
  const float* boxes = floats(layers, kBoxes);
  const int32_t* labels = static_cast<const int32_t*>(values(layers, kLabels));
  const float* coefficients = kMixes ? floats(layers, kCoefficients) : nullptr;
  if (!scores || !boxes || !labels || (kMixes && !coefficients)) return false;
  for (unsigned int at = 0; at < kScores.count; ++at) {
    const unsigned int label = static_cast<unsigned int>(labels[at]);
    if (scores[at] <= 0 || label >= least.size() || scores[at] < least[label]) continue;
    const float* box = boxes + 4 * static_cast<size_t>(at);
    add(found, {label, scores[at], box[0], box[1], box[2], box[3],
                coefficients ? coefficients + static_cast<size_t>(at) * kMixes : nullptr, 1});
  }
  return true;
}

bool read_candidates(const Layers& layers, const Thresholds& least, std::vector<Candidate>& found) {
  if (kOutputs == kRawHeads) return read_heads(layers, least, found);
  return kOutputs == kDecoded ? read_decoded(layers, least, found) : read_found(layers, least, found);
}

float overlap(const Candidate& one, const Candidate& other) {
  const float width = std::min(one.x2, other.x2) - std::max(one.x1, other.x1);
  const float height = std::min(one.y2, other.y2) - std::max(one.y1, other.y1);
  if (width <= 0 || height <= 0) return 0;
  const float both = (one.x2 - one.x1) * (one.y2 - one.y1) + (other.x2 - other.x1) * (other.y2 - other.y1);
  return width * height / (both - width * height);
}

// Leaves the best of those that overlap, at most kMost in all: greedy suppression within each class.
void suppress(std::vector<Candidate>& found) {
  std::stable_sort(found.begin(), found.end(), [](const Candidate& one, const Candidate& other) { return one.score > other.score; });
  std::vector<Candidate> kept;
  for (const Candidate& one : found) {
    const bool is_double = std::any_of(kept.begin(), kept.end(), [&one](const Candidate& better) {
      return better.label == one.label && overlap(better, one) > kIou;
    });
    if (!is_double) kept.push_back(one);
    if (kept.size() == kMost) break;
  }
  found = kept;
}

// Fills the mask of an object: its probabilities over the box, a value per prototype cell, which nvinfer holds to
// segmentation-threshold (YOLACT, arXiv 1904.02689, section 3).
void fill_mask(const Candidate& one, const float* prototypes, NvDsInferInstanceMaskInfo& object) {
  const float across = kInputWidth / static_cast<float>(kPrototypesWidth), down = kInputHeight / static_cast<float>(kPrototypesHeight);
  const unsigned int width = std::max(1, static_cast<int>(std::ceil((one.x2 - one.x1) / across)));
  const unsigned int height = std::max(1, static_cast<int>(std::ceil((one.y2 - one.y1) / down)));
  object.mask_width = width;
  object.mask_height = height;
  object.mask_size = static_cast<unsigned int>(sizeof(float)) * width * height;
  object.mask = new float[static_cast<size_t>(width) * height];  // nvinfer frees it
  for (unsigned int y = 0; y < height; ++y)
    for (unsigned int x = 0; x < width; ++x) {
      const float place_x = one.x1 + (static_cast<float>(x) + 0.5f) * (one.x2 - one.x1) / static_cast<float>(width);
      const float place_y = one.y1 + (static_cast<float>(y) + 0.5f) * (one.y2 - one.y1) / static_cast<float>(height);
      const Between row(place_y / down - 0.5f, kPrototypesHeight), column(place_x / across - 0.5f, kPrototypesWidth);
      float logit = 0;
      for (unsigned int mix = 0; mix < kMixes; ++mix)
        logit += one.coefficients[static_cast<size_t>(mix) * one.apart] *
                 mixed(prototypes + static_cast<size_t>(mix) * kPrototypesHeight * kPrototypesWidth, kPrototypesWidth, row, column);
      object.mask[static_cast<size_t>(y) * width + x] = 1 / (1 + std::exp(-logit));
    }
}

template <typename Object>
Object object_of(const Candidate& one) {
  Object object{};
  object.classId = one.label;
  object.left = one.x1;
  object.top = one.y1;
  object.width = one.x2 - one.x1;
  object.height = one.y2 - one.y1;
  object.detectionConfidence = one.score;
  return object;
}

}  // namespace

extern "C" bool EdgekdParseSegmentation(Layers const& layers, NvDsInferNetworkInfo const& network, float, unsigned int,
                                        int* classes, float*& probabilities) {
  probabilities = nullptr;
  const void* given = values(layers, kMap);
  if (!given) return false;
  if (kMap.type == INT32) {
    std::copy_n(static_cast<const int32_t*>(given), kMap.count, classes);
    return true;
  }
  const float* logits = static_cast<const float*>(given);
  std::vector<Between> columns;
  for (unsigned int x = 0; x < network.width; ++x)
    columns.emplace_back((static_cast<float>(x) + 0.5f) * kMapWidth / network.width - 0.5f, kMapWidth);
  for (unsigned int y = 0; y < network.height; ++y) {
    const Between row((static_cast<float>(y) + 0.5f) * kMapHeight / network.height - 0.5f, kMapHeight);
    for (unsigned int x = 0; x < network.width; ++x) {
      float best = mixed(logits, kMapWidth, row, columns[x]);
      int winner = 0;
      for (unsigned int label = 1; label < kClasses; ++label) {
        const float value = mixed(logits + static_cast<size_t>(label) * kMapHeight * kMapWidth, kMapWidth, row, columns[x]);
        if (value > best) best = value, winner = static_cast<int>(label);
      }
      classes[static_cast<size_t>(y) * network.width + x] = winner;
    }
  }
  return true;
}

extern "C" bool EdgekdParseObjects(Layers const& layers, NvDsInferNetworkInfo const&, NvDsInferParseDetectionParams const& asked,
                                   std::vector<NvDsInferObjectDetectionInfo>& objects) {
  std::vector<Candidate> found;
  if (!read_candidates(layers, asked.perClassPreclusterThreshold, found)) return false;
  for (const Candidate& one : found) objects.push_back(object_of<NvDsInferObjectDetectionInfo>(one));
  return true;
}

extern "C" bool EdgekdParseInstances(Layers const& layers, NvDsInferNetworkInfo const&, NvDsInferParseDetectionParams const& asked,
                                     std::vector<NvDsInferInstanceMaskInfo>& objects) {
  std::vector<Candidate> found;
  const float* prototypes = kMixes ? floats(layers, kPrototypes) : nullptr;
  if (!prototypes || !read_candidates(layers, asked.perClassPreclusterThreshold, found)) return false;
  suppress(found);
  for (const Candidate& whole : found) {
    const Candidate one = clipped(whole);  // the mask belongs to this box
    objects.push_back(object_of<NvDsInferInstanceMaskInfo>(one));
    fill_mask(one, prototypes, objects.back());
  }
  return true;
}

CHECK_CUSTOM_SEM_SEGMENTATION_PARSE_FUNC_PROTOTYPE(EdgekdParseSegmentation)
CHECK_CUSTOM_PARSE_FUNC_PROTOTYPE(EdgekdParseObjects)
CHECK_CUSTOM_INSTANCE_MASK_PARSE_FUNC_PROTOTYPE(EdgekdParseInstances)
