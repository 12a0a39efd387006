# Everything that people and CI run. `make help` lists it.
SHELL := /bin/bash
PYTHON := .venv/bin/python
FLOWS ?= 1000000
MINUTES ?= 30
ATTACH ?= mixed
SECONDS_EACH ?= 60

.PHONY: help demo test check bench fuzz fuzz-decoders conformance mutants soak newest clean setup test-cluster cluster cluster-down image

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup ## enforce an example cluster and prove it with real packets
	@tools/packets $(PYTHON) -m podfence demo

test: setup ## the tests: pure ones first, then those with real packets
	@tools/test

test-cluster: setup ## tests on a real Kubernetes cluster, made for them (builds it once)
	@tools/setup-cluster
	@code=0; $(PYTHON) -m pytest -q -m 'cluster and not kernel' tests || code=1; \
		tools/packets $(PYTHON) -m pytest -q -m 'cluster and kernel' tests || code=1; exit $$code

cluster: setup ## a real Kubernetes cluster of two nodes, until `make cluster-down`
	@tools/setup-cluster && $(PYTHON) -m tests.cluster up

cluster-down: ## end the cluster that `make cluster` made
	@$(PYTHON) -m tests.cluster down

image: setup ## the agent's image, as dist/podfence-image.tar
	@tools/image dist/podfence-image.tar

check: setup ## ruff and its formatter, mypy --strict, import contracts
	@code=0; for tool in "$(PYTHON) -m ruff check ." "$(PYTHON) -m ruff format --check ." "$(PYTHON) -m mypy" .venv/bin/lint-imports; do \
		echo "$$tool"; $$tool || code=1; \
	done; exit $$code

fuzz: setup ## random clusters: oracle = verdict = rules (FLOWS=1000000)
	$(PYTHON) -m tests.proof.fuzz --flows $(FLOWS)

fuzz-decoders: setup ## spoiled bytes for everything that reads bytes (SECONDS_EACH=60, of CPU)
	$(PYTHON) -m tests.fuzz --seconds $(SECONDS_EACH)

conformance: setup ## truth tables (TABLES=FILE), with real packets as well (KERNEL=1)
	@test -n "$(TABLES)" || { echo "usage: make conformance TABLES=FILE [KERNEL=1]" >&2; exit 2; }
	$(if $(KERNEL),tools/packets) $(PYTHON) -m tests.conformance.run --tables "$(TABLES)" $(if $(KERNEL),--kernel)

mutants: setup ## break every row of the semantics; a test must notice each
	$(PYTHON) -m tests.mutation.run

soak: setup ## agents, churn, faults, and probes that never stop (MINUTES=30 SEED=1 ATTACH=mixed|routed|bridge)
	tools/packets $(PYTHON) -m tests.soak --minutes $(MINUTES) --attach $(ATTACH) $(if $(SEED),--seed $(SEED)) $(if $(RECORD),--record $(RECORD))

bench: setup ## the measurements behind every figure in the docs
	tools/packets $(PYTHON) -m benchmarks.run

newest: setup ## the newest release of each package, from now on (tools/constraints.txt); run the tests after it
	$(PYTHON) -m pip install -q --disable-pip-version-check --upgrade --upgrade-strategy eager -e '.[dev]'
	{ head -n 1 tools/constraints.txt; $(PYTHON) -m pip freeze --exclude-editable; } >tools/constraints.new
	mv tools/constraints.new tools/constraints.txt

clean: ## remove what make made
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup:
	@tools/setup
