// Compiled once for each instruction set, as cpu_path.cpp; what it says there about the standard library holds here.
#include "cpu_codec.h"

#include "lanes.h"

namespace faultsim {
namespace FAULTSIM_PATH {
namespace {

constexpr uint32_t kAtOnce = 32;  // words whose syndromes are computed together

uint8_t syndrome_of(const uint8_t (&byte)[8][256], uint64_t word) {
  uint8_t syndrome = 0;
  for (uint32_t i = 0; i < 8; ++i) syndrome ^= byte[i][word >> (8 * i) & 255];
  return syndrome;
}

#if defined(__AVX2__)
// One byte of the syndromes of 32 words. The bytes of the words are turned so that each vector holds the same byte of
// all of them, which then has one table for each of its halves.
void syndromes_of_32(const CodeTables& tables, uint32_t k, const uint64_t* words, uint8_t* syndromes) {
  const uint8_t (&half)[16][16] = tables.half[k];
  const __m256i pairs = _mm256_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15, 0, 8, 1, 9, 2, 10, 3, 11,
                                         4, 12, 5, 13, 6, 14, 7, 15);
  __m256i a[8], b[8];
  for (uint32_t i = 0; i < 8; ++i) {
    const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(words + 2 * i));
    const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(words + 16 + 2 * i));
    a[i] = _mm256_shuffle_epi8(_mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1), pairs);
  }
  for (uint32_t i = 0; i < 4; ++i) {
    b[2 * i] = _mm256_unpacklo_epi16(a[2 * i], a[2 * i + 1]);
    b[2 * i + 1] = _mm256_unpackhi_epi16(a[2 * i], a[2 * i + 1]);
  }
  for (uint32_t i = 0; i < 2; ++i) {
    for (uint32_t k = 0; k < 2; ++k) {
      a[4 * i + 2 * k] = _mm256_unpacklo_epi32(b[4 * i + k], b[4 * i + 2 + k]);
      a[4 * i + 2 * k + 1] = _mm256_unpackhi_epi32(b[4 * i + k], b[4 * i + 2 + k]);
    }
  }
  for (uint32_t k = 0; k < 4; ++k) {
    b[2 * k] = _mm256_unpacklo_epi64(a[k], a[4 + k]);
    b[2 * k + 1] = _mm256_unpackhi_epi64(a[k], a[4 + k]);
  }
  const __m256i nibble = _mm256_set1_epi8(15);
  __m256i found = _mm256_setzero_si256();
  for (uint32_t byte = 0; byte < 8; ++byte) {
    const __m256i low = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(half[2 * byte])));
    const __m256i high =
        _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(half[2 * byte + 1])));
    found = _mm256_xor_si256(found, _mm256_shuffle_epi8(low, _mm256_and_si256(b[byte], nibble)));
    found = _mm256_xor_si256(found, _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi16(b[byte], 4), nibble)));
  }
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(syndromes), found);
}
#elif defined(__SSE2__)
// Vector i holds byte i of 16 words.
void turn_bytes(const uint64_t* words, __m128i* bytes) {
  __m128i a[8], b[8];
  for (uint32_t i = 0; i < 8; ++i) a[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(words + 2 * i));
  const auto interleave = [](const __m128i* from, __m128i* to) {
    for (uint32_t i = 0; i < 4; ++i) {
      to[2 * i] = _mm_unpacklo_epi8(from[i], from[i + 4]);
      to[2 * i + 1] = _mm_unpackhi_epi8(from[i], from[i + 4]);
    }
  };
  interleave(a, b);
  interleave(b, a);
  interleave(a, b);
  interleave(b, bytes);
}

// Adds the halves of `a` and those of `b`, runs of `shift` bits, and puts the sums side by side.
template <int shift>
__m128i fold(__m128i a, __m128i b, uint8_t lower) {
  const __m128i keep = _mm_set1_epi8(static_cast<char>(lower));
  const __m128i low = _mm_and_si128(keep, _mm_xor_si128(a, _mm_srli_epi16(a, shift)));
  return _mm_or_si128(low, _mm_andnot_si128(keep, _mm_xor_si128(b, _mm_slli_epi16(b, shift))));
}

// One byte of the syndromes of 16 words: each row's bits of the word, added until each row has one bit left. Inlined,
// the compiler would keep the rows in vectors that it does not have.
[[gnu::noinline]] void syndromes_of_16(const uint8_t (&rows)[8][8][16], const uint64_t* words, uint8_t* syndromes) {
  __m128i bytes[8];
  turn_bytes(words, bytes);
  const auto bits_of = [&](uint32_t row) {
    const __m128i* of_row = reinterpret_cast<const __m128i*>(rows[row]);
    __m128i found = _mm_and_si128(bytes[0], of_row[0]);
    for (uint32_t i = 1; i < 8; ++i) found = _mm_xor_si128(found, _mm_and_si128(bytes[i], of_row[i]));
    return found;
  };
  const auto four = [&](uint32_t row) {
    return fold<2>(fold<4>(bits_of(row), bits_of(row + 4), 0x0F), fold<4>(bits_of(row + 2), bits_of(row + 6), 0x0F),
                   0x33);
  };
  _mm_storeu_si128(reinterpret_cast<__m128i*>(syndromes), fold<1>(four(0), four(1), 0x55));
}

