# The same commands for people and for CI. `make demo` and `make test` do all the set-up they need.
VENV ?= .venv
BIN := $(VENV)/bin
MARKS ?= not gemma
FUZZ_S ?= 20
# More than cores: many tests wait for what they started.
WORKERS ?= 4
PYTEST := $(BIN)/python -m pytest
# Without bytecode each of hundreds of processes, and each collection, compiles everything anew: half of all the time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo install uninstall agent clean-machine check test test-all ui-test bench eval docs worker-demo worker-test clean

help:
	@echo 'make demo      install, apply inventory/lab.yml twice to the embedded lab, then reconcile two remote agents'
	@echo 'make install   the command fazai for this user: PREFIX, ~/.local, for root /usr/local'
	@echo 'make uninstall takes that away again; state, secrets and inventories stay'
	@echo 'make agent     the remote agent as one file, build/fazai-agent.pyz'
	@echo 'make test      everything that the tests need, then the fast tests'
	@echo 'make test-all  the slow ones too'
	@echo 'make check     ruff, mypy, shellcheck, generated pages up to date'
	@echo 'make ui-test   the operators page in a headless Chromium, the rules in promtool'
	@echo 'make bench     measurements, side by side with peers where they are installed'
	@echo 'make eval      the action loop on 60 tasks of the lab: an oracle, random actions, one that obeys; EVAL= more'
	@echo 'make docs      write the generated pages'
	@echo 'make worker-demo  compile llama.cpp (minutes), then let Gemma 3 270M answer over the socket'
	@echo 'make worker-test  the native loop under sanitizers, and the worker on the real model'

# One virtual environment; brought up to date when what it is made from changes. Each file that pip fetches is held to
# the hash in constraints*.txt, which ./tools/constraints writes.
PINNED := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r

$(VENV)/.installed: pyproject.toml constraints.txt
	@./tools/venv $(VENV)
	@./tools/pinned $(VENV) -e
	@touch $@

$(VENV)/.dev: $(VENV)/.installed constraints-dev.txt
	@$(PINNED) constraints-dev.txt
	@touch $@

install:
	@./tools/install

uninstall:
	@./tools/uninstall

agent: $(VENV)/.installed
	@$(BIN)/python tools/build_agent.py

# README to the letter, on a Debian 12 that has nothing but what README names.
clean-machine:
	@./tools/clean-machine worker-demo generate chat

demo: $(VENV)/.installed
	@BIN=$(BIN) ./tools/demo
	@BIN=$(BIN) ./tools/demo-agents

# The worker's native part: only this compiles llama.cpp, once, for this machine.
$(VENV)/.gemma: $(VENV)/.installed constraints-gemma.txt constraints-gemma-build.txt native/pyproject.toml native/setup.py native/llama.cmake $(wildcard native/*.c native/*.h)
	@$(BIN)/python tools/worker_install.py --demo
	@touch $@

worker-demo: $(VENV)/.gemma
	@BIN=$(BIN) ./tools/worker-demo

$(VENV)/.fuzz: $(VENV)/.gemma $(VENV)/.dev constraints-fuzz.txt
	@$(PINNED) constraints-fuzz.txt
	@touch $@

worker-test: $(VENV)/.fuzz
	PYTHON=$(abspath $(BIN)/python) ./native/test
	$(BIN)/python -m tests.fuzz.ndjson_atheris -max_total_time=$(FUZZ_S)
	$(PYTEST) -m gemma tests/worker

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/shellcheck fazai/agent/*.sh fazai/agent/*.openrc fazai/agent/*.rc
	$(BIN)/python tools/reference.py --check

test: $(VENV)/.dev
	@./tools/test-hosts
	$(PYTEST) -n $(WORKERS) -m 'not slow and not gemma'

test-all: $(VENV)/.dev
	@./tools/test-hosts
	$(PYTEST) -n $(WORKERS) -m '$(MARKS)'

# Chromium and promtool come from Debian's packages; FAZAI_UI_PICTURES=1 writes docs/img anew.
ui-test: $(VENV)/.dev
	@./tools/ui-tools
	$(PYTEST) -n $(WORKERS) tests/ui tests/deploy

bench: $(VENV)/.dev
	$(BIN)/python -m bench

# EVAL='--demo-model --contender none': a model in place of the scripted ones; see docs/evaluation.md.
eval: $(VENV)/.dev
	$(BIN)/python -m bench.evaluation $(EVAL)

docs: $(VENV)/.dev
	$(BIN)/python tools/reference.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
