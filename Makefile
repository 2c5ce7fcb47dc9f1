# Everything runs in a virtual environment of its own, .venv, made on first use from pyproject.toml and constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: demo test lint types imports unit test-slow test-gpu docs bench clean help

help:
	@echo "make demo       distil a teacher of handwritten digits into a small student, with a report"
	@echo "make test       ruff, mypy, import contracts, tests and docs examples"
	@echo "make test-slow  the tests that take minutes"
	@echo "make test-gpu   the tests that need a CUDA device"
	@echo "make docs       write the generated table into docs/divergences.md"
	@echo "make bench      speed and memory beside PyTorch and the peers (writes benchmarks/README.md)"
	@echo "make clean      remove the virtual environments and caches"

$(READY): pyproject.toml constraints.txt
	@echo "Setting up $(VENV), once: PyTorch and the rest take a few minutes."
	$(PYTHON) -m venv $(VENV)
	@# torch first and alone, so that the platform's own build is taken and nothing replaces it afterwards.
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

demo: $(READY)
	$(BIN)/tutelage demo

test: lint types imports unit

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports

# Tests take one thread each (tests/conftest.py), so two run side by side.
unit: $(READY)
	$(BIN)/pytest -m 'not slow and not gpu' --numprocesses 2 --dist worksteal

test-slow: $(READY)
	$(BIN)/pytest -m slow --timeout 1800

test-gpu: $(READY)
	$(BIN)/pytest -m gpu

docs: $(READY)
	$(BIN)/python docs/update.py

bench: .venv-bench/ready
	.venv-bench/bin/python -m benchmarks.run

.venv-bench/ready: pyproject.toml constraints.txt benchmarks/requirements.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet --constraint constraints.txt torch
	.venv-bench/bin/pip install --quiet --constraint constraints.txt --requirement benchmarks/requirements.txt --editable .
	@touch .venv-bench/ready

clean:
	rm -rf $(VENV) .venv-bench .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
