// float32 -> bfloat16 / float16 bits on the host: round to nearest, ties to even, as the GPU's conversion instructions
// do (IEEE 754-2019, 4.3.1). Branch-free, so that compilers vectorize it.
#pragma once

#include <cstdint>
#include <cstring>

#include "philox.h"  // FAULTSIM_HD

namespace faultsim {

static FAULTSIM_HD uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

static FAULTSIM_HD float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// Without a branch in the compiler's eyes either, which would keep the float operations of one side out of vectors.
static FAULTSIM_HD uint32_t select(bool which, uint32_t yes, uint32_t no) {
  const uint32_t mask = 0u - static_cast<uint32_t>(which);
  return (yes & mask) | (no & ~mask);
}

// Not for NaN: an int8 times a finite scale never is one.
static inline uint16_t bfloat16_bits(float x) {
  const uint32_t bits = bits_of(x);
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

static inline uint16_t float16_bits(float x) {
  const uint32_t bits = bits_of(x);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  // Normal range: rebias the exponent by 127 - 15 and round away 13 bits.
  const uint32_t normal = (magnitude - (112u << 23) + 0xFFFu + ((magnitude >> 13) & 1u)) >> 13;
  // Below 2^-14 float16 counts in steps of 2^-24: adding 0.5 lets the float unit round to just that step.
  const uint32_t subnormal = bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f);
  const uint32_t small = select(magnitude < (113u << 23), subnormal, normal);
  const uint32_t finite = select(magnitude >= 0x477FF000u, 0x7C00u, small);  // 65,520 and above round to infinity
  return static_cast<uint16_t>(sign | finite);
}

}  // namespace faultsim
