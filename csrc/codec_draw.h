// The faults of words and of their check bits, block by block: a part of the CPU launcher of codecs.
#pragma once

#include <cstdint>
#include <cstring>

#include "codec.h"
#include "codec_buffers.h"
#include "cpu_path.h"

namespace faultsim {

// The draws of one job on one vector path.
class ProtectedDraw {
 public:
  ProtectedDraw(const ProtectedJob& job, const CpuPath& path) : job_(job), read_(job.read), path_(path) {
    // With values, a copy that is repaired hit by hit costs less than masks; with few hits most words need no decoding.
    const HitTable table = job.parts[0].table;
    const uint64_t least = table.entries[0], most = least + table.size;
    if (job.part_count > 1 || ~job.parts[0].cells || repeats()) return;
    if (most >= DrawnHits::kHalves || all_cells_fail(table)) return;
    hits_stride_ = DrawnHits::stride_for(static_cast<uint32_t>(most));
    repaired_ = values() && least > BlockFaults::kFew && hits_stride_ <= DrawnHits::kHalves;
    at_once_ = !repaired_ && DrawnHits::kMostBlocks * hits_stride_ <= DrawnHits::kHalves;
  }

  // The faults of a block, in the buffers of `scratch`. scratch->few says whether all words with faults are listed.
  Faults draw(uint32_t block, uint32_t chip, Scratch* scratch) const {
    draw_checks(block, chip, scratch);
    Faults faults = {nullptr, nullptr, scratch->check_fail, scratch->check_value, nullptr};
    if (repaired_) {
      draw_hits(block, 1, chip, &scratch->hits);
      faults.hits = &scratch->hits;
      scratch->few = false;
    } else {
      const BlockFaults& data = draw_data(block, chip, scratch);
      faults.fail = data.fail;
      faults.value = data.value;
      list_words(data, scratch);
    }
    return faults;
  }

 private:
  bool repeats() const { return read_.map.repeat > 1; }
  uint64_t seed_of(uint32_t chip) const { return static_cast<uint64_t>(read_.seeds[chip]); }
  uint32_t number_of(uint64_t block) const {
    return static_cast<uint32_t>(block) + (read_.block_offset ? static_cast<uint32_t>(*read_.block_offset) : 0);
  }
  uint32_t check_bytes() const { return job_.codec.check_bytes; }
  uint32_t access() const { return read_.access ? static_cast<uint32_t>(*read_.access) : 0; }

  void draw_block(uint64_t block, uint32_t chip, HitTable table, BlockFaults* faults) const {
    path_.draw(seed_of(chip), number_of(block), access(), table, read_.rule, faults);
  }

  void draw_hits(uint64_t block, uint32_t count, uint32_t chip, DrawnHits* hits) const {
    hits->stride = hits_stride_;
    path_.draw_hits(seed_of(chip), number_of(block), count, access(), job_.parts[0].table, read_.rule, hits);
  }

  // Flips leave values as they were made: zero.
  bool values() const { return read_.rule.kind != Kind::flip; }

  // Blocks with few hits are drawn together.
  const BlockFaults& draw_at_once(uint64_t block, uint32_t chip, Scratch* scratch) const {
    if (block < scratch->first_of_hits || block - scratch->first_of_hits >= DrawnHits::kMostBlocks) {
      draw_hits(block, DrawnHits::kMostBlocks, chip, &scratch->hits);
      scratch->first_of_hits = block;
    }
    BlockFaults& drawn = scratch->drawn;
    each_faulty(drawn, [&](uint32_t word) { drawn.fail[word] = drawn.value[word] = 0; });
    const HitList hits = scratch->hits.of(static_cast<uint32_t>(block - scratch->first_of_hits));
    drawn.touched = hits.count <= BlockFaults::kFew ? hits.count : BlockFaults::kFew + 1;
    for (uint32_t i = 0; drawn.touched <= BlockFaults::kFew && i < hits.count; ++i) {
      drawn.word[i] = static_cast<uint16_t>(cell_of(hits.hit[i]) / 64);
    }
    path_.mark(hits, values(), 0, kBlockBytes, reinterpret_cast<uint8_t*>(drawn.fail),
               reinterpret_cast<uint8_t*>(drawn.value));
    return drawn;
  }

