// Compiled once for each instruction set: portable, AVX2, AVX-512 (CMakeLists.txt). Use no template or inline function
// of the standard library here: the linker keeps one copy of such a function for the whole program, and it might be one
// that this processor cannot run.
#include "cpu_path.h"

#include "half.h"
#include "lanes.h"

namespace faultsim {
namespace FAULTSIM_PATH {
namespace {

constexpr uint32_t kChunkCalls = 128;  // 1,024 hits at a time: the buffer stays in the L1 cache
constexpr uint32_t kChunkHits = kChunkCalls * kHitsPerCall;
static_assert(kChunkCalls % Lanes::width == 0, "a chunk is a whole number of vectors");

// Aligned to cache lines, because vectors are written to them.
struct HitChunk {
  alignas(64) uint16_t half[kChunkHits];
};
struct ValueChunk {
  alignas(64) uint32_t draw[kChunkHits];
};

void draw_hits(uint64_t seed, uint32_t block, uint32_t call, uint32_t calls, uint16_t* out) {
  for (uint32_t i = 0; i < calls; i += Lanes::width) {
    philox_lanes(seed, call + i, block, 0, kStreamHits, reinterpret_cast<uint8_t*>(out + kHitsPerCall * i));
  }
}

// The words of the value stream for hits first ... first + count - 1; `first` is a multiple of 4.
void draw_values(uint64_t seed, uint32_t block, uint32_t access, Kind kind, uint32_t first, uint32_t count,
                 ValueChunk* chunk) {
  uint8_t* out = reinterpret_cast<uint8_t*>(chunk->draw);
  const bool read = kind == Kind::transient;
  const uint32_t calls = (count + kValuesPerCall - 1) / kValuesPerCall;
  for (uint32_t i = 0; i < calls; i += Lanes::width) {
    philox_lanes(seed, first / kValuesPerCall + i, block, read ? access : 0, read ? kStreamReads : kStreamValues,
                 out + 16 * i);
  }
}

void mark_hits(const uint16_t* hits, uint32_t count, uint64_t* fail) {
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t cell = cell_of(hits[i]);
    fail[cell / 64] |= 1ull << (cell % 64);
  }
}

// The first hit that names a cell decides its value.
template <class ValueOf>
void mark_values(const uint16_t* hits, uint32_t count, uint64_t* fail, uint64_t* value, ValueOf value_at) {
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t cell = cell_of(hits[i]);
    const uint64_t fresh = 1ull << (cell % 64) & ~fail[cell / 64];
    fail[cell / 64] |= fresh;
    value[cell / 64] |= fresh & (0 - static_cast<uint64_t>(value_at(i)));
  }
}

// Flips leave `value` as it was made: zero.
void clear(BlockFaults* faults, bool values) {
  if (faults->touched <= BlockFaults::kFew) {
    for (uint32_t i = 0; i < faults->touched; ++i) faults->fail[faults->word[i]] = faults->value[faults->word[i]] = 0;
  } else {
    // Loops, not memset(): at this size the library's start-up costs more than the stores (CMakeLists.txt keeps the
    // compiler from putting it back).
    for (uint32_t i = 0; i < kBlockWords; ++i) faults->fail[i] = 0;
    if (values) {
      for (uint32_t i = 0; i < kBlockWords; ++i) faults->value[i] = 0;
    }
  }
}

void list_touched(const uint16_t* hits, uint32_t count, BlockFaults* faults) {
  faults->touched = count <= BlockFaults::kFew ? count : BlockFaults::kFew + 1;
  if (count > BlockFaults::kFew) return;
  for (uint32_t i = 0; i < count; ++i) faults->word[i] = static_cast<uint16_t>(cell_of(hits[i]) / 64);
}

void draw(uint64_t seed, uint32_t block, uint32_t access, HitTable table, ValueRule rule, BlockFaults* faults) {
  const bool values = rule.kind != Kind::flip;
  const bool need_draws = values && !spare_decides(rule);
  clear(faults, values);
  if (all_cells_fail(table) && !values) {
    memset(faults->fail, 0xFF, kBlockBytes);
    faults->touched = BlockFaults::kFew + 1;
    return;
  }

  HitChunk chunk;
  ValueChunk draws;
  uint32_t have = kHitsPerCall * Lanes::width;
  draw_hits(seed, block, 0, Lanes::width, chunk.half);  // call 0 holds the count and the first four hits
  uint64_t uniform;
  memcpy(&uniform, chunk.half, sizeof uniform);
  const uint32_t halves = kCountHalves + hit_count(table, uniform);  // length of the stream that counts

  uint32_t begin = kCountHalves;
  for (uint32_t done = 0; done < halves; done += kChunkHits) {
    const uint32_t end = halves - done < kChunkHits ? halves - done : kChunkHits;
    if (end > have) {
      const uint32_t calls = (end - have + kHitsPerCall - 1) / kHitsPerCall;
      draw_hits(seed, block, (done + have) / kHitsPerCall, calls, chunk.half + have);
    }
    const uint16_t* hits = chunk.half + begin;
    const uint32_t count = end - begin;
    if (!values) {
      mark_hits(hits, count, faults->fail);
    } else if (!need_draws) {
      mark_values(hits, count, faults->fail, faults->value, [&](uint32_t i) { return spare_of(hits[i]); });
    } else {
      draw_values(seed, block, access, rule.kind, done + begin - kCountHalves, count, &draws);
      mark_values(hits, count, faults->fail, faults->value,
                  [&](uint32_t i) { return value_of(rule, hits[i], draws.draw[i]); });
    }
    begin = have = 0;
  }
  list_touched(chunk.half + kCountHalves, halves - kCountHalves, faults);
  if (all_cells_fail(table)) memset(faults->fail, 0xFF, kBlockBytes);
}

// The loops below are plain on purpose: the compiler turns them into this file's vectors. Only stores that bypass the
// cache need intrinsics.
template <Kind kind>
void read_plain(const int8_t* source, const uint8_t* fail, const uint8_t* value, int8_t* output, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    const uint8_t failing = kind == Kind::transient ? 0 : fail[i], reads = kind == Kind::flip ? 0 : value[i];
    output[i] = static_cast<int8_t>(read_word(kind, static_cast<uint8_t>(source[i]), failing, reads));
  }
}

