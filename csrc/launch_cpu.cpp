// The CPU launcher: loops over blocks, threads and chips.
#if defined(__SSE2__)
#include <emmintrin.h>
#endif
#include <unistd.h>

#include <atomic>
#include <cstring>

#include "cpu_path.h"
#include "decode_chunk.h"
#include "launch.h"
#include "threads.h"

namespace faultsim {
namespace {

const CpuPath* const* paths(int* count) {
  static const CpuPath* available[3];
  static const int found = [] {
    int n = 0;
#if defined(FAULTSIM_X86)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq")) {
      available[n++] = &avx512::path;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi") &&
        __builtin_cpu_supports("bmi2"))
      available[n++] = &avx2::path;
#endif
    available[n++] = &portable::path;
    return n;
  }();
  *count = found;
  return available;
}

constexpr uint32_t kChipsAtOnce = 5;                // faults of five chips, 41 KiB, stay in the cache of a core
constexpr uint64_t kWeightsPerThread = 256u << 10;  // below this another thread costs more than it gives

// Outputs of this many bytes, 3/4 of the L3 cache, are written with non-temporal stores; smaller ones stay cached for
// the next reader.
uint64_t streaming_threshold() {
#if defined(_SC_LEVEL3_CACHE_SIZE)
  const long bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
  if (bytes > 0) return static_cast<uint64_t>(bytes) / 4 * 3;
#endif
  return 32u << 20;
}

// The buffers of one thread; under 64 KiB.
struct Scratch {
  BlockFaults faults[kChipsAtOnce];
  alignas(64) uint8_t fail[kBlockBytes + 16];  // masks spread over the weights where repeat > 1
  alignas(64) uint8_t value[kBlockBytes + 16];
  alignas(64) int8_t weights[kBlockBytes];
};
static_assert(sizeof(Scratch) + 8 * 1024 <= 64 * 1024,
              "the promised extra memory of a thread, with the buffers of draw()");

// One job on one vector path.
class Reader {
 public:
  Reader(const Job& job, const CpuPath& path)
      : job_(job),
        path_(path),
        decoder_(job, path),
        span_(weights_per_span(job.map)),
        first_span_(job.map.base / span_),
        spans_((job.map.base + job.weights - 1) / span_ - first_span_ + 1),
        stream_(job.type == Output::int8 && job.weights * job.chips >= streaming_threshold()) {
    const uint64_t blocks = job.map.blocks;
    blocks_ = blocks && blocks < spans_ ? blocks : spans_;
  }

  uint64_t blocks() const { return blocks_; }

  // All weights of the block with index `i` among the job's: it serves the spans first + i, first + i + blocks, ...,
  // and is drawn once.
  void read_block(uint64_t i, Scratch* scratch) const {
    const uint32_t offset = job_.block_offset ? static_cast<uint32_t>(*job_.block_offset) : 0;
    const uint32_t access = job_.access ? static_cast<uint32_t>(*job_.access) : 0;
    const uint32_t block = static_cast<uint32_t>(block_of_span(job_.map, first_span_ + i)) + offset;
    for (uint32_t chip = 0; chip < job_.chips; chip += kChipsAtOnce) {
      const uint32_t chips = job_.chips - chip < kChipsAtOnce ? job_.chips - chip : kChipsAtOnce;
      for (uint32_t c = 0; c < chips; ++c) {
        path_.draw(static_cast<uint64_t>(job_.seeds[chip + c]), block, access, job_.table, job_.rule,
                   &scratch->faults[c]);
      }
      for (uint64_t span = i; span < spans_; span += blocks_) read_span(first_span_ + span, chip, chips, scratch);
    }
  }

