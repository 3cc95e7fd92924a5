// The CUDA launcher: one block for each 4,096 addresses, which lie in one array; the array's faults in shared memory.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "launch.h"

namespace faultsim {
namespace {

constexpr uint32_t kThreads = 128;
constexpr uint32_t kWarps = kThreads / 32;
constexpr uint32_t kMaskWords = kCells / 32;
constexpr uint32_t kWindow = 1024;            // cells whose first hits are compared at a time
constexpr uint32_t kBlocksPerProcessor = 32;  // with so many in turn, the last ones leave few processors idle
constexpr uint32_t kManyWeights = 1u << 30;   // "more weights than a block has", and small enough to be added to

// The faults of one array: failing cells where faults are flips, otherwise the cells with a hit of state 1, and those
// with a hit of state 0.
template <Kind kind>
struct Faults {
  static constexpr uint32_t kMasks = kind == Kind::flip ? 1 : 2;
  alignas(16) uint32_t mask[kMasks][kMaskWords];
  uint32_t windows;  // bit w: some cell of window w has both; not for flips
};

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

// What one thread loads at once.
template <uint32_t wide>
union Bytes {
  using Packed = typename Vector<wide>::Type;
  static constexpr uint32_t kWide = wide;
  Packed packed;
  uint32_t words[wide / 4];
  int8_t q[wide];

  static __device__ bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % wide == 0; }
  __device__ void load(const void* p) { packed = *static_cast<const Packed*>(p); }
};

// What a block draws, whatever the chip.
struct Draw {
  DrawTable table;
  StateRule rule;
  uint32_t array;
  uint32_t access;
  uint32_t least;  // number of hits
  bool all;        // every cell fails
};

// hit_count() by the 32 threads of a warp: each step asks 32 thresholds at once.
__device__ uint32_t warp_hit_count(const Draw& draw, uint64_t uniform) {
  const uint64_t* thresholds = draw.table.entries + 2;
  uint32_t found = 0;
  for (uint32_t left = draw.table.size; left > 0;) {
    const uint32_t step = (left + 31) / 32;
    const uint32_t asked = (threadIdx.x % 32 + 1) * step - 1;
    const bool below = asked < left && thresholds[found + asked] <= uniform;
    const uint32_t passed = step * __popc(__ballot_sync(0xFFFFFFFFu, below));
    found += passed;
    left = left - passed < step ? left - passed : step - 1;
  }
  return draw.least + found;
}

// The part of an array's hits that one thread draws. Its first call is made before the number of hits is known: the
// first lane of every warp makes call 0, which holds that number, and the others the first 31 calls of their warp. So
// no warp waits for another one to count; and hits that two threads visit change nothing.
struct Share {
  static constexpr uint32_t kRound = 31 * kWarps;  // calls of all warps
  uint64_t seed;
  uint32_t call;
  uint32_t halves;  // length of the stream that counts
  Philox4 words;

  // `warp` is any numbering of the block's warps. A warp that the longest possible draw doesn't need draws nothing.
  __device__ Share(const Draw& draw, uint64_t seed, uint32_t warp) : seed(seed), halves(0), words{} {
    const uint32_t lane = threadIdx.x % 32;
    call = lane == 0 ? 0 : 31 * warp + lane;
    if (warp > 0 && (31 * warp + 1) * kHitsPerCall >= kCountHalves + draw.least + draw.table.size) return;
    words = hit_call(seed, draw.array, call);
    Philox4 first = words;
    first.word[0] = __shfl_sync(0xFFFFFFFFu, words.word[0], 0);
    first.word[1] = __shfl_sync(0xFFFFFFFFu, words.word[1], 0);
    halves = kCountHalves + warp_hit_count(draw, count_uniform(first));
  }

