# IntentRec: `make demo` shows it, `make test` tests it. Both install their packages into .venv first.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# DEMO_ARGS="--headless --seconds 60", TEST_ARGS="-k console", KAFKA_ARGS="--nodes 3", BENCH="worker --compare": passed on.
# PYTHON names the interpreter for .venv.
DEMO_ARGS ?=
TEST_ARGS ?=
KAFKA_ARGS ?=
MUTANTS ?=
BENCH ?= --help
FAULTS ?=
QUALITY ?=
# make quality: QUICK=1 tries the harness on a small world and keeps nothing.
QUICK ?=
# make mutants, make test-faults: PART=2/3 runs the second of three parts; RESUME=1 only what has no good outcome on these sources yet.
PART ?= 1/1
RESUME ?=
# More than cores: what talks to a broker mostly waits. 0 runs the tests in one process, one after another.
TEST_PROCESSES ?= 3
VENV := .venv
INSTALLED := $(VENV)/installed
BIN := $(VENV)/bin
CODE := intentrec_core index stream tests docs examples
export PYTHON
# Tests and the demo start Python many times: without bytecode each process compiles everything that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(INSTALLED): deploy/locks/dev.txt deploy/locks/build.txt deploy/venv/install.sh pyproject.toml
	@deploy/venv/install.sh $(VENV)

.PHONY: install
install: $(INSTALLED) ## create .venv and install the locked packages; instant if it is up to date

.PHONY: demo
demo: $(INSTALLED) ## run everything on this machine and watch plays become intents and recommendations
	@exec $(BIN)/intentrec demo $(DEMO_ARGS)

.PHONY: kafka
kafka: $(INSTALLED) ## run Apache Kafka from its jars on 127.0.0.1:9092 until Ctrl-C; KAFKA_ARGS="--nodes 3"
	@exec $(BIN)/intentrec broker --engine kafka $(KAFKA_ARGS)

.PHONY: test
test: $(INSTALLED) ## run every test
	@$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal $(TEST_ARGS)

.PHONY: e2e
e2e: $(INSTALLED) ## show the console in Chromium, on a real gateway and worker; screenshots in .intentrec/console
	@NEEDS_CHROMIUM=1 $(BIN)/python -m pytest -q -n0 -m browser tests/browser $(TEST_ARGS)

.PHONY: console-picture
console-picture: $(INSTALLED) ## show the console in Chromium and write docs/console.png
	@rm -f .intentrec/console/picture.png
	@NEEDS_CHROMIUM=1 $(BIN)/python -m pytest -q -n0 -m browser tests/browser -k raise_its_bar
	@cp .intentrec/console/picture.png docs/console.png

.PHONY: test-faults
test-faults: $(INSTALLED) ## run every fault at its full scale and print the table (an hour or two; PART=1/3, RESUME=1; FAULTS="overload")
	@$(BIN)/python -m tests.faults --part $(PART) $(if $(RESUME),--resume) $(FAULTS)

.PHONY: mutants
mutants: $(INSTALLED) ## put each known fault back into a copy of the tree and report which test catches it (PART=1/4, RESUME=1; MUTANTS="fence")
	@$(BIN)/python -m tests.mutants --part $(PART) $(if $(RESUME),--resume) $(MUTANTS)

.PHONY: bench
bench: $(INSTALLED) ## measure one part of the system next to its baselines; BENCH="worker --compare"
	@exec $(BIN)/python -m tests.bench $(BENCH)

.PHONY: quality
quality: $(INSTALLED) ## measure every model and baseline that is not measured yet (hours; QUICK=1: minutes; QUALITY="--data-root DIR")
	@$(BIN)/python -m tests.bench.quality $(if $(QUICK),--quick) $(QUALITY)
	@$(if $(QUICK),true,exec $(BIN)/python -m tests.bench.report)

.PHONY: fast
fast: $(INSTALLED) ## run the fast unit and contract tests
	@$(BIN)/python -m pytest -q -n auto --dist worksteal -m "not slow and not kafka" tests/unit tests/contract $(TEST_ARGS)

.PHONY: lint
lint: $(INSTALLED) ## check rules and format with ruff
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check $(CODE)

.PHONY: format
format: $(INSTALLED) ## fix and format the code with ruff
	@$(BIN)/ruff check --fix $(CODE)
	@$(BIN)/ruff format $(CODE)

.PHONY: types
types: $(INSTALLED) ## check the types of the product code with mypy (strict)
	@$(BIN)/mypy

.PHONY: layers
layers: $(INSTALLED) ## check the layers between packages with import-linter
	@$(BIN)/lint-imports

.PHONY: check
check: lint types layers fast ## run all fast checks: under 90 s

.PHONY: contracts
contracts: $(INSTALLED) ## generate AsyncAPI, JSON Schema and OpenAPI from the code
	@$(BIN)/python -m stream.wire.schemas
	@$(BIN)/python -m stream.gateway.contract

.PHONY: documents
documents: $(INSTALLED) ## write the generated documents anew: reference, benchmarks, quality, index of decisions
	@$(BIN)/python docs/build_reference.py
	@$(BIN)/python docs/build_decisions_index.py
	@$(BIN)/python -m tests.bench.report

.PHONY: picture
picture: $(INSTALLED) ## run the demo without a terminal and write its screen to docs/demo.svg
	@$(BIN)/python -m stream.demo.picture docs/demo.svg

.PHONY: lock
lock: $(INSTALLED) ## resolve the dependency locks; UPGRADE=1 updates to the newest versions
	@deploy/venv/lock.sh $(BIN)/uv $(if $(UPGRADE),--upgrade)

.PHONY: clean
clean: ## remove .venv, caches and generated files
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .intentrec
	@find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
