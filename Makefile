# The tasks of a contributor. `make check` is what CI runs. VENV=... names another virtual environment.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin

.PHONY: help setup test slow gpu browser ray lint format docs bench check

help:      ## this list
	@grep -hE '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## +/\t/' | expand -t 10

setup:     ## a virtual environment with everything that development needs
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -c constraints.txt -e '.[dev]'

test:      ## the plain tests: no network, no GPU
	$(BIN)/pytest -n 2

slow:      ## tests of minutes; those on public data run where FORETUNE_DATA is set
	$(BIN)/pytest -m slow

gpu:       ## tests that need a CUDA device
	$(BIN)/pytest -m gpu

browser:   ## the report in a headless Chromium
	$(BIN)/pytest -m browser

ray:       ## tests on a Ray cluster of this machine; needs the extra `ray`
	$(BIN)/pytest -m ray

lint:      ## ruff, mypy, and the contract that imports only point down
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format:    ## rewrite what ruff can rewrite
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs:      ## what README and docs/ say is true
	$(BIN)/pytest tests/test_docs.py

bench:     ## speed as ratios; minutes, on a quiet machine
	$(BIN)/python benchmarks/lora_against_trainer.py

check:     ## what CI runs, in a fresh virtual environment of its own
	.ci/run
