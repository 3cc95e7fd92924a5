// The widest vector of 64-bit lanes that this file is compiled for. The same code is compiled once for each instruction
// set (CMakeLists.txt) and chosen at run time; all of them give the same bits.
#pragma once

#include <cstdint>
#include <cstring>

#include "philox.h"

#if defined(__AVX512F__) && defined(__AVX512BW__)
#include <immintrin.h>
#define FAULTSIM_PATH avx512
#elif defined(__AVX2__)
#include <immintrin.h>
#define FAULTSIM_PATH avx2
#elif defined(__SSE2__)
#include <emmintrin.h>
#define FAULTSIM_PATH portable
#else
#define FAULTSIM_PATH portable
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the bit order of the masks is defined for little-endian machines"
#endif

namespace faultsim {
namespace FAULTSIM_PATH {

// Four words of `width` Philox calls, one call a lane, each word in the low half of a 64-bit lane.
// store() writes the calls in order, 16 bytes each: it interleaves even lanes with odd ones, so lane i holds call
// order(i).
#if defined(__AVX512F__) && defined(__AVX512BW__)
struct Lanes {
  using V = __m512i;
  static constexpr int width = 8;
  static V same(uint32_t x) { return _mm512_set1_epi64(x); }
  static V calls(uint32_t first) { return _mm512_add_epi64(same(first), _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7)); }
  static V product(V a, V b) { return _mm512_mul_epu32(a, b); }
  static V high(V a) { return _mm512_srli_epi64(a, 32); }
  static V mix(V a, V b, V c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }
  static void store(uint8_t* out, V a, V b, V c, V d) {
    const V keep = same(0xFFFFFFFFu);
    const V low = _mm512_or_si512(_mm512_and_si512(a, keep), _mm512_slli_epi64(b, 32));
    const V top = _mm512_or_si512(_mm512_and_si512(c, keep), _mm512_slli_epi64(d, 32));
    _mm512_storeu_si512(out, _mm512_unpacklo_epi64(low, top));
    _mm512_storeu_si512(out + 64, _mm512_unpackhi_epi64(low, top));
  }
};
#elif defined(__AVX2__)
struct Lanes {
  using V = __m256i;
  static constexpr int width = 4;
  static V same(uint32_t x) { return _mm256_set1_epi64x(x); }
  static V calls(uint32_t first) { return _mm256_add_epi64(same(first), _mm256_setr_epi64x(0, 2, 1, 3)); }
  static V product(V a, V b) { return _mm256_mul_epu32(a, b); }
  static V high(V a) { return _mm256_srli_epi64(a, 32); }
  static V mix(V a, V b, V c) { return _mm256_xor_si256(_mm256_xor_si256(a, b), c); }
  static void store(uint8_t* out, V a, V b, V c, V d) {
    const V keep = same(0xFFFFFFFFu);
    const V low = _mm256_or_si256(_mm256_and_si256(a, keep), _mm256_slli_epi64(b, 32));
    const V top = _mm256_or_si256(_mm256_and_si256(c, keep), _mm256_slli_epi64(d, 32));
    _mm256_storeu_si256(reinterpret_cast<V*>(out), _mm256_unpacklo_epi64(low, top));
    _mm256_storeu_si256(reinterpret_cast<V*>(out + 32), _mm256_unpackhi_epi64(low, top));
  }
};
#elif defined(__SSE2__)
struct Lanes {
  using V = __m128i;
  static constexpr int width = 2;
  static V same(uint32_t x) { return _mm_set1_epi64x(x); }
  static V calls(uint32_t first) { return _mm_add_epi64(same(first), _mm_set_epi64x(1, 0)); }
  static V product(V a, V b) { return _mm_mul_epu32(a, b); }
  static V high(V a) { return _mm_srli_epi64(a, 32); }
  static V mix(V a, V b, V c) { return _mm_xor_si128(_mm_xor_si128(a, b), c); }
  static void store(uint8_t* out, V a, V b, V c, V d) {
    const V keep = same(0xFFFFFFFFu);
    const V low = _mm_or_si128(_mm_and_si128(a, keep), _mm_slli_epi64(b, 32));
    const V top = _mm_or_si128(_mm_and_si128(c, keep), _mm_slli_epi64(d, 32));
    _mm_storeu_si128(reinterpret_cast<V*>(out), _mm_unpacklo_epi64(low, top));
    _mm_storeu_si128(reinterpret_cast<V*>(out + 16), _mm_unpackhi_epi64(low, top));
  }
};
#else
struct Lanes {
  using V = uint64_t;
  static constexpr int width = 1;
  static V same(uint32_t x) { return x; }
  static V calls(uint32_t first) { return first; }
  static V product(V a, V b) { return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu); }
  static V high(V a) { return a >> 32; }
  static V mix(V a, V b, V c) { return a ^ b ^ c; }
  static void store(uint8_t* out, V a, V b, V c, V d) {
    const uint32_t words[4] = {static_cast<uint32_t>(a), static_cast<uint32_t>(b), static_cast<uint32_t>(c),
                               static_cast<uint32_t>(d)};
    std::memcpy(out, words, sizeof words);
  }
};
#endif

// Writes the 16-byte results of calls first ... first + Lanes::width - 1 to `out`, in order. In between, the upper
// halves of the lanes hold garbage: product() reads the lower halves only.
static inline void philox_lanes(uint64_t key, uint32_t first, uint32_t c1, uint32_t c2, uint32_t c3, uint8_t* out) {
  using V = Lanes::V;
  V a = Lanes::calls(first), b = Lanes::same(c1), c = Lanes::same(c2), d = Lanes::same(c3);
  const V m0 = Lanes::same(kPhiloxM0), m1 = Lanes::same(kPhiloxM1);
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const V p0 = Lanes::product(m0, a), p1 = Lanes::product(m1, c);
    a = Lanes::mix(Lanes::high(p1), b, Lanes::same(k0));
    b = p1;
    c = Lanes::mix(Lanes::high(p0), d, Lanes::same(k1));
    d = p0;
    k0 += kPhiloxW0;
    k1 += kPhiloxW1;
  }
  Lanes::store(out, a, b, c, d);
}

}  // namespace FAULTSIM_PATH
}  // namespace faultsim
