// The CPU launchers of codecs: reads of a protected memory, and words that were read already.
#include <cstring>

#include "codec.h"
#include "codec_buffers.h"
#include "codec_draw.h"
#include "cpu_path.h"
#include "decode_chunk.h"
#include "threads.h"

namespace faultsim {
namespace {

constexpr uint64_t kWordsPerThread = 32u << 10;  // below this another thread costs more than it gives
constexpr uint32_t kBlocksAtOnce = 8;            // with one check byte a word, they share a block of check bytes

// One job on one vector path.
class ProtectedReader {
 public:
  ProtectedReader(const ProtectedJob& job, const CpuPath& path)
      : job_(job),
        read_(job.read),
        codec_(job.codec),
        map_(job.read.map),
        path_(path),
        draw_(job, path),
        decoder_(job.read, path),
        tables_(make_tables(job.codec)),
        written_(reinterpret_cast<const uint64_t*>(job.read.source)),
        words_(job.read.weights / 8),
        base_(job.read.map.base / 8),
        span_(weights_per_span(job.read.map) / 8),
        first_span_(base_ / span_),
        end_span_((base_ + words_ - 1) / span_ + 1) {
    const uint64_t spans = end_span_ - first_span_;
    blocks_ = map_.blocks && map_.blocks < spans ? map_.blocks : spans;
  }

  uint64_t units() const { return (first_span_ + blocks_ - 1) / kBlocksAtOnce - first_span_ / kBlocksAtOnce + 1; }

  // The spans whose number is in one run of eight, and all others that the same blocks serve.
  void read_unit(uint64_t unit, Scratch* scratch) const {
    const uint64_t begin = (first_span_ / kBlocksAtOnce + unit) * kBlocksAtOnce;
    for (uint32_t chip = 0; chip < read_.chips; ++chip) {
      scratch->check_block = scratch->first_of_hits = UINT64_MAX;
      for (uint64_t first = begin; first < begin + kBlocksAtOnce; ++first) {
        if (first < first_span_ || first >= first_span_ + blocks_) continue;
        const Faults faults = draw_.draw(static_cast<uint32_t>(block_of_span(map_, first)), chip, scratch);
        for (uint64_t span = first; span < end_span_; span += blocks_) read_span(span, chip, faults, scratch);
      }
    }
  }

 private:
  void read_span(uint64_t span, uint32_t chip, const Faults& faults, Scratch* scratch) const {
    const uint64_t begin = span * span_ > base_ ? span * span_ : base_;
    const uint64_t end = (span + 1) * span_ < base_ + words_ ? (span + 1) * span_ : base_ + words_;
    for (uint64_t at = begin; at < end;) {
      const uint32_t in_span = static_cast<uint32_t>(at - span * span_);
      const uint64_t to_chunk_end = kBlockWords - in_span % kBlockWords;
      const uint32_t count = static_cast<uint32_t>(end - at < to_chunk_end ? end - at : to_chunk_end);
      read_chunk(at - base_, in_span, count, chip, faults, scratch);
      at += count;
    }
  }

  // `count` words from number `word` on, as one chip reads them.
  void read_chunk(uint64_t word, uint32_t in_span, uint32_t count, uint32_t chip, const Faults& faults,
                  Scratch* scratch) const {
    const uint64_t row = chip * words_ + word;
    uint64_t* result = read_.type == Output::int8 ? static_cast<uint64_t*>(read_.output) + row : scratch->words;
    uint8_t* again = job_.again ? job_.again + row : nullptr;
    if (scratch->few) {
      repair(word, in_span, count, faults, result, again, scratch);
    } else {
      decode(word, in_span, map_.repeat == 1 ? from_word(faults, in_span) : spread(faults, in_span, count, scratch),
             count, result, again, scratch);
    }
    if (read_.type == Output::int8) return;
    const uint64_t first = 8 * word, bytes = 8 * static_cast<uint64_t>(count);
    const uint64_t held = plain_int8(read_.format) ? read_.numbers - first : bytes;  // the last word may be filled up
    decoder_.decode(first, reinterpret_cast<const uint8_t*>(result), static_cast<uint32_t>(held < bytes ? held : bytes),
                    chip);
  }

  Faults from_word(const Faults& faults, uint32_t word) const {
    const uint32_t check = word * codec_.check_bytes;
    if (faults.hits) return {nullptr, nullptr, faults.check_fail + check, faults.check_value + check, faults.hits};
    return {faults.fail + word, faults.value + word, faults.check_fail + check, faults.check_value + check, nullptr};
  }

  Faults spread(const Faults& faults, uint32_t in_span, uint32_t count, Scratch* scratch) const {
    const uint32_t word = map_.word / 8, run = word * map_.repeat, bytes = codec_.check_bytes;
    uint32_t first = in_span / run * word, in_word = in_span % word, to_run_end = run - in_span % run;
    for (uint32_t i = 0; i < count; ++i) {
      const uint32_t from = first + in_word;
      scratch->spread_fail[i] = faults.fail[from];
      scratch->spread_value[i] = faults.value[from];
      for (uint32_t k = 0; k < bytes; ++k) {
        scratch->spread_check_fail[i * bytes + k] = faults.check_fail[from * bytes + k];
        scratch->spread_check_value[i * bytes + k] = faults.check_value[from * bytes + k];
      }
      in_word = in_word + 1 == word ? 0 : in_word + 1;
      if (--to_run_end == 0) {
        first += word;
        to_run_end = run;
      }
    }
    return {scratch->spread_fail, scratch->spread_value, scratch->spread_check_fail, scratch->spread_check_value,
            nullptr};
  }

