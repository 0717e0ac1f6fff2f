# Two commands do everything on a fresh machine with Python >= 3.11: `make train` and `make test`.
SHELL := /bin/bash
.SHELLFLAGS := -e -o pipefail -c
.DEFAULT_GOAL := help

PRESET ?= apex-small
TRAIN_ARGS ?=
TRAIN_EXTRAS ?= atari
BENCH ?= throughput
GPU_TESTS_S ?= 180
GPU_MINUTES ?= 5
GPU_ARGS ?=
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)

# constraints.txt holds the versions that the tests passed with; LATEST=1 takes the newest, in an environment of its own.
LATEST ?=
VENV := .venv$(if $(LATEST),-latest)
VERSIONS := $(if $(LATEST),,constraints.txt)
PIP_INSTALL := pip install --quiet $(VERSIONS:%=--constraint %)
LOWEST := .venv-lowest
EXTRAS := .venv-extras
# What Procgen draws with, the only thing that an extra needs and pip cannot bring.
QT := libqt5core5a libqt5gui5
# The browser that `make test-browser` looks with.
CHROMIUM := chromium
BIN := $(VENV)/bin
RUN := $(BIN)/python -m
# make gpu-check PYTHON_RUN=/path/to/python takes that Python as it is and installs nothing.
PYTHON_RUN ?=
GPU_PYTHON = $(or $(PYTHON_RUN),$(BIN)/python)

.PHONY: help train test test-slow test-lowest test-extras test-browser verify-results check lint types tests format bench gpu-check docs structure constraints \
	clean

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

train: $(VENV)/.train ## install what training needs, then train (PRESET=, TRAIN_ARGS=, LATEST=1: newest versions)
	$(BIN)/offbeat train $(PRESET) $(TRAIN_ARGS)

test: $(VENV)/.dev check ## install what the tests need, then lint, type-check and test (LATEST=1: newest versions)

check: lint types tests ## the same without installing

lint: | $(VENV)/.dev
	$(RUN) ruff check .
	$(RUN) ruff format --check .

types: | $(VENV)/.dev
	$(RUN) mypy

tests: | $(VENV)/.dev
	$(RUN) pytest $(or $(PYTEST_ARGS),-n 2)

test-slow: $(VENV)/.dev ## the tests that take minutes
	$(RUN) pytest -m slow --timeout 3600 $(PYTEST_ARGS)

test-lowest: $(LOWEST)/.dev ## the tests with the lowest versions that pyproject.toml allows, but for torch
	$(LOWEST)/bin/python -m pytest $(PYTEST_ARGS)

test-extras: $(EXTRAS)/.all $(EXTRAS)/.system ## the tests that need extras which `make test` leaves out (EnvPool, ViZDoom, PyBoy, W&B, ...; 3.1 GB)
	$(EXTRAS)/bin/python .ci/extras.py $(PYTEST_ARGS)

