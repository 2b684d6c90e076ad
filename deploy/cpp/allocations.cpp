// Counts the allocations that an image costs once its size is known: none. Usage: edgekd-allocations BUNDLE IMAGE.npy
#include <cstdlib>
#include <iostream>
#include <new>

#include "arrays.hpp"
#include "edgekd_runner.hpp"
#include "golden.hpp"

namespace {
std::size_t allocations = 0;
}

void* operator new(std::size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

int main(int count, char** texts) {
  try {
    if (count != 3) throw edgekd::Error("usage: edgekd-allocations BUNDLE IMAGE.npy");
    auto made = std::make_unique<golden::Replay>();
    golden::Replay& replay = *made;
    edgekd::Options options;
    options.threads = 2;
    edgekd::Runner runner = edgekd::Runner::open(texts[1], std::move(made), options);
    replay.set(golden::read(texts[1], 0, runner.spec()));
    const files::Array image = files::read_image(texts[2]);
    runner.infer(files::view_of(image));
    const std::size_t before = allocations;
    for (int i = 0; i < 10; ++i) runner.infer(files::view_of(image));
    std::cout << allocations - before << std::endl;
    return 0;
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return 1;
  }
}
