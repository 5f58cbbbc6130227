# make setup | test | test-long | sdk-check | demo | bench | bench-serving | lint | sanitize | arm-check | wheel-check | test-gpu | cuda-report | clean; CUDA=ON builds the CUDA kernels
# Everything happens in .venv and build/; `make setup` needs Python 3.11+, a C++17 compiler and make.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: setup setup-trt setup-triton test test-long sdk-check demo bench bench-serving test-gpu cuda-report lint format sanitize arm-check wheel-check clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= $(shell nproc)
PYTEST_ARGS ?= -n $(JOBS) --dist worksteal
DEMO_ARGS ?=
BENCH_ARGS ?=
SERVING_ARGS ?=
CUDA ?= OFF
WERROR := $(if $(CI),ON,OFF)

export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export CMAKE_BUILD_PARALLEL_LEVEL := $(JOBS)

cxx_sources := $(shell find plugins runtime scripts tests -name '*.h' -o -name '*.hpp' -o -name '*.c' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')
build_inputs := pyproject.toml CMakeLists.txt $(shell find cmake plugins scripts -type f -not -name '*.pyc') \
	$(shell find dibr_deploy export runtime -name __init__.py)

setup: $(VENV)/.installed

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make setup needs Python 3.11 or newer as PYTHON, got $$($(PYTHON) --version)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.requirements: requirements-dev.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

# Editable: Python files are used where they lie; the native libraries are built and copied into .venv.
# $(call install,CUDA): CUDA is ON or OFF.
install = $(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable . \
	-C build-dir=build/editable -C cmake.define.DIBR_TORCH=ON -C cmake.define.DIBR_ORT=ON \
	-C cmake.define.DIBR_CUDA=$(1) -C cmake.define.DIBR_TENSORRT=$(1) -C cmake.define.DIBR_WERROR=$(WERROR) \
	-C cmake.define.DIBR_PAGE=$(if $(CI),ON,AUTO)

$(VENV)/.installed: $(VENV)/.requirements $(build_inputs)
	$(call install,$(CUDA))
	touch $@

# TensorRT's own libraries, for the tests of its plugin, in an environment of their own: .venv-trt.
setup-trt: .venv-trt/TENSORRT

.venv-trt/TENSORRT: scripts/setup_tensorrt.py scripts/environments.py | $(BIN)/python
	$(BIN)/python scripts/setup_tensorrt.py .venv-trt
	touch $@

# The Triton Inference Server, for the tests of its model repositories, in an environment of its own: .venv-triton.
setup-triton: .venv-triton/TRITON

.venv-triton/TRITON: scripts/setup_triton.py scripts/environments.py | $(BIN)/python
	$(BIN)/python scripts/setup_triton.py .venv-triton
	touch $@

# Several workers with threads of their own: threads that spin while they wait would take the cores from each other.
test: setup
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest $(PYTEST_ARGS)

# The C++ SDK alone: installed into a prefix, used by other projects, compared with Python, and under sanitizers.
sdk-check: setup
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest $(PYTEST_ARGS) tests/runtime_cpp

# A million hostile inputs of each kind and 20,000 requests to the service, of which `make test` runs 5 %, and what they
# counted into docs/long_checks.md.
test-long: setup setup-trt
	OMP_WAIT_POLICY=passive $(BIN)/python scripts/long_checks.py $(PYTEST_ARGS)

# Where there is a device, with the CUDA kernels built in and TensorRT-RTX installed; elsewhere every test is listed as
# skipped.
test-gpu: setup
	if command -v nvidia-smi > /dev/null && nvidia-smi --list-gpus; then \
		$(call install,ON); \
		$(BIN)/python scripts/setup_tensorrt.py --rtx-here; \
	fi
	$(BIN)/python -m pytest -m gpu -rs --no-fold-skipped

# Registers, shared memory, spills and occupancy of every kernel on every architecture, into docs/cuda_report.md.
cuda-report: $(VENV)/.requirements
	$(BIN)/python scripts/cuda_report.py --jobs $(JOBS)

demo: setup
	$(BIN)/python examples/demo.py $(DEMO_ARGS)

# The peers in an environment of their own, then all of them side by side on this machine: docs/benchmarks.md.
# BENCH_ARGS=--quick takes two minutes and leaves docs/ alone.
bench: setup
	$(BIN)/python scripts/setup_bench.py .venv-bench
	.venv-bench/bin/python -m benchmarks $(BENCH_ARGS)

# What `dibr serve` costs on this machine; fails where an aim is not met. SERVING_ARGS=--update-docs writes it into
# docs/serving.md, SERVING_ARGS='--requests 16' is a short try.
bench-serving: setup
	$(BIN)/python -m benchmarks.serving $(SERVING_ARGS)

# mypy sees the package as it is installed, with export/ and runtime/ inside of dibr_deploy/.
lint: $(VENV)/.requirements
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(cxx_sources)
	rm -rf build/types && mkdir -p build/types
	cp -rs $(CURDIR)/dibr_deploy $(CURDIR)/scripts build/types/
	cp -rs $(CURDIR)/export $(CURDIR)/runtime build/types/dibr_deploy/
	cd build/types && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml scripts
	cd build/types && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml --package dibr_deploy

format: $(VENV)/.requirements
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(cxx_sources)

# libdibr and the C++ SDK under address and undefined-behaviour, then thread sanitizer, driven through their C ABIs.
# tests/runtime_cpp/test_sanitizers.py runs more of the same build, on bundles.
sanitize: $(VENV)/.requirements
	for sanitizers in "address;undefined" thread; do \
		folder="build/sanitize-$${sanitizers%%;*}"; \
		$(BIN)/cmake -S . -B "$$folder" -G Ninja --log-level=WARNING \
			-DCMAKE_BUILD_TYPE=Debug -DDIBR_SANITIZE="$$sanitizers" -DDIBR_TESTS=ON -DDIBR_TORCH=OFF \
			-DDIBR_ORT=ON -DDIBR_RUNTIME=ON -DDIBR_WERROR=$(WERROR); \
		$(BIN)/cmake --build "$$folder" -- --quiet; \
		$(BIN)/ctest --test-dir "$$folder" --output-on-failure --no-tests=error -j $(JOBS); \
	done

# libdibr for 64-bit ARM, run under QEMU: its native tests, and that its outputs have the bits of this machine's. Needs
# Debian's g++-aarch64-linux-gnu and qemu-user.
arm-check: $(VENV)/.requirements
	for machine in native aarch64; do \
		toolchain=$$([ $$machine = native ] || echo --toolchain cmake/aarch64-linux-gnu.cmake); \
		$(BIN)/cmake -S . -B build/$$machine $$toolchain -G Ninja --log-level=WARNING -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja \
			-DDIBR_TESTS=ON -DDIBR_TORCH=OFF -DDIBR_ORT=OFF -DDIBR_RUNTIME=OFF -DDIBR_WERROR=$(WERROR); \
		$(BIN)/cmake --build build/$$machine -- --quiet; \
	done
	$(BIN)/ctest --test-dir build/aarch64 --output-on-failure --no-tests=error -j $(JOBS)
	bash tests/native/compare_digests.sh build/native build/aarch64

# The wheel as a user gets it: built in isolation, installed into a clean environment, used from outside of this folder.
# Warnings count as in every other build, since ccache takes objects with -Werror and without it for two.
wheel-check: $(VENV)/.requirements
	SKBUILD_CMAKE_DEFINE=DIBR_WERROR=$(WERROR) bash tests/packaging/check_wheel.sh $(BIN)/python build/wheel-check

clean:
	rm -rf build dist third_party $(VENV)/.installed
