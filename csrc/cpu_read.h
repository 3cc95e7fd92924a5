// Reads of weights: copies that are repaired hit by hit, and blocks through masks of all their cells. Part of
// cpu_path.cpp, and under the same rules.
#pragma once

#include "cpu_copy.h"
#include "cpu_draw.h"
#include "cpu_path.h"
#include "lanes.h"

namespace faultsim {
namespace FAULTSIM_PATH {
namespace {

constexpr uint32_t kHitsPerStep = 4;

// Calls visit(at, bit, value) for each hit within the `count` bytes, the first one last: it decides. `at` is the place
// of a Word, and `bit` and `value` are words. After some hits each, `beside` makes a step.
template <class Word, class Beside, class Visit>
void each_hit_in(HitList hits, uint32_t from, uint32_t count, Beside* beside, Visit visit) {
  constexpr uint32_t kBits = 8 * sizeof(Word);
#pragma GCC unroll 4
  for (uint32_t i = hits.count; i > 0; --i) {
    const uint32_t hit = hits.hit[i - 1], at = cell_of(hit) / kBits * sizeof(Word) - from, bit = hit % kBits;
    if (sizeof(Word) > 1 || at < count) {
      visit(at, static_cast<Word>(Word{1} << bit), static_cast<Word>(static_cast<Word>(spare_of(hit)) << bit));
    }
    if (i % kHitsPerStep == 0) beside->step();
  }
}

template <class Beside, class Visit>
void each_hit(HitList hits, uint32_t from, uint32_t count, Beside* beside, Visit visit) {
  from == 0 && count == kBlockBytes ? each_hit_in<uint64_t>(hits, from, count, beside, visit)
                                    : each_hit_in<uint8_t>(hits, from, count, beside, visit);
}

void mark(HitList hits, bool values, uint32_t from, uint32_t count, uint8_t* fail, uint8_t* value) {
  Nothing nothing;
  each_hit(hits, from, count, &nothing, [=](uint32_t at, auto bit, auto of_hit) {
    store(fail + at, static_cast<decltype(bit)>(load(fail + at, bit) | bit));
    if (values) store(value + at, static_cast<decltype(bit)>((load(value + at, bit) & ~bit) | of_hit));
  });
}

void mark_cells(const uint16_t* hits, uint32_t count, uint8_t* mask) {
#pragma GCC unroll 8
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t cell = cell_of(hits[i]);
    uint8_t* at = mask + cell / 64 * 8;
    store(at, load(at, uint64_t{}) | 1ull << (cell % 64));
  }
}

// Where hits lie: bytes of the block, and for each the bits to keep (lower half) and to set (upper half).
struct Places {
  static constexpr uint32_t kMost = 512, kStep = 32;
  alignas(64) uint16_t at[kMost];
  alignas(64) uint16_t bits[kMost];

