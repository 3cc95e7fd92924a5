// How the CPU launcher reads a job. Each way gives the same bits; docs/log.md has their cycles.
#pragma once

#include <unistd.h>

#include <cstdint>

#include "cpu_path.h"
#include "launch.h"

namespace faultsim {

// Outputs of this many bytes, 3/4 of the L3 cache, are written with non-temporal stores; smaller ones stay cached for
// the next reader.
inline uint64_t streaming_threshold() {
#if defined(_SC_LEVEL3_CACHE_SIZE)
  const long bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
  if (bytes > 0) return static_cast<uint64_t>(bytes) / 4 * 3;
#endif
  return 32u << 20;
}

struct Plan {
  enum class Way {
    masks,        // each block is drawn as masks
    hits,         // blocks are drawn as hits; what a block serves is read chunk by chunk
    drawn_first,  // successive blocks by CpuPath::read_drawn: a copy goes on beside the draw and the repairs
    one_by_one,   // successive blocks by CpuPath::read_one_by_one: beside the draw of a block the one before it is read
  };

  // `blocks`: that the job reads, each of them for one or more of its `spans`. settles: as Decoder says.
  Plan(const Job& job, bool settles, uint64_t blocks, uint64_t spans, uint64_t workers)
      : stream(job.type == Output::int8 && job.weights * job.chips >= streaming_threshold()) {
    const uint32_t most_hits = static_cast<uint32_t>(job.table.entries[0]) + job.table.size;
    if (all_cells_fail(job.table)) return;
    hits_stride = DrawnHits::stride_for(most_hits);
    if (hits_stride > DrawnHits::kHalves) return;
    const bool in_place = job.source == job.output, bytes = job.type == Output::int8 || settles;
    masked = job.map.repeat > 1 || (job.type == Output::mask && most_hits > HitList::kMany);
    marked = most_hits > (in_place ? HitList::kMany : kManyHits) && !masked && job.type != Output::mask &&
             job.rule.kind != Kind::stuck;
    const bool successive = bytes && !stream && !masked && !job.measured.blocks && blocks == spans && !in_place;
    if (!successive) {
      way = Way::hits;
    } else if (most_hits <= kMostBeside) {
      way = Way::drawn_first;
    } else {
      way = settles ? Way::hits : Way::one_by_one;
    }
    // The source of the blocks that are drawn at once is read for each chip: it has to stay in the cache. And there has
    // to be work for all threads.
    const uint64_t cached = job.chips == 1 ? DrawnHits::kMostBlocks : DrawnHits::kMostBlocks * blocks / spans + 1;
    const uint64_t shared = workers == 1 ? blocks : blocks / (4 * workers) + 1;
    uint64_t most = way == Way::one_by_one || most_hits <= kManyHits ? DrawnHits::kMostBlocks : 1;
    if (way != Way::one_by_one && DrawnHits::kHalves / hits_stride < most) most = DrawnHits::kHalves / hits_stride;
    for (const uint64_t limit : {cached, shared}) most = limit < most ? limit : most;
    at_once = static_cast<uint32_t>(most);
  }

  const bool stream;  // the output is written with non-temporal stores
  Way way = Way::masks;
  bool masked = false;       // hits become masks
  bool marked = false;       // whole blocks that become bytes are read by CpuPath::read_marked
  uint32_t hits_stride = 0;  // see DrawnHits
  uint32_t at_once = 1;      // blocks that are read at once

 private:
  // Blocks that may have more hits are always drawn one by one, and flips and transient faults are read through a mask.
  static constexpr uint32_t kManyHits = 200;
  // With so many hits in a block at most, a copy beside the draw of several blocks gains; with more, blocks are read
  // one by one.
  static constexpr uint32_t kMostBeside = 128;
};

}  // namespace faultsim