  // Calls visit(index, cell, state) for each hit; flips have no states.
  template <Kind kind, class Visit>
  __device__ void each_hit(const Draw& draw, Visit visit) const {
    Philox4 now = words;
    for (uint32_t at = call; at * kHitsPerCall < halves;) {
      // The call's hits have numbers 8 * at - 4 ... 8 * at + 3: two calls of the state stream.
      Philox4 states[2] = {};
      const bool spare = kind == Kind::flip || spare_decides(draw.rule);
      if (!spare) {
        for (uint32_t i = 0; i < 2; ++i) {
          states[i] = state_call(seed, draw.array, draw.access, kind, 2 * at - 1 + i);
        }
      }
#pragma unroll
      for (uint32_t half = 0; half < kHitsPerCall; ++half) {
        const uint32_t place = at * kHitsPerCall + half;
        if (place < kCountHalves || place >= halves) continue;
        const uint32_t hit = half_of(now, half);
        const uint32_t word = states[half / kStatesPerCall].word[half % kStatesPerCall];
        visit(place - kCountHalves, cell_of(hit), spare ? spare_of(hit) != 0 : state_of(draw.rule, hit, word));
      }
      at += kRound;
      if (at * kHitsPerCall < halves) now = hit_call(seed, draw.array, at);
    }
  }
};

// Of the cells with hits of both states, those whose first hit has state 0 lose their 1. They are rare: only windows
// of cells that have some are looked at. All threads take the same way.
template <Kind kind>
__device__ void let_first_hits_decide(const Draw& draw, const Share& share, Faults<kind>& faults) {
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
  for (uint32_t left = faults.windows; left != 0; left &= left - 1) {
    const uint32_t window = (__ffs(left) - 1) * kWindow;
    for (uint32_t i = threadIdx.x; i < kWindow; i += kThreads) first[i] = 0xFFFFFFFFu;
    __syncthreads();
    share.each_hit<kind>(draw, [&](uint32_t index, uint32_t cell, bool) {
      if (cell - window < kWindow) atomicMin(first + (cell - window), index);
    });
    __syncthreads();
    share.each_hit<kind>(draw, [&](uint32_t index, uint32_t cell, bool state) {
      if (cell - window < kWindow && first[cell - window] == index && !state) {
        atomicAnd(faults.mask[0] + cell / 32, ~(1u << (cell % 32)));
      }
    });
    __syncthreads();
  }
}

// Draws the faults of one chip's array. No thread may still read what `faults` held before.
template <Kind kind>
__device__ void draw_faults(const Draw& draw, uint64_t seed, uint32_t warp, Faults<kind>& faults) {
  uint4* words = reinterpret_cast<uint4*>(faults.mask);
  constexpr uint32_t kVectors = Faults<kind>::kMasks * kMaskWords / 4;
#pragma unroll
  for (uint32_t i = 0; i < kVectors; i += kThreads) {
    const uint32_t all = draw.all && i + kMaskWords / 4 >= kVectors ? 0xFFFFFFFFu : 0u;  // the last mask
    words[i + threadIdx.x] = {all, all, all, all};
  }
  if (kind != Kind::flip && threadIdx.x == 0) faults.windows = 0;
  const Share share(draw, seed, warp);
  __syncthreads();
  if (kind != Kind::flip || !draw.all) {
    share.each_hit<kind>(draw, [&](uint32_t, uint32_t cell, bool state) {
      atomicOr(faults.mask[kind == Kind::flip || state ? 0 : 1] + cell / 32, 1u << (cell % 32));
    });
  }
  __syncthreads();
  if constexpr (kind != Kind::flip) let_first_hits_decide<kind>(draw, share, faults);
}

template <Output type>
struct Out {
  using Value = int8_t;
  static __device__ Value from(int8_t q, float) { return q; }
};
template <>
struct Out<Output::float32> {
  using Value = float;
  static __device__ Value from(int8_t q, float scale) { return __fmul_rn(static_cast<float>(q), scale); }
  static __device__ uint32_t bits(Value x) { return __float_as_uint(x); }
};
template <>
struct Out<Output::bfloat16> {
  using Value = __nv_bfloat16;
  static __device__ Value from(int8_t q, float scale) {
    return __float2bfloat16_rn(__fmul_rn(static_cast<float>(q), scale));
  }
  static __device__ uint32_t bits(Value x) { return __bfloat16_as_ushort(x); }
};
template <>
struct Out<Output::float16> {
  using Value = __half;
  static __device__ Value from(int8_t q, float scale) {
    return __float2half_rn(__fmul_rn(static_cast<float>(q), scale));
  }
  static __device__ uint32_t bits(Value x) { return __half_as_ushort(x); }
};

// 16 bytes of output.
struct Written {
  uint32_t words[4];

