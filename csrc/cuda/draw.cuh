// CUDA: the faults of one block of memory, drawn by one thread block into its shared memory.
#pragma once

#include <cuda_runtime.h>

#include "../launch.h"
#include "division.cuh"

namespace faultsim {
namespace {

constexpr uint32_t kThreads = 128;  // of a thread block
constexpr uint32_t kWarps = kThreads / 32;
constexpr uint32_t kMaskWords = kBlockCells / 32;
constexpr uint32_t kWindow = 1024;  // cells whose first hits are compared at a time

template <uint32_t bytes>
struct Vector;
template <>
struct Vector<16> {
  using Type = uint4;
};
template <>
struct Vector<8> {
  using Type = uint2;
};
template <>
struct Vector<4> {
  using Type = uint32_t;
};

// Bytes that one thread loads at once.
template <uint32_t bytes>
union Bytes {
  using Packed = typename Vector<bytes>::Type;
  static constexpr uint32_t kSize = bytes;
  Packed packed;
  uint32_t words[bytes / 4];
  int8_t q[bytes];

  static __device__ bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; }
  __device__ void load(const void* p) { packed = *static_cast<const Packed*>(p); }
};

// The faults of one block as its hits leave them. Atomic OR is the only write, so that the order of hits cannot matter:
// fail and value (fault.h) follow from which values a cell was hit with.
template <Kind kind>
struct BlockFaults {
  static constexpr uint32_t kMasks = kind == Kind::flip ? 1 : 2;
  alignas(16) uint32_t mask[kMasks][kMaskWords];
  uint32_t windows;  // bit w: some cell of window w has hits of both values; not for flips

  // Cells with a hit of value 1, and with one of value 0. Flips have no values: all failing cells, twice.
  __device__ const uint8_t* hit_1() const { return reinterpret_cast<const uint8_t*>(mask[0]); }
  __device__ const uint8_t* hit_0() const { return reinterpret_cast<const uint8_t*>(mask[kMasks - 1]); }

  template <class Word>
  static __device__ Word fail(Word hit_1, Word hit_0) {
    return hit_1 | hit_0;
  }
  template <class Word>
  static __device__ Word value(Word hit_1) {
    return kind == Kind::flip ? 0 : hit_1;
  }
};

// What the hits of a block depend on, whatever the chip.
struct BlockDraw {
  HitTable table;
  ValueRule rule;
  uint32_t block;
  uint32_t access;
  uint32_t least;  // number of hits
  bool all;        // every cell fails
};

// What a job draws for a span of addresses.
__device__ BlockDraw block_draw(const Job& job, const Division& division, uint32_t span) {
  BlockDraw draw;
  draw.table = job.table;
  draw.rule = job.rule;
  draw.block = job.map.blocks ? span - static_cast<uint32_t>(division.blocks.quotient(span) * job.map.blocks) : span;
  if (job.block_offset) draw.block += static_cast<uint32_t>(*job.block_offset);
  draw.access = job.access ? static_cast<uint32_t>(*job.access) : 0;
  draw.least = static_cast<uint32_t>(job.table.entries[0]);
  draw.all = all_cells_fail(job.table);
  return draw;
}

// hit_count() by the 32 threads of a warp: each step compares 32 thresholds at once.
__device__ uint32_t warp_hit_count(const BlockDraw& draw, uint64_t uniform) {
  const uint64_t* thresholds = draw.table.entries + 2;
  uint32_t found = 0;
  for (uint32_t remaining = draw.table.size; remaining > 0;) {
    const uint32_t step = (remaining + 31) / 32;
    const uint32_t asked = (threadIdx.x % 32 + 1) * step - 1;
    const bool below = asked < remaining && thresholds[found + asked] <= uniform;
    const uint32_t passed = step * __popc(__ballot_sync(0xFFFFFFFFu, below));
    found += passed;
    remaining = remaining - passed < step ? remaining - passed : step - 1;
  }
  return draw.least + found;
}

// The part of a block's hits that one thread draws. Its first Philox call is made before the number of hits K is known:
// the first lane of every warp makes call 0, which holds K, and the others make the first 31 calls of their warp. Every
// warp can therefore compute K on its own, without a barrier. Several warps visit call 0; marking a cell twice changes
// nothing.
struct ThreadHits {
  static constexpr uint32_t kCallsPerRound = 31 * kWarps;  // of all warps
  uint64_t seed;
  uint32_t call;
  uint32_t halves;  // length of the stream that counts
  Philox4 words;

