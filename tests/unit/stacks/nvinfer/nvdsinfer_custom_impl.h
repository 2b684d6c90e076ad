// What edgekd's parser uses of DeepStream's nvdsinfer_custom_impl.h: the types of the three parser functions, and the checks that
// a function is of one of them.
#pragma once

#include <vector>

#include "nvdsinfer.h"

struct NvDsInferParseDetectionParams {
  unsigned int numClassesConfigured;
  std::vector<float> perClassPreclusterThreshold;
  std::vector<float> perClassPostclusterThreshold;
};

using StubLayers = std::vector<NvDsInferLayerInfo> const&;
using NvDsInferParseCustomFunc = bool (*)(StubLayers, NvDsInferNetworkInfo const&, NvDsInferParseDetectionParams const&,
                                          std::vector<NvDsInferObjectDetectionInfo>&);
using NvDsInferInstanceMaskParseCustomFunc = bool (*)(StubLayers, NvDsInferNetworkInfo const&, NvDsInferParseDetectionParams const&,
                                                      std::vector<NvDsInferInstanceMaskInfo>&);
using NvDsInferSemSegmentationParseCustomFunc = bool (*)(StubLayers, NvDsInferNetworkInfo const&, float, unsigned int, int*,
                                                         float*&);

#define STUB_CHECK(type, function) static const type is_a_parser_##function = function;
#define CHECK_CUSTOM_PARSE_FUNC_PROTOTYPE(function) STUB_CHECK(NvDsInferParseCustomFunc, function)
#define CHECK_CUSTOM_INSTANCE_MASK_PARSE_FUNC_PROTOTYPE(function) STUB_CHECK(NvDsInferInstanceMaskParseCustomFunc, function)
#define CHECK_CUSTOM_SEM_SEGMENTATION_PARSE_FUNC_PROTOTYPE(function) STUB_CHECK(NvDsInferSemSegmentationParseCustomFunc, function)
