// Compiled once for each instruction set, as cpu_path.cpp is and under the same rules. The loops are plain: the
// compiler turns them into this file's vectors.
#include "cpu_format.h"

#include "lanes.h"
#include "launch.h"

namespace faultsim {
namespace FAULTSIM_PATH {
namespace {

// Eight fields of `bits` each, side by side -> one in the low end of each byte: the upper half of the fields moves to
// the upper half of the word, and so on in the halves.
template <uint32_t bits>
uint64_t spread(uint64_t x) {
  constexpr uint64_t k4 = (1ull << 4 * bits) - 1, k2 = (1ull << 2 * bits) - 1, k1 = (1ull << bits) - 1;
  x = (x & k4) | (x & k4 << 4 * bits) << (32 - 4 * bits);
  constexpr uint64_t two = k2 | k2 << 32;
  x = (x & two) | (x & two << 2 * bits) << (16 - 2 * bits);
  constexpr uint64_t one = (k1 | k1 << 16) | (k1 | k1 << 16) << 32;
  return (x & one) | (x & one << bits) << (8 - bits);
}

// Patterns of packed weights, one a byte. The last group of a word may be incomplete: what it writes too much the next
// word overwrites.
template <uint32_t bits>
void unpack_words(const uint8_t* image, uint32_t words, uint8_t* patterns) {
  constexpr uint32_t kPerWord = 64 / bits;
  for (uint32_t w = 0; w < words; ++w) {
    uint64_t word;
    memcpy(&word, image + 8 * w, 8);
    for (uint32_t group = 0; group < (kPerWord + 7) / 8; ++group) {
      const uint64_t eight = spread<bits>(word >> 8 * bits * group);
      memcpy(patterns + w * kPerWord + 8 * group, &eight, 8);
    }
  }
}

void unpack(const Format& format, const uint8_t* image, uint32_t words, int8_t* q) {
  uint8_t* patterns = reinterpret_cast<uint8_t*>(q);
  const uint8_t* from = patterns;
  switch (format.cells) {
    case 2:
      unpack_words<2>(image, words, patterns);
      break;
    case 3:
      unpack_words<3>(image, words, patterns);
      break;
    case 4:
      unpack_words<4>(image, words, patterns);
      break;
    case 5:
      unpack_words<5>(image, words, patterns);
      break;
    case 6:
      unpack_words<6>(image, words, patterns);
      break;
    case 7:
      unpack_words<7>(image, words, patterns);
      break;
    default:
      from = image;
  }
  // integer_of() in eight bits.
  const uint8_t mask = static_cast<uint8_t>((1u << format.bits) - 1), flip = static_cast<uint8_t>(format.flip);
  const uint8_t half = static_cast<uint8_t>(1u << (format.bits - 1));
  const int8_t least = static_cast<int8_t>(format.least);
  const uint32_t count = words * weights_per_word(format);
  for (uint32_t i = 0; i < count; ++i) {
    const int8_t value = static_cast<int8_t>(static_cast<uint8_t>(((from[i] & mask) ^ flip) - half));
    q[i] = value < least ? least : value;
  }
}

void affine(const int8_t* q, float scale, float center, float* values, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) values[i] = static_cast<float>(q[i]) * scale + center;
}

template <Number number, class Code>
void widen_as(const uint8_t* codes, float scale, float* values, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    Code code;
    memcpy(&code, codes + i * sizeof code, sizeof code);
    const float value = float_of(float_bits<number>(code));
    values[i] = sizeof code == 1 ? value * scale : value;
  }
}

void widen(Number number, const uint8_t* codes, float scale, float* values, uint32_t count) {
  switch (number) {
    case Number::float16:
      return widen_as<Number::float16, uint16_t>(codes, scale, values, count);
    case Number::bfloat16:
      return widen_as<Number::bfloat16, uint16_t>(codes, scale, values, count);
    case Number::float8_e4m3fn:
      return widen_as<Number::float8_e4m3fn, uint8_t>(codes, scale, values, count);
    case Number::float8_e5m2:
      return widen_as<Number::float8_e5m2, uint8_t>(codes, scale, values, count);
    default:
      return widen_as<Number::float32, uint32_t>(codes, scale, values, count);
  }
}

// The bits of a number in each output type, and which of them are not finite.
template <Output type>
struct Narrow {
  using Bits = uint32_t;
  static constexpr Bits kInfinite = kInfinity, kNan = kQuietNan, kSign = 0x80000000u;
  static Bits of(uint32_t bits) { return bits; }
};
template <>
struct Narrow<Output::bfloat16> {
  using Bits = uint16_t;
  static constexpr Bits kInfinite = 0x7F80u, kNan = 0x7FC0u, kSign = 0x8000u;
  static Bits of(uint32_t bits) { return bfloat16_bits(float_of(bits)); }
};
template <>
struct Narrow<Output::float16> {
  using Bits = uint16_t;
  static constexpr Bits kInfinite = 0x7C00u, kNan = 0x7E00u, kSign = 0x8000u;
  static Bits of(uint32_t bits) { return float16_bits(float_of(bits)); }
};

template <Nonfinite policy, Output type>
void narrow_as(const float* values, float most, void* output, uint32_t count) {
  using To = Narrow<type>;
  typename To::Bits* out = static_cast<typename To::Bits*>(output);
  const uint32_t bound = bits_of(most);
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t bits = bits_of(values[i]);
    uint32_t magnitude = bits & 0x7FFFFFFFu;
    const bool nan = magnitude > kInfinity;
    if (policy == Nonfinite::clamp) magnitude = magnitude < bound ? magnitude : bound;
    uint32_t result = To::of(select(nan, 0, (bits & 0x80000000u) | magnitude));
    if (policy == Nonfinite::keep) result = select(nan, To::kNan, result);
    if (policy == Nonfinite::zero) result = select((result & To::kInfinite) == To::kInfinite, 0, result);
    out[i] = static_cast<typename To::Bits>(result);
  }
}

