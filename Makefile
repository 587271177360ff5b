# Everything a developer does here. `make demo` and `make test` set themselves up.
# Another Python: `make test PYTHON=python3.13 VENV=/some/folder`.

PYTHON ?= python3
VENV ?= .venv
# What to hand to pytest: `make test ARGS="tests/orders -k stock"`.
ARGS ?=

READY := $(VENV)/.ready
RUN := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup demo up test fuzz mutations faults lint types format docs bench bench-observability bench-capacity surge lock sbom clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-19s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(READY) ## Create the environment in .venv (the other targets do it when they need it)

$(READY): requirements.lock pyproject.toml dev/setup.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh dev/setup.sh
	@touch $@

demo: $(READY) ## Run the main job once, for real, and show everything it did
	@$(RUN) -m dev.demo

up: $(READY) ## Keep the three services running with sample products, until Ctrl-C
	@$(RUN) -m dev.up

test: lint types ## Lint, types, import contracts and the whole test suite
	$(RUN) -m pytest -n auto --dist loadgroup $(ARGS)

mutations: $(READY) ## Take each guard away and see which test notices; takes a quarter of an hour
	@$(RUN) -m tests.mutations $(ARGS)

# `make faults FAULTS_SECONDS=60 FAULTS_SEED=7 ARGS="zombie create_order"`.
faults: $(READY) ## Break the running system in every way we know; writes faults.json
	@$(RUN) -m tests.faults $(ARGS)

fuzz: $(READY) ## Look for calls that break what the OpenAPI documents say; FUZZ_SECONDS=300, FUZZ_SEED repeats
	@$(RUN) -m tests.fuzz

lint: $(READY) ## Style and import contracts
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(VENV)/bin/lint-imports --no-cache --no-logo

types: $(READY) ## mypy, strict
	$(RUN) -m mypy

format: $(READY) ## Put the sources into shape
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

docs: $(READY) ## Write the tables of the documents from the code
	$(RUN) -m dev.docs

bench: $(READY) ## Measure the services on MariaDB beside the bare driver; writes bench.json
	@$(RUN) -m bench

bench-observability: $(READY) ## Measure what metrics, log lines and traces cost
	@$(RUN) -m bench.observability $(ARGS)

# `make bench-capacity ARGS="--output docs/capacity.json"` takes its figures over, `make surge` follows them.
bench-capacity: $(READY) ## Measure what one process of each service takes for an order; bench-capacity.json
	@$(RUN) -m bench.capacity $(ARGS)

surge: $(READY) ## Simulate how replicas follow a surge, by the values of the chart; writes docs/surge.svg
	@$(RUN) -m bench.surge

# Keeps the versions that still fit; `make lock ARGS=--upgrade` takes the newest.
COMPILE := -m uv pip compile --quiet --universal --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock"
lock: $(READY) ## Write requirements.lock, and its parts that the images have, from pyproject.toml
	$(RUN) $(COMPILE) pyproject.toml --all-extras $(ARGS) --output-file requirements.lock
	$(RUN) $(COMPILE) pyproject.toml --constraint requirements.lock --output-file requirements-run.lock
	echo watchfiles | $(RUN) $(COMPILE) - --python-version 3.11 --constraint requirements.lock \
		--output-file requirements-watch.lock

sbom: $(READY) ## Write sbom.cdx.json: what is in the image, with licences and hashes
	@$(RUN) -m dev.sbom

clean: ## Remove .venv, caches, and the databases and logs of `make up`
	rm -rf .venv var build bench.json bench-observability.json bench-capacity.json faults.json sbom.cdx.json *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -type d -name __pycache__ -prune -exec rm -rf {} +