  template <Output type>
  __device__ void set(uint32_t i, int8_t q, float scale) {
    constexpr uint32_t kInWord = sizeof(uint32_t) / sizeof(typename Out<type>::Value);
    const uint32_t bits = Out<type>::bits(Out<type>::from(q, scale));
    words[i / kInWord] = i % kInWord == 0 ? bits : words[i / kInWord] | bits << 16;
  }
  // Spelt out, for of an assignment the compiler makes as many stores as there are words.
  __device__ void store(void* p) const {
#if defined(__CUDA_ARCH__)
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(words[0]), "r"(words[1]), "r"(words[2]),
                 "r"(words[3]));
#else
    *static_cast<uint4*>(p) = {words[0], words[1], words[2], words[3]};
#endif
  }
};

__device__ bool aligned_to_16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// Divides by multiplying, with the reciprocal that the host rounded down: a quotient below 2^63 is at most one too
// small.
struct Divisor {
  uint64_t by;
  uint64_t reciprocal;

  __device__ uint64_t quotient(uint64_t n) const {
    const uint64_t low = __umul64hi(n, reciprocal);
    return low + (n - low * by >= by ? 1 : 0);
  }
};

// How a launch is cut into blocks, and what the host can work out about the scales.
struct Cut {
  uint32_t first_chunk;  // a chunk is 4,096 addresses
  uint32_t chunks;
  uint32_t chips;  // of one block
  Divisor repeat;
  Divisor arrays;
  Divisor run;    // of equal scales
  Divisor count;  // of scales
  // From one group of a thread to its next:
  uint64_t runs;  // whole runs, modulo the number of scales
  uint32_t rest;  // weights beyond them
  uint32_t left;  // min(run, kManyWeights)
};

// The scale of a group of weights. It is found once for a thread and then followed from group to group.
struct ScaleAt {
  const float* scale;
  uint32_t left;  // of the run, from here on; kManyWeights stands for more

  __device__ ScaleAt(const Job& job, const Cut& cut, uint64_t weight) : scale(job.scales), left(kManyWeights) {
    if (job.scale_count == 1) return;
    const uint64_t run = cut.run.quotient(weight);
    scale += run - cut.count.quotient(run) * cut.count.by;
    const uint64_t rest = cut.run.by - (weight - run * cut.run.by);
    left = rest < kManyWeights ? static_cast<uint32_t>(rest) : kManyWeights;
  }
  __device__ void next_weight(const Job& job, const Cut& cut) {
    if (--left > 0) return;
    left = cut.left;
    if (++scale == job.scales + job.scale_count) scale = job.scales;
  }
  __device__ void next_group(const Job& job, const Cut& cut) {
    scale += cut.runs;
    if (left <= cut.rest) {
      left += cut.left;
      ++scale;
    }
    left -= cut.rest;
    if (scale >= job.scales + job.scale_count) scale -= job.scale_count;
  }
};

// A read of stored bits.
template <Kind kind>
__device__ uint32_t read_wrong(uint32_t stored, uint32_t ones, uint32_t zeros) {
  return kind == Kind::stuck ? (stored & ~zeros) | ones : stored ^ ones;
}

