# make demo   install and run the quickstart: a distilled, quantized, measured student in minutes
# make test   install and run lint, types and tests
PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/quickstart
BIN := $(VENV)/bin

.PHONY: demo test lint types check docs clean

demo: $(VENV)/.all
	$(BIN)/edgekd run quickstart --out $(RUN)

test: lint types
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 15

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

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/uv
	$(BIN)/uv pip install -q --python $(BIN)/python -e '.[dev]'
	@touch $@ $(VENV)/.all

clean:
	rm -rf $(VENV) runs build dist
