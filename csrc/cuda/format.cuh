// CUDA: memory images of any format (format.h) as chips read them, decoded by the same thread block: the words of a
// chunk pass through shared memory, from where each thread takes the weights whose numbers it writes.
#pragma once

#include "../format.h"
#include "dequantize.cuh"
#include "division.cuh"
#include "draw.cuh"

namespace faultsim {
namespace {

// The part of an image that lies in one chunk of 4,096 addresses: whole words, for an image begins on one.
struct ImagePart {
  uint64_t at;        // byte of the image where it begins
  uint32_t in_chunk;  // and of the chunk
  uint32_t words;     // the last one may end behind the image, where bytes hold no weight
  uint64_t weight;    // number of its first weight
  uint32_t weights;

  __device__ ImagePart(const Job& job, uint32_t chunk) {
    const int64_t first = static_cast<int64_t>(chunk) * kBlockBytes - static_cast<int64_t>(job.map.base);
    in_chunk = first < 0 ? static_cast<uint32_t>(-first) : 0;
    at = static_cast<uint64_t>(first + in_chunk);
    const uint64_t to_end = (job.weights - at + 7) / 8;
    const uint32_t room = (kBlockBytes - in_chunk) / 8, per_word = weights_per_word(job.format);
    words = to_end < room ? static_cast<uint32_t>(to_end) : room;
    weight = at / 8 * per_word;
    const uint64_t left = job.numbers - weight;
    weights = left < words * per_word ? static_cast<uint32_t>(left) : words * per_word;
  }
};

// Eight bytes of the image, or as many as there are.
__device__ uint64_t load_word(const Job& job, uint64_t at) {
  const uint8_t* from = reinterpret_cast<const uint8_t*>(job.source) + at;
  if (at + 8 <= job.weights && reinterpret_cast<uintptr_t>(from) % 8 == 0) {
    return *reinterpret_cast<const uint64_t*>(from);
  }
  uint64_t word = 0;
  for (uint32_t i = 0; i < 8 && at + i < job.weights; ++i) word |= static_cast<uint64_t>(from[i]) << 8 * i;
  return word;
}

// What chip's faults make of the words, into shared memory.
template <Kind kind>
__device__ void read_words(const Job& job, const ImagePart& part, uint32_t in_span, const BlockFaults<kind>& faults,
                           uint64_t* words) {
  for (uint32_t w = threadIdx.x; w < part.words; w += kThreads) {
    const uint32_t byte = byte_in_block(job.map, in_span + part.in_chunk + 8 * w);
    const uint64_t hit_1 = *reinterpret_cast<const uint64_t*>(faults.hit_1() + byte);
    const uint64_t hit_0 = *reinterpret_cast<const uint64_t*>(faults.hit_0() + byte);
    words[w] = read_word(kind, load_word(job, part.at + 8 * w), faults.fail(hit_1, hit_0), faults.value(hit_1));
  }
}

// The number that a weight's bits stand for, as bits of the output's type; each operation is rounded by itself.
template <Number number, Output type>
__device__ uint32_t decoded(const Job& job, uint32_t pattern, uint64_t channel) {
  using To = OutputType<type>;
  const Format& format = job.format;
  if constexpr (number == Number::integer) {
    const float value = __fmul_rn(static_cast<float>(integer_of(format, pattern)), job.scales[channel]);
    return To::bits(To::of(job.centers ? __fadd_rn(value, job.centers[channel]) : value));
  }
  float value = float_of(float_bits<number>(pattern));
  const float scale = format.bits == 8 ? job.scales[channel] : 1.0f;
  if (format.bits == 8) value = __fmul_rn(value, scale);
  const uint32_t bits = settled(format.nonfinite, bits_of(value), limit_of(format, scale, number_of(type)));
  return bits == kQuietNan ? To::kNan : To::bits(To::of(float_of(bits)));
}

// Neighboring threads write neighboring numbers.
template <Number number, Output type>
__device__ void write_numbers(const Job& job, const ScaleRuns& runs, const ImagePart& part, const uint64_t* words,
                              uint64_t row) {
  const uint32_t per_word = weights_per_word(job.format), cells = job.format.cells;
  const uint32_t mask = 0xFFFFFFFFu >> (32 - job.format.bits);
  const uint32_t word_step = kThreads / per_word, place_step = kThreads % per_word;
  uint32_t word = threadIdx.x / per_word, place = threadIdx.x % per_word;
  ScaleCursor cursor(job, runs, part.weight + threadIdx.x);
  auto* output = static_cast<typename OutputType<type>::Bits*>(job.output) + row;
  for (uint32_t i = threadIdx.x; i < part.weights; i += kThreads) {
    const uint32_t pattern = static_cast<uint32_t>(words[word] >> place * cells) & mask;
    output[i] = static_cast<typename OutputType<type>::Bits>(
        decoded<number, type>(job, pattern, static_cast<uint64_t>(cursor.scale - job.scales)));
    cursor.next_group(job, runs);
    word += word_step;
    place += place_step;
    if (place >= per_word) {
      place -= per_word;
      ++word;
    }
  }
}

// One thread block: the words of one chunk, as some chips read them.
template <Kind kind, Output type>
__global__ void __launch_bounds__(kThreads)
    format_kernel(const __grid_constant__ Job job, const __grid_constant__ Division division,
                  const __grid_constant__ ScaleRuns runs) {
  __shared__ BlockFaults<kind> faults;
  __shared__ uint64_t words[kBlockWords];
  const uint32_t number = division.first_chunk + blockIdx.x;
  const ImagePart part(job, number);
  const uint32_t span = static_cast<uint32_t>(division.repeat.quotient(number));
  const uint32_t in_span = (number - span * job.map.repeat) * kBlockBytes;
  const BlockDraw draw = block_draw(job, division, span);
  const uint32_t first_chip = blockIdx.y * division.chips;
  for (uint32_t chip = first_chip; chip < job.chips && chip < first_chip + division.chips; ++chip) {
    // Behind its barriers every thread has written the numbers of the chip before: `words` may be overwritten.
    draw_faults<kind>(draw, static_cast<uint64_t>(job.seeds[chip]), (threadIdx.x / 32 + number + chip) % kWarps,
                      faults);
    read_words<kind>(job, part, in_span, faults, words);
    __syncthreads();
    const uint64_t row = chip * job.numbers + part.weight;
    switch (job.format.number) {
      case Number::integer:
        write_numbers<Number::integer, type>(job, runs, part, words, row);
        break;
      case Number::float32:
        write_numbers<Number::float32, type>(job, runs, part, words, row);
        break;
      case Number::float16:
        write_numbers<Number::float16, type>(job, runs, part, words, row);
        break;
      case Number::bfloat16:
        write_numbers<Number::bfloat16, type>(job, runs, part, words, row);
        break;
      case Number::float8_e4m3fn:
        write_numbers<Number::float8_e4m3fn, type>(job, runs, part, words, row);
        break;
      case Number::float8_e5m2:
        write_numbers<Number::float8_e5m2, type>(job, runs, part, words, row);
        break;
    }
  }
}

}  // namespace
}  // namespace faultsim
