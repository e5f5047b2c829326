# boxwright: `make` lists what can be made.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# A process a core, of one thread each: most tests are too small for two threads to help. Files in their order:
# those of few tests, which xdist would keep for the end, are the long ones.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install demo docs test test-all lint format bench bench-startup bench-evaluate bench-models bench-tiling bench-audit bench-serving clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | expand -t 12

install: $(STAMP)  ## install everything into .venv (uv is bootstrapped there)

# --inexact keeps uv itself, which pip has put into the same environment.
$(STAMP): pyproject.toml uv.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$(BIN)/uv sync --frozen --inexact --extra train --group dev
	@touch $@

demo: install  ## make synthetic aerial scenes, train, evaluate, write runs/demo/report/index.html
	$(BIN)/boxwright demo

test: install  ## run the test suite
	$(TEST) -m "not slow"

test-all: install  ## run the test suite with the slow tests
	$(TEST)

lint: install  ## check format, style, types and the walls between packages
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/pyright
	$(BIN)/lint-imports

format: install  ## format the code
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: install  ## build the site into site/, with its references made from the code; a dead link is an error
	$(BIN)/uv sync --frozen --inexact --extra train --group dev --group docs
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

bench: install  ## measure the blood-cell runs that README's table shows
	$(BIN)/python -m benchmarks.bccd

bench-evaluate: install  ## evaluation and geometry beside the other implementations
	$(BIN)/uv sync --frozen --inexact --compile-bytecode --extra train --extra bench --group dev
	$(BIN)/python -m compileall -q src  # as an installed package is
	$(BIN)/python -m benchmarks.evaluation
	$(BIN)/python -m benchmarks.geometry

bench-startup: install  ## seconds until a mistake is told and until training begins
	$(BIN)/python -m benchmarks.startup

bench-tiling: install  ## tiled prediction of large scenes beside SAHI's
	$(BIN)/uv sync --frozen --inexact --extra train --extra bench --extra aerial --extra onnx --group dev
	$(BIN)/python -m benchmarks.tiling

bench-audit: install  ## what an audit finds of planted faults, beside cleanlab's scores
	$(BIN)/uv sync --frozen --inexact --extra train --extra bench --extra audit --group dev
	$(BIN)/python -m benchmarks.audit bccd
	$(BIN)/python -m benchmarks.audit hituav
	$(BIN)/python -m benchmarks.audit scenes

bench-serving: install  ## the service beside LitServe: make bench-serving CHECKPOINT=runs/bccd IMAGES=folder
	$(BIN)/uv sync --frozen --inexact --extra serve --extra bench --group dev
	$(BIN)/python -m benchmarks.serving --checkpoint $(CHECKPOINT) --images $(IMAGES)

bench-models: install  ## training and inference beside torchvision's and transformers' detectors
	$(BIN)/uv sync --frozen --inexact --extra train --group dev --group parity
	$(BIN)/python -m benchmarks.models

clean:  ## remove the environment and the demo's files
	rm -rf $(VENV) runs demo-data site docs/reference