 private:
  void read_span(uint64_t span, uint32_t chip, uint32_t chips, Scratch* scratch) const {
    const uint64_t base = job_.map.base;
    const uint64_t begin = span * span_ > base ? span * span_ : base;
    const uint64_t end = (span + 1) * span_ < base + job_.weights ? (span + 1) * span_ : base + job_.weights;
    for (uint64_t at = begin; at < end;) {
      const uint64_t in_span = at - span * span_;
      // Chunks begin at multiples of 4,096 weights in the span, so that no repeated word is cut.
      const uint64_t to_chunk_end = kBlockBytes - in_span % kBlockBytes;
      const uint32_t count = static_cast<uint32_t>(end - at < to_chunk_end ? end - at : to_chunk_end);
      for (uint32_t c = 0; c < chips; ++c) {
        read_chunk(at - base, static_cast<uint32_t>(in_span), count, chip + c, scratch->faults[c], scratch);
      }
      at += count;
    }
  }

  // `count` weights from number `weight` on, as one chip reads them.
  void read_chunk(uint64_t weight, uint32_t in_span, uint32_t count, uint32_t chip, const BlockFaults& faults,
                  Scratch* scratch) const {
    const uint64_t out = static_cast<uint64_t>(chip) * job_.weights + weight;
    const Kind kind = job_.rule.kind;
    if (job_.type == Output::mask) {
      std::memcpy(static_cast<uint8_t*>(job_.output) + out, mask_of(faults.fail, in_span, count, scratch->fail), count);
      std::memcpy(job_.value + out, mask_of(faults.value, in_span, count, scratch->value), count);
      return;
    }
    const int8_t* source = job_.source + weight;
    const bool bytes = job_.type == Output::int8 || decoder_.settles();
    int8_t* result = bytes ? static_cast<int8_t*>(job_.output) + out : scratch->weights;
    if (faults.touched <= BlockFaults::kFew && source != result && !stream_) {
      std::memcpy(result, source, count);
      repair(faults, in_span, count, source, result);
    } else {
      const uint8_t* fail = kind == Kind::transient ? nullptr : mask_of(faults.fail, in_span, count, scratch->fail);
      const uint8_t* value = kind == Kind::flip ? nullptr : mask_of(faults.value, in_span, count, scratch->value);
      path_.read(kind, source, fail, value, result, count, stream_);
      if (decoder_.settles()) decoder_.settle(result, count);
    }
    if (!bytes) decoder_.decode(weight, reinterpret_cast<const uint8_t*>(result), count, chip);
  }

  // A block's mask for `count` weights of a span: the mask itself, or its words repeated into `spread`.
  const uint8_t* mask_of(const uint64_t* mask, uint32_t in_span, uint32_t count, uint8_t* spread) const {
    const uint8_t* bytes = reinterpret_cast<const uint8_t*>(mask);
    const AddressMap& map = job_.map;
    if (map.repeat == 1) return bytes + in_span;
    // In steps of 16 bytes, of which a repeated word is a multiple. The first step may begin before the chunk, and the
    // last one may end behind it: `spread` has room for that.
    const uint32_t before = in_span % 16, at = in_span - before, run = map.word * map.repeat;
    uint32_t in_word = at % map.word, to_run_end = run - at % run;
    bytes += at / run * map.word;
    for (uint32_t i = 0; i < before + count; i += 16) {
      std::memcpy(spread + i, bytes + in_word, 16);
      in_word = in_word + 16 == map.word ? 0 : in_word + 16;
      to_run_end -= 16;
      if (to_run_end == 0) {
        bytes += map.word;
        to_run_end = run;
      }
    }
    return spread + before;
  }

  // Reads again those weights of a copied chunk that lie in words with faults.
  void repair(const BlockFaults& faults, uint32_t in_span, uint32_t count, const int8_t* source, int8_t* result) const {
    switch (job_.rule.kind) {
      case Kind::flip:
        return repair_kind<Kind::flip>(faults, in_span, count, source, result);
      case Kind::stuck:
        return repair_kind<Kind::stuck>(faults, in_span, count, source, result);
      case Kind::transient:
        return repair_kind<Kind::transient>(faults, in_span, count, source, result);
    }
  }

