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
// store() writes the results in order, 16 bytes each, the first half of them to `low_half` and the others to
// `high_half`. It interleaves even lanes with odd ones: the even lanes hold the calls of the first half.
#if defined(__AVX512F__) && defined(__AVX512BW__)
struct Lanes {
  using V = __m512i;
  static constexpr int width = 8;
  static V same(uint64_t x) { return _mm512_set1_epi64(x); }
  static V halves(uint64_t low, uint64_t high) { return _mm512_broadcast_i64x2(_mm_set_epi64x(high, low)); }
  static V count() { return _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7); }
  static V count_halves() { return _mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3); }
  static V add(V a, V b) { return _mm512_add_epi64(a, b); }
  static V product(V a, V b) { return _mm512_mul_epu32(a, b); }
  static V high(V a) { return _mm512_srli_epi64(a, 32); }
  static V mix(V a, V b, V c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }
  static void store(uint8_t* low_half, uint8_t* high_half, V a, V b, V c, V d) {
    const V keep = same(0xFFFFFFFFu);
    const V low = _mm512_or_si512(_mm512_and_si512(a, keep), _mm512_slli_epi64(b, 32));
    const V top = _mm512_or_si512(_mm512_and_si512(c, keep), _mm512_slli_epi64(d, 32));
    _mm512_storeu_si512(low_half, _mm512_unpacklo_epi64(low, top));
    _mm512_storeu_si512(high_half, _mm512_unpackhi_epi64(low, top));
  }
};
#elif defined(__AVX2__)
struct Lanes {
  using V = __m256i;
  static constexpr int width = 4;
  static V same(uint64_t x) { return _mm256_set1_epi64x(x); }
  static V count() { return _mm256_setr_epi64x(0, 2, 1, 3); }
  static V add(V a, V b) { return _mm256_add_epi64(a, b); }
  static V product(V a, V b) { return _mm256_mul_epu32(a, b); }
  static V high(V a) { return _mm256_srli_epi64(a, 32); }
  static V mix(V a, V b, V c) { return _mm256_xor_si256(_mm256_xor_si256(a, b), c); }
  static void store(uint8_t* low_half, uint8_t* high_half, V a, V b, V c, V d) {
    const V keep = same(0xFFFFFFFFu);
    const V low = _mm256_or_si256(_mm256_and_si256(a, keep), _mm256_slli_epi64(b, 32));
    const V top = _mm256_or_si256(_mm256_and_si256(c, keep), _mm256_slli_epi64(d, 32));
    _mm256_storeu_si256(reinterpret_cast<V*>(low_half), _mm256_unpacklo_epi64(low, top));
    _mm256_storeu_si256(reinterpret_cast<V*>(high_half), _mm256_unpackhi_epi64(low, top));
  }
};
#elif defined(__SSE2__)
struct Lanes {
  using V = __m128i;
  static constexpr int width = 2;
  static V same(uint64_t x) { return _mm_set1_epi64x(x); }
  static V count() { return _mm_set_epi64x(1, 0); }
  static V add(V a, V b) { return _mm_add_epi64(a, b); }
  static V product(V a, V b) { return _mm_mul_epu32(a, b); }
  static V high(V a) { return _mm_srli_epi64(a, 32); }
  static V mix(V a, V b, V c) { return _mm_xor_si128(_mm_xor_si128(a, b), c); }
  static void store(uint8_t* low_half, uint8_t* high_half, V a, V b, V c, V d) {
    const V keep = same(0xFFFFFFFFu);
    const V low = _mm_or_si128(_mm_and_si128(a, keep), _mm_slli_epi64(b, 32));
    const V top = _mm_or_si128(_mm_and_si128(c, keep), _mm_slli_epi64(d, 32));
    _mm_storeu_si128(reinterpret_cast<V*>(low_half), _mm_unpacklo_epi64(low, top));
    _mm_storeu_si128(reinterpret_cast<V*>(high_half), _mm_unpackhi_epi64(low, top));
  }
};
#else
struct Lanes {
  using V = uint64_t;
  static constexpr int width = 1;
  static V same(uint64_t x) { return x; }
  static V count() { return 0; }
  static V add(V a, V b) { return a + b; }
  static V product(V a, V b) { return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu); }
  static V high(V a) { return a >> 32; }
  static V mix(V a, V b, V c) { return a ^ b ^ c; }
  static void store(uint8_t* low_half, uint8_t*, V a, V b, V c, V d) {
    const uint32_t words[4] = {static_cast<uint32_t>(a), static_cast<uint32_t>(b), static_cast<uint32_t>(c),
                               static_cast<uint32_t>(d)};
    std::memcpy(low_half, words, sizeof words);
  }
};
#endif

// `vectors` * width Philox calls with the counters (call, block, access, stream). Several vectors are computed side by
// side, because each round has to wait for the one before. In between, the upper halves of the lanes hold garbage:
// product() reads the lower halves only. store(v, a, b, c, d) gets the four words of vector v; between() is called in
// each round.
template <uint32_t vectors, class Store, class Between>
static inline void philox_lanes(uint64_t key, const Lanes::V (&call)[vectors], const Lanes::V (&block)[vectors],
                                uint32_t access, uint32_t stream, Store store, Between between) {
  using V = Lanes::V;
  V a[vectors], b[vectors], c[vectors], d[vectors];
  for (uint32_t v = 0; v < vectors; ++v) {
    a[v] = call[v], b[v] = block[v], c[v] = Lanes::same(access), d[v] = Lanes::same(stream);
  }
  const V m0 = Lanes::same(kPhiloxM0), m1 = Lanes::same(kPhiloxM1);
  const V w0 = Lanes::same(kPhiloxW0), w1 = Lanes::same(kPhiloxW1);
  V k0 = Lanes::same(static_cast<uint32_t>(key)), k1 = Lanes::same(static_cast<uint32_t>(key >> 32));
  for (int round = 0; round < kPhiloxRounds; ++round) {
    for (uint32_t v = 0; v < vectors; ++v) {
      const V p0 = Lanes::product(m0, a[v]), p1 = Lanes::product(m1, c[v]);
      a[v] = Lanes::mix(Lanes::high(p1), b[v], k0);
      b[v] = p1;
      c[v] = Lanes::mix(Lanes::high(p0), d[v], k1);
      d[v] = p0;
    }
    between();
    k0 = Lanes::add(k0, w0);
    k1 = Lanes::add(k1, w1);
  }
  for (uint32_t v = 0; v < vectors; ++v) store(v, a[v], b[v], c[v], d[v]);
}

}  // namespace FAULTSIM_PATH
}  // namespace faultsim
