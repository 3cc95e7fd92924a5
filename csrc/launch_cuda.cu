// The CUDA launcher: one block a tile, the array's faults in shared memory, 16-byte stores.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "launch.h"

namespace faultsim {
namespace {

constexpr uint32_t kThreads = 256;
constexpr uint32_t kMaskWords = kCells / 32;
constexpr uint32_t kWindow = 1024;  // cells whose first hits are compared at a time

struct Faults {
  uint32_t cells[kMaskWords];
  uint32_t ones[kMaskWords];   // cells with a hit of state 1 ...
  uint32_t zeros[kMaskWords];  // ... and of state 0; both: the first hit decides
  uint32_t first[kWindow];
};

// Only the members in use take up shared memory.
template <Kind kind>
constexpr size_t shared_bytes() {
  return kind == Kind::flip ? sizeof(uint32_t) * kMaskWords : sizeof(Faults);
}

__device__ void set_bit(uint32_t* mask, uint32_t cell) { atomicOr(mask + cell / 32, 1u << (cell % 32)); }

// Calls visit(index, hit) for each of this thread's share of the first `count` hits.
template <class Visit>
__device__ void each_hit(uint64_t seed, uint32_t array, uint32_t count, Visit visit) {
  const uint32_t halves = kCountHalves + count;
  for (uint32_t call = threadIdx.x; call * kHitsPerCall < halves; call += kThreads) {
    const Philox4 words = hit_call(seed, array, call);
#pragma unroll
    for (uint32_t half = 0; half < kHitsPerCall; ++half) {
      const uint32_t at = call * kHitsPerCall + half;
      if (at >= kCountHalves && at < halves) visit(at - kCountHalves, half_of(words, half));
    }
  }
}

// Draws the faults of one array. Ends with a barrier.
template <Kind kind>
__device__ void draw(const Job& job, uint64_t seed, uint32_t array, uint32_t access, Faults* faults) {
  const bool all = all_cells_fail(job.table);
  for (uint32_t w = threadIdx.x; w < kMaskWords; w += kThreads) {
    faults->cells[w] = all ? 0xFFFFFFFFu : 0u;
    if (kind != Kind::flip) faults->ones[w] = faults->zeros[w] = 0u;
  }
  __syncthreads();
  if (kind == Kind::flip && all) return;

  const uint32_t count = hit_count(job.table, count_uniform(hit_call(seed, array, 0)));
  if (kind == Kind::flip) {
    each_hit(seed, array, count, [&](uint32_t, uint32_t hit) { set_bit(faults->cells, cell_of(hit)); });
    __syncthreads();
    return;
  }

  const bool spare = spare_decides(job.rule);
  const auto state = [&](uint32_t index, uint32_t hit) {
    if (spare) return spare_of(hit) != 0;
    const Philox4 words = state_call(seed, array, access, kind, index / kStatesPerCall);
    return state_of(job.rule, hit, words.word[index % kStatesPerCall]);
  };
  each_hit(seed, array, count, [&](uint32_t index, uint32_t hit) {
    const uint32_t cell = cell_of(hit);
    set_bit(faults->cells, cell);
    set_bit(state(index, hit) ? faults->ones : faults->zeros, cell);
  });
  __syncthreads();

  // Hits of both states on one cell are rare; for each window of cells that has some, find the first hit of every
  // cell and keep its state. All threads take the same way: they see the same masks.
  for (uint32_t window = 0; window < kCells; window += kWindow) {
    uint32_t both = 0;
    for (uint32_t w = threadIdx.x; w < kWindow / 32; w += kThreads) {
      both |= faults->ones[window / 32 + w] & faults->zeros[window / 32 + w];
    }
    if (!__syncthreads_or(both != 0)) continue;
    for (uint32_t i = threadIdx.x; i < kWindow; i += kThreads) faults->first[i] = 0xFFFFFFFFu;
    __syncthreads();
    each_hit(seed, array, count, [&](uint32_t index, uint32_t hit) {
      const uint32_t cell = cell_of(hit);
      if (cell - window < kWindow) atomicMin(faults->first + (cell - window), index);
    });
    __syncthreads();
    each_hit(seed, array, count, [&](uint32_t index, uint32_t hit) {
      const uint32_t cell = cell_of(hit);
      if (cell - window < kWindow && faults->first[cell - window] == index && !state(index, hit)) {
        atomicAnd(faults->ones + cell / 32, ~(1u << (cell % 32)));
      }
    });
    __syncthreads();
  }
}

// kWide weights make 16 bytes of output.
template <Output type>
struct Out;
template <>
struct Out<Output::int8> {
  using Value = int8_t;
  static __device__ Value from(int8_t q, float) { return q; }
};
template <>
struct Out<Output::float32> {
  using Value = float;
  static __device__ Value from(int8_t q, float scale) { return __fmul_rn(static_cast<float>(q), scale); }
};
template <>
struct Out<Output::bfloat16> {
  using Value = __nv_bfloat16;
  static __device__ Value from(int8_t q, float scale) {
    return __float2bfloat16_rn(__fmul_rn(static_cast<float>(q), scale));
  }
};
template <>
struct Out<Output::float16> {
  using Value = __half;
  static __device__ Value from(int8_t q, float scale) {
    return __float2half_rn(__fmul_rn(static_cast<float>(q), scale));
  }
};

// Four weights at a time.
template <Kind kind>
__device__ uint32_t read_wrong(uint32_t stored, uint32_t cells, uint32_t ones) {
  if (kind == Kind::flip) return stored ^ cells;
  if (kind == Kind::transient) return stored ^ ones;
  return (stored & ~cells) | (ones & cells);
}

template <uint32_t bytes>
struct Word;
template <>
struct Word<16> {
  using Type = uint4;
};
template <>
struct Word<8> {
  using Type = uint2;
};
template <>
struct Word<4> {
  using Type = uint32_t;
};

// The weights of one tile as one chip reads them.
template <Kind kind, Output type>
__device__ void apply(const Job& job, uint32_t chip, uint64_t tile, const uint32_t* cells, const uint32_t* ones) {
  using Value = typename Out<type>::Value;
  constexpr uint32_t wide = 16 / sizeof(Value);
  using Packed = typename Word<wide>::Type;
  const uint64_t span = tile_weights(job.placement), base = job.placement.base;
  const uint64_t begin = tile * span > base ? tile * span : base;
  const uint64_t end = (tile + 1) * span < base + job.weights ? (tile + 1) * span : base + job.weights;
  Value* output = static_cast<Value*>(job.output) + static_cast<uint64_t>(chip) * job.weights;
  const bool aligned = (reinterpret_cast<uintptr_t>(job.source) - base) % wide == 0 &&
                       (reinterpret_cast<uintptr_t>(output) / sizeof(Value) - base) % wide == 0 &&
                       reinterpret_cast<uintptr_t>(output) % sizeof(Value) == 0;
  const bool one_scale = job.scale_count == 1;

  // Whole groups of `wide` weights, counted from the start of the tile so that they never straddle a memory word.
  for (uint64_t at = begin / wide * wide + threadIdx.x * wide; at < end; at += kThreads * wide) {
    const uint32_t byte = byte_in_array(job.placement, static_cast<uint32_t>(at - tile * span));
    union {
      Packed packed;
      uint32_t words[wide / 4];
      int8_t q[wide];
    } in;
    union {
      uint4 packed;
      Value v[wide];
    } out;
    const bool whole = aligned && at >= begin && at + wide <= end;
    if (whole) {
      in.packed = *reinterpret_cast<const Packed*>(job.source + (at - base));
    } else {
#pragma unroll
      for (uint32_t i = 0; i < wide; ++i) {
        in.q[i] = at + i >= begin && at + i < end ? job.source[at + i - base] : static_cast<int8_t>(0);
      }
    }
#pragma unroll
    for (uint32_t j = 0; j < wide / 4; ++j) {
      in.words[j] = read_wrong<kind>(in.words[j], cells[byte / 4 + j], kind == Kind::flip ? 0u : ones[byte / 4 + j]);
    }
#pragma unroll
    for (uint32_t i = 0; i < wide; ++i) {
      float scale = 0.0f;
      const bool inside = at + i >= begin && at + i < end;
      if (type != Output::int8 && inside) {
        scale = job.scales[one_scale ? 0 : (at + i - base) / job.scale_run % job.scale_count];
      }
      out.v[i] = Out<type>::from(in.q[i], scale);
      if (!whole && inside) output[at + i - base] = out.v[i];
    }
    if (whole) *reinterpret_cast<uint4*>(output + (at - base)) = out.packed;
  }
}

template <Kind kind>
__device__ void apply_mask(const Job& job, uint32_t chip, uint64_t tile, const uint32_t* cells, const uint32_t* ones) {
  const uint64_t span = tile_weights(job.placement), base = job.placement.base;
  const uint64_t begin = tile * span > base ? tile * span : base;
  const uint64_t end = (tile + 1) * span < base + job.weights ? (tile + 1) * span : base + job.weights;
  for (uint64_t at = begin + threadIdx.x; at < end; at += kThreads) {
    const uint32_t byte = byte_in_array(job.placement, static_cast<uint32_t>(at - tile * span));
    const uint64_t out = static_cast<uint64_t>(chip) * job.weights + (at - base);
    static_cast<uint8_t*>(job.output)[out] = reinterpret_cast<const uint8_t*>(cells)[byte];
    job.states[out] = kind == Kind::flip ? 0 : reinterpret_cast<const uint8_t*>(ones)[byte];
  }
}

template <Kind kind, Output type>
__global__ void __launch_bounds__(kThreads)
    fault_kernel(const __grid_constant__ Job job, uint64_t first_tile, uint64_t tiles) {
  extern __shared__ uint4 shared[];  // uint4: aligned for any member
  Faults* faults = reinterpret_cast<Faults*>(shared);
  const uint32_t* cells = faults->cells;
  const uint32_t* ones = faults->ones;
  const uint32_t offset = job.array_offset ? static_cast<uint32_t>(*job.array_offset) : 0;
  const uint32_t access = job.access ? static_cast<uint32_t>(*job.access) : 0;
  for (uint64_t t = blockIdx.x; t < tiles; t += gridDim.x) {
    const uint64_t tile = first_tile + t;
    const uint32_t array = static_cast<uint32_t>(array_of_tile(job.placement, tile)) + offset;
    // The source of a tile stays in the cache from one chip to the next: it is read from memory once.
    for (uint32_t chip = 0; chip < job.chips; ++chip) {
      draw<kind>(job, static_cast<uint64_t>(job.seeds[chip]), array, access, faults);
      if (type == Output::mask) {
        apply_mask<kind>(job, chip, tile, cells, ones);
      } else {
        apply<kind, type == Output::mask ? Output::int8 : type>(job, chip, tile, cells, ones);
      }
      __syncthreads();
    }
  }
}

template <Kind kind, Output type>
cudaError_t launch(const Job& job, cudaStream_t stream) {
  const uint64_t span = tile_weights(job.placement);
  const uint64_t first = job.placement.base / span;
  const uint64_t tiles = (job.placement.base + job.weights - 1) / span - first + 1;
  const uint32_t blocks = static_cast<uint32_t>(tiles < 1u << 20 ? tiles : 1u << 20);
  fault_kernel<kind, type><<<blocks, kThreads, shared_bytes<kind>(), stream>>>(job, first, tiles);
  return cudaGetLastError();
}

template <Kind kind>
cudaError_t launch(const Job& job, cudaStream_t stream) {
  switch (job.type) {
    case Output::int8:
      return launch<kind, Output::int8>(job, stream);
    case Output::float32:
      return launch<kind, Output::float32>(job, stream);
    case Output::bfloat16:
      return launch<kind, Output::bfloat16>(job, stream);
    case Output::float16:
      return launch<kind, Output::float16>(job, stream);
    case Output::mask:
      return launch<kind, Output::mask>(job, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

bool built_with_cuda() { return true; }

const char* launch_cuda(const Job& job, int device, void* stream) {
  if (job.weights == 0 || job.chips == 0) return nullptr;
  int current = 0;
  cudaError_t error = cudaGetDevice(&current);
  if (error == cudaSuccess && current != device) error = cudaSetDevice(device);
  if (error == cudaSuccess) {
    const cudaStream_t queue = static_cast<cudaStream_t>(stream);
    switch (job.rule.kind) {
      case Kind::flip:
        error = launch<Kind::flip>(job, queue);
        break;
      case Kind::stuck:
        error = launch<Kind::stuck>(job, queue);
        break;
      case Kind::transient:
        error = launch<Kind::transient>(job, queue);
        break;
    }
    if (current != device) cudaSetDevice(current);
  }
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace faultsim
