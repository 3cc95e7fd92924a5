// The CPU launcher: loops over blocks, threads and chips.
#if defined(__SSE2__)
#include <emmintrin.h>
#endif
#include <cstring>

#include "cpu_path.h"
#include "decode_chunk.h"
#include "launch.h"
#include "read_buffers.h"
#include "read_plan.h"
#include "threads.h"

namespace faultsim {
namespace {

constexpr uint64_t kWeightsPerThread = 256u << 10;  // below this another thread costs more than it gives

// The faults of one block of one chip: its hits, its masks, or both.
struct Faults {
  HitList hits;
  HitList inverted;          // cells of a measured chip that invert, whatever the kind of the others
  const BlockFaults* masks;  // null: only the hits are known
};

// One job on one vector path. At rates up to some 6 %, blocks are drawn several at once, and a read is a copy that is
// repaired hit by hit. Otherwise each block gets masks.
class Reader {
 public:
  Reader(const Job& job, const CpuPath& path, uint64_t workers)
      : job_(job),
        path_(path),
        decoder_(job, path),
        span_(weights_per_span(job.map)),
        first_span_(job.map.base / span_),
        spans_((job.map.base + job.weights - 1) / span_ - first_span_ + 1),
        blocks_(job.map.blocks && job.map.blocks < spans_ ? job.map.blocks : spans_),
        plan_(job, decoder_.settles(), blocks_, spans_, workers) {}

  // How many parts the job has, for threads to take.
  uint64_t parts() const { return (blocks_ + plan_.at_once - 1) / plan_.at_once; }

  // All weights of some blocks; the block with index `i` among the job's serves the spans first + i,
  // first + i + blocks, ..., and is drawn once.
  void read_part(uint64_t part, Scratch* scratch) const {
    if (plan_.way == Plan::Way::masks) return read_masked(part, scratch);
    const uint64_t at_once = plan_.at_once;
    const uint64_t end = (part + 1) * at_once < blocks_ ? (part + 1) * at_once : blocks_;
    for (uint64_t first = part * at_once; first < end;) {
      const uint64_t successive = job_.map.blocks ? job_.map.blocks - (first_span_ + first) % job_.map.blocks : end;
      const uint64_t count = successive < end - first ? successive : end - first;
      read_blocks(first, static_cast<uint32_t>(count), scratch);
      first += count;
    }
  }

 private:
  void read_blocks(uint64_t first, uint32_t count, Scratch* scratch) const {
    scratch->hits.stride = scratch->hits_before.stride = plan_.hits_stride;
    if (plan_.way == Plan::Way::drawn_first) return read_drawn(first, count, &scratch->hits);
    if (plan_.way != Plan::Way::one_by_one) return read_hits(first, count, scratch);
    // The tensor's first and last block may be cut.
    const uint32_t head = is_cut(first), tail = count > 1 && is_cut(first + count - 1);
    if (head) read_hits(first, 1, scratch);
    read_one_by_one(first + head, count - head - tail, scratch);
    if (tail) read_hits(first + count - 1, 1, scratch);
  }

  bool is_cut(uint64_t block) const {
    const uint64_t begin = (first_span_ + block) * kBlockBytes;
    return begin < job_.map.base || begin + kBlockBytes > job_.map.base + job_.weights;
  }

  void read_hits(uint64_t first, uint32_t count, Scratch* scratch) const {
    DrawnHits& hits = scratch->hits;
    for (uint32_t chip = 0; chip < job_.chips; ++chip) {
      if (!job_.measured.blocks) {
        path_.draw_hits(static_cast<uint64_t>(job_.seeds[chip]), number_of(first), count, access(), job_.table,
                        job_.rule, &hits);
      }
      for (uint32_t b = 0; b < count; ++b) {
        Faults faults = job_.measured.blocks ? measured(number_of(first + b)) : Faults{hits.of(b), {}, nullptr};
        if (plan_.masked) faults.masks = masks_of(faults, &scratch->faults[0]);
        for (uint64_t span = first + b; span < spans_; span += blocks_) {
          read_span(first_span_ + span, chip, 1, &faults, scratch);
        }
      }
    }
  }