template <Nonfinite policy, Output type>
void settle_as(void* numbers, uint32_t count) {
  using To = Narrow<type>;
  using Bits = typename To::Bits;
  Bits* number = static_cast<Bits*>(numbers);
  for (uint32_t i = 0; i < count; ++i) {
    const Bits bits = number[i], magnitude = bits & static_cast<Bits>(~To::kSign);
    const bool nan = magnitude > To::kInfinite, infinite = magnitude == To::kInfinite;
    Bits result = bits;
    if (policy == Nonfinite::keep) result = nan ? To::kNan : bits;
    if (policy == Nonfinite::zero) result = nan || infinite ? 0 : bits;
    if (policy == Nonfinite::clamp) result = nan ? 0 : infinite ? static_cast<Bits>(bits - 1) : bits;  // the largest
    number[i] = result;
  }
}

// Calls `f` with a policy and a type that the compiler knows.
#define FAULTSIM_FOR_EACH(f, policy, type, ...)                                                \
  switch (type) {                                                                              \
    case Output::bfloat16:                                                                     \
      return policy == Nonfinite::keep   ? f<Nonfinite::keep, Output::bfloat16>(__VA_ARGS__)   \
             : policy == Nonfinite::zero ? f<Nonfinite::zero, Output::bfloat16>(__VA_ARGS__)   \
                                         : f<Nonfinite::clamp, Output::bfloat16>(__VA_ARGS__); \
    case Output::float16:                                                                      \
      return policy == Nonfinite::keep   ? f<Nonfinite::keep, Output::float16>(__VA_ARGS__)    \
             : policy == Nonfinite::zero ? f<Nonfinite::zero, Output::float16>(__VA_ARGS__)    \
                                         : f<Nonfinite::clamp, Output::float16>(__VA_ARGS__);  \
    default:                                                                                   \
      return policy == Nonfinite::keep   ? f<Nonfinite::keep, Output::float32>(__VA_ARGS__)    \
             : policy == Nonfinite::zero ? f<Nonfinite::zero, Output::float32>(__VA_ARGS__)    \
                                         : f<Nonfinite::clamp, Output::float32>(__VA_ARGS__);  \
  }

void narrow(Nonfinite policy, Output type, const float* values, float most, void* output, uint32_t count) {
  FAULTSIM_FOR_EACH(narrow_as, policy, type, values, most, output, count)
}

void settle(Nonfinite policy, Output type, void* numbers, uint32_t count) {
  FAULTSIM_FOR_EACH(settle_as, policy, type, numbers, count)
}

}  // namespace

const FormatPath format_path = {unpack, affine, widen, narrow, settle};

}  // namespace FAULTSIM_PATH
}  // namespace faultsim