#if defined(__SSE2__)
// GCC's and Clang's own vectors have the operators of integers, which read_word() needs.
constexpr uint32_t kVector = sizeof(Lanes::V);
typedef uint64_t Vector __attribute__((vector_size(kVector)));
#if defined(__AVX512F__)
Vector load(const void* p) { return Vector(_mm512_loadu_si512(p)); }
void stream_out(void* p, Vector a) { _mm512_stream_si512(static_cast<__m512i*>(p), __m512i(a)); }
#elif defined(__AVX2__)
Vector load(const void* p) { return Vector(_mm256_loadu_si256(static_cast<const __m256i*>(p))); }
void stream_out(void* p, Vector a) { _mm256_stream_si256(static_cast<__m256i*>(p), __m256i(a)); }
#else
Vector load(const void* p) { return Vector(_mm_loadu_si128(static_cast<const __m128i*>(p))); }
void stream_out(void* p, Vector a) { _mm_stream_si128(static_cast<__m128i*>(p), __m128i(a)); }
#endif

// Bytes until `p` is aligned for a streaming store, or all of them.
uint32_t bytes_to_alignment(const void* p, uint32_t count) {
  const uint32_t before = static_cast<uint32_t>(-reinterpret_cast<uintptr_t>(p) & (kVector - 1));
  return before < count ? before : count;
}

template <Kind kind>
void read_streaming(const int8_t* source, const uint8_t* fail, const uint8_t* value, int8_t* output, uint32_t count) {
  constexpr bool fails = kind != Kind::transient, values = kind != Kind::flip;
  uint32_t i = bytes_to_alignment(output, count);
  read_plain<kind>(source, fail, value, output, i);
  for (; i + kVector <= count; i += kVector) {
    const Vector failing = fails ? load(fail + i) : Vector{}, reads = values ? load(value + i) : Vector{};
    stream_out(output + i, read_word(kind, load(source + i), failing, reads));
  }
  read_plain<kind>(source + i, fails ? fail + i : nullptr, values ? value + i : nullptr, output + i, count - i);
}
#endif

template <Kind kind>
void read_kind(const int8_t* source, const uint8_t* fail, const uint8_t* value, int8_t* output, uint32_t count,
               bool stream) {
#if defined(__SSE2__)
  if (stream) return read_streaming<kind>(source, fail, value, output, count);
#else
  (void)stream;
#endif
  read_plain<kind>(source, fail, value, output, count);
}

void read(Kind kind, const int8_t* source, const uint8_t* fail, const uint8_t* value, int8_t* output, uint32_t count,
          bool stream) {
  switch (kind) {
    case Kind::flip:
      return read_kind<Kind::flip>(source, fail, value, output, count, stream);
    case Kind::stuck:
      return read_kind<Kind::stuck>(source, fail, value, output, count, stream);
    case Kind::transient:
      return read_kind<Kind::transient>(source, fail, value, output, count, stream);
  }
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

const CpuPath path = {
    FAULTSIM_NAME(FAULTSIM_PATH), draw, read, to_float32, to_bfloat16, to_float16, &format_path, &codec_path};

}  // namespace FAULTSIM_PATH
}  // namespace faultsim
