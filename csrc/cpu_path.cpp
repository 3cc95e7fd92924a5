// Compiled once for each instruction set: portable, AVX2, AVX-512 (CMakeLists.txt). Nothing of the
// standard library that is a template or inline may be used here: the linker keeps one copy of such a
// function for the whole program, and it might be one that this processor cannot run.
#include "cpu_path.h"

#include "half.h"
#include "lanes.h"

namespace faultsim {
namespace FAULTSIM_PATH {
namespace {

constexpr uint32_t kChunkCalls = 128;  // 1,024 hits at a time: the buffer stays in the L1 cache
constexpr uint32_t kChunkHits = kChunkCalls * kHitsPerCall;
static_assert(kChunkCalls % Lanes::width == 0, "a chunk is a whole number of vectors");

// Cache lines of their own: they are written as vectors.
struct HitChunk {
  alignas(64) uint16_t half[kChunkHits];
};
struct StateChunk {
  alignas(64) uint32_t draw[kChunkHits];
};

void hits_from(uint64_t seed, uint32_t array, uint32_t call, uint32_t calls, uint16_t* out) {
  for (uint32_t i = 0; i < calls; i += Lanes::width) {
    philox_lanes(seed, call + i, array, 0, kStreamHits, reinterpret_cast<uint8_t*>(out + kHitsPerCall * i));
  }
}

// State draws of hits hit ... hit + count - 1; they are words of calls hit/4 ..., and `hit` is a multiple of 4.
void states_from(uint64_t seed, uint32_t array, uint32_t access, Kind kind, uint32_t hit, uint32_t count,
                 StateChunk* chunk) {
  uint8_t* out = reinterpret_cast<uint8_t*>(chunk->draw);
  const bool read = kind == Kind::transient;
  const uint32_t calls = (count + kStatesPerCall - 1) / kStatesPerCall;
  for (uint32_t i = 0; i < calls; i += Lanes::width) {
    philox_lanes(seed, hit / kStatesPerCall + i, array, read ? access : 0, read ? kStreamReads : kStreamStates,
                 out + 16 * i);
  }
}

void mark(const uint16_t* hits, uint32_t count, uint64_t* cells) {
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t cell = cell_of(hits[i]);
    cells[cell / 64] |= 1ull << (cell % 64);
  }
}

// The first hit that names a cell decides its state.
template <class StateOf>
void mark_states(const uint16_t* hits, uint32_t count, uint64_t* cells, uint64_t* states, StateOf state_at) {
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t cell = cell_of(hits[i]);
    const uint64_t fresh = 1ull << (cell % 64) & ~cells[cell / 64];
    cells[cell / 64] |= fresh;
    states[cell / 64] |= fresh & (0 - static_cast<uint64_t>(state_at(i)));
  }
}

void wipe(ArrayFaults* faults, bool states) {
  if (faults->touched <= ArrayFaults::kFew) {
    for (uint32_t i = 0; i < faults->touched; ++i) faults->set[faults->word[i]] = faults->clear[faults->word[i]] = 0;
  } else {
    // Loops, not memset(): at this size the library's start-up costs more than the stores (CMakeLists.txt keeps the
    // compiler from putting it back).
    for (uint32_t i = 0; i < kArrayWords; ++i) faults->set[i] = 0;
    if (states) {
      for (uint32_t i = 0; i < kArrayWords; ++i) faults->clear[i] = 0;
    }
  }
}

void list_touched(const uint16_t* hits, uint32_t count, ArrayFaults* faults) {
  faults->touched = count <= ArrayFaults::kFew ? count : ArrayFaults::kFew + 1;
  if (count > ArrayFaults::kFew) return;
  for (uint32_t i = 0; i < count; ++i) faults->word[i] = static_cast<uint16_t>(cell_of(hits[i]) / 64);
}

void draw(uint64_t seed, uint32_t array, uint32_t access, DrawTable table, StateRule rule, ArrayFaults* faults) {
  const bool states = rule.kind != Kind::flip;
  const bool need_draws = states && !spare_decides(rule);
  uint64_t* cells = states ? faults->clear : faults->set;
  wipe(faults, states);
  if (all_cells_fail(table) && !states) {
    memset(cells, 0xFF, kArrayBytes);
    faults->touched = ArrayFaults::kFew + 1;
    return;
  }

  HitChunk chunk;
  StateChunk draws;
  uint32_t have = kHitsPerCall * Lanes::width;
  hits_from(seed, array, 0, Lanes::width, chunk.half);  // call 0 holds the count and the first four hits
  uint64_t uniform;
  memcpy(&uniform, chunk.half, sizeof uniform);
  const uint32_t halves = kCountHalves + hit_count(table, uniform);  // length of the stream that counts

  uint32_t begin = kCountHalves;
  for (uint32_t done = 0; done < halves; done += kChunkHits) {
    const uint32_t end = halves - done < kChunkHits ? halves - done : kChunkHits;
    if (end > have) {
      const uint32_t calls = (end - have + kHitsPerCall - 1) / kHitsPerCall;
      hits_from(seed, array, (done + have) / kHitsPerCall, calls, chunk.half + have);
    }
    const uint16_t* hits = chunk.half + begin;
    const uint32_t count = end - begin;
    if (!states) {
      mark(hits, count, cells);
    } else if (!need_draws) {
      mark_states(hits, count, cells, faults->set, [&](uint32_t i) { return spare_of(hits[i]); });
    } else {
      states_from(seed, array, access, rule.kind, done + begin - kCountHalves, count, &draws);
      mark_states(hits, count, cells, faults->set, [&](uint32_t i) { return state_of(rule, hits[i], draws.draw[i]); });
    }
    begin = have = 0;
  }
  list_touched(chunk.half + kCountHalves, halves - kCountHalves, faults);
  if (all_cells_fail(table)) memset(cells, 0xFF, kArrayBytes);
}

// The loops below are plain on purpose: the compiler turns them into this file's vectors. Only stores that
// bypass the cache need to be spelt out.
void flip_plain(const int8_t* source, const uint8_t* set, int8_t* output, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) output[i] = static_cast<int8_t>(source[i] ^ set[i]);
}