  // Blocks of which each serves one run of weights.
  void read_drawn(uint64_t first, uint32_t count, DrawnHits* hits) const {
    const uint64_t base = job_.map.base, of_first = (first_span_ + first) * kBlockBytes;
    const uint64_t begin = of_first > base ? of_first : base, of_end = of_first + uint64_t{count} * kBlockBytes;
    const uint64_t end = of_end < base + job_.weights ? of_end : base + job_.weights;
    const uint32_t from = static_cast<uint32_t>(begin - of_first), bytes = static_cast<uint32_t>(end - begin);
    for (uint32_t chip = 0; chip < job_.chips; ++chip) {
      uint8_t* output = static_cast<uint8_t*>(job_.output) + chip * job_.weights + (begin - base);
      path_.read_drawn(static_cast<uint64_t>(job_.seeds[chip]), number_of(first), count, access(), job_.table,
                       job_.rule, from, bytes, reinterpret_cast<const uint8_t*>(job_.source) + (begin - base), output,
                       hits);
      for (uint32_t b = 0; decoder_.settles() && b < count; ++b) {
        const uint32_t in_group = b * kBlockBytes, at = in_group > from ? in_group : from;
        const uint32_t to = in_group + kBlockBytes < from + bytes ? in_group + kBlockBytes : from + bytes;
        settle_repaired(hits->of(b), at - in_group, to - at, output + (at - from));
      }
    }
  }

  // Whole blocks of which each serves one run of weights.
  void read_one_by_one(uint64_t first, uint32_t count, Scratch* scratch) const {
    const uint64_t at = (first_span_ + first) * kBlockBytes - job_.map.base;
    const uint8_t* source = reinterpret_cast<const uint8_t*>(job_.source) + at;
    for (uint32_t chip = 0; chip < job_.chips; ++chip) {
      uint8_t* output = static_cast<uint8_t*>(job_.output) + chip * job_.weights + at;
      path_.read_one_by_one(static_cast<uint64_t>(job_.seeds[chip]), number_of(first), count, access(), job_.table,
                            job_.rule, source, scratch->mask.beside(output), output, &scratch->hits,
                            &scratch->hits_before);
    }
  }

  Faults measured(uint64_t block) const {
    const CellLists& lists = job_.measured;
    if (block >= lists.blocks) return {};
    const auto list = [&](const uint16_t* cells, const int64_t* begin) {
      return HitList{cells + begin[block], static_cast<uint32_t>(begin[block + 1] - begin[block])};
    };
    return {list(lists.stuck, lists.stuck_begin), list(lists.inverted, lists.inverted_begin), nullptr};
  }

  void read_masked(uint64_t i, Scratch* scratch) const {
    for (uint32_t chip = 0; chip < job_.chips; chip += kChipsAtOnce) {
      const uint32_t chips = job_.chips - chip < kChipsAtOnce ? job_.chips - chip : kChipsAtOnce;
      Faults faults[kChipsAtOnce];
      for (uint32_t c = 0; c < chips; ++c) {
        path_.draw(static_cast<uint64_t>(job_.seeds[chip + c]), number_of(i), access(), job_.table, job_.rule,
                   &scratch->faults[c]);
        faults[c] = {{}, {}, &scratch->faults[c]};
      }
      for (uint64_t span = i; span < spans_; span += blocks_) {
        read_span(first_span_ + span, chip, chips, faults, scratch);
      }
    }
  }

  // The counter word of the block with index `i` among the job's.
  uint32_t number_of(uint64_t i) const {
    const uint32_t offset = job_.block_offset ? static_cast<uint32_t>(*job_.block_offset) : 0;
    return static_cast<uint32_t>(block_of_span(job_.map, first_span_ + i)) + offset;
  }
  uint32_t access() const { return job_.access ? static_cast<uint32_t>(*job_.access) : 0; }

  BlockFaults* masks_of(const Faults& faults, BlockFaults* masks) const {
    uint8_t *fail = reinterpret_cast<uint8_t*>(masks->fail), *value = reinterpret_cast<uint8_t*>(masks->value);
    const bool values = job_.rule.kind != Kind::flip;
    std::memset(fail, 0, kBlockBytes);
    if (values) std::memset(value, 0, kBlockBytes);
    path_.mark(faults.hits, values, 0, kBlockBytes, fail, value);
    // A stuck cell that does not fail reads the inverse of what it stores where its value is 1 (read_word()).
    path_.mark(faults.inverted, false, 0, kBlockBytes, value, nullptr);
    return masks;
  }

  void read_span(uint64_t span, uint32_t chip, uint32_t chips, const Faults* faults, Scratch* scratch) const {
    const uint64_t base = job_.map.base;
    const uint64_t begin = span * span_ > base ? span * span_ : base;
    const uint64_t end = (span + 1) * span_ < base + job_.weights ? (span + 1) * span_ : base + job_.weights;
    for (uint64_t at = begin; at < end;) {
      const uint64_t in_span = at - span * span_;
      const uint64_t to_chunk_end = kBlockBytes - in_span % kBlockBytes;
      const uint32_t count = static_cast<uint32_t>(end - at < to_chunk_end ? end - at : to_chunk_end);
      for (uint32_t c = 0; c < chips; ++c) {
        read_chunk(at - base, static_cast<uint32_t>(in_span), count, chip + c, faults[c], scratch);
      }
      at += count;
    }
  }

