// CUDA: from an int8 weight and its scale to the output's type.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "../launch.h"
#include "division.cuh"

namespace faultsim {
namespace {

template <Output type>
struct OutputType {
  using Value = int8_t;
  static __device__ Value from(int8_t q, float) { return q; }
};
template <>
struct OutputType<Output::float32> {
  using Value = float;
  using Bits = uint32_t;
  static constexpr Bits kNan = kQuietNan;
  static __device__ Value of(float x) { return x; }
  static __device__ Value from(int8_t q, float scale) { return of(__fmul_rn(static_cast<float>(q), scale)); }
  static __device__ uint32_t bits(Value x) { return __float_as_uint(x); }
};
template <>
struct OutputType<Output::bfloat16> {
  using Value = __nv_bfloat16;
  using Bits = uint16_t;
  static constexpr Bits kNan = 0x7FC0u;
  static __device__ Value of(float x) { return __float2bfloat16_rn(x); }
  static __device__ Value from(int8_t q, float scale) { return of(__fmul_rn(static_cast<float>(q), scale)); }
  static __device__ uint32_t bits(Value x) { return __bfloat16_as_ushort(x); }
};
template <>
struct OutputType<Output::float16> {
  using Value = __half;
  using Bits = uint16_t;
  static constexpr Bits kNan = 0x7E00u;
  static __device__ Value of(float x) { return __float2half_rn(x); }
  static __device__ Value from(int8_t q, float scale) { return of(__fmul_rn(static_cast<float>(q), scale)); }
  static __device__ uint32_t bits(Value x) { return __half_as_ushort(x); }
};

// 16 bytes of float output.
struct OutputVector {
  uint32_t words[4];

  template <Output type>
  __device__ void set(uint32_t i, int8_t q, float scale) {
    constexpr uint32_t kInWord = sizeof(uint32_t) / sizeof(typename OutputType<type>::Value);
    const uint32_t bits = OutputType<type>::bits(OutputType<type>::from(q, scale));
    words[i / kInWord] = i % kInWord == 0 ? bits : words[i / kInWord] | bits << 16;
  }
  // One instruction: of a plain assignment the compiler makes a store for each word.
  __device__ void store(void* p) const {
#if defined(__CUDA_ARCH__)
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(words[0]), "r"(words[1]), "r"(words[2]),
                 "r"(words[3]));
#else
    *static_cast<uint4*>(p) = {words[0], words[1], words[2], words[3]};
#endif
  }
};

// Sentinel: at least this many weights remain in a run of equal scales. 2^30, so that adding a run's length cannot
// overflow 32 bits.
constexpr uint32_t kManyWeights = 1u << 30;

// How scales follow each other, worked out by the host. Used if there are several.
struct ScaleRuns {
  Divisor run;      // weights of one scale
  Divisor count;    // number of scales
  uint32_t length;  // min(run, kManyWeights)
  // From one group of a thread to its next: whole runs, modulo the number of scales, and weights beyond them.
  uint64_t skipped_runs;
  uint32_t skipped_weights;
};

// `step`: weights from one group of a thread to its next.
ScaleRuns scale_runs(const Job& job, uint32_t step) {
  ScaleRuns runs{};
  if (job.scale_count > 1) {
    runs.run = divisor(job.scale_run);
    runs.count = divisor(job.scale_count);
    runs.length = static_cast<uint32_t>(job.scale_run < kManyWeights ? job.scale_run : kManyWeights);
    runs.skipped_runs = step / job.scale_run % job.scale_count;
    runs.skipped_weights = static_cast<uint32_t>(step % job.scale_run);
  }
  return runs;
}

// The scale of a weight. A thread looks it up once and then follows it from group to group.
struct ScaleCursor {
  const float* scale;
  uint32_t remaining;  // weights of the run, from here on; kManyWeights stands for more

  __device__ ScaleCursor(const Job& job, const ScaleRuns& runs, uint64_t weight)
      : scale(job.scales), remaining(kManyWeights) {
    if (job.scale_count == 1) return;
    const uint64_t run = runs.run.quotient(weight);
    scale += run - runs.count.quotient(run) * runs.count.by;
    const uint64_t rest = runs.run.by - (weight - run * runs.run.by);
    remaining = rest < kManyWeights ? static_cast<uint32_t>(rest) : kManyWeights;
  }
  __device__ void next_weight(const Job& job, const ScaleRuns& runs) {
    if (--remaining > 0) return;
    remaining = runs.length;
    if (++scale == job.scales + job.scale_count) scale = job.scales;
  }
  __device__ void next_group(const Job& job, const ScaleRuns& runs) {
    scale += runs.skipped_runs;
    if (remaining <= runs.skipped_weights) {
      remaining += runs.length;
      ++scale;
    }
    remaining -= runs.skipped_weights;
    if (scale >= job.scales + job.scale_count) scale -= job.scale_count;
  }
};

// Dequantizes the weights of one group, whose first one has the scale at `cursor`, and stores them.
template <Output type, class Group>
__device__ void store_dequantized(const Job& job, const ScaleRuns& runs, const ScaleCursor& cursor, const Group& group,
                                  void* output) {
  OutputVector out;
  if (cursor.remaining < Group::kSize) {
    ScaleCursor own = cursor;
#pragma unroll
    for (uint32_t i = 0; i < Group::kSize; ++i, own.next_weight(job, runs)) {
      out.set<type>(i, group.q[i], *own.scale);
    }
  } else {
    const float same = *cursor.scale;
#pragma unroll
    for (uint32_t i = 0; i < Group::kSize; ++i) out.set<type>(i, group.q[i], same);
  }
  out.store(output);
}

}  // namespace
}  // namespace faultsim