  template <Kind kind>
  void repair_kind(const BlockFaults& faults, uint32_t in_span, uint32_t count, const int8_t* source,
                   int8_t* result) const {
    each_touched(faults, in_span, count, [&](int64_t at, uint32_t word) {
      repair_word<kind>(at, faults.fail[word], faults.value[word], count, source, result);
    });
  }

  // Calls visit(at, word) for the places of the chunk that the words with faults serve; they may lie outside it.
  template <class Visit>
  void each_touched(const BlockFaults& faults, uint32_t in_span, uint32_t count, Visit visit) const {
    const AddressMap& map = job_.map;
    for (uint32_t i = 0; i < faults.touched; ++i) {
      const uint32_t word = faults.word[i];
      const int64_t byte = static_cast<int64_t>(word) * 8;
      if (map.repeat == 1) {
        visit(byte - in_span, word);
        continue;
      }
      const int64_t first = byte / map.word * map.word * map.repeat + byte % map.word - in_span;
      for (uint32_t r = 0; r < map.repeat && first < count; ++r) {
        visit(first + static_cast<int64_t>(r) * map.word, word);
      }
    }
  }

  // Reads eight weights from number `at` of the chunk on; some of them may lie outside it.
  template <Kind kind>
  void repair_word(int64_t at, uint64_t fail, uint64_t value, uint32_t count, const int8_t* source,
                   int8_t* result) const {
    if (at <= -8 || at >= count) return;
    if (at >= 0 && at + 8 <= count) {
      uint64_t stored;
      std::memcpy(&stored, source + at, 8);
      stored = read_word(kind, stored, fail, value);
      if (decoder_.settles()) stored = decoder_.settled(stored);
      std::memcpy(result + at, &stored, 8);
      return;
    }
    for (int64_t byte = 0; byte < 8; ++byte) {
      if (at + byte < 0 || at + byte >= count) continue;
      const uint8_t stored = static_cast<uint8_t>(source[at + byte]);
      result[at + byte] = static_cast<int8_t>(
          read_word(kind, stored, static_cast<uint8_t>(fail >> 8 * byte), static_cast<uint8_t>(value >> 8 * byte)));
    }
    if (decoder_.settles()) decoder_.settle(result + at, static_cast<uint32_t>(count - at));  // the tensor's last word
  }

  const Job& job_;
  const CpuPath& path_;
  const Decoder decoder_;
  const uint64_t span_, first_span_, spans_;  // span_: weights of a span
  const bool stream_;
  uint64_t blocks_;  // that the job reads
};

}  // namespace

const CpuPath& path_named(const char* name) {
  int count;
  const CpuPath* const* all = paths(&count);
  for (int i = 0; i < count; ++i) {
    if (std::strcmp(all[i]->name, name) == 0) return *all[i];
  }
  return *all[count - 1];
}

const char* const* cpu_paths(int* count) {
  static const char* names[3];
  const CpuPath* const* all = paths(count);
  for (int i = 0; i < *count; ++i) names[i] = all[i]->name;
  return names;
}

void launch_cpu(const Job& job, int threads, const char* path) {
  if (job.weights == 0 || job.chips == 0) return;
  const Reader reader(job, path_named(path));
  const uint64_t worthwhile = job.weights * job.chips / kWeightsPerThread + 1;
  uint64_t workers = static_cast<uint64_t>(threads < 1 ? 1 : threads);
  workers = workers < worthwhile ? workers : worthwhile;
  workers = workers < reader.blocks() ? workers : reader.blocks();

  std::atomic<uint64_t> next{0};
  const auto work = [&] {
    Scratch scratch;
    for (uint64_t i = next++; i < reader.blocks(); i = next++) reader.read_block(i, &scratch);
#if defined(__SSE2__)
    _mm_sfence();  // non-temporal stores are weakly ordered: join() alone would not publish them
#endif
  };
  run_on_threads(workers, work);
}

}  // namespace faultsim
