// Calls the parser as nvinfer does, with plain arrays, for Python's ctypes.
#include "parser.cpp"

namespace {

struct Call {
  Layers layers;
  NvDsInferNetworkInfo network;
  NvDsInferParseDetectionParams asked;
};

Call call_of(int count, const char** names, const int* types, const unsigned int* counts, void** buffers, unsigned int height,
             unsigned int width, unsigned int classes, float least) {
  Call call{{}, {width, height, 3}, {classes, std::vector<float>(classes, least), std::vector<float>(classes, 0)}};
  for (int one = 0; one < count; ++one) {
    NvDsInferLayerInfo layer{};
    layer.dataType = static_cast<NvDsInferDataType>(types[one]);
    layer.inferDims.numElements = counts[one];
    layer.layerName = names[one];
    layer.buffer = buffers[one];
    call.layers.push_back(layer);
  }
  return call;
}

}  // namespace

extern "C" int run_segmentation(int count, const char** names, const int* types, const unsigned int* counts, void** buffers,
                                unsigned int height, unsigned int width, unsigned int classes, int* map) {
  const Call call = call_of(count, names, types, counts, buffers, height, width, classes, 0);
  float* probabilities = nullptr;
  return EdgekdParseSegmentation(call.layers, call.network, 0, classes, map, probabilities) ? 1 : -1;
}

// Writes left, top, width, height, score and class of each object; returns how many there are, -1 after an error.
extern "C" int run_objects(int count, const char** names, const int* types, const unsigned int* counts, void** buffers,
                           unsigned int height, unsigned int width, unsigned int classes, float least, float* rows, int most) {
  const Call call = call_of(count, names, types, counts, buffers, height, width, classes, least);
  std::vector<NvDsInferObjectDetectionInfo> objects;
  if (!EdgekdParseObjects(call.layers, call.network, call.asked, objects)) return -1;
  int written = 0;
  for (const auto& one : objects) {
    if (written == most) break;
    const float row[] = {one.left, one.top, one.width, one.height, one.detectionConfidence, static_cast<float>(one.classId)};
    std::copy_n(row, 6, rows + 6 * written++);
  }
  return static_cast<int>(objects.size());
}

// The same, with the mask's height and width as columns 7 and 8, and the masks one after the other.
extern "C" int run_instances(int count, const char** names, const int* types, const unsigned int* counts, void** buffers,
                             unsigned int height, unsigned int width, unsigned int classes, float least, float* rows, float* masks,
                             int most_values) {
  const Call call = call_of(count, names, types, counts, buffers, height, width, classes, least);
  std::vector<NvDsInferInstanceMaskInfo> objects;
  if (!EdgekdParseInstances(call.layers, call.network, call.asked, objects)) return -1;
  int number = 0, used = 0;
  for (const auto& one : objects) {
    const float row[] = {one.left, one.top, one.width, one.height, one.detectionConfidence, static_cast<float>(one.classId),
                         static_cast<float>(one.mask_height), static_cast<float>(one.mask_width)};
    std::copy_n(row, 8, rows + 8 * number++);
    const int values = static_cast<int>(one.mask_width * one.mask_height);
    if (used + values > most_values || one.mask_size != values * sizeof(float)) return -2;
    std::copy_n(one.mask, values, masks + used);
    used += values;
    delete[] one.mask;
  }
  return number;
}
