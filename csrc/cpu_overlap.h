// Reads that draw, copy and repair at the same time: a draw and repairs keep the processor busy, a copy keeps memory
// busy. Part of cpu_path.cpp, and under the same rules.
#pragma once

#include "cpu_copy.h"
#include "cpu_draw.h"
#include "cpu_path.h"
#include "cpu_read.h"

namespace faultsim {
namespace FAULTSIM_PATH {
namespace {

void read_drawn(uint64_t seed, uint32_t block, uint32_t count, uint32_t access, HitTable table, ValueRule rule,
                uint32_t from, uint32_t bytes, const uint8_t* source, uint8_t* output, DrawnHits* hits) {
  // Drawing takes about as long as repairs: half of the copy goes on beside it, the rest beside repairs of all blocks
  // but the last.
  Copy copy(source, output, bytes);
  copy.pace(bytes / 2, steps_of_draw(count, table, rule));
  draw_beside(seed, block, count, access, table, rule, hits, &copy);
  const uint32_t all = from + bytes;
  for (uint32_t b = 0; b < count; ++b) {
    const uint32_t first = kBlockBytes * b, begin = b ? first : from;
    const uint32_t end = all < first + kBlockBytes ? all : first + kBlockBytes;
    copy.copy_until(all - end);
    const uint32_t share = b + 1 < count ? copy.left() / (count - 1 - b) : 0, later = copy.left() - share;
    copy.pace(share, hits->count[b] / kHitsPerStep);
    repair_beside(rule.kind, hits->of(b), begin - first, end - begin, source + (begin - from), output + (begin - from),
                  &copy);
    copy.copy_until(later);
  }
}

// Marks what a read of a block inverts, for a kind that is not stuck.
void mark_inverted(Kind kind, HitList hits, uint8_t* mask) {
  if (kind == Kind::flip) return mark_cells(hits.hit, hits.count, mask);
  Nothing nothing;  // the value says what is inverted: bits that are stuck in the mask
  repair_kind<Kind::stuck>(hits, 0, kBlockBytes, nullptr, mask, &nothing);
}

void read_marked(Kind kind, HitList hits, const uint8_t* source, uint8_t* mask, uint8_t* output) {
  mark_inverted(kind, hits, mask);
  MarkedRead(source, output, kBlockBytes, mask).copy_until(0);
}

// While a block is drawn, the one before it is read through its mask.
void read_marked_blocks(uint64_t seed, uint32_t block, uint32_t count, uint32_t access, HitTable table, ValueRule rule,
                        const uint8_t* source, uint8_t* mask, uint8_t* output, DrawnHits* hits) {
  const uint32_t steps = steps_of_draw(1, table, rule);
  MarkedRead before(source, output, 0, mask);
  for (uint32_t b = 0; b < count; ++b, source += kBlockBytes, output += kBlockBytes) {
    before.pace(kBlockBytes, steps);
    draw_beside(seed, block + b, 1, access, table, rule, hits, &before);
    before.copy_until(0);
    mark_inverted(rule.kind, hits->of(0), mask);
    before = MarkedRead(source, output, kBlockBytes, mask);
  }
  before.copy_until(0);
}

// While a block is drawn and the one before it is repaired, it is copied.
void read_repaired_blocks(uint64_t seed, uint32_t block, uint32_t count, uint32_t access, HitTable table,
                          ValueRule rule, const uint8_t* source, uint8_t* output, DrawnHits* hits,
                          DrawnHits* hits_before) {
  const auto repair_block = [&](auto* beside) {
    repair_beside(rule.kind, hits_before->of(0), 0, kBlockBytes, source - kBlockBytes, output - kBlockBytes, beside);
  };
  for (uint32_t b = 0; b < count; ++b, source += kBlockBytes, output += kBlockBytes) {
    Copy copy(source, output, kBlockBytes);
    copy.pace(kBlockBytes / 2, steps_of_draw(1, table, rule));
    draw_beside(seed, block + b, 1, access, table, rule, hits, &copy);
    if (b > 0) {
      copy.pace(copy.left(), hits_before->count[0] / kHitsPerStep);
      repair_block(&copy);
    }
    copy.copy_until(0);
    DrawnHits* const drawn = hits;
    hits = hits_before;
    hits_before = drawn;
  }
  Nothing nothing;
  if (count > 0) repair_block(&nothing);
}

void read_one_by_one(uint64_t seed, uint32_t block, uint32_t count, uint32_t access, HitTable table, ValueRule rule,
                     const uint8_t* source, uint8_t* mask, uint8_t* output, DrawnHits* hits, DrawnHits* hits_before) {
  if (rule.kind == Kind::stuck) {
    read_repaired_blocks(seed, block, count, access, table, rule, source, output, hits, hits_before);
  } else {
    read_marked_blocks(seed, block, count, access, table, rule, source, mask, output, hits);
  }
}

}  // namespace
}  // namespace FAULTSIM_PATH
}  // namespace faultsim
