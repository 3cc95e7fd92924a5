// The draw of hits with Philox calls in lanes, and steps of a copy in between. Part of cpu_path.cpp, and under the same
// rules.
#pragma once

#include "cpu_copy.h"
#include "cpu_path.h"
#include "lanes.h"

namespace faultsim {
namespace FAULTSIM_PATH {
namespace {

// Calls are made four at a time: such a quad has the same block, and its results are 64 bytes. So many vectors are
// computed side by side, and hold so many quads:
#if defined(__AVX512F__) && defined(__AVX512BW__)
constexpr uint32_t kVectors = 4, kQuads = 8;
#elif defined(__AVX2__)
constexpr uint32_t kVectors = 3, kQuads = 3;
#elif defined(__SSE2__)
constexpr uint32_t kVectors = 2, kQuads = 1;
#else
constexpr uint32_t kVectors = 4, kQuads = 1;
#endif
constexpr uint32_t kQuadCalls = 4;
constexpr uint32_t kQuadBytes = 16 * kQuadCalls;
static_assert(kVectors * Lanes::width == kQuads * kQuadCalls, "whole quads");

struct Quad {
  uint64_t counter;  // the first call, and the block above it: one number, because they are written and read at once
  uint8_t* out;
};

// Where vector v of a group of quads writes one of its halves.
inline uint8_t* half_of_vector(const Quad* quads, uint32_t v, uint32_t half) {
  const uint32_t at = (2 * v + half) * (8 * Lanes::width);
  return quads[at / kQuadBytes].out + at % kQuadBytes;
}

// The results of as many quads as `vectors` vectors hold.
template <uint32_t vectors, class Beside>
void make_calls(uint64_t seed, uint32_t access, uint32_t stream, const Quad* quads, Beside* beside) {
  Lanes::V call[vectors], block[vectors];
  for (uint32_t v = 0; v < vectors; ++v) {
#if defined(__AVX512F__) && defined(__AVX512BW__)
    const Lanes::V counters = Lanes::halves(quads[2 * v].counter, quads[2 * v + 1].counter);
    call[v] = Lanes::add(counters, Lanes::count_halves());
#else
    const Lanes::V counters = Lanes::same(quads[v * Lanes::width / kQuadCalls].counter);
    call[v] = Lanes::add(counters, Lanes::add(Lanes::same(v * Lanes::width % kQuadCalls), Lanes::count()));
#endif
    block[v] = Lanes::high(counters);
  }
  philox_lanes<vectors>(
      seed, call, block, access, stream,
      [&](uint32_t v, Lanes::V a, Lanes::V b, Lanes::V c, Lanes::V d) {
        Lanes::store(half_of_vector(quads, v, 0), half_of_vector(quads, v, 1), a, b, c, d);
      },
      [beside] { beside->step(); });
}

// Quads of any blocks, gathered until there are enough for all lanes. What is done beside them makes steps.
template <class Beside>
class Quads {
 public:
  Quads(uint64_t seed, uint32_t access, uint32_t stream, Beside* beside)
      : seed_(seed), access_(access), stream_(stream), beside_(beside) {}

  // Calls first ... first + count - 1 of a block, and some more to complete the last quad.
  void add(uint32_t block, uint32_t first, uint32_t count, void* out) {
    for (uint32_t i = 0; i < count; i += kQuadCalls) {
      quads_[size_++] = {uint64_t{block} << 32 | (first + i), static_cast<uint8_t*>(out) + 16 * i};
      if (size_ == kQuads) run();
    }
  }

  void run() {
    if (size_ == 0) return;
    const bool half = 2 * size_ <= kQuads;
    for (; size_ < (half ? kQuads / 2 : kQuads); ++size_) quads_[size_] = {0, waste_};
    half ? make_calls<kVectors / 2>(seed_, access_, stream_, quads_, beside_)
         : make_calls<kVectors>(seed_, access_, stream_, quads_, beside_);
    size_ = 0;
  }

