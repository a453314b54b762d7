# Everything a newcomer or CI needs; `make help` lists it.
# ACCELERATOR=cuda takes the GPU build; PYTHON names the interpreter that makes .venv.

PYTHON ?= python3
ACCELERATOR ?= cpu
JOBS ?= 2
BIN := .venv/bin
COVERAGE := --cov --cov-append --cov-report=
# These start Ray, engines or whole installations, one after the other.
HEAVY := tests/integration/serving tests/integration/training tests/integration/model_server tests/integration/stack
SOURCES := platform deployments billing tests scripts

export ACCELERATOR

.DEFAULT_GOAL := help
.PHONY: help setup clients run test test-faults check lint types format bench bench-gateway bench-ledger bench-fairness \
	lock clean

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

check: lint types ## what to run before each commit, under 90 s; PostgreSQL and foreign clients come with `make test`
	$(BIN)/pytest -q -n $(JOBS) -k "not postgres" tests/architecture tests/unit tests/contract --ignore tests/contract/clients

test: lint types clients ## every test: real databases, the real stack, a real browser; then branch coverage
	@rm -rf build/coverage
	@chromium=$$($(BIN)/python scripts/chromium.py) && export CHROMIUM="$$chromium" && \
	$(BIN)/pytest -q -n $(JOBS) $(COVERAGE) tests/architecture tests/unit tests/contract tests/property && \
	$(BIN)/pytest -q -n $(JOBS) --durations=10 $(COVERAGE) tests/integration tests/fault $(HEAVY:%=--ignore=%) && \
	$(BIN)/pytest -q --durations=10 $(COVERAGE) $(HEAVY) && \
	$(BIN)/pytest -q --durations=10 $(COVERAGE) tests/browser tests/e2e
	@$(BIN)/coverage report

test-faults: setup ## every fault, and the long form of what `make test` does for a minute
	MONEY_MACHINE_RUNS=300 MONEY_MACHINE_STEPS=60 MONEY_EVERY_STEP=1 FUZZ_CASES=1200 FAILOVERS=6 \
	$(BIN)/pytest -q --durations=10 tests/fault tests/property/billing/test_money_machine.py tests/e2e/test_fuzz.py

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

lock: setup ## write requirements/*.lock anew from pyproject.toml (ARGS=--upgrade takes newer versions)
	$(BIN)/python scripts/lock.py $(ARGS)

clean: ## remove .venv and everything built; data in ~/.tokenyard stays
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find platform deployments billing tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
