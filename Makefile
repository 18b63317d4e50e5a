# Every target works on a fresh machine with Python 3.11 or newer and nothing else.
# The environment is made once (.venv); a stamp file in it says what is installed, and pyproject.toml renews it.
# Another Python: make quickstart PYTHON=python3.12

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

MAKE_VENV = $(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("sparc-bench needs Python 3.11 or newer: name one with make PYTHON=python3.11")' && $(PYTHON) -m venv $(VENV)

.PHONY: quickstart photos test check results wheel
.DEFAULT_GOAL := quickstart

quickstart: $(VENV)/.installed-core  ## train SPARC and CLIP on the embedded data, evaluate both, print the leaderboard
	$(BIN)/sparc-bench quickstart

photos: $(VENV)/.installed-photos  ## the same on photos: make photos DATA=folder, which holds flickr8k/
	@test -d "$(DATA)" || { echo "make photos needs the folder that holds flickr8k/: make photos DATA=folder" >&2; exit 2; }
	$(BIN)/sparc-bench quickstart --data-root "$(DATA)" --results runs/photos

test: $(VENV)/.installed-dev  ## all tests, the slow ones too; SPARC_BENCH_TEST_DATA names a folder of real data
	$(BIN)/python -m pytest

check: $(VENV)/.installed-dev  ## style, types, floors, cards, records and generated tables
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/sparc-bench check

results: $(VENV)/.installed-core  ## write the leaderboard and the tables made from it again
	$(BIN)/sparc-bench leaderboard results/

wheel: $(VENV)/.made  ## dist/*.whl, with the cards in it
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

$(VENV)/.made:
	$(MAKE_VENV)
	touch $@

$(VENV)/.installed-core: pyproject.toml | $(VENV)/.made
	$(BIN)/python -m pip install -e ".[faithfulness]"
	touch $@

$(VENV)/.installed-photos: pyproject.toml | $(VENV)/.made
	$(BIN)/python -m pip install -e ".[faithfulness,photos]"
	touch $@ $(VENV)/.installed-core

# The dev extra holds all that the other targets install.
$(VENV)/.installed-dev: pyproject.toml | $(VENV)/.made
	$(BIN)/python -m pip install -e ".[dev]"
	touch $@ $(VENV)/.installed-core $(VENV)/.installed-photos
