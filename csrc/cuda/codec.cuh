// CUDA: reads of a protected memory. One thread block for each chunk of 4,096 addresses, as for plain reads; the faults
// of its words and of their check bits are drawn into shared memory, and each thread decodes whole words.
#pragma once

#include <cuda_runtime.h>

#include "../codec.h"
#include "division.cuh"
#include "draw.cuh"

namespace faultsim {
namespace {

// Byte i of the syndrome of a word, without its check bits.
__device__ uint32_t syndrome_byte(const Codec& codec, uint64_t word, uint32_t i) {
  uint32_t syndrome = 0;
#pragma unroll
  for (uint32_t row = 0; row < 8; ++row) {
    syndrome |= static_cast<uint32_t>(__popcll(word & codec.rows[8 * i + row]) & 1) << row;
  }
  return syndrome;
}

// `check_at(i)` is check byte i as read.
template <class Check>
__device__ uint64_t decode_on_device(const Codec& codec, uint64_t read, uint64_t written, Check check_at, bool* again) {
  return decoded_word(
      codec, read, written,
      [&](uint32_t i) { return syndrome_byte(codec, read, i) ^ (codec.check_bytes ? check_at(i) : 0u); }, again);
}

// Which cells of the words of a block, and of their check bits, fail, and their values.
struct ProtectedFaults {
  uint64_t fail[kBlockWords], value[kBlockWords];
  uint8_t check_fail[kBlockWords * kMostCheckBytes], check_value[kBlockWords * kMostCheckBytes];
};

template <Kind kind>
__device__ void draw_words(const ProtectedJob& job, BlockDraw draw, uint64_t seed, uint32_t warp,
                           BlockFaults<kind>& drawn, ProtectedFaults& faults) {
  for (uint32_t part = 0; part < job.part_count; ++part) {
    draw.table = job.parts[part].table;
    draw.least = static_cast<uint32_t>(draw.table.entries[0]);
    draw.all = all_cells_fail(draw.table);
    draw_faults<kind>(draw, seed, warp, drawn);
    const uint64_t* hit_1 = reinterpret_cast<const uint64_t*>(drawn.hit_1());
    const uint64_t* hit_0 = reinterpret_cast<const uint64_t*>(drawn.hit_0());
    for (uint32_t word = threadIdx.x; word < kBlockWords; word += kThreads) {
      const uint64_t fail = drawn.fail(hit_1[word], hit_0[word]) & job.parts[part].cells;
      const uint64_t value = drawn.value(hit_1[word]) & job.parts[part].cells;
      faults.fail[word] = part == 0 ? fail : faults.fail[word] | fail;
      faults.value[word] = part == 0 ? value : faults.value[word] | value;
    }
    __syncthreads();
  }
}

// The check bits of a block's words may lie in two blocks.
template <Kind kind>
__device__ void draw_checks(const ProtectedJob& job, BlockDraw draw, uint64_t seed, uint32_t warp, uint32_t block,
                            uint32_t offset, BlockFaults<kind>& drawn, ProtectedFaults& faults) {
  draw.table = job.check_table;
  draw.least = static_cast<uint32_t>(draw.table.entries[0]);
  draw.all = all_cells_fail(draw.table);
  const uint32_t bytes = kBlockWords * job.codec.check_bytes;
  const uint64_t address = job.check_base + static_cast<uint64_t>(block) * bytes;
  for (uint32_t done = 0; done < bytes;) {
    const uint32_t at = static_cast<uint32_t>((address + done) % kBlockBytes);
    const uint32_t some = bytes - done < kBlockBytes - at ? bytes - done : kBlockBytes - at;
    draw.block = static_cast<uint32_t>((address + done) / kBlockBytes) + offset;
    draw_faults<kind>(draw, seed, warp, drawn);
    for (uint32_t i = threadIdx.x; i < some; i += kThreads) {
      faults.check_fail[done + i] = drawn.fail(drawn.hit_1()[at + i], drawn.hit_0()[at + i]);
      faults.check_value[done + i] = drawn.value(drawn.hit_1()[at + i]);
    }
    __syncthreads();
    done += some;
  }
}

template <Kind kind>
__global__ void __launch_bounds__(kThreads)
    protected_kernel(const __grid_constant__ ProtectedJob job, const __grid_constant__ Division division) {
  __shared__ BlockFaults<kind> drawn;
  __shared__ ProtectedFaults faults;

  const Job& read = job.read;
  const AddressMap& map = read.map;
  const uint32_t number = division.first_chunk + blockIdx.x;
  const uint32_t span = static_cast<uint32_t>(division.repeat.quotient(number));
  const uint32_t in_span = (number - span * map.repeat) * kBlockBytes;
  const uint32_t block = map.blocks ? span - static_cast<uint32_t>(division.blocks.quotient(span) * map.blocks) : span;
  const uint32_t offset = read.block_offset ? static_cast<uint32_t>(*read.block_offset) : 0;
  BlockDraw draw{};
  draw.rule = read.rule;
  draw.block = block + offset;
  draw.access = read.access ? static_cast<uint32_t>(*read.access) : 0;

  const uint64_t words = read.weights / 8;
  // Number of the word at the chunk's first address; below 0 where the tensor begins inside.
  const int64_t first = static_cast<int64_t>(number) * kBlockWords - static_cast<int64_t>(map.base / 8);
  const uint64_t* written = reinterpret_cast<const uint64_t*>(read.source);
  const uint32_t bytes = job.codec.check_bytes;
  const uint32_t first_chip = blockIdx.y * division.chips;
  for (uint32_t chip = first_chip; chip < read.chips && chip < first_chip + division.chips; ++chip) {
    const uint64_t seed = static_cast<uint64_t>(read.seeds[chip]);
    const uint32_t warp = (threadIdx.x / 32 + number + chip) % kWarps;
    draw_words<kind>(job, draw, seed, warp, drawn, faults);
    draw_checks<kind>(job, draw, seed, warp, block, offset, drawn, faults);
    for (uint32_t at = threadIdx.x; at < kBlockWords; at += kThreads) {
      const int64_t word = first + at;
      if (word < 0 || static_cast<uint64_t>(word) >= words) continue;
      const uint32_t cell = byte_in_block(map, in_span + 8 * at) / 8;
      const uint64_t stored = written[word];
      const auto check_at = [&](uint32_t i) -> uint32_t {
        return read_word(read.rule.kind, job.checks[word * bytes + i], faults.check_fail[cell * bytes + i],
                         faults.check_value[cell * bytes + i]);
      };
      bool again;
      const uint64_t out = chip * words + static_cast<uint64_t>(word);
      static_cast<uint64_t*>(read.output)[out] = decode_on_device(
          job.codec, read_word(kind, stored, faults.fail[cell], faults.value[cell]), stored, check_at, &again);
      if (job.again) job.again[out] = again;
    }
  }
}

__global__ void __launch_bounds__(kThreads) decode_kernel(const __grid_constant__ DecodeJob job) {
  const uint64_t word = static_cast<uint64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (word >= job.words) return;
  for (uint32_t chip = 0; chip < job.chips; ++chip) {
    const uint64_t at = chip * job.words + word;
    bool again;
    job.output[at] = decode_on_device(
        job.codec, job.read[at], job.written[word],
        [&](uint32_t i) -> uint32_t { return job.checks[at * job.codec.check_bytes + i]; }, &again);
    if (job.again) job.again[at] = again;
  }
}

template <Kind kind>
cudaError_t launch_protected_kind(const ProtectedJob& job, const Division& division, cudaStream_t stream) {
  const dim3 grid(division.chunks, (job.read.chips + division.chips - 1) / division.chips);
  protected_kernel<kind><<<grid, kThreads, 0, stream>>>(job, division);
  return cudaGetLastError();
}

cudaError_t launch_protected(const ProtectedJob& job, const Division& division, cudaStream_t stream) {
  switch (job.read.rule.kind) {
    case Kind::flip:
      return launch_protected_kind<Kind::flip>(job, division, stream);
    case Kind::stuck:
      return launch_protected_kind<Kind::stuck>(job, division, stream);
    case Kind::transient:
      return launch_protected_kind<Kind::transient>(job, division, stream);
  }
  return cudaErrorInvalidValue;
}

cudaError_t launch_decode(const DecodeJob& job, cudaStream_t stream) {
  const dim3 grid(static_cast<uint32_t>((job.words + kThreads - 1) / kThreads));
  decode_kernel<<<grid, kThreads, 0, stream>>>(job);
  return cudaGetLastError();
}

}  // namespace
}  // namespace faultsim
