// Python's view of the launchers: checks, the GIL released, errors as exceptions. Raw addresses only: whose
// memory it is, and that it lives long enough, is the business of faultsim/ops.py.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "launch.h"

namespace py = pybind11;
using namespace faultsim;

namespace {

template <class T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

Job make_job(uintptr_t source, uintptr_t output, uintptr_t states, uint64_t weights, uint32_t chips, int type,
             uintptr_t scales, uint64_t scale_count, uint64_t scale_run, uintptr_t table, uint32_t thresholds, int kind,
             uint64_t ones, uint64_t base, uint64_t arrays, uint32_t word, uint32_t repeat, uintptr_t seeds,
             uintptr_t array_offset, uintptr_t access) {
  require(type >= 0 && type <= static_cast<int>(Output::mask), "unknown output type");
  require(kind >= 0 && kind <= static_cast<int>(Kind::transient), "unknown fault kind");
  require(repeat == 1 || (word >= 16 && kArrayBytes % word == 0),
          "a repeated word must be 16, 32, ... or 4096 bytes, a divisor of the array's 4096");
  require(repeat >= 1 && repeat <= 4096, "repeat must be 1 to 4096");
  require(scale_run >= 1, "scale_run must be at least 1");
  require(ones <= 1ull << 33, "probability of a state above one");
  require(weights <= 1ull << 40 && base <= 1ull << 43, "weights or base address beyond 2**40 or 2**43");
  if (weights > 0 && chips > 0) {
    require(output != 0 && table != 0 && seeds != 0, "output, table or seeds is a null pointer");
    require(type == static_cast<int>(Output::mask) ? states != 0 : source != 0, "source or states is a null pointer");
    const bool floats = type != static_cast<int>(Output::int8) && type != static_cast<int>(Output::mask);
    require(!floats || (scales != 0 && scale_count >= 1), "a float output needs scales");
  }
  Job job{};
  job.source = at<const int8_t>(source);
  job.output = at<void>(output);
  job.states = at<uint8_t>(states);
  job.weights = weights;
  job.chips = chips;
  job.type = static_cast<Output>(type);
  job.scales = at<const float>(scales);
  job.scale_count = scale_count;
  job.scale_run = scale_run;
  job.table = DrawTable{at<const uint64_t>(table), thresholds};
  job.rule = StateRule{static_cast<Kind>(kind), ones};
  job.placement = Placement{base, arrays, word, repeat};
  job.seeds = at<const int64_t>(seeds);
  job.array_offset = at<const int64_t>(array_offset);
  job.access = at<const int64_t>(access);
  return job;
}

std::vector<std::string> path_names() {
  int count;
  const char* const* names = cpu_paths(&count);
  return {names, names + count};
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "The fault kernel. Use faultsim.ops; this module takes raw addresses.";
  py::class_<Job>(m, "Job", py::module_local())
      .def(py::init(&make_job), py::kw_only(), py::arg("source"), py::arg("output"), py::arg("states"),
           py::arg("weights"), py::arg("chips"), py::arg("type"), py::arg("scales"), py::arg("scale_count"),
           py::arg("scale_run"), py::arg("table"), py::arg("thresholds"), py::arg("kind"), py::arg("ones"),
           py::arg("base"), py::arg("arrays"), py::arg("word"), py::arg("repeat"), py::arg("seeds"),
           py::arg("array_offset"), py::arg("access"));
  m.def(
      "launch_cpu",
      [](const Job& job, int threads, const std::string& path) {
        bool known = false;
        for (const std::string& name : path_names()) known = known || name == path;
        require(known, "this processor has no such vector path; cpu_paths() lists them");
        require(threads >= 1, "threads must be at least 1");
        const py::gil_scoped_release release;
        launch_cpu(job, threads, path.c_str());
      },
      py::arg("job"), py::arg("threads"), py::arg("path"));
  m.def(
      "launch_cuda",
      [](const Job& job, int device, uintptr_t stream) {
        const char* error;
        {
          const py::gil_scoped_release release;
          error = launch_cuda(job, device, at<void>(stream));
        }
        if (error) throw std::runtime_error(error);
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
  m.def("cpu_paths", &path_names, "Vector paths this processor can run, best first.");
  m.def("built_with_cuda", &built_with_cuda);
  m.attr("ARRAY_BYTES") = kArrayBytes;
}
