# `make quickstart` and `make test` need only Python 3.11 to 3.13, make and a package index.
# PYTHON=... chooses the interpreter that .venv is made with.

BIN := .venv/bin
# Newer than what decides the environment: nothing has to be installed.
INSTALLED := .venv/.installed

# Processes side by side: the tests spend their time compiling, on one core each. A file stays in
# one process, so that what its tests share is made once.
PYTEST_ARGS := --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

# No look-up of newer versions of pyright.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: help quickstart test nightly docs format
.DEFAULT_GOAL := help

help:
	@echo "make quickstart  install into .venv, train on the embedded digits, draw the results"
	@echo "make test        install into .venv, then formatter, linter, type checker and tests"
	@echo "make nightly     the same with every generated example instead of a sample"
	@echo "make docs        install into .venv, then build the documentation into docs/_build/html"
	@echo "make format      format the code and fix what the linter can fix"

quickstart: $(INSTALLED)
	@$(BIN)/rkbench quickstart

test: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/python -m pytest $(PYTEST_ARGS)

nightly: export RKBENCH_TESTS := nightly
nightly: test

# Warnings are errors. It needs no network.
docs: $(INSTALLED)
	$(BIN)/python -m sphinx -b html -W --keep-going --quiet docs docs/_build/html
	@echo "docs/_build/html/index.html"

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# A candidate must run, be of a supported version and be able to make environments.
SUPPORTED := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))

$(INSTALLED): pyproject.toml constraints.txt
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  found=; \
	  for python in $${PYTHON:-python3 python3.13 python3.12 python3.11}; do \
	    if "$$python" -c "$(SUPPORTED)" >/dev/null 2>&1; then found="$$python"; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "rkbench: error: no Python 3.11 to 3.13 with the venv module" \
	      "(tried: $${PYTHON:-python3, python3.13, python3.12, python3.11});" \
	      "install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; \
	    exit 2; \
	  fi; \
	  "$$found" -m venv --clear .venv || exit; \
	fi
	@echo "Installing into .venv; this takes a minute or two."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable ".[test]"
	@touch $@