  // kStep hits. Powers of two are products, which every instruction set computes in vectors.
  void find(const uint16_t* hit, uint32_t first) {
    for (uint32_t i = 0; i < kStep; ++i) {
      const uint16_t h = hit[i];
      const uint16_t one = static_cast<uint16_t>(1 + (h & 1)), two = static_cast<uint16_t>(1 + 3 * (h >> 1 & 1)),
                     four = static_cast<uint16_t>(1 + 15 * (h >> 2 & 1));
      const uint16_t bit = static_cast<uint16_t>(static_cast<uint16_t>(one * two) * four);
      const uint16_t value = static_cast<uint16_t>(bit & (0 - (h >> 15)));
      at[first + i] = static_cast<uint16_t>((h & 0x7FFF) >> 3);
      bits[first + i] = static_cast<uint16_t>((bit ^ 0xFF) | value << 8);
    }
  }
};

// Calls visit(byte, keep, set) for each hit of a whole block, the first one last: it decides. Steps as in each_hit().
template <class Beside, class Visit>
void each_place(HitList hits, Beside* beside, Visit visit) {
  Places places;
  for (uint32_t end = hits.count; end > 0;) {
    const uint32_t n = (end - 1) % Places::kMost + 1, whole = n / Places::kStep * Places::kStep;
    const uint16_t* hit = hits.hit + (end - n);
    for (uint32_t i = 0; i < whole; i += Places::kStep) places.find(hit + i, i);
    if (whole < n) {
      uint16_t rest[Places::kStep] = {};
      memcpy(rest, hit + whole, (n - whole) * sizeof *hit);
      places.find(rest, whole);
    }
#pragma GCC unroll 8
    for (uint32_t i = n; i > 0; --i) {
      const uint32_t bits = places.bits[i - 1];
      visit(places.at[i - 1], static_cast<uint8_t>(bits), static_cast<uint8_t>(bits >> 8));
      if (i % kHitsPerStep == 0) beside->step();
    }
    end -= n;
  }
}

// As read_word() says, for single bits.
template <Kind kind, class Beside>
void repair_kind(HitList hits, uint32_t from, uint32_t count, const uint8_t* source, uint8_t* output, Beside* beside) {
  if (hits.count >= HitList::kMany && from == 0 && count == kBlockBytes) {
    return each_place(hits, beside, [=](uint32_t at, uint8_t keep, uint8_t set) {
      const uint32_t now = output[at];
      if (kind == Kind::stuck) {
        output[at] = static_cast<uint8_t>((now & keep) | set);
      } else {
        const uint32_t same = ((now ^ source[at]) & ~keep) ^ (kind == Kind::flip ? ~keep : set);
        output[at] = static_cast<uint8_t>(now ^ same);
      }
    });
  }
  each_hit(hits, from, count, beside, [=](uint32_t at, auto bit, auto value) {
    const auto now = load(output + at, bit);
    if (kind == Kind::stuck) return store(output + at, static_cast<decltype(bit)>((now & ~bit) | value));
    const auto stored = load(source + at, bit), same = kind == Kind::flip ? stored : stored ^ value;
    store(output + at, static_cast<decltype(bit)>(now ^ ((kind == Kind::flip ? ~(now ^ same) : now ^ same) & bit)));
  });
}

template <class Beside>
void repair_beside(Kind kind, HitList hits, uint32_t from, uint32_t count, const uint8_t* source, uint8_t* output,
                   Beside* beside) {
  switch (kind) {
    case Kind::flip:
      return repair_kind<Kind::flip>(hits, from, count, source, output, beside);
    case Kind::stuck:
      return repair_kind<Kind::stuck>(hits, from, count, source, output, beside);
    case Kind::transient:
      return repair_kind<Kind::transient>(hits, from, count, source, output, beside);
  }
}

void repair(Kind kind, HitList hits, uint32_t from, uint32_t count, const uint8_t* source, uint8_t* output) {
  Nothing nothing;
  uint8_t stored[kBlockBytes];  // what is read in place has to be kept where hits lie
  if (source == output && kind != Kind::stuck) {
    each_hit(hits, from, count, &nothing,
             [&](uint32_t at, auto bit, auto) { store(stored + at, load(output + at, bit)); });
    source = stored;
  }
  repair_beside(kind, hits, from, count, source, output, &nothing);
}

// A plain loop on purpose: the compiler turns it into this file's vectors.
template <Kind kind>
void read_kind(const uint8_t* source, const uint8_t* fail, const uint8_t* value, uint8_t* output, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    const uint8_t failing = kind == Kind::transient ? 0 : fail[i], reads = kind == Kind::flip ? 0 : value[i];
    output[i] = read_word(kind, source[i], failing, reads);
  }
}

void read(Kind kind, const uint8_t* source, const uint8_t* fail, const uint8_t* value, uint8_t* output,
          uint32_t count) {
  switch (kind) {
    case Kind::flip:
      return read_kind<Kind::flip>(source, fail, value, output, count);
    case Kind::stuck:
      return read_kind<Kind::stuck>(source, fail, value, output, count);
    case Kind::transient:
      return read_kind<Kind::transient>(source, fail, value, output, count);
  }
}

// A word of 16 bytes, or the part of it that a vector holds, again and again.
Wide repeated(const uint8_t* word) {
#if defined(__AVX512F__) && defined(__AVX512BW__)
  return Wide(_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(word))));
