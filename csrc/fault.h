// Which cells of one block of SRAM fail, and what a read of them returns. Integers only, so that every device draws the
// same faults bit for bit. faultsim/kernel/reference.py is the slow, readable formulation of the same model.
//
// A block is 4,096 bytes of memory, 32,768 cells: one 512x64 array of the paper. Cells are independent, so arrays of
// another shape are the same bits under other names.
//
// The draw. A block has an endless sequence of "hits": 16-bit numbers, of which 15 bits name a cell and the 16th is the
// hit's spare bit. The first K hits count, K ~ Poisson(32768 * -ln(1 - p)), and a cell fails if one of them names it.
// Every cell then fails with probability exactly p, independently of all others (thinning of a Poisson process). K is
// the quantile of ONE uniform number that does not depend on p, so a larger p only ever lengthens the prefix: fault
// sets are nested.
//
// Masks. Two bits describe a cell, in the kernels, in fault_mask() and in the reference alike:
//   fail   the cell fails
//   value  stuck: the bit that the failing cell reads; transient: this read of the failing cell is wrong;
//          always 0 for flips and for cells that do not fail (but for a measured chip's cells that invert what they
//          store: they are not called failing, and have the value 1)
// The FIRST hit that names a cell decides its value, so that it stays the same when p grows.
#pragma once

#include <cstdint>

#include "philox.h"

namespace faultsim {

constexpr uint32_t kBlockCells = 32768;
constexpr uint32_t kBlockBytes = kBlockCells / 8;
constexpr uint32_t kBlockWords = kBlockCells / 64;  // 64-bit words: one row of a 512x64 array each
constexpr uint32_t kHitsPerCall = 8;                // 16-bit hits in one Philox result
constexpr uint32_t kCountHalves = 4;                // the first 64 bits of the stream decide K
constexpr uint32_t kValuesPerCall = 4;              // 32-bit uniforms for values in one Philox result

enum class Kind : int32_t { flip = 0, stuck = 1, transient = 2 };
constexpr const char* kKindNames[] = {"flip", "stuck", "transient"};

// What a read of `stored` returns. Word is any unsigned integer or vector of them.
template <class Word>
static FAULTSIM_HD Word read_word(Kind kind, Word stored, Word fail, Word value) {
  switch (kind) {
    case Kind::flip:
      return static_cast<Word>(stored ^ fail);
    case Kind::stuck:
      return static_cast<Word>((stored & ~fail) ^ value);
    case Kind::transient:
      return static_cast<Word>(stored ^ value);
  }
  return stored;
}

// Fourth counter word: independent streams of one block.
constexpr uint32_t kStreamHits = 0;
constexpr uint32_t kStreamValues = 1;
constexpr uint32_t kStreamReads = 2;

// The quantile table of K, computed exactly by the host (faultsim/hit_table.py) and passed to every device as one run
// of 64-bit integers: {smallest K, 1 if every cell fails, thresholds...}, thresholds ascending.
struct HitTable {
  const uint64_t* entries;
  uint32_t size;  // number of thresholds
};

static FAULTSIM_HD bool all_cells_fail(HitTable table) { return table.entries[1] != 0; }

// K = smallest K + number of thresholds <= uniform. The number of steps depends on the table alone, and none of them
// branches.
static FAULTSIM_HD uint32_t hit_count(HitTable table, uint64_t uniform) {
  const uint64_t* thresholds = table.entries + 2;
  uint32_t found = 0;
  for (uint32_t remaining = table.size; remaining > 0;) {
    const uint32_t half = (remaining + 1) / 2;
    found += thresholds[found + half - 1] <= uniform ? half : 0;
    remaining -= half;
  }
  return static_cast<uint32_t>(table.entries[0]) + found;
}

static FAULTSIM_HD Philox4 hit_call(uint64_t seed, uint32_t block, uint32_t call) {
  return philox4x32(seed, {{call, block, 0u, kStreamHits}});
}

static FAULTSIM_HD uint64_t count_uniform(Philox4 first_call) {
  return static_cast<uint64_t>(first_call.word[1]) << 32 | first_call.word[0];
}

static FAULTSIM_HD uint32_t half_of(Philox4 call, uint32_t half) {
  return (call.word[half / 2] >> (16 * (half % 2))) & 0xFFFFu;
}

static FAULTSIM_HD uint32_t cell_of(uint32_t hit) { return hit & 0x7FFFu; }
static FAULTSIM_HD uint32_t spare_of(uint32_t hit) { return hit >> 15; }

// What decides the value of a failing cell: it is 1 with probability ones / certain(kind).
struct ValueRule {
  Kind kind;
  uint64_t ones;
};

// The integer that means "probability 1". Flips have no values.
static FAULTSIM_HD uint64_t certain(Kind kind) {
  return kind == Kind::stuck ? 1ull << 33 : kind == Kind::transient ? 1ull << 32 : 0;
}

// If the spare bit alone decides the value, no further randomness is needed: the common case.
static FAULTSIM_HD bool spare_decides(ValueRule rule) { return rule.kind == Kind::stuck && rule.ones == 1ull << 32; }

// If all failing cells read the same, neither.
static FAULTSIM_HD bool value_is_certain(ValueRule rule) { return rule.ones == 0 || rule.ones == certain(rule.kind); }

static FAULTSIM_HD Philox4 value_call(uint64_t seed, uint32_t block, uint32_t access, Kind kind, uint32_t call) {
  return kind == Kind::transient ? philox4x32(seed, {{call, block, access, kStreamReads}})
                                 : philox4x32(seed, {{call, block, 0u, kStreamValues}});
}

// `draw` is the hit's 32-bit word of the value stream (unused where the spare bit decides).
static FAULTSIM_HD bool value_of(ValueRule rule, uint32_t hit, uint32_t draw) {
  if (rule.kind == Kind::transient) return draw < rule.ones;
  const uint64_t uniform = static_cast<uint64_t>(spare_of(hit)) << 32 | draw;
  return uniform + rule.ones >= 1ull << 33;
}

// Where a weight lies. A memory of `blocks` blocks (0: as many as the model needs) is filled byte by byte. With
// repeat > 1 each run of `word` bytes of memory serves `repeat` runs of weights before the next run of bytes begins
// (the published NeuralFuse code: word 16, repeat 16).
struct AddressMap {
  uint64_t base;    // address of the first weight, in weights
  uint64_t blocks;  // 0: unlimited
  uint32_t word;    // used if repeat > 1; then a multiple of 16 that divides a block
  uint32_t repeat;
};

constexpr uint64_t kMostWeights = 1ull << 40;
constexpr uint64_t kMostBase = 1ull << 43;
constexpr uint32_t kMostRepeat = 4096;
constexpr uint32_t kLeastRepeatedWord = 16;

// A span is the run of consecutive addresses that one block serves before the next block begins.
static FAULTSIM_HD uint64_t weights_per_span(AddressMap map) { return static_cast<uint64_t>(kBlockBytes) * map.repeat; }
static FAULTSIM_HD uint64_t block_of_span(AddressMap map, uint64_t span) {
  return map.blocks ? span % map.blocks : span;
}
static FAULTSIM_HD uint32_t byte_in_block(AddressMap map, uint32_t offset_in_span) {
  return map.repeat == 1 ? offset_in_span
                         : offset_in_span / (map.word * map.repeat) * map.word + offset_in_span % map.word;
}

}  // namespace faultsim
