# `make study` and `make test` set everything up by themselves; `make help` lists the rest.
SHELL := /bin/bash
CONFIG ?= config/quickstart.yaml
SNAKEMAKE_ARGS ?=
PYTHON ?= python3
WHEELS ?= annotated-types numpy pydantic pydantic-core typing-extensions typing-inspection
WHEELS_FOR ?= 3.12
NUMERIC := $(addprefix tests/,attacks corruptions data hardware losses models ood stages training test_seeding.py)
VENV := .venv
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export OMP_NUM_THREADS ?= 1
export MLFLOW_DISABLE_TELEMETRY := true

# DATA=folder, on the command line, takes the images from a folder of parquet files, under that folder's name.
ifeq ($(origin DATA),command line)
PLACE := $(shell realpath -ms -- "$(DATA)")
NAMED := $(shell basename -- "$(PLACE)" | tr -c 'A-Za-z0-9_.\n-' _)
OVERRIDE := data='{name: "$(NAMED)", source: parquet, path: "$(PLACE)"}'
SNAKEMAKE_DATA := --config $(OVERRIDE)
SSROB_DATA := --set $(OVERRIDE)
endif

.DEFAULT_GOAL := help
.PHONY: help there study gpu-study test test-avx2 test-slurm check format lock schema docs ui wheels clean

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'
	@echo "  variables: CONFIG=config/....yaml  DATA=folder of parquet files  SNAKEMAKE_ARGS='-n'  BUDGET=8m  JOBS=1  PYTHON=python3.12"

study: there $(READY) ## Run a study (CONFIG=config/quickstart.yaml) and say where its report is
	@echo 'In another terminal, with time left: $(VENV)/bin/ssrob status "$(CONFIG)" $(subst ','\'',$(SSROB_DATA)) --watch'
	snakemake --configfile "$(CONFIG)" $(SNAKEMAKE_DATA) $(SNAKEMAKE_ARGS)
	@while ssrob look "$(CONFIG)" $(SSROB_DATA); do snakemake --configfile "$(CONFIG)" $(SNAKEMAKE_DATA) $(SNAKEMAKE_ARGS) || exit 1; done
	@ssrob where "$(CONFIG)" $(SSROB_DATA)

gpu-study: CONFIG = config/cifar10.yaml
gpu-study: BUDGET ?= 8m
gpu-study: JOBS ?= 1
gpu-study: there $(READY) ## Run what fits into BUDGET=8m of config/cifar10.yaml, and go on with it when called again
	ssrob portion "$(CONFIG)" --budget $(BUDGET) --jobs $(JOBS) $(SSROB_DATA)

there:
	@test -f "$(CONFIG)" || { echo "$(CONFIG): no such config; there are: $$(ls config/*.yaml | xargs)" >&2; exit 1; }

ui: there $(READY) ## Open the MLflow UI of a study on 127.0.0.1
	ssrob ui "$(CONFIG)" $(SSROB_DATA)

test: $(READY) ## Run the tests
	pytest -n auto --dist loadgroup

test-avx2: $(READY) ## Run the numeric tests as on a processor without AVX-512 and bfloat16
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 pytest -n auto --dist loadgroup $(NUMERIC)

test-slurm: $(READY) ## Run a small study on a private SLURM: as root, on a Debian machine to throw away
	python -c "import snakemake_executor_plugin_slurm" 2>/dev/null || pip install --quiet --editable ".[slurm]"
	tests/slurm/cluster.sh start
	SSROB_TEST_SLURM=1 pytest tests/slurm; status=$$?; tests/slurm/cluster.sh stop; exit $$status

check: $(READY) ## The static checks: lint, format, types, workflow, import contracts, schema
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile workflow
	snakemake --lint
	lint-imports
	ssrob schema | diff config/schema.json - || (echo "config/schema.json is out of date: make schema" && exit 1)
	python docs/generate.py --check
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

format: $(READY) ## Format everything
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow

schema: $(READY) ## Write config/schema.json and the reference pages from the code
	ssrob schema > config/schema.json
	python docs/generate.py

docs: $(READY) ## Build the documentation as a site that needs no network, into site/
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet
	@echo "$(CURDIR)/site/index.html"

lock: $(READY) ## Write envs/lock.txt anew from pyproject.toml
	pip install --quiet uv
	echo "# Every package of the workflow and of its tests, exactly. Made from pyproject.toml by \`make lock\`." > envs/lock.txt
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --no-header --no-annotate >> envs/lock.txt

wheels: $(READY) ## Download what benchmarks/gpu.py needs beside torch, for a machine without a network, into wheels/
	@mkdir -p wheels
	for name in $(WHEELS); do grep "^$$name==" envs/lock.txt; done > wheels/requirements.txt
	pip download --quiet --no-deps --only-binary :all: --python-version $(WHEELS_FOR) --platform manylinux_2_28_x86_64 \
	  --platform manylinux2014_x86_64 --dest wheels -r wheels/requirements.txt

clean: ## Remove the environment and caches; results stay
	rm -rf $(VENV) .snakemake .mypy_cache .ruff_cache .pytest_cache

$(READY): envs/lock.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "ssrob needs Python 3.11 to 3.13, found $$($(PYTHON) --version 2>&1); name one with PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r envs/lock.txt
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@