#elif defined(__AVX2__)
  return Wide(_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(word))));
#else
  return load(word, Wide{});
#endif
}

// A word of 16 bytes, the shortest, from its first byte on, again and again.
template <Kind kind>
void read_row(const uint8_t* source, const uint8_t* fail, const uint8_t* value, uint8_t* output, uint32_t count) {
  constexpr uint32_t kStep = sizeof(Wide) < 16 ? 16 : sizeof(Wide), kWide = kStep / sizeof(Wide);
  Wide failing[kWide], reads[kWide];
  for (uint32_t w = 0; w < kWide; ++w) {
    failing[w] = repeated(fail + w * sizeof(Wide));
    reads[w] = repeated(value + w * sizeof(Wide));
  }
  for (; count >= kStep; count -= kStep, source += kStep, output += kStep) {
    for (uint32_t w = 0; w < kWide; ++w) {
      store(output + w * sizeof(Wide), read_word(kind, load(source + w * sizeof(Wide), Wide{}), failing[w], reads[w]));
    }
  }
  for (uint32_t i = 0; i < count; ++i) output[i] = read_word(kind, source[i], fail[i % 16], value[i % 16]);
}

template <Kind kind>
void read_repeated_kind(const AddressMap& map, uint32_t from, const uint8_t* source, const BlockFaults& faults,
                        uint8_t* output, uint32_t count) {
  const uint32_t run = map.word * map.repeat;  // weights that share one word
  for (uint32_t i = 0; i < count;) {
    const uint32_t at = from + i, phase = at % map.word, word = at / run * map.word;
    const bool row = map.word == kLeastRepeatedWord && phase == 0;
    const uint32_t left = row ? run - at % run : map.word - phase, n = left < count - i ? left : count - i;
    if (row) {
      read_row<kind>(source + i, faults.fail_bytes() + word, faults.value_bytes() + word, output + i, n);
    } else {
      read_kind<kind>(source + i, faults.fail_bytes() + word + phase, faults.value_bytes() + word + phase, output + i,
                      n);
    }
    i += n;
  }
}

void read_repeated(Kind kind, const AddressMap& map, uint32_t from, const uint8_t* source, const BlockFaults& faults,
                   uint8_t* output, uint32_t count) {
  switch (kind) {
    case Kind::flip:
      return read_repeated_kind<Kind::flip>(map, from, source, faults, output, count);
    case Kind::stuck:
      return read_repeated_kind<Kind::stuck>(map, from, source, faults, output, count);
    case Kind::transient:
      return read_repeated_kind<Kind::transient>(map, from, source, faults, output, count);
  }
}

void copy_past_cache(const uint8_t* source, uint8_t* output, uint32_t count) {
#if defined(__SSE2__)
  constexpr uint32_t kVector = sizeof(Lanes::V);
  const uint32_t unaligned = static_cast<uint32_t>(-reinterpret_cast<uintptr_t>(output) & (kVector - 1));
  uint32_t i = unaligned < count ? unaligned : count;
  memcpy(output, source, i);
  for (; i + kVector <= count; i += kVector) {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(output + i), _mm512_loadu_si512(source + i));
#elif defined(__AVX2__)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(output + i),
                        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source + i)));
#else
    _mm_stream_si128(reinterpret_cast<__m128i*>(output + i),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(source + i)));
#endif
  }
  memcpy(output + i, source + i, count - i);
#else
  memcpy(output, source, count);
#endif
}

}  // namespace
}  // namespace FAULTSIM_PATH
}  // namespace faultsim
