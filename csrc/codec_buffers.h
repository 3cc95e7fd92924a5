// What the CPU launcher of codecs keeps at hand: the tables of a code, and the buffers of a thread.
#pragma once

#include <cstdint>

#include "codec.h"
#include "cpu_path.h"

namespace faultsim {

constexpr uint32_t kMostListed = 2 * BlockFaults::kFew;
constexpr uint32_t kMostChecks = kBlockWords * kMostCheckBytes;

inline CodeTables make_tables(const Codec& codec) {
  CodeTables tables;
  for (uint32_t k = 0; k < codec.syndromes; ++k) {
    for (uint32_t row = 0; row < 8; ++row) {
      for (uint32_t byte = 0; byte < 8; ++byte) {
        for (uint8_t& lane : tables.rows[k][row][byte]) {
          lane = static_cast<uint8_t>(codec.rows[8 * k + row] >> (8 * byte));
        }
      }
    }
    for (uint32_t bit = 0; bit < 64; ++bit) {
      uint8_t column = 0;
      for (uint32_t row = 0; row < 8; ++row) column |= (codec.rows[8 * k + row] >> bit & 1) << row;
      for (uint32_t value = 0; value < 16; ++value) {
        if (value >> bit % 4 & 1) tables.half[k][bit / 4][value] ^= column;
      }
      for (uint32_t value = 0; value < 256; ++value) {
        if (value >> bit % 8 & 1) tables.byte[k][bit / 8][value] ^= column;
      }
    }
  }
  return tables;
}

// The faults of words and of their check bits, word by word.
struct Faults {
  const uint64_t *fail, *value;
  const uint8_t *check_fail, *check_value;
  const DrawnHits* hits;  // of the block, in place of `fail` and `value`; or null
};

// The buffers of one thread.
struct Scratch {
  BlockFaults drawn, merged;  // of one part, and of several together
  DrawnHits hits;
  BlockFaults checks;  // of the block of check bits with this number, for the chip in turn
  uint64_t check_block;
  uint64_t first_of_hits;                       // the block that `hits` begin with, for the chip in turn
  alignas(64) uint8_t check_fail[kMostChecks];  // of the words of a block
  alignas(64) uint8_t check_value[kMostChecks] = {};
  alignas(64) uint64_t spread_fail[kBlockWords];  // over the words that are served, where repeat > 1
  alignas(64) uint64_t spread_value[kBlockWords];
  alignas(64) uint8_t spread_check_fail[kMostChecks];
  alignas(64) uint8_t spread_check_value[kMostChecks];
  alignas(64) uint8_t checks_read[kMostChecks];
  alignas(64) uint64_t words[kBlockWords];
  bool few;  // faults: these words may have some, and no others (a word may be listed twice)
  uint32_t listed;
  uint16_t list[kMostListed];
  alignas(64) uint64_t words_read[kMostListed],
      listed_written[kMostListed];  // what the listed words are, and how they are read
  uint16_t listed_at[kMostListed];
  uint8_t listed_again[kMostListed];
};
static_assert(sizeof(Scratch) + 10 * 1024 <= 64 * 1024,
              "the promised extra memory of a thread, with the buffers of a path's functions");

}  // namespace faultsim
