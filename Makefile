# The two commands: `make train` runs the main job, `make test` runs the test suite.
# Both install what they need into .venv; only Python 3.10 or later with pip is required.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
NET ?=
DATA ?= demo
GPUS ?=
# The launcher for several machines, for example: mpirun -n 4 --hostfile hosts
MPIRUN ?=
OUT ?=
EXTRAS ?= test,lint

# One stamp file per installed extra, updated when the packaging changes.
STAMP := $(VENV)/.installed
TEST_STAMP := $(VENV)/.installed-test
# The peers of the benchmarks need another OpenCV, and so a separate environment.
PEERS := $(VENV)-peers
PEERS_STAMP := $(PEERS)/.installed
DOCS_STAMP := $(VENV)/.installed-docs
FAKE_STAMP := $(VENV)/.installed-pycuda

.PHONY: help train test test-slow test-gpu exactness paper bench pycuda-fake kernels lint docs setup clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  Train on ILSVRC-2012: make train NET=D DATA=/path/to/ilsvrc12 GPUS=0,1,2,3"

train: $(STAMP)  ## prepare, train, evaluate, export and plot (embedded data set by default)
	$(MPIRUN) $(BIN)/verydeep run --data $(DATA) $(if $(NET),--net $(NET)) $(if $(GPUS),--gpu $(GPUS)) $(if $(OUT),--out $(OUT))

test: $(TEST_STAMP)  ## run the tests (minutes, no GPU)
	$(BIN)/python -m pytest -m "not slow and not gpu"

test-slow: $(TEST_STAMP)  ## run the long tests: fuzzing, sanitizers, soaks
	$(BIN)/python -m pytest -m "slow and not gpu"

test-gpu: $(TEST_STAMP)  ## run the tests that need an NVIDIA GPU
	$(BIN)/python -m pip install --quiet --editable '.[cuda]'
	$(BIN)/python -m pytest -m gpu

exactness: $(STAMP)  ## train on 1, 2, 4 and 8 replicas and print their common checksum
	$(BIN)/python -m runtime.job.exactness

paper: $(STAMP)  ## the paper's tables in miniature, with a report
	$(BIN)/verydeep paper --data $(DATA) $(if $(GPUS),--gpu $(GPUS)) --out $(or $(OUT),build/paper)

bench: $(STAMP) $(PEERS_STAMP)  ## measure the CPU backend, PyTorch and OpenCV (minutes)
	$(BIN)/python benchmarks/native_conv.py --json benchmarks/results/conv.json
	$(BIN)/python benchmarks/cpu.py --peers $(PEERS)/bin/python
	$(BIN)/python benchmarks/cpu_report.py

pycuda-fake: $(FAKE_STAMP)  ## install PyCUDA on a machine without a GPU, for the tests with a fake driver

kernels: $(STAMP)  ## compile every CUDA kernel with nvcc and show registers, memory and spills
	$(BIN)/python -m cuda_kernels.build --table

lint: $(TEST_STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(DOCS_STAMP)  ## build the documentation as a site in build/docs; warnings and dead links fail
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -q -j auto -d build/doctrees docs build/docs

setup: $(STAMP)  ## create the virtual environment and install

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or later is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools wheel

$(STAMP): pyproject.toml setup.py $(wildcard runtime/backend/cpu/native/*) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(TEST_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	touch $@

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

$(PEERS_STAMP): benchmarks/peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --requirement benchmarks/peers.txt
	touch $@

$(FAKE_STAMP): tests/fakecuda/install_pycuda.sh | $(STAMP)
	$(BIN)/python -c 'import pycuda' 2> /dev/null || timeout 300 $< $(BIN)/python
	touch $@

clean:  ## remove all build results and the virtual environment
	rm -rf $(VENV) $(PEERS) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find runtime -name '*.so' -delete
