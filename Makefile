PYTHON ?= python3
VENV ?= .venv
RECIPE ?= quickstart
RUN ?= runs/$(notdir $(RECIPE))
BIN := $(VENV)/bin

# Some machines set this; every command would then compile thousands of torch's modules again (half its time).
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo engines quick versions test tests boards stack-checks coverage docs lint types clean

help: ## list what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1,\2/p' $(MAKEFILE_LIST) | while IFS=, read -r name what; do printf '%-14s %s\n' "$$name" "$$what"; done

demo: $(VENV)/.all ## install and run the quickstart: a distilled, quantized, measured student in minutes
	$(BIN)/edgekd run $(RECIPE) --out $(RUN)

# What is trained already is not trained again. Class maps are compared pixel by pixel; TensorRT-RTX needs a GPU for that.
# TOOLCHAINS=: without Rockchip's, which is 5.6 GB; the engines of the others are built all the same.
TOOLCHAINS ?= rknn
GPUS := {compute_capabilities: [SM86, SM89, SM120]}
ENGINES := [{target: onnxruntime, precision: fp32}, {target: onnxruntime, precision: int8}, \
  {target: openvino, precision: fp32}, {target: openvino, precision: int8}, \
  {target: tensorrt_rtx, precision: fp16, options: $(GPUS)}, {target: tensorrt_rtx, precision: int8, options: $(GPUS)} \
  $(foreach name,$(TOOLCHAINS),, {target: $(name), precision: fp16}, {target: $(name), precision: int8})]

engines: $(VENV)/.dev ## build the run's student for every target that builds here: ONNX Runtime, OpenVINO, TensorRT-RTX, RKNN (RK3588)
	$(foreach name,$(TOOLCHAINS),$(BIN)/edgekd toolchain install $(name) &&) true
	$(BIN)/edgekd run $(RECIPE) --out $(RUN) --set 'engines=$(ENGINES)'
	$(BIN)/python benchmarks/engine_agreement.py $(RUN) --images 32

# A worker that dies ends the tests: pytest-xdist 3.8 starts another one with --dist loadfile and then waits for ever.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

quick: lint ## lint, and run the tests that need no framework (no torch, onnx, openvino): under a minute on two cores
	$(PYTEST) --dist worksteal -p tests.quick -m 'not slow' --durations 5

# Each environment has the core and the extra `quick`, no framework. A Python that is not on this machine is left out, and named.
VERSIONS ?= 3.10 3.13
RESOLUTIONS ?= highest lowest-direct
versions: $(VENV)/bin/uv ## run the tests of make quick with Python 3.10 and 3.13, each with the newest and the oldest allowed packages
	tests/versions.sh $(BIN)/uv '$(VERSIONS)' '$(RESOLUTIONS)'

# The types are checked beside the tests, whose last file keeps one core only.
test: lint ## install and run lint, types and all tests
	$(MAKE) -j 2 types tests

tests: $(VENV)/.tensorrt-types $(VENV)/.stack-checks $(VENV)/.boards/loopback ## run all tests
	$(PYTEST) --durations 15

# Optional parts: the tests say what they skip without them. `make test` makes the first, `.ci/run` both.
boards: $(VENV)/.boards/loopback ## build the test boards: a Python 3.8, and Debian for aarch64 (needs mmdebstrap, qemu-user-static)
	PYTHON=$(BIN)/python tests/boards/emulated_board.sh $(VENV)/.boards/aarch64 build

$(VENV)/.boards/loopback: tests/boards/make_python.sh $(VENV)/.dev
	mkdir -p $(@D)
	-tests/boards/make_python.sh $(@D)/python $(BIN)/uv
	@touch $@

# Subprocesses and forked commands are measured, too: `patch = subprocess` in pyproject.toml.
coverage: $(VENV)/.tensorrt-types $(VENV)/.stack-checks $(VENV)/.boards/loopback ## run all tests and say which lines of edgekd they reach
	COVERAGE_FILE=$(CURDIR)/build/coverage.data $(PYTEST) --cov --cov-report term:skip-covered --cov-report html:build/coverage

docs: $(VENV)/.docs ## build the documentation as a site in build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

lint: $(VENV)/.dev ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	! command -v shellcheck >/dev/null || shellcheck .ci/run tests/*.sh tests/boards/*.sh edgekd/executors/ssh/*.sh

types: $(VENV)/.dev ## check types
	$(BIN)/mypy

# uv installs in parallel; it is put into the virtualenv itself, nothing outside is touched.
$(VENV)/bin/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q uv

$(VENV)/.all: pyproject.toml | $(VENV)/bin/uv
	$(BIN)/uv pip install -q --python $(BIN)/python -e '.[all]'
	@touch $@

# What our calls of TensorRT are checked against: NVIDIA's types and bindings, 1.4 MB. Beside the packages, because nothing of it
# works without the libraries. Where there are none for this machine, the tests say that they are skipped.
$(VENV)/.tensorrt-types: Makefile | $(VENV)/.dev
	-$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --target $@ tensorrt-stubs==10.13.0.35.1 tensorrt-cu12-bindings==11.4.0.106
	@mkdir -p $@ && touch $@

# What the files for other software are checked with: their own packages. Beside the others, because their pins clash with what is
# there: Model API asks for opencv-python-headless 4, Triton's client for protobuf 6. Without them, their tests are skipped.
stack-checks: $(VENV)/.stack-checks ## get Model API and Triton's schema, with which the files of `edgekd stack` are checked
$(VENV)/.stack-checks: Makefile | $(VENV)/.dev
	-$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --target $@ openvino-model-api==0.4.7 tritonclient==2.73.0
	@mkdir -p $@ && touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/uv
	$(BIN)/uv pip install -q --python $(BIN)/python -e '.[dev]'
	@touch $@ $(VENV)/.all

$(VENV)/.docs: pyproject.toml | $(VENV)/.dev
	$(BIN)/uv pip install -q --python $(BIN)/python -e '.[docs]'
	@touch $@

clean: ## remove the virtualenv, runs and builds
	rm -rf $(VENV) runs build dist
