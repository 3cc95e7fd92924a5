// A copy in small steps, between which other work is done: a plain copy leaves the processor waiting for memory, and
// other work leaves memory waiting. Part of cpu_path.cpp, and under the same rules.
#pragma once

#include "cpu_path.h"
#include "lanes.h"

namespace faultsim {
namespace FAULTSIM_PATH {
namespace {

// GCC's and Clang's own vectors have the operators of integers.
typedef uint64_t Wide __attribute__((vector_size(sizeof(Lanes::V))));

template <class Word>
Word load(const uint8_t* p, Word) {
  Word word;
  memcpy(&word, p, sizeof word);
  return word;
}
template <class Word>
void store(uint8_t* p, Word word) {
  memcpy(p, &word, sizeof word);
}

class Copy {
 public:
  Copy(const uint8_t* source, uint8_t* output, uint32_t bytes) : source_(source), output_(output), left_(bytes) {}

  // Copies a little: what memory moves in the time of a round of Philox, about.
  void step() {
    constexpr uint32_t kStep = 128, kParts = kStep / sizeof(Wide);
    if (left_ < kStep) return;
    const uint8_t* source = source_;
    uint8_t* output = output_;
    Wide part[kParts];
#pragma GCC unroll 16
    for (uint32_t i = 0; i < kParts; ++i) part[i] = load(source + i * sizeof(Wide), Wide{});
#pragma GCC unroll 16
    for (uint32_t i = 0; i < kParts; ++i) store(output + i * sizeof(Wide), part[i]);
    source_ = source + kStep;
    output_ = output + kStep;
    left_ -= kStep;
  }

  // Copies on until at most so many bytes are left. The library's copy is the fastest where nothing is done beside it.
  void copy_until(uint32_t bytes) {
    if (left_ <= bytes) return;
    const uint32_t count = left_ - bytes;
    memcpy(output_, source_, count);
    source_ += count;
    output_ += count;
    left_ = bytes;
  }

 private:
  const uint8_t* source_;
  uint8_t* output_;
  uint32_t left_;
};

// The same where there is nothing to copy.
struct Nothing {
  void step() {}
};

}  // namespace
}  // namespace FAULTSIM_PATH
}  // namespace faultsim
