// What the bytes of a memory image stand for (faultsim/formats). All operations are on bits or single IEEE operations,
// so that every device decodes the same numbers; faultsim/formats/reference.py is the slow, readable formulation.
#pragma once

#include <cstdint>

#include "half.h"

namespace faultsim {

enum class Number : int32_t { integer = 0, float32 = 1, float16 = 2, bfloat16 = 3, float8_e4m3fn = 4, float8_e5m2 = 5 };
constexpr const char* kNumberNames[] = {"integer", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"};

// What a result becomes that is infinite or NaN.
enum class Nonfinite : int32_t { keep = 0, zero = 1, clamp = 2 };
constexpr const char* kNonfiniteNames[] = {"keep", "zero", "clamp"};

// Weight k of a 64-bit word lies in its bits k * cells ... k * cells + bits - 1, for 64 / cells weights; the word's
// other bits mean nothing. This is int8 unless told otherwise.
struct Format {
  Number number = Number::integer;
  uint32_t bits = 8;
  uint32_t cells = 8;
  uint32_t flip = 128;   // integers: q = max((pattern ^ flip) - 2^(bits - 1), least); flip is 0 for offset codes,
  int32_t least = -128;  // 2^(bits - 1) for two's complement
  Nonfinite nonfinite = Nonfinite::keep;
};

// Bits of a number, but for integers, whose bits vary.
static FAULTSIM_HD uint32_t bits_of_number(Number number, uint32_t of_integers) {
  switch (number) {
    case Number::integer:
      return of_integers;
    case Number::float32:
      return 32;
    case Number::float16:
    case Number::bfloat16:
      return 16;
    default:
      return 8;
  }
}

static FAULTSIM_HD bool plain_int8(const Format& format) {
  return format.number == Number::integer && format.bits == 8 && format.flip == 128 && format.least == -128;
}

static FAULTSIM_HD uint32_t weights_per_word(const Format& format) { return 64 / format.cells; }

static FAULTSIM_HD int32_t integer_of(const Format& format, uint32_t pattern) {
  const int32_t q = static_cast<int32_t>(pattern ^ format.flip) - (1 << (format.bits - 1));
  return q < format.least ? format.least : q;
}

// A narrow floating-point number as float32 bits. Exponents and fractions move to their places; a subnormal number is
// 1.fraction times its step, less 1 times its step.
template <uint32_t exponent_bits, uint32_t fraction_bits>
static FAULTSIM_HD uint32_t widened(uint32_t code) {
  constexpr uint32_t kMagnitude = (1u << (exponent_bits + fraction_bits)) - 1;
  constexpr uint32_t kBias = 128 - (1u << (exponent_bits - 1));  // float32's less this format's
  const uint32_t magnitude = code & kMagnitude;
  const uint32_t placed = magnitude << (23 - fraction_bits);
  const uint32_t normal = placed + (kBias << 23);
  const uint32_t subnormal = bits_of(float_of(placed + ((kBias + 1) << 23)) - float_of((kBias + 1) << 23));
  const uint32_t finite = select(magnitude >> fraction_bits != 0, normal, subnormal);
  return finite | (code & (kMagnitude + 1)) << (31 - exponent_bits - fraction_bits);
}

constexpr uint32_t kInfinity = 0x7F800000u;
constexpr uint32_t kQuietNan = 0x7FC00000u;

// The float32 bits of a code.
template <Number number>
static FAULTSIM_HD uint32_t float_bits(uint32_t code) {
  switch (number) {
    case Number::float16: {
      const uint32_t bits = widened<5, 10>(code);
      return select((code & 0x7C00u) == 0x7C00u, bits + (112u << 23), bits);  // exponent 31 + 112 becomes 255
    }
    case Number::bfloat16:
      return code << 16;
    case Number::float8_e4m3fn:
      return select((code & 0x7Fu) == 0x7Fu, kQuietNan, widened<4, 3>(code));
    case Number::float8_e5m2: {
      const uint32_t bits = widened<5, 2>(code);
      return select((code & 0x7Cu) == 0x7Cu, bits + (112u << 23), bits);
    }
    default:
      return code;
  }
}

// The largest finite number of a format.
static FAULTSIM_HD float largest_of(Number number) {
  switch (number) {
    case Number::float16:
      return 65504.0f;
    case Number::bfloat16:
      return float_of(0x7F7F0000u);
    case Number::float8_e4m3fn:
      return 448.0f;
    case Number::float8_e5m2:
      return 57344.0f;
    default:
      return float_of(0x7F7FFFFFu);
  }
}

// The least magnitude that rounds to infinity in a format, float32 bits: half a step beyond the largest number.
static FAULTSIM_HD uint32_t overflow_of(Number number) {
  switch (number) {
    case Number::float16:
      return 0x477FF000u;  // 65,520
    case Number::bfloat16:
      return 0x7F7F8000u;
    default:
      return kInfinity;
  }
}

// What a policy compares magnitudes with, float32 bits: Nonfinite::zero makes 0 of this one and larger ones,
// Nonfinite::clamp makes this one of larger ones. `output`: what the numbers are rounded to afterwards.
static FAULTSIM_HD uint32_t limit_of(const Format& format, float scale, Number output) {
  if (format.nonfinite == Nonfinite::zero) return overflow_of(output);
  const float own = largest_of(format.number) * scale, largest = largest_of(output);
  return bits_of(own < largest ? own : largest);
}

// All ones where a > b, otherwise 0. Both are below 2^31: as signed numbers AVX2 compares them in one instruction.
struct Greater {
  static FAULTSIM_HD uint32_t of(uint32_t a, uint32_t b) {
    return 0u - static_cast<uint32_t>(static_cast<int32_t>(a) > static_cast<int32_t>(b));
  }
};

// Float32 bits with a policy; `limit` is limit_of(). A NaN that is kept has the bits of Python's, for devices and
// conversions disagree about its sign and digits. Word is uint32_t or a vector of them, with a Compare of its own.
template <class Compare = Greater, class Word>
static FAULTSIM_HD Word settled(Nonfinite policy, Word bits, uint32_t limit) {
  const Word magnitude = bits & 0x7FFFFFFFu, nan = Compare::of(magnitude, kInfinity);
  if (policy == Nonfinite::keep) return (bits & ~nan) | (nan & kQuietNan);
  if (policy == Nonfinite::zero) return bits & ~Compare::of(magnitude, limit - 1);
  const Word beyond = Compare::of(magnitude, limit);
  return ((bits & 0x80000000u) | (magnitude & ~beyond) | (beyond & limit)) & ~nan;
}

}  // namespace faultsim
