// The CUDA launcher: one thread block for each chunk of 4,096 addresses. A chunk lies in one block of memory, whose
// faults are drawn into shared memory.
#include <cuda_runtime.h>

#include "cuda/codec.cuh"
#include "cuda/dequantize.cuh"
#include "cuda/division.cuh"
#include "cuda/draw.cuh"
#include "cuda/format.cuh"
#include "launch.h"

namespace faultsim {
namespace {

// The weights of one chunk.
template <Kind kind, Output type>
struct Chunk {
  using Value = typename OutputType<type>::Value;
  using Group = Bytes<16 / sizeof(Value)>;  // weights whose output one thread stores at once
  static constexpr uint32_t kGroups = kBlockBytes / (kThreads * Group::kSize);
  static constexpr bool kMask = type == Output::mask;
  static constexpr bool kFloats = type != Output::int8 && !kMask;

  int64_t first;     // number of the weight at the chunk's first address; below 0 where the tensor begins inside
  uint32_t in_span;  // offset of that address
  bool whole;        // every address holds a weight, and groups of them can be loaded

  // Neighboring threads have neighboring groups.
  static __device__ uint32_t group_at(uint32_t group) { return (group * kThreads + threadIdx.x) * Group::kSize; }
};

__device__ bool aligned_to_16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// A whole chunk as one chip reads it, 16 bytes of output at a time. `row` is the index of the chunk's first output.
template <Kind kind, Output type>
__device__ void read_groups(const Job& job, const ScaleRuns& runs, const Chunk<kind, type>& chunk,
                            const typename Chunk<kind, type>::Group (&stored)[Chunk<kind, type>::kGroups],
                            const BlockFaults<kind>& faults, ScaleCursor scale, uint64_t row) {
  using Here = Chunk<kind, type>;
  using Group = typename Here::Group;
  typename Here::Value* output = static_cast<typename Here::Value*>(job.output) + row;
#pragma unroll
  for (uint32_t group = 0; group < Here::kGroups; ++group) {
    const uint32_t at = Here::group_at(group), byte = byte_in_block(job.map, chunk.in_span + at);
    Group hit_1, hit_0, read, value;
    hit_1.load(faults.hit_1() + byte);
    hit_0.load(faults.hit_0() + byte);
#pragma unroll
    for (uint32_t w = 0; w < Group::kSize / 4; ++w) {
      const uint32_t fail = faults.fail(hit_1.words[w], hit_0.words[w]);
      value.words[w] = faults.value(hit_1.words[w]);
      read.words[w] = Here::kMask ? fail : read_word(kind, stored[group].words[w], fail, value.words[w]);
    }
    if constexpr (Here::kFloats) {
      store_dequantized<type>(job, runs, scale, read, output + at);
      scale.next_group(job, runs);
    } else {
      *reinterpret_cast<uint4*>(output + at) = read.packed;
      if (Here::kMask) *reinterpret_cast<uint4*>(job.value + row + at) = value.packed;
    }
  }
}

// The same weight by weight, for a chunk that is cut off or not aligned.
template <Kind kind, Output type>
__device__ void read_weights(const Job& job, const ScaleRuns& runs, const Chunk<kind, type>& chunk,
                             const BlockFaults<kind>& faults, uint32_t chip) {
  using Here = Chunk<kind, type>;
  const uint32_t begin = chunk.first < 0 ? static_cast<uint32_t>(-chunk.first) : 0;
  const int64_t to_end = static_cast<int64_t>(job.weights) - chunk.first;
  const uint32_t end = to_end < kBlockBytes ? static_cast<uint32_t>(to_end) : kBlockBytes;
  for (uint32_t at = begin + threadIdx.x; at < end; at += kThreads) {
    const uint64_t weight = static_cast<uint64_t>(chunk.first + at);
    const uint64_t out = chip * job.weights + weight;
    const uint32_t byte = byte_in_block(job.map, chunk.in_span + at);
    const uint8_t fail = faults.fail(faults.hit_1()[byte], faults.hit_0()[byte]);
    const uint8_t value = faults.value(faults.hit_1()[byte]);
    if constexpr (Here::kMask) {
      static_cast<uint8_t*>(job.output)[out] = fail;
      job.value[out] = value;
    } else {
      const float scale = Here::kFloats ? *ScaleCursor(job, runs, weight).scale : 0.0f;
      const uint8_t read = read_word(kind, static_cast<uint8_t>(job.source[weight]), fail, value);
      static_cast<typename Here::Value*>(job.output)[out] = OutputType<type>::from(static_cast<int8_t>(read), scale);
    }
  }
}

// One thread block: the weights of one chunk, as some chips read them.
template <Kind kind, Output type>
__global__ void __launch_bounds__(kThreads)
    fault_kernel(const __grid_constant__ Job job, const __grid_constant__ Division division,
                 const __grid_constant__ ScaleRuns runs) {
  using Here = Chunk<kind, type>;
  // Two, in turn: a chip's faults can be drawn while slower warps still read those of the previous chip.
  __shared__ BlockFaults<kind> faults[2];

  const AddressMap& map = job.map;
  const uint32_t number = division.first_chunk + blockIdx.x;
  Here chunk;
  chunk.first = static_cast<int64_t>(number) * kBlockBytes - static_cast<int64_t>(map.base);
  const bool complete = chunk.first >= 0 && static_cast<uint64_t>(chunk.first) + kBlockBytes <= job.weights;
  chunk.whole = complete && (Here::kMask || Here::Group::aligned(job.source + chunk.first));

  // Issue the loads of the weights before drawing faults: the draw hides their latency. They stay in registers over all
  // chips.
  typename Here::Group stored[Here::kGroups];
  if (chunk.whole && !Here::kMask) {
#pragma unroll
    for (uint32_t group = 0; group < Here::kGroups; ++group) {
      stored[group].load(job.source + chunk.first + Here::group_at(group));
    }
  }

  const uint32_t span = static_cast<uint32_t>(division.repeat.quotient(number));
  chunk.in_span = (number - span * map.repeat) * kBlockBytes;
  const BlockDraw draw = block_draw(job, division, span);
  const ScaleCursor scale(job, runs, chunk.whole ? chunk.first + Here::group_at(0) : 0);

  const uint32_t first_chip = blockIdx.y * division.chips;
  for (uint32_t chip = first_chip; chip < job.chips && chip < first_chip + division.chips; ++chip) {
    BlockFaults<kind>& now = faults[chip % 2];
    // At low rates one warp draws all hits. Which one depends on chunk and chip, so that the work spreads over the four
    // schedulers of a processor.
    draw_faults<kind>(draw, static_cast<uint64_t>(job.seeds[chip]), (threadIdx.x / 32 + number + chip) % kWarps, now);
    if (chunk.whole) {
      const uint64_t row = chip * job.weights + static_cast<uint64_t>(chunk.first);
      if (aligned_to_16(static_cast<typename Here::Value*>(job.output) + row) &&
          (!Here::kMask || aligned_to_16(job.value + row))) {
        read_groups<kind, type>(job, runs, chunk, stored, now, scale, row);
        continue;
      }
    }
    read_weights<kind, type>(job, runs, chunk, now, chip);
  }
}

// Whether the source is an image whose numbers are more than scaled bytes.
bool has_format(const Job& job) { return !plain_int8(job.format) || job.centers; }

template <Kind kind, Output type>
cudaError_t launch(const Job& job, const Division& division, cudaStream_t stream) {
  const dim3 grid(division.chunks, (job.chips + division.chips - 1) / division.chips);
  if constexpr (Chunk<kind, type>::kFloats) {
    if (has_format(job)) {
      const ScaleRuns runs = scale_runs(job, kThreads);
      format_kernel<kind, type><<<grid, kThreads, 0, stream>>>(job, division, runs);
      return cudaGetLastError();
    }
  }
  const ScaleRuns runs = scale_runs(job, kThreads * Chunk<kind, type>::Group::kSize);
  fault_kernel<kind, type><<<grid, kThreads, 0, stream>>>(job, division, runs);
  return cudaGetLastError();
}

template <Kind kind>
cudaError_t launch(const Job& job, const Division& division, cudaStream_t stream) {
  switch (job.type) {
    case Output::int8:
      return launch<kind, Output::int8>(job, division, stream);
    case Output::float32:
      return launch<kind, Output::float32>(job, division, stream);
    case Output::bfloat16:
      return launch<kind, Output::bfloat16>(job, division, stream);
    case Output::float16:
      return launch<kind, Output::float16>(job, division, stream);
    case Output::mask:
      return launch<kind, Output::mask>(job, division, stream);
  }
  return cudaErrorInvalidValue;
}

cudaError_t launch(const Job& job, const Division& division, cudaStream_t stream) {
  switch (job.rule.kind) {
    case Kind::flip:
      return launch<Kind::flip>(job, division, stream);
    case Kind::stuck:
      return launch<Kind::stuck>(job, division, stream);
    case Kind::transient:
      return launch<Kind::transient>(job, division, stream);
  }
  return cudaErrorInvalidValue;
}

// Empty for success.
std::string described(cudaError_t error, const std::string& what, int device) {
  if (error == cudaSuccess) return {};
  return what + " on CUDA device " + std::to_string(device) + ": " + cudaGetErrorName(error) + " (" +
         cudaGetErrorString(error) + ")";
}

// Calls enqueue(processors), which returns CUDA's error, with `device` current. Afterwards the caller's device is
// current again, whatever happened; the first error is the one that is told.
template <class Enqueue>
std::string on_device(int device, const std::string& what, Enqueue enqueue) {
  int before = 0, processors = 0;
  cudaError_t error = cudaGetDevice(&before);
  if (error != cudaSuccess) return described(error, "cudaGetDevice", device);
  if (before != device) error = cudaSetDevice(device);
  if (error != cudaSuccess) return described(error, "cudaSetDevice", device);

  error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  std::string failed = described(error, "cudaDeviceGetAttribute", device);
  if (failed.empty()) failed = described(enqueue(processors), what, device);
  if (before != device) error = cudaSetDevice(before);
  return failed.empty() ? described(error, "cudaSetDevice", before) : failed;
}

std::string amount(const std::string& kernel, uint64_t count, const char* things, uint32_t chips) {
  return kernel + " of " + std::to_string(count) + " " + things + " for " + std::to_string(chips) + " chips";
}

}  // namespace

bool built_with_cuda() { return true; }

std::string launch_cuda(const Job& job, int device, void* stream) {
  if (job.weights == 0 || job.chips == 0) return {};
  const std::string kernel = std::string(has_format(job) ? "format_kernel<" : "fault_kernel<") +
                             kKindNames[static_cast<int>(job.rule.kind)] + ", " +
                             kOutputNames[static_cast<int>(job.type)] + ">";
  return on_device(device, amount(kernel, job.weights, "weights", job.chips), [&](int processors) {
    return launch(job, divide(job, processors), static_cast<cudaStream_t>(stream));
  });
}

std::string launch_protected_cuda(const ProtectedJob& job, int device, void* stream) {
  if (job.read.weights == 0 || job.read.chips == 0) return {};
  if (job.read.type != Output::int8) return "no CUDA kernel decodes the numbers of a protected memory";
  const std::string kernel = std::string("protected_kernel<") + kKindNames[static_cast<int>(job.read.rule.kind)] + ">";
  return on_device(device, amount(kernel, job.read.weights, "bytes", job.read.chips), [&](int processors) {
    return launch_protected(job, divide(job.read, processors), static_cast<cudaStream_t>(stream));
  });
}

std::string launch_decode_cuda(const DecodeJob& job, int device, void* stream) {
  if (job.words == 0 || job.chips == 0) return {};
  return on_device(device, amount("decode_kernel", job.words, "words", job.chips),
                   [&](int) { return launch_decode(job, static_cast<cudaStream_t>(stream)); });
}

}  // namespace faultsim
