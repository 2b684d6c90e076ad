// Arrays of .npy files, and images of .npy and binary PPM files, each no larger than 1 GiB.
#pragma once

#include <algorithm>
#include <cctype>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "edgekd_runner.hpp"

namespace files {

using edgekd::Error;

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

inline std::string read_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text;
  char block[1 << 16];
  while (text.size() <= kMostBytes && (in.read(block, sizeof block) || in.gcount() > 0))
    text.append(block, static_cast<std::size_t>(in.gcount()));
  if (text.empty()) throw Error(path + ": no such file, or an empty one");
  if (text.size() > kMostBytes) throw Error(path + ": larger than 1 GiB");
  return text;
}

/// The text behind `'name': ` in the header of an .npy file.
inline std::string header_value(const std::string& path, const std::string& header, const std::string& name, char end) {
  const std::size_t at = header.find("'" + name + "': ");
  const std::size_t begin = at + name.size() + 4;
  const std::size_t stop = at == std::string::npos ? at : header.find(end, begin);
  if (stop == std::string::npos) throw Error(path + ": no .npy file: no " + name);
  return header.substr(begin, stop - begin);
}

inline Array read_npy(const std::string& path) {
  const std::string text = read_text(path);
  if (text.size() < 12 || text.compare(0, 6, "\x93NUMPY") != 0 || text[6] != 1)
    throw Error(path + ": expected an .npy file of version 1.0");
  const std::size_t begin = 10,
                    length = static_cast<unsigned char>(text[8]) + 256U * static_cast<unsigned char>(text[9]);
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
    side.erase(0, side.find_first_not_of(' '));
    if (side.empty()) continue;  // (3,)
    if (side.size() > 12 || side.find_first_not_of("0123456789") != std::string::npos)
      throw Error(path + ": no .npy file: its shape is none");
    array.shape.push_back(std::stoll(side));
    if (array.shape.back() > static_cast<std::int64_t>(kMostBytes)) throw Error(path + ": a side is out of range");
    bytes *= static_cast<std::size_t>(array.shape.back());
    if (bytes > kMostBytes) throw Error(path + ": larger than 1 GiB");
  }
  if (text.size() - begin - length != bytes) throw Error(path + ": no .npy file: its length is not that of its shape");
  array.bytes.assign(text.begin() + static_cast<std::ptrdiff_t>(begin + length), text.end());
  return array;
}

inline void write_npy(const std::string& path, const std::string& descr, const std::vector<std::int64_t>& shape,
                      const void* data, std::size_t bytes) {
  std::string sides;
  for (const std::int64_t side : shape) sides += std::to_string(side) + ", ";
  std::string header = "{'descr': '" + descr + "', 'fortran_order': False, 'shape': (" + sides + "), }";
  header.append(63 - (10 + header.size()) % 64, ' ');
  header += '\n';
  std::ofstream out(path, std::ios::binary);
  out << "\x93NUMPY" << '\x01' << '\0' << static_cast<char>(header.size() % 256)
      << static_cast<char>(header.size() / 256) << header;
  out.write(static_cast<const char*>(data), static_cast<std::streamsize>(bytes));
  out.close();
  if (!out) throw Error(path + ": cannot be written");
}

/// A PPM file (P6, 255) as an array (height, width, 3).
inline Array read_ppm(const std::string& path) {
  const std::string text = read_text(path);
  std::size_t at = 2;
  std::int64_t numbers[3] = {};
  for (std::int64_t& number : numbers) {
    while (at < text.size() && (std::isspace(static_cast<unsigned char>(text[at])) != 0 || text[at] == '#'))
      at = text[at] == '#' ? std::min(text.find('\n', at), text.size()) : at + 1;
    while (at < text.size() && std::isdigit(static_cast<unsigned char>(text[at])) != 0 && number < 100000)
      number = 10 * number + (text[at++] - '0');
  }
  const std::int64_t bytes = 3 * numbers[0] * numbers[1];
  if (text.compare(0, 2, "P6") != 0 || numbers[2] != 255 ||
      static_cast<std::int64_t>(text.size() - std::min(at + 1, text.size())) != bytes)
    throw Error(path + ": expected a binary PPM file (P6) with 255 as its largest value");
  return {"|u1",
          {numbers[1], numbers[0], 3},
          std::vector<char>(text.begin() + static_cast<std::ptrdiff_t>(at + 1), text.end())};
}

inline bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

inline Array read_image(const std::string& path) {
  Array image = ends_with(path, ".npy") ? read_npy(path) : read_ppm(path);
  if (image.descr != "|u1" || image.shape.size() != 3 || image.shape[2] != 3)
    throw Error(path + ": expected uint8 pixels (height, width, 3)");
  return image;
}

inline edgekd::ImageView view_of(const Array& image) {
  return {image.as<std::uint8_t>(), static_cast<int>(image.shape[0]), static_cast<int>(image.shape[1])};
}

}  // namespace files
