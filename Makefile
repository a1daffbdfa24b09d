# AGETF. `make demo` and `make test` set up whatever they need.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CONFIG ?= configs/demo.yaml
PORT ?= 3000
SHARDS ?= missing
NAME := $(basename $(notdir $(CONFIG)))
HOME_DIR := $(CURDIR)/.dagster_home/$(NAME)
UV_VERSION := 0.13.9
BIN := .venv/bin
READY := .venv/.ready

# No call home by any of the tools; waiting threads sleep (see agetf_pipeline/core/devices.py).
export DAGSTER_DISABLE_TELEMETRY := yes
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1
export GX_ANALYTICS_ENABLED := false
export HF_HUB_OFFLINE := 1
export GRADIO_ANALYTICS_ENABLED := False
export PYTHONPATH := $(CURDIR)
export OMP_WAIT_POLICY := PASSIVE
export GOMP_SPINCOUNT := 0
.PHONY: help
help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' Makefile

.PHONY: setup
setup: $(READY) ## Make the environment (.venv) from requirements.lock

$(READY): requirements.lock pyproject.toml
	@bash docker/setup.sh "$(UV_VERSION)"
	@touch $(READY)

.PHONY: demo
demo: $(READY) ## Set up, draw synthetic faces, run the whole pipeline on them
	@$(BIN)/python -m jobs.launch --config configs/demo.yaml --home $(CURDIR)/.dagster_home/demo

.PHONY: run
run: $(READY) ## Run the whole pipeline on CONFIG=configs/<name>.yaml
	@$(BIN)/python -m jobs.launch --config $(CONFIG) --home $(HOME_DIR)

.PHONY: ui
ui: $(READY) ## Open Dagster (UI and daemon) on 127.0.0.1:3000 over what CONFIG's run filled
	@AGETF_CONFIG=$(CONFIG) $(BIN)/python -m jobs.serve --home $(HOME_DIR) --port $(PORT)

.PHONY: app
app: $(READY) ## Ten ages, age estimates and labels in the browser, over what CONFIG's run filled
	@$(BIN)/agetf demo --config $(CONFIG)

.PHONY: backfill
backfill: $(READY) ## CAF shards for CONFIG: SHARDS=missing, all, a,b or a...d
	@$(BIN)/python -m jobs.backfill --config $(CONFIG) --home $(HOME_DIR) --shards "$(SHARDS)"

.PHONY: forget
forget: $(READY) ## Delete tables and partitions of CAF shards whose folders are gone: SHARDS=a,b
	@$(BIN)/python -m jobs.backfill --config $(CONFIG) --home $(HOME_DIR) --shards "$(SHARDS)" --forget

.PHONY: test
test: $(READY) ## Set up and run the tests
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: test-postgres
test-postgres: $(READY) ## The deployment's processes over a real PostgreSQL (installs it as root)
	@bash docker/test_postgres.sh

.PHONY: lint
lint: $(READY) ## Style, formatting, import layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache

.PHONY: types
types: $(READY) ## Type checking
	@$(BIN)/pyright

.PHONY: check
check: lint types test ## lint + types + tests

.PHONY: bench
bench: $(READY) ## Every stage beside the official way and its ceiling, in one table: 40 minutes
	@$(BIN)/python -m benchmarks

.PHONY: bench-render
bench-render: $(READY) ## Ten ages of a face: operations, processor seconds, throughput
	@$(BIN)/python -m benchmarks.render

.PHONY: bench-moe
bench-moe: $(READY) ## The mixture on synthetic faces: better than its experts, honest intervals
	@$(BIN)/python -m benchmarks.moe

.PHONY: bench-ageing
bench-ageing: $(READY) ## Renderings of synthetic people beside three baselines: an hour or more
	@$(BIN)/python -m benchmarks.ageing

.PHONY: bench-loader
bench-loader: $(READY) ## Batches read beside what a training step needs
	@$(BIN)/python -m benchmarks.loader

.PHONY: bench-backfill
bench-backfill: $(READY) ## Sensor tick, backfill and queries over many shards
	@$(BIN)/python -m benchmarks.backfill

.PHONY: bench-captions
bench-captions: $(READY) ## Captions in batches beside one at a time; embeddings read at random
	@$(BIN)/python -m benchmarks.captions
	@$(BIN)/python -m benchmarks.embeddings

.PHONY: lock
lock: ## Resolve requirements.lock again from pyproject.toml
	@bash docker/setup.sh "$(UV_VERSION)" lock

.PHONY: clean
clean: ## Remove what runs of the demo wrote (data/, stats/, models/, outputs/, mlflow.db)
	@rm -rf data stats models outputs mlruns mlflow.db .dagster_home/demo
