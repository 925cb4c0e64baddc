# Every target sets up what it needs in .venv and reuses it. Python 3.10 or newer is all that has to be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A run directory of its own every time; see `make train`.
CONFIG ?= scripts/configs/community/quickstart.yaml

.PHONY: train test test-slow lint bench clean

$(VENV)/.base: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "theodolite needs Python 3.10 or newer: make PYTHON=python3.11 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

$(VENV)/.dev: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,dev]'
	@touch $@

train: $(VENV)/.base  ## train the quick-start, test it, print the table and where the figure is
	$(BIN)/theodolite fit --config $(CONFIG)

test: $(VENV)/.test  ## the quick tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/.test  ## the tests marked slow
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.dev  ## format, rules and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --warnings

$(VENV)/.bench: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps 'torchattacks>=3.5.1'  # it pins an old requests
	@touch $@

bench: $(VENV)/.bench  ## ratios measured in one run
	$(BIN)/theodolite bench

clean:  ## remove the environment and the caches, never a run
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
