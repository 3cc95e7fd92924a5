// What a protected memory returns for a 64-bit word that was read: a linear code decodes it, or wrong bits are masked.
// faultsim/mitigations/reference.py is the slow, readable formulation.
#pragma once

#include <cstdint>

#include "launch.h"

namespace faultsim {

enum class Decode : int32_t {
  nothing = 0,
  code = 1,          // by the syndrome
  mask_weights = 2,  // a weight with a wrong bit reads 0
  mask_words = 3,    // a word with a wrong bit in a weight reads 0
  mask_bits = 4      // a wrong bit reads as the sign of its weight; a weight with a wrong sign reads 0
};
constexpr const char* kDecodeNames[] = {"nothing", "code", "mask_weights", "mask_words", "mask_bits"};

constexpr uint32_t kMostCheckBytes = 4;
constexpr uint32_t kMostParts = 32;  // as many as the widest weight has bits

// A syndrome has `syndromes` bytes, and the word's check bits (if it has any) as many. Each byte decides by itself what
// happens to the word: for a linear code there is one, for the parity bits of 16 weights there are two.
struct Codec {
  Decode decode;
  uint32_t syndromes;                  // bytes; 0 unless Decode::code
  uint32_t check_bytes;                // of a word, in arrays of their own: 0 or `syndromes`
  uint64_t rows[kMostCheckBytes * 8];  // bits of the word that each bit of the syndrome is the parity of
  // For each byte of the syndrome and each of its 256 values:
  const uint64_t* flip;  // bits that are flipped; null: none
  const uint64_t* keep;  // and then bits that are kept; null: all
  bool rereads;          // the others become those of a second read, without errors; otherwise they become 0
  uint64_t borrowed;     // bits that hold check bits inside the word: the bit above is put into each in the end
  uint64_t low;          // lowest bit of each weight
  uint32_t bits;         // of a weight
};

// Cells of a word that fail at a bit error rate of their own.
struct Part {
  uint64_t cells;
  HitTable table;
};

// `read` describes everything but the codec: `source` are whole words as they were written, `weights` their bytes; of
// int8 weights the last word may hold less than eight, which `numbers` says.
struct ProtectedJob {
  Job read;
  Codec codec;
  const uint8_t* checks;  // [words, check_bytes], as they were written
  uint8_t* again;         // [chips, words]: which words are read again; may be null
  uint64_t check_base;    // address of the check bits of the word at address 0; a multiple of a block's bytes
  HitTable check_table;
  Part parts[kMostParts];
  uint32_t part_count;  // at least 1; cells that belong to no part never fail
};

// Words that were read already.
struct DecodeJob {
  Codec codec;
  const uint64_t* read;     // [chips, words]
  const uint8_t* checks;    // [chips, words, check_bytes], as read
  const uint64_t* written;  // [words]
  uint64_t* output;         // [chips, words]
  uint8_t* again;           // [chips, words]; may be null
  uint64_t words;
  uint32_t chips;
};

// As launch_cpu() and launch_cuda(). On CUDA the output is int8.
void launch_protected_cpu(const ProtectedJob& job, int threads, const char* path);
void launch_decode_cpu(const DecodeJob& job, const char* path);
std::string launch_protected_cuda(const ProtectedJob& job, int device, void* stream);
std::string launch_decode_cuda(const DecodeJob& job, int device, void* stream);

// All bits of each weight of which `low` has the lowest bit.
static FAULTSIM_HD uint64_t whole_weights(const Codec& codec, uint64_t low) { return (low << codec.bits) - low; }

static FAULTSIM_HD uint64_t sign_bits(const Codec& codec) { return codec.low << (codec.bits - 1); }

// The lowest bit of each weight that has a wrong bit.
static FAULTSIM_HD uint64_t weights_with(const Codec& codec, uint64_t wrong) {
  const uint64_t signs = sign_bits(codec), others = whole_weights(codec, codec.low) & ~signs;
  return ((((wrong & others) + others) | wrong) & signs) >> (codec.bits - 1);
}

// What masking makes of a word.
template <Decode decode>
static FAULTSIM_HD uint64_t masked_word(const Codec& codec, uint64_t read, uint64_t written) {
  const uint64_t wrong = (read ^ written) & whole_weights(codec, codec.low);
  if (decode == Decode::mask_weights) return read & ~whole_weights(codec, weights_with(codec, wrong));
  if (decode == Decode::mask_words) return read & (0 - static_cast<uint64_t>(wrong == 0));  // without a jump
  const uint64_t signs = whole_weights(codec, (read & sign_bits(codec)) >> (codec.bits - 1));
  const uint64_t zeroed = whole_weights(codec, (wrong & sign_bits(codec)) >> (codec.bits - 1));
  return ((read & ~wrong) | (signs & wrong)) & ~zeroed;
}

static FAULTSIM_HD uint64_t restored_word(const Codec& codec, uint64_t word) {
  return (word & ~codec.borrowed) | (word >> 1 & codec.borrowed);
}

// Decodes one word. `syndrome_at(i)` is byte i of its syndrome, with the check bits as read; `again` is whether the
// word is read again.
template <class Syndrome>
static FAULTSIM_HD uint64_t decoded_word(const Codec& codec, uint64_t read, uint64_t written, Syndrome syndrome_at,
                                         bool* again) {
  *again = false;
  switch (codec.decode) {
    case Decode::nothing:
      return read;
    case Decode::code:
      for (uint32_t i = 0; i < codec.syndromes; ++i) {
        const uint32_t at = 256 * i + syndrome_at(i);
        const uint64_t keep = codec.keep ? codec.keep[at] : ~0ull;
        read = ((codec.flip ? read ^ codec.flip[at] : read) & keep) | (codec.rereads ? written & ~keep : 0);
        *again = *again || (codec.rereads && keep != ~0ull);
      }
      return restored_word(codec, read);
    case Decode::mask_weights:
      return masked_word<Decode::mask_weights>(codec, read, written);
    case Decode::mask_words:
      return masked_word<Decode::mask_words>(codec, read, written);
    case Decode::mask_bits:
      return masked_word<Decode::mask_bits>(codec, read, written);
  }
  return read;
}

}  // namespace faultsim