void stick_plain(const int8_t* source, const uint8_t* set, const uint8_t* clear, int8_t* output, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) output[i] = static_cast<int8_t>((source[i] & ~clear[i]) | set[i]);
}

// Bytes until `p` is aligned for a streaming store, or all of them.
uint32_t head(const void* p, uint32_t count, uint32_t alignment) {
  const uint32_t before = static_cast<uint32_t>(-reinterpret_cast<uintptr_t>(p) & (alignment - 1));
  return before < count ? before : count;
}

#if defined(__SSE2__)
constexpr uint32_t kVector = sizeof(Lanes::V);
#else
constexpr uint32_t kVector = 1;
#endif

#if defined(__SSE2__)
using Bytes = Lanes::V;
#if defined(__AVX512F__)
Bytes load(const void* p) { return _mm512_loadu_si512(p); }
Bytes flipped(Bytes a, Bytes b) { return _mm512_xor_si512(a, b); }
Bytes stuck(Bytes a, Bytes set, Bytes clear) { return _mm512_or_si512(_mm512_andnot_si512(clear, a), set); }
void stream_out(void* p, Bytes a) { _mm512_stream_si512(static_cast<Bytes*>(p), a); }
#elif defined(__AVX2__)
Bytes load(const void* p) { return _mm256_loadu_si256(static_cast<const Bytes*>(p)); }
Bytes flipped(Bytes a, Bytes b) { return _mm256_xor_si256(a, b); }
Bytes stuck(Bytes a, Bytes set, Bytes clear) { return _mm256_or_si256(_mm256_andnot_si256(clear, a), set); }
void stream_out(void* p, Bytes a) { _mm256_stream_si256(static_cast<Bytes*>(p), a); }
#else
Bytes load(const void* p) { return _mm_loadu_si128(static_cast<const Bytes*>(p)); }
Bytes flipped(Bytes a, Bytes b) { return _mm_xor_si128(a, b); }
Bytes stuck(Bytes a, Bytes set, Bytes clear) { return _mm_or_si128(_mm_andnot_si128(clear, a), set); }
void stream_out(void* p, Bytes a) { _mm_stream_si128(static_cast<Bytes*>(p), a); }
#endif
#endif

void flip(const int8_t* source, const uint8_t* set, int8_t* output, uint32_t count, bool stream) {
#if defined(__SSE2__)
  if (stream) {
    uint32_t i = head(output, count, kVector);
    flip_plain(source, set, output, i);
    for (; i + kVector <= count; i += kVector) stream_out(output + i, flipped(load(source + i), load(set + i)));
    flip_plain(source + i, set + i, output + i, count - i);
    return;
  }
#endif
  flip_plain(source, set, output, count);
}

void stick(const int8_t* source, const uint8_t* set, const uint8_t* clear, int8_t* output, uint32_t count,
           bool stream) {
#if defined(__SSE2__)
  if (stream) {
    uint32_t i = head(output, count, kVector);
    stick_plain(source, set, clear, output, i);
    for (; i + kVector <= count; i += kVector) {
      stream_out(output + i, stuck(load(source + i), load(set + i), load(clear + i)));
    }
    stick_plain(source + i, set + i, clear + i, output + i, count - i);
    return;
  }
#endif
  stick_plain(source, set, clear, output, count);
}

void to_float32(const int8_t* source, float scale, float* output, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) output[i] = static_cast<float>(source[i]) * scale;
}

void to_bfloat16(const int8_t* source, float scale, uint16_t* output, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) output[i] = bfloat16_bits(static_cast<float>(source[i]) * scale);
}

void to_float16(const int8_t* source, float scale, uint16_t* output, uint32_t count) {
  uint32_t i = 0;
#if defined(__F16C__) && !defined(__AVX512F__)  // the compiler's own AVX-512 of the loop below is as fast
  const __m256 factor = _mm256_set1_ps(scale);
  for (; i + 8 <= count; i += 8) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(source + i));
    const __m256 values = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)), factor);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(output + i),
                     _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
#endif
  for (; i < count; ++i) output[i] = float16_bits(static_cast<float>(source[i]) * scale);
}

#define FAULTSIM_TEXT(x) #x
#define FAULTSIM_NAME(x) FAULTSIM_TEXT(x)

}  // namespace

const CpuPath path = {FAULTSIM_NAME(FAULTSIM_PATH), draw, flip, stick, to_float32, to_bfloat16, to_float16};

}  // namespace FAULTSIM_PATH
}  // namespace faultsim