  // `warp` is any numbering of the warps. A warp that the longest possible draw does not need draws nothing.
  __device__ ThreadHits(const BlockDraw& draw, uint64_t seed, uint32_t warp) : seed(seed), halves(0), words{} {
    const uint32_t lane = threadIdx.x % 32;
    call = lane == 0 ? 0 : 31 * warp + lane;
    if (warp > 0 && (31 * warp + 1) * kHitsPerCall >= kCountHalves + draw.least + draw.table.size) return;
    words = hit_call(seed, draw.block, call);
    Philox4 first = words;
    first.word[0] = __shfl_sync(0xFFFFFFFFu, words.word[0], 0);
    first.word[1] = __shfl_sync(0xFFFFFFFFu, words.word[1], 0);
    halves = kCountHalves + warp_hit_count(draw, count_uniform(first));
  }

  // Calls visit(index, cell, value) for each hit; flips have no values.
  template <Kind kind, class Visit>
  __device__ void each_hit(const BlockDraw& draw, Visit visit) const {
    Philox4 now = words;
    for (uint32_t at = call; at * kHitsPerCall < halves;) {
      // The hits of this call have the indices 8 * at - 4 ... 8 * at + 3: two calls of the value stream.
      Philox4 values[2] = {};
      const bool spare = kind == Kind::flip || spare_decides(draw.rule);
      if (!spare) {
        for (uint32_t i = 0; i < 2; ++i) {
          values[i] = value_call(seed, draw.block, draw.access, kind, 2 * at - 1 + i);
        }
      }
#pragma unroll
      for (uint32_t half = 0; half < kHitsPerCall; ++half) {
        const uint32_t place = at * kHitsPerCall + half;
        if (place < kCountHalves || place >= halves) continue;
        const uint32_t hit = half_of(now, half);
        const uint32_t word = values[half / kValuesPerCall].word[half % kValuesPerCall];
        visit(place - kCountHalves, cell_of(hit), spare ? spare_of(hit) != 0 : value_of(draw.rule, hit, word));
      }
      at += kCallsPerRound;
      if (at * kHitsPerCall < halves) now = hit_call(seed, draw.block, at);
    }
  }
};

// Removes the hits of value 1 from cells whose first hit has value 0. Cells with hits of both values are rare: only
// windows of cells that contain some are examined. All threads take the same branches.
template <Kind kind>
__device__ void let_first_hits_decide(const BlockDraw& draw, const ThreadHits& hits, BlockFaults<kind>& faults) {
  __shared__ uint32_t first[kWindow];
  for (uint32_t v = threadIdx.x; v < kMaskWords / 4; v += kThreads) {
    Bytes<16> ones, zeros;
    ones.load(faults.mask[0] + 4 * v);
    zeros.load(faults.mask[1] + 4 * v);
    uint32_t both = 0;
    for (uint32_t w = 0; w < 4; ++w) both |= ones.words[w] & zeros.words[w];
    if (both) atomicOr(&faults.windows, 1u << (v / (kWindow / 128)));
  }
  __syncthreads();
  for (uint32_t remaining = faults.windows; remaining != 0; remaining &= remaining - 1) {
    const uint32_t window = (__ffs(remaining) - 1) * kWindow;
    for (uint32_t i = threadIdx.x; i < kWindow; i += kThreads) first[i] = 0xFFFFFFFFu;
    __syncthreads();
    hits.each_hit<kind>(draw, [&](uint32_t index, uint32_t cell, bool) {
      if (cell - window < kWindow) atomicMin(first + (cell - window), index);
    });
    __syncthreads();
    hits.each_hit<kind>(draw, [&](uint32_t index, uint32_t cell, bool value) {
      if (cell - window < kWindow && first[cell - window] == index && !value) {
        atomicAnd(faults.mask[0] + cell / 32, ~(1u << (cell % 32)));
      }
    });
    __syncthreads();
  }
}

// Draws the faults of one block of one chip. No thread may still read the previous contents of `faults`.
template <Kind kind>
__device__ void draw_faults(const BlockDraw& draw, uint64_t seed, uint32_t warp, BlockFaults<kind>& faults) {
  uint4* words = reinterpret_cast<uint4*>(faults.mask);
  constexpr uint32_t kVectors = BlockFaults<kind>::kMasks * kMaskWords / 4;
#pragma unroll
  for (uint32_t i = 0; i < kVectors; i += kThreads) {
    const uint32_t all = draw.all && i + kMaskWords / 4 >= kVectors ? 0xFFFFFFFFu : 0u;  // the last mask
    words[i + threadIdx.x] = {all, all, all, all};
  }
  if (kind != Kind::flip && threadIdx.x == 0) faults.windows = 0;
  const ThreadHits hits(draw, seed, warp);
  __syncthreads();
  if (kind != Kind::flip || !draw.all) {
    hits.each_hit<kind>(draw, [&](uint32_t, uint32_t cell, bool value) {
      atomicOr(faults.mask[kind == Kind::flip || value ? 0 : 1] + cell / 32, 1u << (cell % 32));
    });
  }
  __syncthreads();
  if constexpr (kind != Kind::flip) let_first_hits_decide<kind>(draw, hits, faults);
}

}  // namespace
}  // namespace faultsim
