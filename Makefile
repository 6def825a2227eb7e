# Three commands do all the set-up: `make demo`, `make demo-full` and `make test`. Needs Python 3.11 or newer and make.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
QUANTIZATION := $(VENV)/quantization
TRL := $(VENV)/trl
HARNESS := $(VENV)/harness
# What importing its scorers takes; the rest of its tree is for running models.
HARNESS_PACKAGES := lm_eval sacrebleu portalocker tabulate colorama lxml
FAULTS := tests/end_to_end/test_fault_matrix.py tests/integration/service/test_replicas.py \
	tests/integration/service/test_fuzz.py
PACKAGES := service workers hyplora jobs deploy
NOT_BY_DEFAULT := slow or gpu or benchmark
PARALLEL := --numprocesses 2 --no-loadscope-reorder

.PHONY: help install demo demo-full up test test-slow test-faults test-quantized test-harness test-gpu test-all bench-adapter bench-training bench-search bench-eval bench-delta bench-service lint types imports bandit audit openapi format wheel constraints clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

install: $(INSTALLED)  ## create .venv with the pinned versions of constraints.txt

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than 3.11; run make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[service,workers,demo,dev]'
	@touch $@

demo: $(INSTALLED)  ## fine-tune a real model through the whole stack, in minutes
	@$(BIN)/python -m deploy.demo

demo-full: $(INSTALLED)  ## also evaluate, compare methods and analyze; a quarter of an hour
	@$(BIN)/python -m deploy.demo --full --steps 100 --home .hyplora/demo-full

up: $(INSTALLED)  ## run the embedded stack until Ctrl-C
	@$(BIN)/hyplora up

test: $(INSTALLED)  ## all tests but the slow ones
	$(BIN)/python -m pytest $(PARALLEL) -m "not ($(NOT_BY_DEFAULT))"

test-slow: $(INSTALLED)  ## the tests that `make test` leaves out, one by one: they train on all cores
	$(BIN)/python -m pytest -m "slow and not (gpu or benchmark)" $(FAULTS:%=--ignore=%)

test-faults: $(INSTALLED)  ## parts and replicas killed at every stage of a job, and requests by the thousand
	$(BIN)/python -m pytest $(FAULTS)

test-gpu: $(INSTALLED)  ## the tests that need CUDA
	$(BIN)/python -m pytest -m gpu

test-quantized: $(QUANTIZATION)  ## the tests of 8- and 4-bit base models
	PYTHONPATH=$(QUANTIZATION) $(BIN)/python -m pytest tests/unit/hyplora/tuner/test_quantized.py \
		tests/unit/workers/test_quantized_training.py

# Beside the environment, not in it: bitsandbytes slows every import of peft by a second.
$(QUANTIZATION): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt --target $@ bitsandbytes

test-harness: $(HARNESS)  ## the scorers beside those of lm-evaluation-harness
	PYTHONPATH=$(HARNESS) $(BIN)/python -m pytest tests/unit/workers/tasks/test_harness.py

# Beside the environment, not in it: only that comparison needs it.
$(HARNESS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt --target $@ \
		$(HARNESS_PACKAGES)

test-all: test test-slow test-faults test-quantized test-harness  ## every test that needs no GPU

bench-adapter: $(INSTALLED)  ## measure HypLoRA beside PEFT's LoRA and DoRA; ten minutes
	$(BIN)/python tests/benchmarks/adapter.py

bench-training: $(TRL)  ## measure the training loop beside TRL and a padded Trainer; an hour
	PYTHONPATH=$(abspath $(TRL)) $(BIN)/python tests/benchmarks/training.py

bench-search: $(INSTALLED)  ## measure warm trials of a search beside nested ones; ten minutes
	$(BIN)/python tests/benchmarks/search.py

bench-eval: $(INSTALLED)  ## measure evaluation in batches beside one row at a time; ten minutes
	$(BIN)/python tests/benchmarks/evaluation.py

bench-delta: $(INSTALLED)  ## measure exact delta-hyperbolicity beside an n^3 array; two minutes
	$(BIN)/python tests/benchmarks/delta.py

bench-service: $(INSTALLED)  ## measure the API while a job trains, and count what it loses; eight minutes
	$(BIN)/python tests/benchmarks/control_plane.py

# Beside the environment, not in it: nothing else needs TRL.
$(TRL): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt --target $@ trl

lint: $(INSTALLED)  ## style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)  ## mypy, strict
	$(BIN)/mypy

imports: $(INSTALLED)  ## the layers' import contracts
	$(BIN)/lint-imports

bandit: $(INSTALLED)  ## code that is a known risk
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive $(PACKAGES)

audit: $(INSTALLED)  ## known vulnerabilities of the pinned dependencies
	$(BIN)/python .ci/audit.py constraints.txt

openapi: $(INSTALLED)  ## write docs/openapi.json anew
	$(BIN)/python -m service.openapi

format: $(INSTALLED)  ## rewrite the formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(INSTALLED)  ## build the wheel into dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

constraints:  ## pin anew what a fresh environment resolves to
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet 'torch==$(shell sed -n 's/^torch==//p' constraints.txt)'
	$(BIN)/python -m pip install --quiet --editable '.[service,workers,demo,dev]'
	$(BIN)/python -m pip install --quiet --no-deps bitsandbytes trl $(HARNESS_PACKAGES)  # kept out of the environment
	{ sed -n '/^#/p' constraints.txt; \
	  $(BIN)/python -m pip freeze --all --exclude-editable | sed -E 's/\+cpu$$//' ; } > constraints.new
	mv constraints.new constraints.txt

clean:  ## remove what was installed and built
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
