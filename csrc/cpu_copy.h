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

// With a mask, what it marks is inverted, and it is all 0 afterwards. It is zeroed in the loop that uses it: in a loop
// of their own, these stores would wait for those of the output.
template <bool kMasked>
class Steps {
 public:
  Steps(const uint8_t* source, uint8_t* output, uint32_t bytes, uint8_t* mask = nullptr)
      : source_(source), output_(output), mask_(mask), left_(bytes) {}

  uint32_t left() const { return left_; }

  // From now on so many steps copy about so many bytes.
  void pace(uint32_t bytes, uint32_t steps) { pace_ = steps ? bytes / steps : 0; }

  void step() {
    for (due_ += pace_; due_ >= kUnit; due_ -= kUnit) {
      if (left_ >= kUnit) copy_unit();
    }
  }

  // Copies on until at most so many bytes are left.
  void copy_until(uint32_t bytes) {
    due_ = 0;
    while (left_ > bytes && left_ >= kUnit) copy_unit();
    if (left_ <= bytes) return;
    for (uint32_t i = 0; i < left_; ++i) {
      output_[i] = static_cast<uint8_t>(source_[i] ^ (kMasked ? mask_[i] : 0));
      if (kMasked) mask_[i] = 0;
    }
    left_ = 0;
  }

 private:
  static constexpr uint32_t kUnit = 256;  // in one piece: the end of a loop is a jump that is hard to predict

  void copy_unit() {
    const uint8_t* source = source_;
    uint8_t* output = output_;
    Wide unit[kUnit / sizeof(Wide)];
#pragma GCC unroll 16
    for (uint32_t i = 0; i < kUnit / sizeof(Wide); ++i) {
      unit[i] = load(source + i * sizeof(Wide), Wide{});
      if (kMasked) unit[i] ^= load(mask_ + i * sizeof(Wide), Wide{});
    }
#pragma GCC unroll 16
    for (uint32_t i = 0; i < kUnit / sizeof(Wide); ++i) {
      store(output + i * sizeof(Wide), unit[i]);
      if (kMasked) store(mask_ + i * sizeof(Wide), Wide{});
    }
    if (kMasked) mask_ += kUnit;
    source_ = source + kUnit;
    output_ = output + kUnit;
    left_ -= kUnit;
  }

  const uint8_t* source_;
  uint8_t *output_, *mask_;
  uint32_t left_, pace_ = 0, due_ = 0;
};
using Copy = Steps<false>;
using MarkedRead = Steps<true>;

// The same where there is nothing to copy.
struct Nothing {
  void step() {}
};

}  // namespace
}  // namespace FAULTSIM_PATH
}  // namespace faultsim
