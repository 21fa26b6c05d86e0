# `make demo` and `make test` create the environment they need in .venv; only Python 3.11+ and make are asked for.
# TORCH=cpu takes PyTorch's CPU-only builds, a tenth of the size, from PyTorch's own index.
PYTHON ?= python3
TORCH ?= default
VENV := .venv
BIN := $(VENV)/bin
export NO_MKDOCS_2_WARNING = 1
# As pip does; otherwise the first start of every program compiles torch's bytecode.
export UV_COMPILE_BYTECODE = 1
UV = $(shell command -v uv 2>/dev/null || echo $(VENV).uv/bin/uv)
STAMP := $(VENV)/.installed-$(TORCH)

.PHONY: demo test test-all lint docs lock bundle english clean help

help:
	@echo 'make demo      train a small recognizer on speech it makes itself, report its WER, transcribe a file'
	@echo 'make test      run the tests'
	@echo 'make test-all  run the slow tests too'
	@echo 'make lint      check style, types, the direction of imports and the docs'
	@echo 'make docs      build the documentation into build/site'
	@echo 'make lock      resolve the dependencies into requirements.lock'
	@echo 'make bundle    train the AN4 model that comes with asr: AN4=/path/to/an4'
	@echo 'make english   make runs/english_consistency/bundle and data/english/lm.bin (recipes/english) those that come with asr'
	@echo 'make clean     remove the environment and what demo wrote'

demo: $(STAMP)
	$(BIN)/python recipes/digits/synthesize.py --output-dir data/digits --hours 1.8
	$(BIN)/asr train --config recipes/digits/config.yaml --overwrite
	$(BIN)/asr evaluate --model runs/digits/bundle data/digits/cuts_test.jsonl.gz --worst 3
	$(BIN)/asr transcribe data/digits/wav/test/test-00-00000.wav --model runs/digits/bundle

# Two processes of one thread: most of the time goes into starting programs, which one core cannot share.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --durations 10

test-all: $(STAMP)
	$(BIN)/python -m pytest -m 'not gpu'

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/mkdocs build --quiet --strict

docs: $(STAMP)
	$(BIN)/mkdocs build --strict

bundle: $(STAMP)
	$(BIN)/asr prepare an4 $(AN4) -o data/an4
	$(BIN)/asr train --config recipes/an4/config.yaml --config recipes/an4/small.yaml --overwrite
	cp runs/an4_small/bundle/* asr/bundles/an4/

english: $(STAMP)
	$(BIN)/python recipes/english/ship.py runs/english_consistency/bundle --lm data/english/lm.bin --lexicon data/english/lm_lexicon.txt

lock: $(VENV).uv/ready
	$(UV) pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url -o requirements.lock

# uv from the PATH or, where there is none, from PyPI into an environment of its own.
$(VENV).uv/ready:
	@command -v uv >/dev/null 2>&1 || { $(PYTHON) -m venv $(VENV).uv && $(VENV).uv/bin/pip install -q uv; }
	@mkdir -p $(VENV).uv && touch $@

# With TORCH=cpu the lock's versions hold but not its hashes, which are those of the default builds.
$(STAMP): pyproject.toml requirements.lock | $(VENV).uv/ready
	test -x $(BIN)/python || $(UV) venv -q --seed --python $(PYTHON) $(VENV)
ifeq ($(TORCH),cpu)
	sed -e '/--hash/d' -e 's/ \\$$//' -e '/^\(nvidia\|cuda\|triton\)/d' requirements.lock > $(VENV)/versions.txt
	$(UV) pip install -q --python $(BIN)/python --torch-backend cpu -r $(VENV)/versions.txt
else
	$(UV) pip install -q --python $(BIN)/python --require-hashes -r requirements.lock
endif
	$(UV) pip install -q --python $(BIN)/python --no-deps -e .
	@touch $@

clean:
	rm -rf $(VENV) $(VENV).uv data/digits runs/digits