  const BlockFaults& draw_data(uint32_t block, uint32_t chip, Scratch* scratch) const {
    if (at_once_) return draw_at_once(block, chip, scratch);
    BlockFaults &drawn = scratch->drawn, &merged = scratch->merged;
    if (job_.part_count == 1) {
      draw_block(block, chip, job_.parts[0].table, &drawn);
      const uint64_t cells = job_.parts[0].cells;
      if (~cells == 0) return drawn;
      each_faulty(drawn, [&](uint32_t word) { drawn.fail[word] &= cells; });
      if (values()) each_faulty(drawn, [&](uint32_t word) { drawn.value[word] &= cells; });
      return drawn;
    }
    each_faulty(merged, [&](uint32_t word) { merged.fail[word] = merged.value[word] = 0; });
    merged.touched = 0;
    for (uint32_t i = 0; i < job_.part_count; ++i) {
      const uint64_t cells = job_.parts[i].cells;
      draw_block(block, chip, job_.parts[i].table, &drawn);
      each_faulty(drawn, [&](uint32_t word) {
        merged.fail[word] |= drawn.fail[word] & cells;
        merged.value[word] |= drawn.value[word] & cells;
      });
      if (merged.touched + drawn.touched <= BlockFaults::kFew) {
        for (uint32_t k = 0; k < drawn.touched; ++k) merged.word[merged.touched++] = drawn.word[k];
      } else {
        merged.touched = BlockFaults::kFew + 1;
      }
    }
    return merged;
  }

  template <class Visit>
  static void each_faulty(const BlockFaults& faults, Visit visit) {
    if (faults.touched > BlockFaults::kFew) {
      for (uint32_t word = 0; word < kBlockWords; ++word) visit(word);
    } else {
      for (uint32_t i = 0; i < faults.touched; ++i) visit(faults.word[i]);
    }
  }

  // The check bits of a block's words may lie in two blocks.
  void draw_checks(uint32_t block, uint32_t chip, Scratch* scratch) const {
    const uint32_t bytes = kBlockWords * check_bytes();
    const uint64_t address = job_.check_base + static_cast<uint64_t>(block) * bytes;
    for (uint32_t done = 0; done < bytes;) {
      const uint64_t number = (address + done) / kBlockBytes;
      const uint32_t at = static_cast<uint32_t>((address + done) % kBlockBytes);
      const uint32_t some = bytes - done < kBlockBytes - at ? bytes - done : kBlockBytes - at;
      if (scratch->check_block != number) {
        draw_block(number, chip, job_.check_table, &scratch->checks);
        scratch->check_block = number;
      }
      std::memcpy(scratch->check_fail + done, reinterpret_cast<const uint8_t*>(scratch->checks.fail) + at, some);
      if (values()) {
        std::memcpy(scratch->check_value + done, reinterpret_cast<const uint8_t*>(scratch->checks.value) + at, some);
      }
      done += some;
    }
  }

  // Where runs of words are repeated there is no list: each fault stands in many places.
  void list_words(const BlockFaults& data, Scratch* scratch) const {
    scratch->few = data.touched <= BlockFaults::kFew && !repeats();
    if (!scratch->few) return;
    std::memcpy(scratch->list, data.word, data.touched * sizeof data.word[0]);
    uint32_t listed = data.touched;
    const uint32_t bytes = kBlockWords * check_bytes();
    for (uint32_t at = 0; at < bytes && scratch->few; at += 8) {
      uint64_t eight;
      std::memcpy(&eight, scratch->check_fail + at, 8);
      for (; eight; eight &= eight - 1) {
        if (listed == kMostListed) {
          scratch->few = false;
          return;
        }
        scratch->list[listed++] =
            static_cast<uint16_t>((at + static_cast<uint32_t>(__builtin_ctzll(eight)) / 8) / check_bytes());
      }
    }
    scratch->listed = listed;
  }

  const ProtectedJob& job_;
  const Job& read_;
  const CpuPath& path_;
  bool repaired_ = false;     // words are hits, which repair a copy
  bool at_once_ = false;      // blocks are drawn together
  uint32_t hits_stride_ = 0;  // in both cases: see DrawnHits
};

}  // namespace faultsim