// One block: the weights at 4,096 addresses, as some chips read them.
template <Kind kind, Output type>
__global__ void __launch_bounds__(kThreads)
    fault_kernel(const __grid_constant__ Job job, const __grid_constant__ Cut cut) {
  using Value = typename Out<type>::Value;
  using Group = Bytes<16 / sizeof(Value)>;  // of weights
  constexpr uint32_t kGroups = kArrayBytes / (kThreads * Group::kWide);
  constexpr bool kMask = type == Output::mask;
  constexpr bool kFloats = type != Output::int8 && !kMask;
  // In turn: a chip's faults can be drawn while slower warps still read those of the chip before.
  __shared__ Faults<kind> faults[2];

  const Placement& place = job.placement;
  const uint32_t chunk = cut.first_chunk + blockIdx.x;
  const int64_t first = static_cast<int64_t>(chunk) * kArrayBytes - static_cast<int64_t>(place.base);
  const bool complete = first >= 0 && static_cast<uint64_t>(first) + kArrayBytes <= job.weights;
  const int8_t* source = job.source + first;
  // Neighbouring threads have neighbouring groups.
  const auto group_at = [](uint32_t group) { return (group * kThreads + threadIdx.x) * Group::kWide; };

  // The weights are asked for before the faults are drawn: that takes about as long as they take to come. They stay in
  // registers over all chips. A chunk that is cut off, or not aligned, goes weight by weight instead.
  Group stored[kGroups];
  const bool in_groups = complete && (kMask || Group::aligned(source));
  if (in_groups && !kMask) {
#pragma unroll
    for (uint32_t group = 0; group < kGroups; ++group) stored[group].load(source + group_at(group));
  }

  const uint32_t tile = static_cast<uint32_t>(cut.repeat.quotient(chunk));
  const uint32_t in_tile = (chunk - tile * place.repeat) * kArrayBytes;
  Draw draw;
  draw.table = job.table;
  draw.rule = job.rule;
  draw.array = place.arrays ? tile - static_cast<uint32_t>(cut.arrays.quotient(tile) * place.arrays) : tile;
  if (job.array_offset) draw.array += static_cast<uint32_t>(*job.array_offset);
  draw.access = job.access ? static_cast<uint32_t>(*job.access) : 0;
  draw.least = static_cast<uint32_t>(job.table.entries[0]);
  draw.all = all_cells_fail(job.table);
  const ScaleAt first_scale(job, cut, first + group_at(0));  // of a complete chunk

  for (uint32_t chip = blockIdx.y * cut.chips; chip < job.chips && chip < (blockIdx.y + 1) * cut.chips; ++chip) {
    Faults<kind>& now = faults[chip % 2];
    // Few hits are drawn by few warps: by other ones in the next block and for the next chip, or one of a processor's
    // four schedulers would have to do it all.
    draw_faults<kind>(draw, static_cast<uint64_t>(job.seeds[chip]), (threadIdx.x / 32 + chunk + chip) % kWarps, now);
    const uint8_t* ones = reinterpret_cast<const uint8_t*>(now.mask[0]);
    const uint8_t* zeros = reinterpret_cast<const uint8_t*>(now.mask[Faults<kind>::kMasks - 1]);

    const int64_t row = static_cast<int64_t>(chip) * static_cast<int64_t>(job.weights) + first;
    Value* output = static_cast<Value*>(job.output) + row;
    uint8_t* states = job.states + row;
    if (in_groups && aligned_to_16(output) && (!kMask || aligned_to_16(states))) {
      ScaleAt scale = first_scale;
#pragma unroll
      for (uint32_t group = 0; group < kGroups; ++group) {
        const uint32_t at = group_at(group), byte = byte_in_array(place, in_tile + at);
        Group set, clear, read;
        set.load(ones + byte);
        clear.load(zeros + byte);
#pragma unroll
        for (uint32_t w = 0; w < Group::kWide / 4; ++w) {
          read.words[w] = kMask ? set.words[w] | clear.words[w]
                                : read_wrong<kind>(stored[group].words[w], set.words[w], clear.words[w]);
        }
        if constexpr (kFloats) {
          Written out;
          if (scale.left < Group::kWide) {
            ScaleAt own = scale;
#pragma unroll
            for (uint32_t i = 0; i < Group::kWide; ++i, own.next_weight(job, cut)) {
              out.set<type>(i, read.q[i], *own.scale);
            }
          } else {
            const float same = *scale.scale;
#pragma unroll
            for (uint32_t i = 0; i < Group::kWide; ++i) out.set<type>(i, read.q[i], same);
          }
          out.store(output + at);
          scale.next_group(job, cut);
        } else {
          *reinterpret_cast<uint4*>(output + at) = read.packed;
          if (kMask) *reinterpret_cast<uint4*>(states + at) = kind == Kind::flip ? uint4{} : set.packed;
        }
      }
    } else {
      const uint32_t begin = first < 0 ? static_cast<uint32_t>(-first) : 0;
      const int64_t behind = static_cast<int64_t>(job.weights) - first;
      const uint32_t end = behind < kArrayBytes ? static_cast<uint32_t>(behind) : kArrayBytes;
      for (uint32_t at = begin + threadIdx.x; at < end; at += kThreads) {
        const uint32_t byte = byte_in_array(place, in_tile + at);
        if constexpr (kMask) {
          output[at] = ones[byte] | zeros[byte];
          states[at] = kind == Kind::flip ? 0 : ones[byte];
        } else {
          const float scale = kFloats ? *ScaleAt(job, cut, first + at).scale : 0.0f;
          output[at] =
              Out<type>::from(static_cast<int8_t>(read_wrong<kind>(source[at], ones[byte], zeros[byte])), scale);
        }
      }
    }
  }
}

