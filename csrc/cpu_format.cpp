// Compiled once for each instruction set, as cpu_path.cpp is and under the same rules. The loops are plain: the
// compiler turns them into this file's vectors.
#include "cpu_format.h"

#include "lanes.h"
#include "launch.h"

namespace faultsim {
namespace FAULTSIM_PATH {
namespace {

constexpr int kNearest = 0x08;

// Eight fields of `bits` each, side by side -> one in the low end of each byte.
template <uint32_t bits>
uint64_t spread(uint64_t x) {
  constexpr uint64_t k1 = (1ull << bits) - 1;
#if defined(__AVX512F__)
  return _pdep_u64(x, k1 * 0x0101010101010101ull);  // slow on some processors without AVX-512
#else
  // The upper half of the fields moves to the upper half of the word, and so on in the halves.
  constexpr uint64_t k4 = (1ull << 4 * bits) - 1, k2 = (1ull << 2 * bits) - 1;
  x = (x & k4) | (x & k4 << 4 * bits) << (32 - 4 * bits);
  constexpr uint64_t two = k2 | k2 << 32;
  x = (x & two) | (x & two << 2 * bits) << (16 - 2 * bits);
  constexpr uint64_t one = (k1 | k1 << 16) | (k1 | k1 << 16) << 32;
  return (x & one) | (x & one << bits) << (8 - bits);
#endif
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

// What a pattern stands for: integer_of() in eight bits.
struct Integers {
  uint8_t mask, flip, half;
  int8_t least;

  explicit Integers(const Format& format)
      : mask(static_cast<uint8_t>((1u << format.bits) - 1)),
        flip(static_cast<uint8_t>(format.flip)),
        half(static_cast<uint8_t>(1u << (format.bits - 1))),
        least(static_cast<int8_t>(format.least)) {}

  int8_t of(uint8_t pattern) const {
    const int8_t value = static_cast<int8_t>(static_cast<uint8_t>(((pattern & mask) ^ flip) - half));
    return value < least ? least : value;
  }
};

// The same for 2 and 4 bits, whose weights lie in one byte each. Stores of whole groups, without memcpy(), become
// vectors.
typedef uint16_t __attribute__((may_alias)) Pair;
typedef uint32_t __attribute__((may_alias)) Four;

void unpack_pairs(const uint8_t* __restrict image, uint32_t bytes, Pair* __restrict patterns) {
  for (uint32_t i = 0; i < bytes; ++i) {
    const uint32_t x = image[i];
    patterns[i] = static_cast<uint16_t>((x | x << 4) & 0x0F0Fu);
  }
}

void unpack_fours(const uint8_t* __restrict image, uint32_t bytes, Four* __restrict patterns) {
  for (uint32_t i = 0; i < bytes; ++i) {
    uint32_t x = image[i];
    x = (x | x << 12) & 0x000F000Fu;
    patterns[i] = (x | x << 6) & 0x03030303u;
  }
}

// In place, or from bytes that do not overlap: the compiler makes vectors of either, but not of one loop for both.
void decode_in_place(Integers integers, int8_t* q, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) q[i] = integers.of(static_cast<uint8_t>(q[i]));
}
void decode_bytes(Integers integers, const uint8_t* __restrict image, int8_t* __restrict q, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) q[i] = integers.of(image[i]);
}

void unpack(const Format& format, const uint8_t* image, uint32_t words, int8_t* q) {
  const Integers integers(format);
  const uint32_t count = words * weights_per_word(format);
  uint8_t* patterns = reinterpret_cast<uint8_t*>(q);
  switch (format.cells) {
    case 2:
      unpack_fours(image, 8 * words, reinterpret_cast<Four*>(q));
      break;
    case 3:
      unpack_words<3>(image, words, patterns);
      break;
    case 4:
      unpack_pairs(image, 8 * words, reinterpret_cast<Pair*>(q));
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
      return decode_bytes(integers, image, q, count);
  }
  decode_in_place(integers, q, count);
}

void affine(const int8_t* q, float scale, float center, float* values, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) values[i] = static_cast<float>(q[i]) * scale + center;
}

#if defined(__F16C__) || defined(__AVX512F__)
#define FAULTSIM_HALVES  // instructions that convert float16
constexpr uint32_t kWide = sizeof(Lanes::V) / 4;
typedef float Floats __attribute__((vector_size(4 * kWide)));
typedef uint32_t Wide __attribute__((vector_size(4 * kWide)));
typedef int32_t SignedWide __attribute__((vector_size(4 * kWide)));
typedef uint16_t Halves __attribute__((vector_size(2 * kWide)));
#if defined(__AVX512F__)
Halves load_bytes(const void* p) {
  return Halves(_mm256_cvtepu8_epi16(_mm_loadu_si128(static_cast<const __m128i*>(p))));
}
Floats to_floats(Halves a) { return Floats(_mm512_cvtph_ps(__m256i(a))); }
Halves to_halves(Floats a) { return Halves(_mm512_cvtps_ph(__m512(a), kNearest)); }
#else
Halves load_bytes(const void* p) { return Halves(_mm_cvtepu8_epi16(_mm_loadl_epi64(static_cast<const __m128i*>(p)))); }
Floats to_floats(Halves a) { return Floats(_mm256_cvtph_ps(__m128i(a))); }
Halves to_halves(Floats a) { return Halves(_mm256_cvtps_ph(__m256(a), kNearest)); }
#endif

struct WideGreater {
  static Wide of(Wide a, uint32_t b) { return Wide(SignedWide(a) > static_cast<int32_t>(b)); }
};

// The float32 bits of kWide codes, by way of float16: e5m2 is its upper byte; e4m3fn, whose exponents have a bias of 7
// instead of 15, becomes 2^-8 of its number.
template <Number number>
Wide widened_halves(const uint8_t* codes, float scale) {
  if (number == Number::float16) {
    Halves halves;
    memcpy(&halves, codes, sizeof halves);
    return Wide(to_floats(halves));
  }
  const Halves bytes = load_bytes(codes);
  if (number == Number::float8_e5m2) return Wide(to_floats(bytes << 8) * scale);
  const Wide small = Wide(to_floats((bytes << 7 & 0x3F80) | (bytes << 8 & 0x8000)));
  const Wide nan = WideGreater::of(small & 0x7FFFFFFFu, 0x3FF00000u - 1);  // its largest code
  return Wide(Floats((small & ~nan) | (nan & kQuietNan)) * 256.0f * scale);
}
#endif

template <Number number, Nonfinite policy, class Code>
void widen_as(const uint8_t* codes, float scale, uint32_t limit, float* values, uint32_t count) {
  uint32_t i = 0;
#if defined(FAULTSIM_HALVES)
  if (number != Number::float32 && number != Number::bfloat16) {
    for (; i + kWide <= count; i += kWide) {
      const Wide bits = settled<WideGreater>(policy, widened_halves<number>(codes + i * sizeof(Code), scale), limit);
      memcpy(values + i, &bits, sizeof bits);
    }
  }
#endif
  for (; i < count; ++i) {
    Code code;
    memcpy(&code, codes + i * sizeof code, sizeof code);
    const float value = float_of(float_bits<number>(code));
    values[i] = float_of(settled(policy, bits_of(sizeof code == 1 ? value * scale : value), limit));
  }
}

template <Nonfinite policy>
void widen_with(Number number, const uint8_t* codes, float scale, uint32_t limit, float* values, uint32_t count) {
  switch (number) {
    case Number::float16:
      return widen_as<Number::float16, policy, uint16_t>(codes, scale, limit, values, count);
    case Number::bfloat16:
      return widen_as<Number::bfloat16, policy, uint16_t>(codes, scale, limit, values, count);
    case Number::float8_e4m3fn:
      return widen_as<Number::float8_e4m3fn, policy, uint8_t>(codes, scale, limit, values, count);
    case Number::float8_e5m2:
      return widen_as<Number::float8_e5m2, policy, uint8_t>(codes, scale, limit, values, count);
    default:
      return widen_as<Number::float32, policy, uint32_t>(codes, scale, limit, values, count);
  }
}

void widen(Number number, Nonfinite policy, const uint8_t* codes, float scale, uint32_t limit, float* values,
           uint32_t count) {
  switch (policy) {
    case Nonfinite::keep:
      return widen_with<Nonfinite::keep>(number, codes, scale, limit, values, count);
    case Nonfinite::zero:
      return widen_with<Nonfinite::zero>(number, codes, scale, limit, values, count);
    case Nonfinite::clamp:
      return widen_with<Nonfinite::clamp>(number, codes, scale, limit, values, count);
  }
}

void narrow(Output type, const float* values, uint16_t* output, uint32_t count) {
  if (type == Output::bfloat16) {
    for (uint32_t i = 0; i < count; ++i) output[i] = bfloat16_bits(values[i]);
    return;
  }
  uint32_t i = 0;
#if defined(FAULTSIM_HALVES)
  for (; i + kWide <= count; i += kWide) {
    Floats wide;
    memcpy(&wide, values + i, sizeof wide);
    const Halves halves = to_halves(wide);
    memcpy(output + i, &halves, sizeof halves);
  }
#endif
  for (; i < count; ++i) {
    const bool nan = (bits_of(values[i]) & 0x7FFFFFFFu) > kInfinity;
    output[i] = static_cast<uint16_t>(select(nan, 0x7E00u, float16_bits(values[i])));
  }
}

// Which bits of a number of each output type are not finite.
template <Output type>
struct Special {
  using Bits = uint32_t;
  static constexpr Bits kInfinite = kInfinity, kNan = kQuietNan, kSign = 0x80000000u;
};
template <>
struct Special<Output::bfloat16> {
  using Bits = uint16_t;
  static constexpr Bits kInfinite = 0x7F80u, kNan = 0x7FC0u, kSign = 0x8000u;
};
template <>
struct Special<Output::float16> {
  using Bits = uint16_t;
  static constexpr Bits kInfinite = 0x7C00u, kNan = 0x7E00u, kSign = 0x8000u;
};

template <Nonfinite policy, Output type>
void settle_as(void* numbers, uint32_t count) {
  using To = Special<type>;
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

template <Output type>
void settle_with(Nonfinite policy, void* numbers, uint32_t count) {
  switch (policy) {
    case Nonfinite::keep:
      return settle_as<Nonfinite::keep, type>(numbers, count);
    case Nonfinite::zero:
      return settle_as<Nonfinite::zero, type>(numbers, count);
    case Nonfinite::clamp:
      return settle_as<Nonfinite::clamp, type>(numbers, count);
  }
}

void settle(Nonfinite policy, Output type, void* numbers, uint32_t count) {
  switch (type) {
    case Output::bfloat16:
      return settle_with<Output::bfloat16>(policy, numbers, count);
    case Output::float16:
      return settle_with<Output::float16>(policy, numbers, count);
    default:
      return settle_with<Output::float32>(policy, numbers, count);
  }
}

}  // namespace

const FormatPath format_path = {unpack, affine, widen, narrow, settle};

}  // namespace FAULTSIM_PATH
}  // namespace faultsim
