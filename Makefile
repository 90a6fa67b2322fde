# The commands of the project. `make` alone lists them.
#
#   PYTHON=python3.12     which Python makes .venv (>= 3.11)
#   TORCH_INDEX=URL       an extra package index with another build of torch (CPU only, or another CUDA);
#                         the selector on pytorch.org names them. Default: the build pip finds by itself.
#   JOBS=2                test processes

PYTHON ?= python3
TORCH_INDEX ?=
TORCH ?= 2.13.0
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check
INDEX := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format bench lock clean

help:
	@echo "make setup   .venv with everything pinned     make demo    train, evaluate, view, deploy (5 minutes)"
	@echo "make test    lint and the whole test suite    make bench   every figure of docs/benchmarks.md"
	@echo "make lint    ruff, pyright, import-linter     make format  rewrite the code in our style"
	@echo "make lock    resolve all versions anew        make clean   remove .venv and caches (runs stay)"

setup: $(READY)

# Remade when the lock or the project file changes. Versions are exact; --ignore-requires-python lets in rtamt, which
# refuses Python 3.13 for one import that tests/conftest.py supplies.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1), Python 3.11 or newer is needed; try: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV) || { \
	  echo "error: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }
	$(PIP) install --quiet --ignore-requires-python $(INDEX) -r requirements.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup
	@$(BIN)/python tools/system.py render
	@$(BIN)/python tools/demo.py

test: lint
	@$(BIN)/python tools/system.py render browser pointcloud
	$(BIN)/pytest -n $(JOBS) --dist loadgroup

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	@$(BIN)/python tools/system.py render
	$(BIN)/robo-bench all

# Resolves pyproject.toml from nothing. torch is named, for an open range may pull gigabytes nobody asked for.
lock:
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip --disable-pip-version-check install --quiet $(INDEX) torch==$(TORCH) --editable '.[dev]'
	build/lock/bin/python tools/lock.py > build/requirements.lock
	mv build/requirements.lock requirements.lock
	rm -rf build/lock

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
