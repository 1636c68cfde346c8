PYTHON ?= python3
VENV ?= .venv
REFERENCE ?= .venv-reference
# Recordings that `make parity` clones in addition to its own sounds, if there are any.
AUDIO ?= ../shared/audio
# On Linux MLX needs a back end by name: cpu, cuda12 or cuda13. A Mac has Metal.
BACKEND ?= $(if $(filter Darwin,$(shell uname -s)),,cpu)
BIN = $(VENV)/bin
# Each worker begins with its own part of the files, whose tests share their checkpoints, and helps out at the end.
PYTEST = $(BIN)/python -m pytest --numprocesses auto --dist worksteal

# CI leaves out those that `make parity` runs as well.
SLOW ?= slow

.DEFAULT_GOAL = demo
.PHONY: help demo test test-slow coverage parity parity-full-size golden lint clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed  ## hear the time, without a model download
	$(BIN)/mlx-qwen3-tts demo

test: $(VENV)/.tests-installed  ## run the test suite
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/.tests-installed  ## run the few tests that take long
	$(PYTEST) -m "$(SLOW)"

coverage: $(VENV)/.tests-installed  ## run the test suite and list the lines that it misses
	$(PYTEST) --cov --cov-report=term

# Fresh checkpoints from a new seed (SEED=N repeats one), run through the official package, then the same comparisons.
parity: $(VENV)/.tests-installed $(REFERENCE)/.installed  ## compare with the official package on a new seed
	seed=$${SEED:-$$(date +%s)}; echo "parity: SEED=$$seed"; out=$$(mktemp -d) && \
	$(BIN)/python -m tests.reference.make $(REFERENCE)/bin/python "$$out" --seed $$seed $(addprefix --audio ,$(wildcard $(AUDIO))) && \
	GOLDEN="$$out" $(PYTEST) -m parity; \
	status=$$?; rm -rf "$$out"; exit $$status

# The speaker encoders and the codec's encoder once at the released sizes: some 4 GB of disk and memory, a few minutes.
parity-full-size: $(VENV)/.tests-installed $(REFERENCE)/.installed  ## compare the encoders at the released sizes
	out=$$(mktemp -d) && \
	$(BIN)/python -m tests.reference.make $(REFERENCE)/bin/python "$$out" --full-size && \
	GOLDEN_FULL_SIZE="$$out" $(BIN)/python -m pytest tests/test_full_size.py --durations=0; \
	status=$$?; rm -rf "$$out"; exit $$status

# After a change of the test checkpoints, of demo/random_checkpoint.py or of tests/reference/golden.py.
golden: $(VENV)/.tests-installed $(REFERENCE)/.installed  ## generate the committed golden data again
	$(BIN)/python -m tests.reference.make $(REFERENCE)/bin/python tests/golden

lint: $(VENV)/.tests-installed  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:  ## remove the virtual environments
	rm -rf $(VENV) $(REFERENCE)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "mlx-qwen3-tts needs Python 3.10 or later, and $(PYTHON) is $$($(PYTHON) -V 2>&1)." >&2; \
	  echo "Install a newer one and name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@if [ "$$(uname -s)" = Darwin ] && [ "$$($(PYTHON) -c 'import platform; print(platform.machine())')" != arm64 ]; then \
	  echo "MLX needs a native (arm64) Python on Apple Silicon; $(PYTHON) is not one." >&2; exit 1; fi
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

COMMA = ,
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet
$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	$(PIP) --editable "$(if $(BACKEND),.[$(BACKEND)],.)"
	@touch $@

$(VENV)/.tests-installed: $(VENV)/.installed
	$(PIP) --editable ".[$(if $(BACKEND),$(BACKEND)$(COMMA))dev]"
	@touch $@

$(REFERENCE)/.installed: tests/reference/setup.sh
	sh tests/reference/setup.sh $(REFERENCE)
	@touch $@
