# make demo      from nothing to the first result: installs into .venv, sweeps the shipped model, says where to look
# make test      lint and all tests
# make test-fast  what is quick of it, without lint: for the inner loop
# make test-portable   the suite of torch with the vector paths of old processors: shows what differs between machines
# make test-sanitize   the C++ core under the address and undefined-behavior sanitizers, without a warning
# make fuzz      damaged and hostile files for every reader, 10,000 of them (FUZZ="--seconds 600 --seed 1": as long as
#                one wants); the kills of tests/fuzz/kills.py are a command of their own
# make bench     the kernel's speed on this machine, kept under benchmarks/results
# make tables    writes what lies in results and benchmarks/results into the tables of the documents
# make docs      the site, into build/site: needs no network once `make install-dev` is done
# make gpu-check on a machine with an NVIDIA GPU, nvcc and torch: builds in place, offline; GPU tests, sanitizers and
#                benchmarks, kept under benchmarks/results (GPU_CHECK="--parts kernel": one part again)
PYTHON ?= python3
VENV ?= .venv
# Another build of torch (for a GPU, say) can be installed into $(VENV) first: it is then left alone.
TORCH ?= torch==2.13.0
PY := $(VENV)/bin/python
PIP = $(PY) -m pip install --quiet
JOBS ?= $(shell n=$$(nproc); echo $$((n < 8 ? n : 8)))
CXX_SOURCES := $(wildcard csrc/*.h csrc/*.cpp csrc/*.cu csrc/cuda/*.cuh)
NATIVE := CMakeLists.txt setup.py pyproject.toml $(CXX_SOURCES)

.PHONY: install install-dev demo test all-tests test-fast lint format test-portable test-sanitize fuzz bench gpu-check tables docs clean

# Sources are compiled once, not by each of the programs that tests start, whatever the environment says about it.
export PYTHONDONTWRITEBYTECODE :=

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(VENV)/.torch:
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -c "import torch" 2>/dev/null || $(PIP) "$(TORCH)"
	touch $@
$(VENV)/.installed: $(VENV)/.torch $(NATIVE)
	$(PIP) --editable ".[all]"
	touch $@
# Compiled when they are first imported: pip would compile all 18,000 sources, one after the other.
$(VENV)/.installed-dev: PIP += --no-compile
$(VENV)/.installed-dev: $(VENV)/.torch $(NATIVE)
	$(PIP) --editable ".[dev]"
	touch $@ $(VENV)/.installed

demo: install
	$(VENV)/bin/faultsim sweep-voltage --model DigitsVGG --out demo
	@echo "The picture is demo/sweep.png, the numbers are demo/summary.csv and demo/results.csv."
	@echo "Next: $(VENV)/bin/faultsim sweep-voltage --help"

# One process a core, each with one thread; the tests of a file stay together, for they share what takes long to make.
# tests/conftest.py puts slow files first, so the order is kept. Lint runs beside them: most of it is mypy, on one core.
BALANCED := --dist loadfile --no-loadscope-reorder
test: install-dev
	$(MAKE) --no-print-directory --jobs=2 lint all-tests

all-tests: install-dev
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n $(JOBS) $(BALANCED)

# For the inner loop: neither lint nor what trains, compiles or starts programs.
test-fast: install-dev
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n $(JOBS) $(BALANCED) -m "not slow"

test-portable: install-dev
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=AVX2 TORCHINDUCTOR_CACHE_DIR=$$(mktemp -d) OMP_NUM_THREADS=1 \
	  $(PY) -m pytest -q -n $(JOBS) --dist loadfile tests/torch tests/property tests/core

lint: install-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/clang-format --dry-run --Werror $(CXX_SOURCES)

format: install-dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	$(VENV)/bin/clang-format -i $(CXX_SOURCES)

test-sanitize: install-dev
	$(VENV)/bin/cmake -S . -B build/sanitize -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(VENV))/bin/ninja \
	  -DFAULTSIM_SANITIZE=ON -DFAULTSIM_WERROR=ON -DFAULTSIM_CUDA=OFF -DPYBIND11_FINDPYTHON=ON \
	  -DCMAKE_LIBRARY_OUTPUT_DIRECTORY=$(CURDIR)/build/sanitize -DPython_EXECUTABLE=$(abspath $(PY)) \
	  -Dpybind11_DIR=$$($(PY) -m pybind11 --cmakedir)
	$(VENV)/bin/cmake --build build/sanitize
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so)" \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc \
	  $(PY) tests/sanitize/run.py build/sanitize

fuzz: install-dev
	OMP_NUM_THREADS=1 $(PY) -m tests.fuzz.run $(FUZZ)

bench: install
	mkdir -p benchmarks/results
	$(VENV)/bin/faultsim bench kernel --device cpu --json > benchmarks/results/.kernel-cpu.json
	mv benchmarks/results/.kernel-cpu.json benchmarks/results/kernel-cpu.json
	$(VENV)/bin/faultsim bench formats --device cpu --cpu-path avx2 --json > benchmarks/results/.formats-cpu.json
	mv benchmarks/results/.formats-cpu.json benchmarks/results/formats-cpu.json

gpu-check:
	$(PYTHON) tools/gpu_check.py $(GPU_CHECK)

# The site, into build/site; opens from the file system.
docs: install-dev
	$(PY) -m mkdocs build --strict --quiet

tables: install
	$(PY) -m tools.tables

clean:
	rm -rf build dist *.egg-info faultsim/_native*.so