Divisor divisor(uint64_t by) { return {by, ~uint64_t{0} / by}; }

// `step`: weights from one group of a thread to its next.
Cut cut_for(const Job& job, uint32_t step, int processors) {
  Cut cut{};
  const uint64_t base = job.placement.base;
  cut.first_chunk = static_cast<uint32_t>(base / kArrayBytes);
  cut.chunks = static_cast<uint32_t>((base + job.weights - 1) / kArrayBytes) - cut.first_chunk + 1;
  // Where chunks alone don't fill the GPU, chips are spread over blocks too; each block then reads the source again.
  const uint32_t wanted = kBlocksPerProcessor * static_cast<uint32_t>(processors);
  const uint32_t parts = (wanted + cut.chunks - 1) / cut.chunks;
  cut.chips = (job.chips + parts - 1) / parts;
  cut.repeat = divisor(job.placement.repeat);
  if (job.placement.arrays) cut.arrays = divisor(job.placement.arrays);
  if (job.scale_count > 1) {
    cut.run = divisor(job.scale_run);
    cut.count = divisor(job.scale_count);
    cut.runs = step / job.scale_run % job.scale_count;
    cut.rest = static_cast<uint32_t>(step % job.scale_run);
    cut.left = static_cast<uint32_t>(job.scale_run < kManyWeights ? job.scale_run : kManyWeights);
  }
  return cut;
}

template <Kind kind, Output type>
cudaError_t launch(const Job& job, int device, cudaStream_t stream) {
  int processors = 0;
  const cudaError_t error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return error;
  const Cut cut = cut_for(job, kThreads * 16 / sizeof(typename Out<type>::Value), processors);
  const dim3 grid(cut.chunks, (job.chips + cut.chips - 1) / cut.chips);
  fault_kernel<kind, type><<<grid, kThreads, 0, stream>>>(job, cut);
  return cudaGetLastError();
}

template <Kind kind>
cudaError_t launch(const Job& job, int device, cudaStream_t stream) {
  switch (job.type) {
    case Output::int8:
      return launch<kind, Output::int8>(job, device, stream);
    case Output::float32:
      return launch<kind, Output::float32>(job, device, stream);
    case Output::bfloat16:
      return launch<kind, Output::bfloat16>(job, device, stream);
    case Output::float16:
      return launch<kind, Output::float16>(job, device, stream);
    case Output::mask:
      return launch<kind, Output::mask>(job, device, stream);
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
        error = launch<Kind::flip>(job, device, queue);
        break;
      case Kind::stuck:
        error = launch<Kind::stuck>(job, device, queue);
        break;
      case Kind::transient:
        error = launch<Kind::transient>(job, device, queue);
        break;
    }
    if (current != device) cudaSetDevice(current);
  }
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace faultsim
