// Compiled once for each instruction set: portable, AVX2, AVX-512 (CMakeLists.txt). Use no template or inline function
// of the standard library here: the linker keeps one copy of such a function for the whole program, and it might be one
// that this processor cannot run.
#include "cpu_path.h"

#include "cpu_draw.h"
#include "half.h"

namespace faultsim {
namespace FAULTSIM_PATH {
namespace {

// GCC's and Clang's own vectors have the operators of integers.
typedef uint64_t Wide __attribute__((vector_size(sizeof(Lanes::V))));

// -- draw -----------------------------------------------------------------------------------------------------------

constexpr uint32_t kChunkCalls = 144;  // 1,152 hits at a time: the buffer stays in the L1 cache
constexpr uint32_t kChunkHits = kChunkCalls * kHitsPerCall;
static_assert(kChunkCalls % (kQuads * kQuadCalls) == 0, "a chunk is a whole number of groups of quads");

void mark_cells(const uint16_t* hits, uint32_t count, uint64_t* fail) {
#pragma GCC unroll 8
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t cell = cell_of(hits[i]);
    fail[cell / 64] |= 1ull << (cell % 64);
  }
}

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
  Quads calls(seed, 0, kStreamHits),
      value_calls(seed, access_of_values(rule.kind, access), stream_of_values(rule.kind));
  uint32_t have = kQuads * kQuadCalls * kHitsPerCall;
  calls.add(block, 0, kQuads * kQuadCalls, chunk);  // call 0 holds the count and the first four hits
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
      mark_cells(hits, count, faults->fail);
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

// -- read -----------------------------------------------------------------------------------------------------------

// Calls visit(at, bit, value) for each hit within the `count` bytes, the first one last: it decides. `at` is the place
// of a Word, and `bit` and `value` are words.
template <class Word, class Visit>
void each_hit_in(HitList hits, uint32_t from, uint32_t count, Visit visit) {
  constexpr uint32_t kBits = 8 * sizeof(Word);
#pragma GCC unroll 4
  for (uint32_t i = hits.count; i > 0; --i) {
    const uint32_t hit = hits.hit[i - 1], at = cell_of(hit) / kBits * sizeof(Word) - from, bit = hit % kBits;
    if (sizeof(Word) > 1 || at < count) {
      visit(at, static_cast<Word>(Word{1} << bit), static_cast<Word>(static_cast<Word>(spare_of(hit)) << bit));
    }
  }
}

template <class Visit>
void each_hit(HitList hits, uint32_t from, uint32_t count, Visit visit) {
  from == 0 && count == kBlockBytes ? each_hit_in<uint64_t>(hits, from, count, visit)
                                    : each_hit_in<uint8_t>(hits, from, count, visit);
}

template <class Word>
Word load(const uint8_t* p, Word) {
  Word word;
  memcpy(&word, p, sizeof word);
  return word;
}
template <class Word>
void store(uint8_t* p, Word word) {
  memcpy(p, &word, sizeof word);
}

void mark(HitList hits, bool values, uint32_t from, uint32_t count, uint8_t* fail, uint8_t* value) {
  each_hit(hits, from, count, [=](uint32_t at, auto bit, auto of_hit) {
    store(fail + at, static_cast<decltype(bit)>(load(fail + at, bit) | bit));
    if (values) store(value + at, static_cast<decltype(bit)>((load(value + at, bit) & ~bit) | of_hit));
  });
}

// As read_word() says, for single bits.
template <Kind kind>
void repair_kind(HitList hits, uint32_t from, uint32_t count, const uint8_t* source, uint8_t* output) {
  each_hit(hits, from, count, [=](uint32_t at, auto bit, auto value) {
    const auto now = load(output + at, bit);
    if (kind == Kind::stuck) return store(output + at, static_cast<decltype(bit)>((now & ~bit) | value));
    const auto stored = load(source + at, bit), same = kind == Kind::flip ? stored : stored ^ value;
    store(output + at, static_cast<decltype(bit)>(now ^ ((kind == Kind::flip ? ~(now ^ same) : now ^ same) & bit)));
  });
}

void repair(Kind kind, HitList hits, uint32_t from, uint32_t count, const uint8_t* source, uint8_t* output) {
  if (kind == Kind::stuck) return repair_kind<Kind::stuck>(hits, from, count, source, output);
  uint8_t stored[kBlockBytes];  // what is read in place has to be kept where hits lie
  if (source == output) {
    each_hit(hits, from, count, [&](uint32_t at, auto bit, auto) { store(stored + at, load(output + at, bit)); });
    source = stored;
  }
  if (kind == Kind::flip) return repair_kind<Kind::flip>(hits, from, count, source, output);
  repair_kind<Kind::transient>(hits, from, count, source, output);
}

// A plain loop on purpose: the compiler turns it into this file's vectors.
template <Kind kind>
void read_kind(const uint8_t* source, const uint8_t* fail, const uint8_t* value, uint8_t* output, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    const uint8_t failing = kind == Kind::transient ? 0 : fail[i], reads = kind == Kind::flip ? 0 : value[i];
    output[i] = read_word(kind, source[i], failing, reads);
  }
}

void read(Kind kind, const uint8_t* source, const uint8_t* fail, const uint8_t* value, uint8_t* output,
          uint32_t count) {
  switch (kind) {
    case Kind::flip:
      return read_kind<Kind::flip>(source, fail, value, output, count);
    case Kind::stuck:
      return read_kind<Kind::stuck>(source, fail, value, output, count);
    case Kind::transient:
      return read_kind<Kind::transient>(source, fail, value, output, count);
  }
}

// A word of 16 bytes, the shortest, from its first byte on, again and again.
template <Kind kind>
void read_row(const uint8_t* source, const uint8_t* fail, const uint8_t* value, uint8_t* output, uint32_t count) {
  constexpr uint32_t kStep = sizeof(Wide) < 16 ? 16 : sizeof(Wide), kWide = kStep / sizeof(Wide);
  const uint64_t fails[2] = {load(fail, uint64_t{}), load(fail + 8, uint64_t{})};
  const uint64_t values[2] = {load(value, uint64_t{}), load(value + 8, uint64_t{})};
  Wide failing[kWide], reads[kWide];
  for (uint32_t i = 0; i < kStep / 8; ++i) {
    failing[i * 8 / sizeof(Wide)][i % (sizeof(Wide) / 8)] = fails[i % 2];
    reads[i * 8 / sizeof(Wide)][i % (sizeof(Wide) / 8)] = values[i % 2];
  }
  for (; count >= kStep; count -= kStep, source += kStep, output += kStep) {
    for (uint32_t w = 0; w < kWide; ++w) {
      store(output + w * sizeof(Wide), read_word(kind, load(source + w * sizeof(Wide), Wide{}), failing[w], reads[w]));
    }
  }
  for (uint32_t i = 0; i < count; ++i) output[i] = read_word(kind, source[i], fail[i % 16], value[i % 16]);
}

template <Kind kind>
void read_repeated_kind(const AddressMap& map, uint32_t from, const uint8_t* source, const BlockFaults& faults,
                        uint8_t* output, uint32_t count) {
  const uint32_t run = map.word * map.repeat;  // weights that share one word
  for (uint32_t i = 0; i < count;) {
    const uint32_t at = from + i, phase = at % map.word, word = at / run * map.word;
    const bool row = map.word == kLeastRepeatedWord && phase == 0;
    const uint32_t left = row ? run - at % run : map.word - phase, n = left < count - i ? left : count - i;
    if (row) {
      read_row<kind>(source + i, faults.fail_bytes() + word, faults.value_bytes() + word, output + i, n);
    } else {
      read_kind<kind>(source + i, faults.fail_bytes() + word + phase, faults.value_bytes() + word + phase, output + i,
                      n);
    }
    i += n;
  }
}

void read_repeated(Kind kind, const AddressMap& map, uint32_t from, const uint8_t* source, const BlockFaults& faults,
                   uint8_t* output, uint32_t count) {
  switch (kind) {
    case Kind::flip:
      return read_repeated_kind<Kind::flip>(map, from, source, faults, output, count);
    case Kind::stuck:
      return read_repeated_kind<Kind::stuck>(map, from, source, faults, output, count);
    case Kind::transient:
      return read_repeated_kind<Kind::transient>(map, from, source, faults, output, count);
  }
}

void copy_past_cache(const uint8_t* source, uint8_t* output, uint32_t count) {
#if defined(__SSE2__)
  constexpr uint32_t kVector = sizeof(Lanes::V);
  const uint32_t unaligned = static_cast<uint32_t>(-reinterpret_cast<uintptr_t>(output) & (kVector - 1));
  uint32_t i = unaligned < count ? unaligned : count;
  memcpy(output, source, i);
  for (; i + kVector <= count; i += kVector) {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(output + i), _mm512_loadu_si512(source + i));
#elif defined(__AVX2__)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(output + i),
                        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source + i)));
#else
    _mm_stream_si128(reinterpret_cast<__m128i*>(output + i),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(source + i)));
#endif
  }
  memcpy(output + i, source + i, count - i);
#else
  memcpy(output, source, count);
#endif
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
                      draw,
                      mark,
                      repair,
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
