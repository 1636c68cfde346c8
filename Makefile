# make demo    hear the time, offline    make test    the test suite
# make parity  compare with the official package    make lint    ruff
PYTHON ?= python3
VENV ?= .venv
REFERENCE ?= .venv-reference
# Recordings that `make parity` clones from beside its own sounds, where there are any.
AUDIO ?= ../shared/audio
# On Linux MLX needs a back end by name: cpu, cuda12 or cuda13. A Mac has Metal.
BACKEND ?= $(if $(filter Darwin,$(shell uname -s)),,cpu)
BIN = $(VENV)/bin

.PHONY: demo test parity parity-full-size golden lint clean
demo: $(VENV)/.installed
	$(BIN)/mlx-qwen3-tts demo

test: $(VENV)/.tests-installed
	$(BIN)/python -m pytest

# Fresh checkpoints from a new seed (SEED=N repeats one), run through the official package, then the same comparisons.
parity: $(VENV)/.tests-installed $(REFERENCE)/.installed
	seed=$${SEED:-$$(date +%s)}; echo "parity: SEED=$$seed"; out=$$(mktemp -d) && \
	$(BIN)/python tests/reference/make.py $(REFERENCE)/bin/python "$$out" --seed $$seed $(addprefix --audio ,$(wildcard $(AUDIO))) && \
	GOLDEN="$$out" $(BIN)/python -m pytest tests/test_prompt.py tests/test_talker.py tests/test_generate.py \
	  tests/test_sampling.py tests/test_codec_decoder.py tests/test_codec_encoder.py tests/test_speaker_encoder.py \
	  tests/test_voice.py; \
	status=$$?; rm -rf "$$out"; exit $$status

# The speaker encoders and the codec's encoder once at the released sizes: some 4 GB of disk and memory, a few minutes.
parity-full-size: $(VENV)/.tests-installed $(REFERENCE)/.installed
	out=$$(mktemp -d) && \
	$(BIN)/python tests/reference/make.py $(REFERENCE)/bin/python "$$out" --full-size && \
	GOLDEN_FULL_SIZE="$$out" $(BIN)/python -m pytest tests/test_full_size.py --durations=0; \
	status=$$?; rm -rf "$$out"; exit $$status

# The committed golden data again, after a change of tests/checkpoints.py, demo.draw or tests/reference/golden.py.
golden: $(VENV)/.tests-installed $(REFERENCE)/.installed
	$(BIN)/python tests/reference/make.py $(REFERENCE)/bin/python tests/golden

lint: $(VENV)/.tests-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) $(REFERENCE)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "mlx-qwen3-tts needs Python 3.10 or later, and $(PYTHON) is $$($(PYTHON) -V 2>&1)." >&2; \
	  echo "Install a newer one and name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@if [ "$$(uname -s)" = Darwin ] && [ "$$($(PYTHON) -c 'import platform; print(platform.machine())')" != arm64 ]; then \
	  echo "MLX runs on Apple Silicon with a native (arm64) Python; $(PYTHON) is another." >&2; exit 1; fi
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet
$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	$(PIP) --editable "$(if $(BACKEND),.[$(BACKEND)],.)"
	@touch $@

$(VENV)/.tests-installed: $(VENV)/.installed
	$(PIP) "hypothesis>=6.100" "pocketsphinx>=5" "pytest>=8" "ruff>=0.9"
	@touch $@

$(REFERENCE)/.installed: tests/reference/setup.sh
	sh tests/reference/setup.sh $(REFERENCE)
	@touch $@
