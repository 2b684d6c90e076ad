# make demo   install and run the quickstart: a distilled, quantized, measured student in minutes
# make engines  the run's student for every target that builds here: ONNX Runtime, OpenVINO, TensorRT-RTX, RKNN (RK3588)
# make test   install and run lint, types and tests
PYTHON ?= python3
VENV ?= .venv
RECIPE ?= quickstart
RUN ?= runs/$(notdir $(RECIPE))
BIN := $(VENV)/bin

# Some machines set this; every command would then compile thousands of torch's modules again (half its time).
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo engines test lint types clean

demo: $(VENV)/.all
	$(BIN)/edgekd run $(RECIPE) --out $(RUN)

# What is trained already is not trained again. Class maps are compared pixel by pixel; TensorRT-RTX needs a GPU for that.
GPUS := {compute_capabilities: [SM86, SM89, SM120]}
ENGINES := [{target: onnxruntime, precision: fp32}, {target: onnxruntime, precision: int8}, \
  {target: openvino, precision: fp32}, {target: openvino, precision: int8}, \
  {target: tensorrt_rtx, precision: fp16, options: $(GPUS)}, {target: tensorrt_rtx, precision: int8, options: $(GPUS)}, \
  {target: rknn, precision: fp16}, {target: rknn, precision: int8}]

engines: $(VENV)/.dev
	$(BIN)/edgekd toolchain install rknn
	$(BIN)/edgekd run $(RECIPE) --out $(RUN) --set 'engines=$(ENGINES)'
	$(BIN)/python benchmarks/engine_agreement.py $(RUN) --images 32

# A worker that dies ends the tests: pytest-xdist 3.8 starts another one with --dist loadfile and then waits for ever.
test: lint types $(VENV)/.tensorrt-types
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 --durations 15

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
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

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/uv
	$(BIN)/uv pip install -q --python $(BIN)/python -e '.[dev]'
	@touch $@ $(VENV)/.all

clean:
	rm -rf $(VENV) runs build dist
