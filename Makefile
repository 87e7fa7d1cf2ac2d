# `make help` lists the targets. Everything runs in .venv, made from requirements.lock.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# Stages say `python`: it must be the one of .venv.
export PATH := $(abspath $(BIN)):$(PATH)
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1
# Two processes of tests, each with whole files, in the order of tests/conftest.py; `pytest` alone runs all in one.
# Not loadgroup: xdist 3.8 groups nothing under pytest 9.2.
PYTEST_WORKERS ?= --numprocesses 2 --dist loadfile --no-loadscope-reorder
PORT ?= 4200
MLFLOW_PORT ?= 5000

.PHONY: help install pipeline test pytest test-fast test-long lint audit bench-train bench-rescore bench-ingest bench-generate bench-machinery bench-cross-fitting scoreboard scoreboard-hh faults ui worker mlflow secrets lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 21

install: $(VENV)/.installed ## Make .venv from the lock file

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
# pip finds torch's build for this machine. uv, many times faster with the rest, does not read pip's settings (a mirror,
# say): pip goes on where it fails.
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock torch uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --requirement requirements.lock || \
	  $(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

pipeline: install ## From data to a registered model, also after a kill: dvc repro, register, summary
	python -m flows.mend
	dvc repro
	clha register
	clha summary

test: lint pytest ## Linters, types and all tests but the long ones; at the same time with -j 2

pytest: install
	pytest $(PYTEST_WORKERS) -m "not long"

test-long: install ## Tests that take minutes each: the deployed stack, work pools, triggers, killed runs (not in CI)
	pytest -m long

test-fast: install ## Tests that start no server and run no whole pipeline
	pytest $(PYTEST_WORKERS) -m "not slow"

lint: install ## Style and types
	ruff check .
	ruff format --check .
	mypy

audit: install ## Known vulnerabilities of every locked package, from PyPI; fails too where a package could not be looked up
	pip-audit --strict --no-deps --disable-pip --requirement requirements.lock

bench-train: install ## Training speed and memory on one core, against the authors' way and TRL: half an hour
	python -m benchmarks.train_speed

bench-rescore: install ## Speed and memory of reward scoring on one core, against padded batches and HF's pipeline: ten minutes
	python -m benchmarks.rescore_speed

bench-ingest: install ## Speed and memory of ingest and validate at HH's full size: a few minutes
	python -m benchmarks.ingest_speed compare

bench-generate: install ## Speed of answering prompts on one core, against a plain generate in file order: half an hour
	python -m benchmarks.generation_speed

bench-cross-fitting: install ## What cross-fitting and calibration change on the sample, after make pipeline: ten minutes
	python -m benchmarks.cross_fitting

bench-machinery: install ## What DVC, Prefect and the command line cost beside the steps, after make pipeline: a few minutes
	python -m benchmarks.machinery

scoreboard: install ## Every method at every level of noise, over seeds: hours; goes on where it stopped
	python -m flows.scoreboard

scoreboard-hh: install ## The same on real rows in data/hh-rlhf (HH layout)
	python -m flows.scoreboard --study scoreboard/studies/hh.yaml

faults: install ## Kill, fill the disk, corrupt inputs, thousands of times: an hour, goes on where it stopped (docs/reliability.md)
	python -m reliability kills
	python -m reliability malformed
	if [ "$$(id -u)" = 0 ]; then python -m reliability disk; fi
	pytest tests/test_faults_*.py

ui: install ## Prefect and MLflow on 127.0.0.1, with the flows to start from the browser
	python -m flows.start --port $(PORT) --mlflow-port $(MLFLOW_PORT)

worker: install ## Do the steps that runs send to the work pool POOL, for the server at PREFECT_API_URL
	python -m flows.worker --pool $(POOL)

mlflow: install ## MLflow alone, on 127.0.0.1, over the local database
	mlflow server --host 127.0.0.1 --port $(MLFLOW_PORT) --workers 1 --backend-store-uri sqlite:///mlflow.db --default-artifact-root ./mlartifacts

secrets: ## Write .env, the passwords of docker-compose.yml (docs/deployment.md)
	@python3 deploy/write_env.py

lock: ## Write requirements.lock anew: the newest versions that pyproject.toml allows
	rm -rf .clha/lock && $(PYTHON) -m venv .clha/lock
	.clha/lock/bin/pip install --quiet --upgrade pip
	.clha/lock/bin/pip install --quiet --group dev --editable .
	@{ echo "# Every version, made by 'make lock'. torch has no +cpu: where there is a GPU, the CUDA build is right."; \
	  .clha/lock/bin/pip freeze --all --exclude pip --exclude-editable | sed -E 's/^(torch==[0-9.]+)\+cpu$$/\1/'; } > requirements.lock
	rm -rf .clha/lock

# Only what can be made again: .clha also has replies that were paid for, records that wait for MLflow, Prefect's database,
# the workspaces of runs that may be retried, and locks that somebody may hold.
clean: ## Remove caches, logs and the checkpoints of unfinished trainings (data, models, databases and paid replies stay)
	rm -rf $(addprefix .clha/,trainings rescore vllm scoreboard reliability lock logs prefect-ui)
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
