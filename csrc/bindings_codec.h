// Python's view of codecs, a part of bindings.cpp.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <iterator>
#include <tuple>
#include <vector>

#include "bindings_checks.h"
#include "codec.h"

namespace {

using namespace faultsim;

bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 8 == 0; }

Codec make_codec(const py::int_& decode, const std::vector<uint64_t>& rows, const py::int_& check_bytes,
                 const py::int_& flip, const py::int_& keep, bool rereads, const py::int_& borrowed,
                 const py::int_& low, const py::int_& bits) {
  Codec codec{};
  codec.decode = static_cast<Decode>(whole("decode", decode, 0, std::size(kDecodeNames) - 1));
  require(rows.size() % 8 == 0 && rows.size() <= 8 * kMostCheckBytes, "a syndrome has 8, 16, 24 or 32 bits");
  codec.syndromes = static_cast<uint32_t>(rows.size() / 8);
  for (size_t i = 0; i < rows.size(); ++i) codec.rows[i] = rows[i];
  codec.check_bytes = static_cast<uint32_t>(whole("check_bytes", check_bytes, 0, kMostCheckBytes));
  codec.flip = pointer<const uint64_t>("flip", flip);
  codec.keep = pointer<const uint64_t>("keep", keep);
  codec.rereads = rereads;
  codec.borrowed = whole("borrowed", borrowed, 0, UINT64_MAX);
  codec.low = whole("low", low, 0, UINT64_MAX);
  codec.bits = static_cast<uint32_t>(whole("bits", bits, 2, 32));
  require((codec.decode == Decode::code) == (codec.syndromes > 0), "a code needs rows, and only a code has them");
  require(!codec.check_bytes || codec.check_bytes == codec.syndromes, "a word has as many check bytes, or none");
  return codec;
}

ProtectedJob protect(const Job& read, const Codec& codec, const py::int_& checks, const py::int_& again,
                     const py::int_& check_base, const py::int_& check_table, const py::int_& check_thresholds,
                     const std::vector<std::tuple<uint64_t, uint64_t, uint32_t>>& parts) {
  ProtectedJob job{};
  job.read = read;
  job.codec = codec;
  job.checks = pointer<const uint8_t>("checks", checks);
  job.again = pointer<uint8_t>("again", again);
  job.check_base = whole("check_base", check_base, 0, kMostBase);
  job.check_table.entries = pointer<const uint64_t>("check_table", check_table);
  job.check_table.size = static_cast<uint32_t>(whole("check_thresholds", check_thresholds, 0, UINT32_MAX));
  require(!parts.empty() && parts.size() <= kMostParts, "a word has 1 to 32 parts");
  job.part_count = static_cast<uint32_t>(parts.size());
  for (size_t i = 0; i < parts.size(); ++i) {
    const auto& [cells, table, thresholds] = parts[i];
    job.parts[i] = {cells, {reinterpret_cast<const uint64_t*>(static_cast<uintptr_t>(table)), thresholds}};
    require(table != 0, "a part has no table");
  }
  require(read.type != Output::mask, "a protected memory has no mask");
  require(read.map.base % 8 == 0, "a protected tensor begins on a word, at a multiple of 8 bytes");
  require(read.map.blocks <= UINT32_MAX && job.check_base % kBlockBytes == 0, "check bits begin a block");
  require(aligned(read.source) && (read.type != Output::int8 || aligned(read.output)),
          "words lie at multiples of 8 bytes");
  require(codec.check_bytes == 0 || read.weights == 0 || (job.checks && job.check_table.entries),
          "checks or check_table is a null pointer");
  job.read.weights = (read.weights + 7) / 8 * 8;  // the last word is filled up
  return job;
}

DecodeJob make_decode_job(const Codec& codec, const py::int_& read, const py::int_& checks, const py::int_& written,
                          const py::int_& output, const py::int_& again, const py::int_& words, const py::int_& chips) {
  DecodeJob job{};
  job.codec = codec;
  job.read = pointer<const uint64_t>("read", read);
  job.checks = pointer<const uint8_t>("checks", checks);
  job.written = pointer<const uint64_t>("written", written);
  job.output = pointer<uint64_t>("output", output);
  job.again = pointer<uint8_t>("again", again);
  job.words = whole("words", words, 0, kMostWeights / 8);
  job.chips = static_cast<uint32_t>(whole("chips", chips, 0, UINT32_MAX));
  if (job.words > 0 && job.chips > 0) {
    require(job.read && job.written && job.output && (codec.check_bytes == 0 || job.checks),
            "read, written, output or checks is a null pointer");
    require(aligned(job.read) && aligned(job.written) && aligned(job.output), "words lie at multiples of 8 bytes");
  }
  return job;
}

void bind_codecs(py::module_& m) {
  py::class_<Codec>(m, "Codec", py::module_local())
      .def(py::init(&make_codec), py::kw_only(), py::arg("decode"), py::arg("rows"), py::arg("check_bytes"),
           py::arg("flip"), py::arg("keep"), py::arg("rereads"), py::arg("borrowed"), py::arg("low"), py::arg("bits"));
  py::class_<ProtectedJob>(m, "ProtectedJob", py::module_local())
      .def(py::init(&protect), py::kw_only(), py::arg("read"), py::arg("codec"), py::arg("checks"), py::arg("again"),
           py::arg("check_base"), py::arg("check_table"), py::arg("check_thresholds"), py::arg("parts"));
  py::class_<DecodeJob>(m, "DecodeJob", py::module_local())
      .def(py::init(&make_decode_job), py::kw_only(), py::arg("codec"), py::arg("read"), py::arg("checks"),
           py::arg("written"), py::arg("output"), py::arg("again"), py::arg("words"), py::arg("chips"));
}

}  // namespace
