# Everything a newcomer or CI needs; `make help` lists it.
# ACCELERATOR=cuda takes the GPU build; PYTHON names the interpreter that makes .venv.

PYTHON ?= python3
ACCELERATOR ?= cpu
JOBS ?= 2
BIN := .venv/bin
PYTEST := $(BIN)/pytest -q
COVERAGE ?=
# Coverage costs a third of the time of tests.
TIMED = $(if $(COVERAGE),COVERAGE_FILE=build/coverage/data.$@) $(PYTEST) -m "not long" --durations=10 \
	$(if $(COVERAGE),--cov --cov-report=)
# These start engines and whole installations: each list is one process, so that what is started serves many tests, and
# one after the other, because some of them say how long somebody may wait.
ENGINES := tests/integration/serving tests/integration/training tests/integration/stack
INSTALLATIONS := tests/browser tests/e2e
SOURCES := platform deployments billing tests scripts

export ACCELERATOR

.DEFAULT_GOAL := help
.PHONY: help setup clients run test coverage test-quick test-most test-engines test-installations test-faults check \
	lint types format bench bench-gateway bench-ledger bench-fairness bench-serving bench-training lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## make .venv with the pinned versions (does nothing when it is up to date)
	@$(PYTHON) scripts/setup.py

clients: setup ## install other people's clients, which `make test` tries, apart from .venv
	@$(BIN)/python scripts/clients.py

run: setup ## start everything; Ctrl-C stops it
	@$(BIN)/tokenyard up $(ARGS)

lint: setup ## ruff, and its formatting
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types: setup ## mypy, strict
	$(BIN)/mypy

check: setup ## what to run before each commit, under 90 s; PostgreSQL and foreign clients come with `make test`
	@$(MAKE) --no-print-directory -j lint types test-quick

test: setup ## real databases, the real stack, a real browser: every test but the long ones
	@$(MAKE) --no-print-directory -j lint types clients
	@$(MAKE) --no-print-directory --keep-going -j1 test-most test-engines test-installations

coverage: setup ## every test, and which branches they reach
	@rm -rf build/coverage
	@$(MAKE) --no-print-directory test COVERAGE=1
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage report

test-quick: setup
	$(PYTEST) -n $(JOBS) --dist worksteal -k "not postgres" tests/architecture tests/unit tests/contract \
		--ignore tests/contract/clients

# What neither money nor faults are about is tried on one database each; `make test-faults` tries it on both.
test-most: setup
	DATABASES=by_turns $(TIMED) -n $(JOBS) --dist worksteal tests $(patsubst %,--ignore=%,$(ENGINES) $(INSTALLATIONS))

test-engines: setup
	$(TIMED) $(ENGINES)

test-installations: setup
	@chromium=$$($(BIN)/python scripts/chromium.py) && export CHROMIUM="$$chromium" && $(TIMED) $(INSTALLATIONS)

test-faults: setup clients ## every fault, the long tests, and the long form of what `make test` does for a minute
	$(PYTEST) -n $(JOBS) --dist worksteal -k "sqlite or postgres" tests/contract tests/integration \
		$(patsubst %,--ignore=%,$(ENGINES)) --ignore tests/integration/billing --ignore tests/integration/storage
	$(PYTEST) -m long --durations=10 tests/integration tests/e2e
	MONEY_MACHINE_RUNS=300 MONEY_MACHINE_STEPS=60 MONEY_EVERY_STEP=1 FUZZ_CASES=1200 FAILOVERS=6 \
	GENERATED_REQUESTS=10000 LONG_ARRAYS=all EVERY_POINT=1 DATA_MEMORY_MIB=512 \
	$(PYTEST) --durations=10 --timeout=3600 tests/fault tests/property/billing/test_money_machine.py \
		tests/e2e/test_fuzz.py tests/contract/clients/test_schemathesis.py \
		tests/integration/training/data/test_memory.py

format: setup ## rewrite the sources as ruff would
	$(BIN)/ruff check --fix-only --quiet $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: setup ## measure the whole platform; figures to build/bench/main.json
	PYTHONPATH=tests $(BIN)/python tests/benchmarks/main.py

bench-gateway: setup ## measure the gateway beside its ceiling, LiteLLM and Portkey; figures to build/bench/gateway.json
	PYTHONPATH=tests $(BIN)/python -m benchmarks.gateway

bench-ledger: setup ## measure events into the ledger; figures to build/bench/ledger.json
	PYTHONPATH=tests $(BIN)/python tests/benchmarks/ledger.py

bench-fairness: setup ## measure who waits beside whom on the real engine; figures to build/bench/fairness.json
	PYTHONPATH=tests $(BIN)/python -m benchmarks.fairness

bench-serving: setup ## measure serving beside bare vLLM, routing, nodes, adapters; figures to build/bench/serving.json
	PYTHONPATH=tests $(BIN)/python -m benchmarks.serving
	PYTHONPATH=tests $(BIN)/python -m benchmarks.routing
	PYTHONPATH=tests $(BIN)/python -m benchmarks.adapters
	PYTHONPATH=tests $(BIN)/python -m benchmarks.nodes

bench-training: setup ## measure training beside a bare loop, packing, jobs; figures to build/bench/training.json
	PYTHONPATH=tests $(BIN)/python -m benchmarks.training

lock: setup ## write requirements/*.lock anew from pyproject.toml (ARGS=--upgrade takes newer versions)
	$(BIN)/python scripts/lock.py $(ARGS)

clean: ## remove .venv and everything built; data in ~/.tokenyard stays
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find platform deployments billing tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
