// CUDA: how a launch is divided into thread blocks.
#pragma once

#include "../launch.h"

namespace faultsim {
namespace {

// Divides by multiplying with the reciprocal, which the host rounded down: a quotient below 2^63 is at most one too
// small before it is corrected.
struct Divisor {
  uint64_t by;
  uint64_t reciprocal;

  __device__ uint64_t quotient(uint64_t n) const {
    const uint64_t low = __umul64hi(n, reciprocal);
    return low + (n - low * by >= by ? 1 : 0);
  }
};

Divisor divisor(uint64_t by) { return {by, ~uint64_t{0} / by}; }

constexpr uint32_t kBlocksPerProcessor = 32;  // thread blocks, in turn: with so many the last ones leave few idle

// How a launch is divided into thread blocks: x counts chunks, y parts of the chips.
struct Division {
  uint32_t first_chunk;
  uint32_t chunks;
  uint32_t chips;  // of one thread block
  Divisor repeat;
  Divisor blocks;
};

Division divide(const Job& job, int processors) {
  Division division{};
  const uint64_t base = job.map.base;
  division.first_chunk = static_cast<uint32_t>(base / kBlockBytes);
  division.chunks = static_cast<uint32_t>((base + job.weights - 1) / kBlockBytes) - division.first_chunk + 1;
  // Where chunks alone do not fill the GPU, chips are spread over thread blocks too; each of these reads the source
  // again.
  const uint32_t wanted = kBlocksPerProcessor * static_cast<uint32_t>(processors);
  const uint32_t parts = (wanted + division.chunks - 1) / division.chunks;
  division.chips = (job.chips + parts - 1) / parts;
  division.repeat = divisor(job.map.repeat);
  if (job.map.blocks) division.blocks = divisor(job.map.blocks);
  return division;
}

}  // namespace
}  // namespace faultsim
