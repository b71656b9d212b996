# Every target sets up what it needs by itself: Python 3.11 to 3.13 and git are enough.
VENV := .venv
VENV15 := .venv-duckdb15
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
# Tests wait for processes and disks for a third of their time: three of them fill two cores.
ABREAST := -n 3 --dist worksteal
# A fresh seed each time, printed.
FRESH_SEED := $(shell date +%s)
SEED ?= $(FRESH_SEED)
export PYTHONHASHSEED ?= 0

# What touches the database runs on both of its versions.
BOTH_DUCKDB := $(wildcard tests/engines tests/law tests/plan tests/formats tests/runtime tests/verify) tests/cli/test_init.py

.PHONY: help setup setup-duckdb15 browser demo check test soak mutants lint types docs clean

help:
	@echo "make demo     ad events stream in and are counted exactly once, for half a minute"
	@echo "make check    style, types, layers and the fast tests (about 4 minutes)"
	@echo "make test     everything: check, slow tests, both DuckDB versions, the documentation (about 35 minutes)"
	@echo "make soak     the full counts: 560 kills, 20,000 random queries, 300 simulated schedules; writes docs/generated/soak.md"
	@echo "make mutants  seeded faults, each of which must fail a test"
	@echo "make docs     generate the reference pages again"

setup:
	@PYTHON="$(PYTHON)" scripts/bootstrap $(VENV) 'duckdb>=2.0,<2.1'

setup-duckdb15:
	@PYTHON="$(PYTHON)" scripts/bootstrap $(VENV15) 'duckdb>=1.5.4,<1.6'

# Tests of the live page drive a real browser.
browser: setup
	@scripts/fetch_browser $(BIN)/python >/dev/null

demo: setup
	@$(BIN)/penstock demo

lint: setup
	@$(BIN)/ruff check src tests scripts
	@$(BIN)/ruff format --check src tests scripts
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/vulture

types: setup
	@$(BIN)/mypy

check: lint types
	@$(PYTEST) -q $(ABREAST) -m "not slow and not soak" --hypothesis-profile=quick

# What touches the database once more on its older version, then everything, with a fresh seed. The whole suite comes
# last: its closing lines are the ones to read. (The fixed seeds are those of `make check`.)
test: lint types setup-duckdb15 browser
	@echo "DuckDB 1.5:"
	@$(VENV15)/bin/python -m pytest -q $(ABREAST) -m "not slow and not soak" --hypothesis-profile=quick $(BOTH_DUCKDB)
	@$(MAKE) --no-print-directory fresh FRESH_SEED=$(FRESH_SEED)

.PHONY: fresh
fresh: setup browser
	@echo "DuckDB 2.0, everything, seed $(FRESH_SEED) (again with: make fresh FRESH_SEED=$(FRESH_SEED))"
	@$(PYTEST) -q $(ABREAST) --durations=40 -m "not soak" --hypothesis-profile=fresh --hypothesis-seed=$(FRESH_SEED)

soak: setup
	@$(BIN)/python scripts/soak.py --seed $(SEED)

mutants: setup
	@$(BIN)/python scripts/mutants.py

docs: setup
	@$(BIN)/python scripts/generate_docs.py

clean:
	rm -rf $(VENV) $(VENV15) .penstock build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