void syndromes_of_32(const CodeTables& tables, uint32_t k, const uint64_t* words, uint8_t* syndromes) {
  syndromes_of_16(tables.rows[k], words, syndromes);
  syndromes_of_16(tables.rows[k], words + 16, syndromes + 16);
}
#else
void syndromes_of_32(const CodeTables& tables, uint32_t k, const uint64_t* words, uint8_t* syndromes) {
  for (uint32_t i = 0; i < kAtOnce; ++i) syndromes[i] = syndrome_of(tables.byte[k], words[i]);
}
#endif

uint64_t decode_word(const Codec& codec, const CodeTables& tables, uint64_t written, const uint8_t* checks,
                     uint64_t read, bool* again) {
  const uint64_t word = read;
  return decoded_word(
      codec, read, written,
      [&](uint32_t i) -> uint32_t { return syndrome_of(tables.byte[i], word) ^ (codec.check_bytes ? checks[i] : 0); },
      again);
}

// What the syndromes of 32 words say.
template <bool flips, bool keeps, bool rereads>
void apply(const Codec& codec, const uint8_t (*syndromes)[kAtOnce], const uint64_t* written, uint64_t* read) {
  for (uint32_t k = 0; k < codec.syndromes; ++k) {
    const uint64_t *flip = codec.flip + 256 * k, *keep = codec.keep + 256 * k;
#pragma GCC unroll 8
    for (uint32_t i = 0; i < kAtOnce; ++i) {
      const uint8_t syndrome = syndromes[k][i];
      uint64_t word = read[i];
      if (flips) word ^= flip[syndrome];
      if (keeps) word &= keep[syndrome];
      if (rereads) word |= written[i] & ~keep[syndrome];
      read[i] = word;
    }
  }
}

using Apply = void (*)(const Codec&, const uint8_t (*)[kAtOnce], const uint64_t*, uint64_t*);

Apply apply_of(const Codec& codec) {
  if (codec.rereads && codec.keep) return codec.flip ? apply<true, true, true> : apply<false, true, true>;
  if (codec.keep) return codec.flip ? apply<true, true, false> : apply<false, true, false>;
  return codec.flip ? apply<true, false, false> : apply<false, false, false>;
}

void mark_again(const Codec& codec, const uint8_t (*syndromes)[kAtOnce], uint8_t* again) {
  for (uint32_t i = 0; i < kAtOnce; ++i) {
    uint64_t keep = ~0ull;
    for (uint32_t k = 0; k < codec.syndromes; ++k) keep &= codec.keep[256 * k + syndromes[k][i]];
    again[i] = keep != ~0ull;
  }
}

void decode_code(const Codec& codec, const CodeTables& tables, const uint64_t* written, const uint8_t* checks,
                 uint64_t* read, uint8_t* again, uint32_t count) {
  alignas(64) uint8_t syndromes[kMostCheckBytes][kAtOnce];
  const Apply apply = apply_of(codec);
  const uint32_t check_bytes = codec.check_bytes;
  uint32_t done = 0;
  for (; done + kAtOnce <= count; done += kAtOnce) {
    for (uint32_t k = 0; k < codec.syndromes; ++k) {
      syndromes_of_32(tables, k, read + done, syndromes[k]);
      if (check_bytes == 1) {
        for (uint32_t i = 0; i < kAtOnce; ++i) syndromes[k][i] ^= checks[done + i];
      } else if (check_bytes) {
        for (uint32_t i = 0; i < kAtOnce; ++i) syndromes[k][i] ^= checks[(done + i) * check_bytes + k];
      }
    }
    apply(codec, syndromes, written + done, read + done);
    if (again) mark_again(codec, syndromes, again + done);
    if (codec.borrowed) {
      for (uint32_t i = done; i < done + kAtOnce; ++i) read[i] = restored_word(codec, read[i]);
    }
  }
  for (; done < count; ++done) {
    bool flagged;
    read[done] = decode_word(codec, tables, written[done], checks + done * codec.check_bytes, read[done], &flagged);
    if (again) again[done] = flagged;
  }
}

template <Decode how>
void mask(const Codec& codec, const uint64_t* written, uint64_t* read, uint32_t count) {
  const Codec own = codec;  // the compiler then knows that no store changes it
  for (uint32_t i = 0; i < count; ++i) read[i] = masked_word<how>(own, read[i], written[i]);
}

void decode(const Codec& codec, const CodeTables& tables, const uint64_t* written, const uint8_t* checks,
            uint64_t* read, uint8_t* again, uint32_t count) {
  if (again && !(codec.decode == Decode::code && codec.rereads && codec.keep)) {
    for (uint32_t i = 0; i < count; ++i) again[i] = 0;
    again = nullptr;
  }
  switch (codec.decode) {
    case Decode::nothing:
      return;
    case Decode::code:
      return decode_code(codec, tables, written, checks, read, again, count);
    case Decode::mask_weights:
      return mask<Decode::mask_weights>(codec, written, read, count);
    case Decode::mask_words:
      return mask<Decode::mask_words>(codec, written, read, count);
    case Decode::mask_bits:
      return mask<Decode::mask_bits>(codec, written, read, count);
  }
}

}  // namespace

const CodecPath codec_path = {decode};

}  // namespace FAULTSIM_PATH
}  // namespace faultsim
