// Compiled once for each instruction set: portable, AVX2, AVX-512 (CMakeLists.txt). Use no template or inline function
// of the standard library here: the linker keeps one copy of such a function for the whole program, and it might be one
// that this processor cannot run.
#include "cpu_path.h"

#include "cpu_draw.h"
#include "cpu_overlap.h"
#include "cpu_read.h"
#include "half.h"

namespace faultsim {
namespace FAULTSIM_PATH {
namespace {

constexpr uint32_t kChunkCalls = 96;  // 768 hits at a time: the buffer stays in the L1 cache
constexpr uint32_t kChunkHits = kChunkCalls * kHitsPerCall;
static_assert(kChunkCalls % (kQuads * kQuadCalls) == 0, "a chunk is a whole number of groups of quads");

// The first hit that names a cell decides its value.
void mark_values(const uint16_t* hits, uint32_t count, uint64_t* fail, uint64_t* value) {
#pragma GCC unroll 8
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t cell = cell_of(hits[i]);
    const uint64_t fresh = 1ull << (cell % 64) & ~fail[cell / 64];
    fail[cell / 64] |= fresh;
    value[cell / 64] |= fresh & (0 - static_cast<uint64_t>(spare_of(hits[i])));
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
  clear(faults, values);
  if (all_cells_fail(table) && !values) {
    memset(faults->fail, 0xFF, kBlockBytes);
    faults->touched = BlockFaults::kFew + 1;
    return;
  }

  alignas(64) uint16_t chunk[kChunkHits];
  alignas(64) uint32_t draws[kChunkHits];
  Nothing nothing;
  Quads<Nothing> calls(seed, 0, kStreamHits, &nothing),
      value_calls(seed, access_of_values(rule.kind, access), stream_of_values(rule.kind), &nothing);
  uint32_t have = first_calls(table) * kHitsPerCall;
  calls.add(block, 0, first_calls(table), chunk);  // call 0 holds the count and the first four hits
  calls.run();
  uint64_t uniform;
  memcpy(&uniform, chunk, sizeof uniform);
  const uint32_t halves = kCountHalves + hit_count(table, uniform);  // length of the stream that counts

  uint32_t begin = kCountHalves;
  for (uint32_t done = 0; done < halves; done += kChunkHits) {
    const uint32_t end = halves - done < kChunkHits ? halves - done : kChunkHits;
    if (end > have) {
      calls.add(block, (done + have) / kHitsPerCall, (end - have + kHitsPerCall - 1) / kHitsPerCall, chunk + have);
      calls.run();
    }
    uint16_t* hits = chunk + begin;
    const uint32_t count = end - begin;
    if (!values) {
      mark_cells(hits, count, reinterpret_cast<uint8_t*>(faults->fail));
    } else {
      if (value_is_certain(rule)) {
        put_value(rule, hits, count);
      } else if (!spare_decides(rule)) {
        value_calls.add(block, (done + begin - kCountHalves) / kValuesPerCall,
                        (count + kValuesPerCall - 1) / kValuesPerCall, draws);
        value_calls.run();
        put_values(rule, hits, draws, count);
      }
      mark_values(hits, count, faults->fail, faults->value);
    }
    begin = have = 0;
  }
  list_touched(chunk + kCountHalves, halves - kCountHalves, faults);
  if (all_cells_fail(table)) memset(faults->fail, 0xFF, kBlockBytes);
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

const CpuPath path = {FAULTSIM_NAME(FAULTSIM_PATH),
                      draw_hits,
                      read_drawn,
                      read_one_by_one,
                      draw,
                      mark,
                      repair,
                      read_marked,
                      read,
                      read_repeated,
                      copy_past_cache,
                      to_float32,
                      to_bfloat16,
                      to_float16,
                      &format_path,
                      &codec_path};

}  // namespace FAULTSIM_PATH
}  // namespace faultsim