  // All words of a chunk, whose first one has the first faults.
  void decode(uint64_t word, uint32_t in_span, const Faults& faults, uint32_t count, uint64_t* result, uint8_t* again,
              Scratch* scratch) const {
    if (faults.hits) {
      const uint8_t* source = reinterpret_cast<const uint8_t*>(written_ + word);
      uint8_t* output = reinterpret_cast<uint8_t*>(result);
      std::memmove(output, source, 8 * static_cast<size_t>(count));
      path_.repair(read_.rule.kind, faults.hits->of(0), 8 * in_span, 8 * count, source, output);
    } else {
      read_bytes(written_ + word, faults.fail, faults.value, result, 8 * count);
    }
    const uint8_t* checks = job_.checks + word * codec_.check_bytes;
    if (codec_.check_bytes) {
      read_bytes(checks, faults.check_fail, faults.check_value, scratch->checks_read, codec_.check_bytes * count);
      checks = scratch->checks_read;
    }
    path_.codecs->decode(codec_, tables_, written_ + word, checks, result, again, count);
  }

  void read_bytes(const void* source, const void* fail, const void* value, void* result, uint32_t bytes) const {
    path_.read(read_.rule.kind, static_cast<const uint8_t*>(source), static_cast<const uint8_t*>(fail),
               static_cast<const uint8_t*>(value), static_cast<uint8_t*>(result), bytes);
  }

  // The same with few faults: a copy, of which only the listed words are decoded.
  void repair(uint64_t word, uint32_t in_span, uint32_t count, const Faults& faults, uint64_t* result, uint8_t* again,
              Scratch* scratch) const {
    const uint64_t* written = written_ + word;
    if (codec_.borrowed) {
      for (uint32_t i = 0; i < count; ++i) result[i] = restored_word(codec_, written[i]);
    } else {
      // Not memcpy, of which GCC makes `rep movsq`: slower for a block that stays in the L1 cache.
      std::memmove(result, written, 8 * static_cast<size_t>(count));
    }
    if (again) std::memset(again, 0, count);
    const uint32_t bytes = codec_.check_bytes;
    uint32_t found = 0;
    for (uint32_t i = 0; i < scratch->listed; ++i) {
      const uint32_t in_block = scratch->list[i], at = in_block - in_span;  // before the chunk: a huge number
      if (at >= count) continue;
      scratch->listed_at[found] = static_cast<uint16_t>(at);
      scratch->listed_written[found] = written[at];
      scratch->words_read[found] =
          read_word(read_.rule.kind, written[at], faults.fail[in_block], faults.value[in_block]);
      for (uint32_t k = 0; k < bytes; ++k) {
        const uint32_t from = in_block * bytes + k;
        scratch->checks_read[found * bytes + k] = read_word(read_.rule.kind, job_.checks[(word + at) * bytes + k],
                                                            faults.check_fail[from], faults.check_value[from]);
      }
      ++found;
    }
    path_.codecs->decode(codec_, tables_, scratch->listed_written, scratch->checks_read, scratch->words_read,
                         again ? scratch->listed_again : nullptr, found);
    for (uint32_t i = 0; i < found; ++i) result[scratch->listed_at[i]] = scratch->words_read[i];
    for (uint32_t i = 0; again && i < found; ++i) again[scratch->listed_at[i]] = scratch->listed_again[i];
  }

  const ProtectedJob& job_;
  const Job& read_;
  const Codec& codec_;
  const AddressMap& map_;
  const CpuPath& path_;
  const ProtectedDraw draw_;
  const Decoder decoder_;
  const CodeTables tables_;
  const uint64_t* const written_;
  const uint64_t words_, base_, span_;  // span_: words of a span
  const uint64_t first_span_, end_span_;
  uint64_t blocks_;  // that the job reads
};

}  // namespace

void launch_protected_cpu(const ProtectedJob& job, int threads, const char* path) {
  if (job.read.weights == 0 || job.read.chips == 0) return;
  const ProtectedReader reader(job, path_named(path));
  const uint64_t worthwhile = job.read.weights / 8 * job.read.chips / kWordsPerThread + 1;
  uint64_t workers = static_cast<uint64_t>(threads < 1 ? 1 : threads);
  workers = workers < worthwhile ? workers : worthwhile;
  workers = workers < reader.units() ? workers : reader.units();
  Runs runs(reader.units(), workers);
  run_on_threads(workers, threads, [&] {
    Scratch scratch{};
    runs.take([&](uint64_t unit) { reader.read_unit(unit, &scratch); });
  });
}

void launch_decode_cpu(const DecodeJob& job, const char* path) {
  const CodecPath& codecs = *path_named(path).codecs;
  const CodeTables tables = make_tables(job.codec);
  for (uint32_t chip = 0; chip < job.chips; ++chip) {
    for (uint64_t word = 0; word < job.words; word += kBlockWords) {
      const uint64_t row = chip * job.words + word;
      const uint32_t count = static_cast<uint32_t>(job.words - word < kBlockWords ? job.words - word : kBlockWords);
      std::memcpy(job.output + row, job.read + row, 8 * static_cast<size_t>(count));
      codecs.decode(job.codec, tables, job.written + word, job.checks + row * job.codec.check_bytes, job.output + row,
                    job.again ? job.again + row : nullptr, count);
    }
  }
}

}  // namespace faultsim