 private:
  const uint64_t seed_;
  const uint32_t access_, stream_;
  Beside* const beside_;
  uint32_t size_ = 0;
  Quad quads_[kQuads];
  alignas(64) uint8_t waste_[kQuadBytes];
};

// The first calls of kMostBlocks successive blocks.
template <class Beside>
void make_first_calls(uint64_t seed, uint32_t first, uint8_t* out, Beside* beside) {
  constexpr uint32_t kBoth = DrawnHits::kMostBlocks / Lanes::width;
  Lanes::V call[kBoth], block[kBoth];
  for (uint32_t v = 0; v < kBoth; ++v) {
    call[v] = Lanes::same(0);
    block[v] = Lanes::add(Lanes::same(first + v * Lanes::width), Lanes::count());
  }
  philox_lanes<kBoth>(
      seed, call, block, 0, kStreamHits,
      [&](uint32_t v, Lanes::V a, Lanes::V b, Lanes::V c, Lanes::V d) {
        uint8_t* to = out + 16 * Lanes::width * v;
        Lanes::store(to, to + 8 * Lanes::width, a, b, c, d);
      },
      [beside] { beside->step(); });
}

// hit_count() of all uniforms, side by side: each step has to wait for the one before.
template <class Beside>
void count_hits(HitTable table, const uint64_t* uniforms, uint32_t* counts, Beside* beside) {
  constexpr uint32_t kBlocks = DrawnHits::kMostBlocks;
  const uint64_t* thresholds = table.entries + 2;
  uint32_t found[kBlocks] = {};
  for (uint32_t remaining = table.size; remaining > 0;) {
    const uint32_t half = (remaining + 1) / 2;
    for (uint32_t i = 0; i < kBlocks; ++i) {
      const bool passed = thresholds[found[i] + half - 1] <= uniforms[i];
      found[i] += half & (0 - static_cast<uint32_t>(passed));  // not "?:", of which the compiler makes jumps
    }
    remaining -= half;
    beside->step();
  }
  for (uint32_t i = 0; i < kBlocks; ++i) counts[i] = static_cast<uint32_t>(table.entries[0]) + found[i];
}

// Puts the value of each hit into its spare bit; `draws` are its words of the value stream. value_of() in 32 bits,
// which rules that are not certain allow.
template <class ValueOf>
void put_values(uint16_t* hits, const uint32_t* draws, uint32_t count, ValueOf value_at) {
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t hit = hits[i];
    hits[i] = static_cast<uint16_t>(cell_of(hit) | value_at(hit, draws[i]) << 15);
  }
}
inline void put_values(ValueRule rule, uint16_t* hits, const uint32_t* draws, uint32_t count) {
  const uint32_t below = static_cast<uint32_t>(rule.ones), from = 0 - below;  // 2^32 - ones, or 2^33 - ones
  if (rule.kind == Kind::transient) {
    put_values(hits, draws, count, [=](uint32_t, uint32_t draw) { return uint32_t{draw < below}; });
  } else if (rule.ones < 1ull << 32) {
    put_values(hits, draws, count, [=](uint32_t hit, uint32_t draw) { return spare_of(hit) & uint32_t{draw >= from}; });
  } else {
    put_values(hits, draws, count, [=](uint32_t hit, uint32_t draw) { return spare_of(hit) | uint32_t{draw >= from}; });
  }
}
void put_value(ValueRule rule, uint16_t* hits, uint32_t count) {
  const uint32_t value = rule.ones != 0;
  for (uint32_t i = 0; i < count; ++i) hits[i] = static_cast<uint16_t>(cell_of(hits[i]) | value << 15);
}

uint32_t stream_of_values(Kind kind) { return kind == Kind::transient ? kStreamReads : kStreamValues; }
uint32_t access_of_values(Kind kind, uint32_t access) { return kind == Kind::transient ? access : 0; }

// So many calls of a block are made before its count is known: most of those that it needs at least.
uint32_t first_calls(HitTable table) {
  constexpr uint32_t kFew = (kQuads + 1) / 2 * kQuadCalls, kAll = kQuads * kQuadCalls;
  return table.entries[0] + kCountHalves >= kFew * kHitsPerCall ? kAll : kFew;
}

// The hits of one block.
template <class Beside>
void draw_block(uint64_t seed, uint32_t block, HitTable table, DrawnHits* hits, Beside* beside) {
  uint16_t* stream = hits->half + DrawnHits::kFirst - kCountHalves;
  const uint32_t first = first_calls(table);
  Quads quads(seed, 0, kStreamHits, beside);
  quads.add(block, 0, first, stream);
  quads.run();
  uint64_t uniform;
  memcpy(&uniform, stream, sizeof uniform);
  hits->count[0] = hit_count(table, uniform);
  const uint32_t calls = (hits->count[0] + kCountHalves + kHitsPerCall - 1) / kHitsPerCall;
  if (calls > first) quads.add(block, first, calls - first, stream + first * kHitsPerCall);
  quads.run();
}

// The hits of several blocks.
template <class Beside>
void draw_blocks(uint64_t seed, uint32_t block, uint32_t count, HitTable table, DrawnHits* hits, Beside* beside) {
  alignas(64) uint8_t first[16 * DrawnHits::kMostBlocks];
  make_first_calls(seed, block, first, beside);
  uint64_t uniforms[DrawnHits::kMostBlocks];
  for (uint32_t b = 0; b < DrawnHits::kMostBlocks; ++b) memcpy(uniforms + b, first + 16 * b, sizeof *uniforms);
  count_hits(table, uniforms, hits->count, beside);
  Quads quads(seed, 0, kStreamHits, beside);
  for (uint32_t b = 0; b < count; ++b) {
    uint16_t* of_block = hits->half + b * hits->stride;
    constexpr uint32_t kInFirstCall = kHitsPerCall - kCountHalves;
    memcpy(of_block + DrawnHits::kFirst, first + 16 * b + 2 * kCountHalves, 2 * kInFirstCall);
    const uint32_t more = hits->count[b] > kInFirstCall ? hits->count[b] - kInFirstCall : 0;
    quads.add(block + b, 1, (more + kHitsPerCall - 1) / kHitsPerCall, of_block + DrawnHits::kFirst + kInFirstCall);
  }
  quads.run();
}

template <class Beside>
void draw_beside(uint64_t seed, uint32_t block, uint32_t count, uint32_t access, HitTable table, ValueRule rule,
                 DrawnHits* hits, Beside* beside) {
  if (count == 1) {
    draw_block(seed, block, table, hits, beside);
  } else {
    draw_blocks(seed, block, count, table, hits, beside);
  }
  if (rule.kind == Kind::flip || spare_decides(rule)) return;

  uint16_t* hit = hits->half + DrawnHits::kFirst;
  if (value_is_certain(rule)) {
    for (uint32_t b = 0; b < count; ++b) put_value(rule, hit + b * hits->stride, hits->count[b]);
    return;
  }
  alignas(64) uint32_t draws[DrawnHits::kHalves];
  Quads values(seed, access_of_values(rule.kind, access), stream_of_values(rule.kind), beside);
  for (uint32_t b = 0; b < count; ++b) {
    values.add(block + b, 0, (hits->count[b] + kValuesPerCall - 1) / kValuesPerCall, draws + b * hits->stride);
  }
  values.run();
  for (uint32_t b = 0; b < count; ++b) {
    put_values(rule, hit + b * hits->stride, draws + b * hits->stride, hits->count[b]);
  }
}

void draw_hits(uint64_t seed, uint32_t block, uint32_t count, uint32_t access, HitTable table, ValueRule rule,
               DrawnHits* hits) {
  Nothing nothing;
  draw_beside(seed, block, count, access, table, rule, hits, &nothing);
}

// How many steps draw_beside() makes, about.
uint32_t steps_of_draw(uint32_t count, HitTable table, ValueRule rule) {
  const uint32_t hits = table.entries[0] + table.size / 2;
  const auto quads = [](uint32_t calls) { return (calls + kQuadCalls - 1) / kQuadCalls; };
  const uint32_t values = rule.kind == Kind::flip || spare_decides(rule) ? 0 : quads(hits / kValuesPerCall + 1);
  uint32_t steps = kPhiloxRounds * (1 + count * (quads(hits / kHitsPerCall) + values) / kQuads);
  for (uint32_t remaining = table.size; remaining > 0; remaining /= 2) ++steps;
  return steps;
}

}  // namespace
}  // namespace FAULTSIM_PATH
}  // namespace faultsim