test-browser: $(VENV)/.dev ## look at the page of 'offbeat report' in a headless Chromium, which is installed where it may be
	@found() { command -v chromium || command -v chromium-browser || command -v google-chrome || command -v chrome; }; \
	found >/dev/null && exit 0; \
	as_root=(); [ "$$(id -u)" = 0 ] || as_root=(sudo -n); \
	if command -v apt-get >/dev/null && { [ "$$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }; then \
	echo "installing $(CHROMIUM)"; \
	"$${as_root[@]}" apt-get update -qq; \
	"$${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(CHROMIUM); fi; \
	found >/dev/null || { echo "these tests need: apt-get install $(CHROMIUM)" >&2; exit 1; }
	$(RUN) pytest tests/report/test_page_browser.py $(PYTEST_ARGS)

verify-results: $(VENV)/.dev ## play every game again that docs/results.md cites with a trace, and compare bit for bit
	$(BIN)/offbeat verify score docs/results/traces

format: $(VENV)/.dev ## sort imports, mend what ruff can mend, format
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

bench: $(VENV)/.train ## measure this machine (BENCH=throughput or streams)
	$(BIN)/offbeat bench $(BENCH)

gpu-check: $(if $(PYTHON_RUN),,$(VENV)/.dev) ## test on a GPU, then measure it, in 8 minutes (GPU_TESTS_S=, GPU_MINUTES=)
	@[ "$$OFFBEAT_CUDA_TESTS" = cpu ] || $(GPU_PYTHON) -c \
		'import sys, torch; sys.exit(0 if torch.cuda.is_available() else f"torch {torch.__version__} finds no GPU")'
	@failed=0; \
	timeout --foreground -k 20 -s INT $(GPU_TESTS_S) $(GPU_PYTHON) -m pytest -m cuda tests/cuda $(PYTEST_ARGS) || failed=$$?; \
	[ $$failed != 124 ] || echo "the tests were ended after $(GPU_TESTS_S) s"; \
	$(GPU_PYTHON) -m offbeat bench gpu --minutes $(GPU_MINUTES) $(GPU_ARGS) || failed=$$?; \
	exit $$failed

docs: $(VENV)/.dev ## write docs/options.md and docs/preset_list.md anew from the source
	$(RUN) offbeat.config.documents docs

structure: $(VENV)/.dev ## print files to the gradient, layers, circles, sizes
	$(RUN) tests.house_rules.structure

constraints: ## test with the newest versions of everything, and write them to constraints.txt if all pass
	rm -rf .venv-latest
	$(MAKE) test LATEST=1
	.venv-latest/bin/python .ci/versions.py installed > constraints.txt.new
	mv constraints.txt.new constraints.txt

clean: ## remove the virtual environments and every cache; results stay
	rm -rf .venv .venv-latest $(LOWEST) $(EXTRAS) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The stamps are older than what they depend on only when that has changed since: then pip runs again.
$(VENV)/bin/python $(LOWEST)/bin/python $(EXTRAS)/bin/python:
	@if [ -z "$(PYTHON)" ]; then echo "offbeat needs Python >= 3.11 with venv (Debian: apt-get install python3-venv);" \
		"found: $$(python3 --version 2>&1 || true); or name one: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; fi
	$(PYTHON) -m venv $(@:/bin/python=)

$(VENV)/.train: pyproject.toml $(VERSIONS) | $(VENV)/bin/python
	$(RUN) $(PIP_INSTALL) --editable '.[$(TRAIN_EXTRAS)]'
	@touch $@

$(VENV)/.dev: pyproject.toml $(VERSIONS) | $(VENV)/bin/python
	$(RUN) $(PIP_INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.train

$(LOWEST)/.dev: pyproject.toml .ci/versions.py | $(LOWEST)/bin/python
	$(LOWEST)/bin/python -m pip install --quiet packaging
	$(LOWEST)/bin/python .ci/versions.py lowest > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python -m pip install --quiet --constraint $(LOWEST)/lowest.txt --editable '.[dev]'
	@touch $@

$(EXTRAS)/.all: pyproject.toml $(VERSIONS) | $(EXTRAS)/bin/python
	$(EXTRAS)/bin/python -m $(PIP_INSTALL) --editable '.[dev,all,envpool,wandb,mlflow]'
	@touch $@

# Without the rights to install them Procgen's tests are left out, and the line at their end says so again.
$(EXTRAS)/.system: | $(EXTRAS)/bin/python
	@if ldconfig -p 2>/dev/null | grep -q 'libQt5Gui[.]so'; then touch $@; exit 0; fi; \
	as_root=(); [ "$$(id -u)" = 0 ] || as_root=(sudo -n); \
	if command -v apt-get >/dev/null && { [ "$$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }; then \
	echo "installing $(QT), which Procgen draws with"; \
	"$${as_root[@]}" apt-get update -qq; \
	"$${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(QT); touch $@; \
	else echo "Procgen's tests need: apt-get install --no-install-recommends $(QT)" >&2; fi
