// Which cells of one 512x64 SRAM array fail, and what a failing cell does. Integers only, so that
// every device draws the same faults bit for bit; the slow readable twin is faultsim/reference.py.
//
// The draw. An array has an endless sequence of "hits": 16-bit numbers, of which 15 bits name a cell
// and the 16th is the hit's spare bit. The first K hits count, K ~ Poisson(32768 * -ln(1 - p)), and a
// cell fails if one of them names it. Every cell then fails with probability exactly p, independently
// of all others (thinning of a Poisson process). K is the quantile of ONE uniform number that does not
// depend on p, so a larger p only ever lengthens the prefix: fault sets are nested.
//
// Each failing cell also has a state bit, decided by the FIRST hit that names it, so that it stays the
// same when p grows.
#pragma once

#include <cstdint>

#include "philox.h"

namespace faultsim {

constexpr uint32_t kCells = 32768;      // 512 rows x 64 columns
constexpr uint32_t kArrayBytes = 4096;  // = kCells / 8
constexpr uint32_t kArrayWords = 512;   // 64-bit words, one a row
constexpr uint32_t kHitsPerCall = 8;    // 16-bit hits in one Philox result
constexpr uint32_t kCountHalves = 4;    // the first 64 bits of the stream decide K
constexpr uint32_t kStatesPerCall = 4;  // 32-bit state draws in one Philox result

enum class Kind : int32_t { flip = 0, stuck = 1, transient = 2 };

// Fourth counter word: independent streams of one array.
constexpr uint32_t kStreamHits = 0;
constexpr uint32_t kStreamStates = 1;
constexpr uint32_t kStreamReads = 2;

// The quantile table of K, built exactly by the host (faultsim/hit_table.py) and passed to every device as one
// run of 64-bit integers: {smallest K, 1 if every cell fails, thresholds...}, thresholds ascending.
struct DrawTable {
  const uint64_t* entries;
  uint32_t size;  // number of thresholds
};

static FAULTSIM_HD bool all_cells_fail(DrawTable table) { return table.entries[1] != 0; }

// K = smallest K + number of thresholds <= uniform. The number of steps depends on the table alone, and none of
// them branches.
static FAULTSIM_HD uint32_t hit_count(DrawTable table, uint64_t uniform) {
  const uint64_t* thresholds = table.entries + 2;
  uint32_t found = 0;
  for (uint32_t left = table.size; left > 0;) {
    const uint32_t half = (left + 1) / 2;
    found += thresholds[found + half - 1] <= uniform ? half : 0;
    left -= half;
  }
  return static_cast<uint32_t>(table.entries[0]) + found;
}

static FAULTSIM_HD Philox4 hit_call(uint64_t seed, uint32_t array, uint32_t call) {
  return philox4x32(seed, {{call, array, 0u, kStreamHits}});
}

static FAULTSIM_HD uint64_t count_uniform(Philox4 first_call) {
  return static_cast<uint64_t>(first_call.word[1]) << 32 | first_call.word[0];
}

static FAULTSIM_HD uint32_t half_of(Philox4 call, uint32_t half) {
  return (call.word[half / 2] >> (16 * (half % 2))) & 0xFFFFu;
}

static FAULTSIM_HD uint32_t cell_of(uint32_t hit) { return hit & 0x7FFFu; }
static FAULTSIM_HD uint32_t spare_of(uint32_t hit) { return hit >> 15; }

// What decides the state of a failing cell.
struct StateRule {
  Kind kind;
  // stuck: the cell prefers 1 with probability ones / 2^33.
  // transient: a read is wrong with probability ones / 2^32.
  uint64_t ones;
};

// A state that the spare bit alone decides needs no further randomness: the common case.
static FAULTSIM_HD bool spare_decides(StateRule rule) { return rule.kind == Kind::stuck && rule.ones == 1ull << 32; }

static FAULTSIM_HD Philox4 state_call(uint64_t seed, uint32_t array, uint32_t access, Kind kind, uint32_t call) {
  return kind == Kind::transient ? philox4x32(seed, {{call, array, access, kStreamReads}})
                                 : philox4x32(seed, {{call, array, 0u, kStreamStates}});
}

// `draw` is the hit's 32-bit word of the state stream (unused where the spare bit decides).
static FAULTSIM_HD bool state_of(StateRule rule, uint32_t hit, uint32_t draw) {
  if (rule.kind == Kind::transient) return draw < rule.ones;
  const uint64_t uniform = static_cast<uint64_t>(spare_of(hit)) << 32 | draw;
  return uniform + rule.ones >= 1ull << 33;
}

// Where a weight lies. A memory of `arrays` arrays (0: as many as the model needs) is filled byte by
// byte; with repeat > 1 each run of `word` bytes of memory serves `repeat` runs of weights in a row
// before the next begins (the layout of the published NeuralFuse code: word 16, repeat 16).
struct Placement {
  uint64_t base;    // address of the first weight, in weights
  uint64_t arrays;  // 0: unlimited
  uint32_t word;    // of interest where repeat > 1; then a multiple of 16
  uint32_t repeat;
};

// A tile is the run of consecutive addresses that one array serves before the next array begins.
static FAULTSIM_HD uint64_t tile_weights(Placement p) { return static_cast<uint64_t>(kArrayBytes) * p.repeat; }
static FAULTSIM_HD uint64_t array_of_tile(Placement p, uint64_t tile) { return p.arrays ? tile % p.arrays : tile; }
static FAULTSIM_HD uint32_t byte_in_array(Placement p, uint32_t offset_in_tile) {
  return p.repeat == 1 ? offset_in_tile : offset_in_tile / (p.word * p.repeat) * p.word + offset_in_tile % p.word;
}

}  // namespace faultsim
