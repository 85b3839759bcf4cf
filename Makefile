# The whole of what a developer types. `make demo` and `make test` work on a bare checkout.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup web check test tests docs demo bench clean

setup: $(STAMP) web

# Built once for each state of its sources. Without Node one line says so, and everything else works.
web: $(STAMP)
	@$(BIN)/python web/build.py --if-possible

# torch first and alone, in the version of constraints.txt: a CPU build that is in .venv already is kept. pip compiles file by file on one
# core, a quarter of the whole time; compileall uses all. What is no Python (templates) it leaves alone, and complains, as pip does.
PIP := --quiet --disable-pip-version-check --no-compile
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mohole needs Python 3.11 or newer; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP) --constraint constraints.txt torch
	$(BIN)/python -m pip install $(PIP) --constraint constraints.txt --editable '.[dev]'
	@$(BIN)/python -W ignore -m compileall -qq -j 0 $(VENV)/lib >/dev/null 2>&1 || true
	@touch $@

check: setup
	@$(BIN)/python web/build.py --if-possible --check
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

# Types are checked while tests run: a minute of one core that waits for nothing.
test: setup
	@$(MAKE) --no-print-directory -j2 check tests

# Two workers with one thread each: two threads on a busy core are slower than one, and a third worker gains nothing. loadfile: what a
# file's tests share is made once.
tests: setup
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n $${PYTEST_WORKERS:-2} --dist loadfile --no-loadscope-reorder

docs: setup
	$(BIN)/python -m pytest -q tests/test_docs.py

demo: setup
	@rm -rf runs/demo
	$(BIN)/mohole run recipes/demo.toml

bench: setup
	$(BIN)/python benchmarks/main_job/run.py

clean:
	rm -rf $(VENV) runs dist build src/mohole/serve/static web/node_modules
