// What arguments from Python must be: one line of an exception for each that is not.
#pragma once

#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

namespace {

namespace py = pybind11;

void require(bool holds, const std::string& what) {
  if (!holds) throw std::invalid_argument(what);
}

// A Python integer as unsigned; one line for a number out of range, where pybind11 would print all signatures.
uint64_t whole(const char* name, const py::int_& number, uint64_t least, uint64_t most) {
  const unsigned long long value = PyLong_AsUnsignedLongLong(number.ptr());
  const bool fits = !PyErr_Occurred();
  PyErr_Clear();
  if (fits && least <= value && value <= most) return value;
  throw std::invalid_argument(std::string(name) + " is " + std::string(py::str(number)) + "; it must be from " +
                              std::to_string(least) + " to " + std::to_string(most));
}

template <class T>
T* pointer(const char* name, const py::int_& address) {
  return reinterpret_cast<T*>(static_cast<uintptr_t>(whole(name, address, 0, UINTPTR_MAX)));
}

}  // namespace