  // `count` weights from number `weight` on, as one chip reads them.
  void read_chunk(uint64_t weight, uint32_t in_span, uint32_t count, uint32_t chip, const Faults& faults,
                  Scratch* scratch) const {
    const uint64_t out = static_cast<uint64_t>(chip) * job_.weights + weight;
    uint8_t* output = static_cast<uint8_t*>(job_.output) + out;
    if (job_.type == Output::mask) return write_masks(in_span, count, faults, output, job_.value + out, scratch);

    const uint8_t* source = reinterpret_cast<const uint8_t*>(job_.source) + weight;
    const bool bytes = job_.type == Output::int8 || decoder_.settles(), repaired = !faults.masks;
    const bool marked = plan_.marked && count == kBlockBytes && bytes && !plan_.stream;
    uint8_t* result = bytes && !plan_.stream ? output : scratch->weights.beside(source);
    const Kind kind = job_.rule.kind;
    if (marked) {
      path_.read_marked(kind, faults.hits, source, scratch->mask.beside(result), result);
    } else if (repaired) {
      if (source != result) std::memcpy(result, source, count);
      path_.repair(kind, faults.hits, in_span, count, source, result);
      if (faults.inverted.count) path_.repair(Kind::flip, faults.inverted, in_span, count, source, result);
    } else if (job_.map.repeat == 1) {
      path_.read(kind, source, faults.masks->fail_bytes() + in_span, faults.masks->value_bytes() + in_span, result,
                 count);
    } else {
      path_.read_repeated(kind, job_.map, in_span, source, *faults.masks, result, count);
    }
    if (!bytes) return decoder_.decode(weight, result, count, chip);
    if (decoder_.settles() && repaired) {
      settle_repaired(faults.hits, in_span, count, result);
      settle_repaired(faults.inverted, in_span, count, result);
    } else if (decoder_.settles()) {
      decoder_.settle(result, count);
    }
    if (plan_.stream) path_.copy_past_cache(result, output, count);
  }

  // The masks themselves are the output.
  void write_masks(uint32_t in_span, uint32_t count, const Faults& faults, uint8_t* fail, uint8_t* value,
                   Scratch* scratch) const {
    const bool values = job_.rule.kind != Kind::flip;
    if (job_.map.repeat > 1) {  // reading zeros that a mask inverts gives the mask
      uint8_t* buffer = scratch->weights.beside(fail);
      std::memset(buffer, 0, count);
      path_.read_repeated(Kind::flip, job_.map, in_span, buffer, *faults.masks, fail, count);
      path_.read_repeated(Kind::transient, job_.map, in_span, buffer, *faults.masks, value, count);
    } else if (!faults.masks) {
      std::memset(fail, 0, count);
      std::memset(value, 0, count);
      path_.mark(faults.hits, values, in_span, count, fail, value);
    } else {
      std::memcpy(fail, faults.masks->fail_bytes() + in_span, count);
      std::memcpy(value, faults.masks->value_bytes() + in_span, count);
    }
  }

  // The words that a repair wrote to: no other number can be infinite or NaN. They are whole but for the tensor's last.
  void settle_repaired(HitList hits, uint32_t from, uint32_t count, uint8_t* result) const {
    for (uint32_t i = 0; i < hits.count; ++i) {
      const uint32_t at = cell_of(hits.hit[i]) / 64 * 8 - from;  // before the chunk: a huge number
      if (at >= count) continue;
      if (count - at < 8) {
        decoder_.settle(result + at, count - at);
      } else {
        uint64_t word;
        std::memcpy(&word, result + at, 8);
        word = decoder_.settled(word);
        std::memcpy(result + at, &word, 8);
      }
    }
  }

  const Job& job_;
  const CpuPath& path_;
  const Decoder decoder_;
  const uint64_t span_, first_span_, spans_;  // span_: weights of a span
  const uint64_t blocks_;                     // that the job reads
  const Plan plan_;
};

}  // namespace

void launch_cpu(const Job& job, int threads, const char* path) {
  if (job.weights == 0 || job.chips == 0) return;
  const uint64_t worthwhile = job.weights * job.chips / kWeightsPerThread + 1;
  uint64_t workers = static_cast<uint64_t>(threads < 1 ? 1 : threads);
  workers = workers < worthwhile ? workers : worthwhile;
  const Reader reader(job, path_named(path), workers);
  workers = workers < reader.parts() ? workers : reader.parts();

  Runs runs(reader.parts(), workers);
  const auto work = [&] {
    Scratch scratch;
    runs.take([&](uint64_t part) { reader.read_part(part, &scratch); });
#if defined(__SSE2__)
    _mm_sfence();  // non-temporal stores are weakly ordered: join() alone would not publish them
#endif
  };
  run_on_threads(workers, threads, work);
}

}  // namespace faultsim
