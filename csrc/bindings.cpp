// Python's view of the launchers: checks, the GIL released, errors as exceptions. Memory is passed as raw addresses:
// faultsim/kernel/ops.py owns it and keeps it alive.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <iterator>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "bindings_checks.h"
#include "bindings_codec.h"
#include "codec.h"
#include "launch.h"

namespace py = pybind11;
using namespace faultsim;

namespace {

Job make_job(const py::int_& source, const py::int_& output, const py::int_& value, const py::int_& weights,
             const py::int_& chips, const py::int_& type, const py::int_& scales, const py::int_& scale_count,
             const py::int_& scale_run, const py::int_& table, const py::int_& thresholds, const py::int_& kind,
             const py::int_& ones, const py::int_& base, const py::int_& blocks, const py::int_& word,
             const py::int_& repeat, const py::int_& seeds, const py::int_& block_offset, const py::int_& access) {
  Job job{};
  job.source = pointer<const int8_t>("source", source);
  job.output = pointer<void>("output", output);
  job.value = pointer<uint8_t>("value", value);
  job.weights = whole("weights", weights, 0, kMostWeights);
  job.chips = static_cast<uint32_t>(whole("chips", chips, 0, UINT32_MAX));
  job.type = static_cast<Output>(whole("type", type, 0, std::size(kOutputNames) - 1));
  job.scales = pointer<const float>("scales", scales);
  job.scale_count = whole("scale_count", scale_count, 0, UINT64_MAX);
  job.scale_run = whole("scale_run", scale_run, 1, UINT64_MAX);
  job.numbers = job.weights;
  job.table.entries = pointer<const uint64_t>("table", table);
  job.table.size = static_cast<uint32_t>(whole("thresholds", thresholds, 0, UINT32_MAX));
  job.rule.kind = static_cast<Kind>(whole("kind", kind, 0, std::size(kKindNames) - 1));
  job.rule.ones = whole("ones", ones, 0, certain(job.rule.kind));
  job.map.base = whole("base", base, 0, kMostBase);
  job.map.blocks = whole("blocks", blocks, 0, UINT64_MAX);
  job.map.word = static_cast<uint32_t>(whole("word", word, 0, UINT32_MAX));
  job.map.repeat = static_cast<uint32_t>(whole("repeat", repeat, 1, kMostRepeat));
  job.seeds = pointer<const int64_t>("seeds", seeds);
  job.block_offset = pointer<const int64_t>("block_offset", block_offset);
  job.access = pointer<const int64_t>("access", access);

  require(job.map.repeat == 1 || (job.map.word >= kLeastRepeatedWord && kBlockBytes % job.map.word == 0),
          "a repeated word must be 16, 32, ... or 4096 bytes, a divisor of a block's 4096");
  if (job.weights > 0 && job.chips > 0) {
    const bool mask = job.type == Output::mask;
    require(job.output && job.table.entries && job.seeds, "output, table or seeds is a null pointer");
    require(mask ? job.value != nullptr : job.source != nullptr, "source or value is a null pointer");
    require(mask || job.type == Output::int8 || (job.scales && job.scale_count >= 1), "a float output needs scales");
  }
  return job;
}

// The source is an image of `numbers` weights in a format (faultsim/formats); `weights` was the number of its bytes.
void read_image(Job& job, const py::int_& numbers, const py::int_& number, const py::int_& bits, const py::int_& cells,
                bool offset, bool clamps, const py::int_& nonfinite, const py::int_& centers) {
  Format format{};
  format.number = static_cast<Number>(whole("number", number, 0, std::size(kNumberNames) - 1));
  format.bits = static_cast<uint32_t>(whole("bits", bits, 2, 32));
  format.cells = static_cast<uint32_t>(whole("cells", cells, format.bits, 32));
  format.nonfinite = static_cast<Nonfinite>(whole("nonfinite", nonfinite, 0, std::size(kNonfiniteNames) - 1));
  const bool integer = format.number == Number::integer;
  require(format.bits == bits_of_number(format.number, format.bits) && (integer ? format.bits <= 8 : true) &&
              (format.cells == format.bits || (integer && format.cells == 8)),
          "such a format does not exist");
  const int32_t half = 1 << (format.bits <= 8 ? format.bits - 1 : 0);
  format.flip = offset ? 0 : static_cast<uint32_t>(half);
  format.least = clamps ? 1 - half : -half;
  job.format = format;
  job.centers = pointer<const float>("centers", centers);
  job.numbers = whole("numbers", numbers, 0, kMostWeights);
  require(job.type != Output::int8 && job.type != Output::mask, "an image is read as floating-point numbers");
  require(job.map.base % 8 == 0, "an image begins on a word, at a multiple of 8 bytes");
  const uint64_t per_word = weights_per_word(format), words = (job.numbers + per_word - 1) / per_word;
  require(format.cells < 8 ? job.weights == 8 * words : job.weights == job.numbers * (format.cells / 8),
          "the image is not as long as its weights");
}

// The faults are not drawn: they are the cells of a measured memory of `blocks` blocks.
void read_cells(Job& job, const py::int_& blocks, const py::int_& stuck, const py::int_& stuck_begin,
                const py::int_& inverted, const py::int_& inverted_begin) {
  job.measured = {pointer<const uint16_t>("stuck", stuck), pointer<const int64_t>("stuck_begin", stuck_begin),
                  pointer<const uint16_t>("inverted", inverted),
                  pointer<const int64_t>("inverted_begin", inverted_begin), whole("blocks", blocks, 1, UINT32_MAX)};
  require(job.measured.stuck_begin && job.measured.inverted_begin, "a list of cells is a null pointer");
  require(job.rule.kind == Kind::stuck && job.chips <= 1 && job.type != Output::mask && !job.block_offset &&
              (job.chips == 0 || job.weights == 0 || (job.table.entries[0] == 0 && job.table.size == 0)),
          "a measured memory is that of one chip, whose other cells are stuck at a rate of 0");
}

std::vector<std::string> path_names() {
  int count;
  const char* const* names = cpu_paths(&count);
  return {names, names + count};
}

void require_path(const std::string& path) {
  bool known = false;
  for (const std::string& name : path_names()) known = known || name == path;
  require(known, "this processor has no vector path " + path + "; cpu_paths() lists them");
}

// Calls launch(stream) without Python's lock; its error becomes an exception.
template <class Launch>
void on_stream(const py::int_& stream, Launch launch) {
  void* queue = pointer<void>("stream", stream);
  std::string error;
  {
    const py::gil_scoped_release release;
    error = launch(queue);
  }
  if (!error.empty()) throw std::runtime_error(error);
}

// {name: number} of an enumeration whose values count from 0.
template <size_t size>
py::dict numbered(const char* const (&names)[size]) {
  py::dict numbers;
  for (size_t i = 0; i < size; ++i) numbers[names[i]] = i;
  return numbers;
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "The fault kernel. Use faultsim.kernel.ops: this module takes raw addresses.";
  // What Python must know of the kernel: it reads these numbers and repeats none of them (sram.BLOCK_BYTES, which
  // lighter modules need, is compared with them by a test).
  m.attr("KINDS") = numbered(kKindNames);
  m.attr("OUTPUTS") = numbered(kOutputNames);
  m.attr("NUMBERS") = numbered(kNumberNames);
  m.attr("NONFINITE") = numbered(kNonfiniteNames);
  m.attr("DECODES") = numbered(kDecodeNames);
  m.attr("MOST_CHECK_BYTES") = kMostCheckBytes;
  m.attr("MOST_PARTS") = kMostParts;
  py::dict certainty;
  for (size_t i = 0; i < std::size(kKindNames); ++i) certainty[kKindNames[i]] = certain(static_cast<Kind>(i));
  m.attr("CERTAIN") = certainty;  // the integer that means "probability 1" to Job(ones=)
  m.attr("BLOCK_BYTES") = kBlockBytes;
  m.attr("MOST_WEIGHTS") = kMostWeights;
  m.attr("MOST_BASE") = kMostBase;
  m.attr("MOST_REPEAT") = kMostRepeat;
  m.attr("LEAST_REPEATED_WORD") = kLeastRepeatedWord;

  py::class_<Job>(m, "Job", py::module_local())
      .def(py::init(&make_job), py::kw_only(), py::arg("source"), py::arg("output"), py::arg("value"),
           py::arg("weights"), py::arg("chips"), py::arg("type"), py::arg("scales"), py::arg("scale_count"),
           py::arg("scale_run"), py::arg("table"), py::arg("thresholds"), py::arg("kind"), py::arg("ones"),
           py::arg("base"), py::arg("blocks"), py::arg("word"), py::arg("repeat"), py::arg("seeds"),
           py::arg("block_offset"), py::arg("access"))
      .def("read_cells", &read_cells, py::kw_only(), py::arg("blocks"), py::arg("stuck"), py::arg("stuck_begin"),
           py::arg("inverted"), py::arg("inverted_begin"))
      .def("read_image", &read_image, py::kw_only(), py::arg("numbers"), py::arg("number"), py::arg("bits"),
           py::arg("cells"), py::arg("offset"), py::arg("clamps"), py::arg("nonfinite"), py::arg("centers"));

  bind_codecs(m);

  m.def(
      "launch_cpu",
      [](const Job& job, int threads, const std::string& path) {
        require_path(path);
        require(threads >= 1, "threads must be at least 1");
        const py::gil_scoped_release release;
        launch_cpu(job, threads, path.c_str());
      },
      py::arg("job"), py::arg("threads"), py::arg("path"));
  m.def(
      "launch_cuda",
      [](const Job& job, int device, const py::int_& stream) {
        on_stream(stream, [&](void* queue) { return launch_cuda(job, device, queue); });
      },
      py::arg("job"), py::arg("device"), py::arg("stream"));
  m.def(
      "launch_protected_cpu",
      [](const ProtectedJob& job, int threads, const std::string& path) {
        require_path(path);
        require(threads >= 1, "threads must be at least 1");
        const py::gil_scoped_release release;
        launch_protected_cpu(job, threads, path.c_str());
      },
      py::arg("job"), py::arg("threads"), py::arg("path"));
  m.def(
      "launch_protected_cuda",
      [](const ProtectedJob& job, int device, const py::int_& stream) {
        on_stream(stream, [&](void* queue) { return launch_protected_cuda(job, device, queue); });
      },
      py::arg("job"), py::arg("device"), py::arg("stream"));
  m.def(
      "launch_decode_cpu",
      [](const DecodeJob& job, const std::string& path) {
        require_path(path);
        const py::gil_scoped_release release;
        launch_decode_cpu(job, path.c_str());
      },
      py::arg("job"), py::arg("path"));
  m.def(
      "launch_decode_cuda",
      [](const DecodeJob& job, int device, const py::int_& stream) {
        on_stream(stream, [&](void* queue) { return launch_decode_cuda(job, device, queue); });
      },
      py::arg("job"), py::arg("device"), py::arg("stream"));
  m.def(
      "philox4x32",
      [](uint64_t key, std::vector<uint32_t> counter) {
        require(counter.size() == 4, "a counter has four words");
        const Philox4 out = philox4x32(key, {{counter[0], counter[1], counter[2], counter[3]}});
        return std::vector<uint32_t>(out.word, out.word + 4);
      },
      py::arg("key"), py::arg("counter"), "One call of Philox4x32-10, for the known-answer tests.");
  m.def("cpu_paths", &path_names, "Vector paths that this processor can run, best first.");
  m.def("built_with_cuda", &built_with_cuda);
}
