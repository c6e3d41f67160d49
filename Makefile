# make demo | test | lint | wheel | clean. The first call makes .venv; it needs git, make and python3-venv (3.10 or later).
#
#   PYTHON=python3.12   another interpreter for .venv
#   TORCH_INDEX=URL     take torch from this index, for example PyTorch's CPU-only one: without a CUDA device the
#                       general index's build for x86-64 brings gigabytes that nobody uses

PYTHON ?= $(shell command -v python3.11 >/dev/null 2>&1 && python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# some pinned versions need 3.11; on 3.10 pip chooses
PINS = $(shell $(PYTHON) -c 'import sys; print("-c constraints.txt" * (sys.version_info >= (3, 11)))')
DEMO := runs/demo
JOBS ?= $(shell nproc)
RECIPE := mobile-centernet-w16-dhaka
BOARD := x86-1t

.DEFAULT_GOAL := help
.PHONY: help demo test test-parser test-parser-all lint format wheel clean

help:
	@echo "make demo    shipped weights and images: export, INT8, benchmark, report ($(DEMO))"
	@echo "make test    all tests"
	@echo "make test-parser      NVIDIA's real parser and builder on exported files, no GPU needed (makes .venv-parser)"
	@echo "make test-parser-all  the same for more of the zoo; nightly"
	@echo "make lint    ruff and mypy"
	@echo "make format  let ruff rewrite the sources"
	@echo "make wheel   dist/*.whl and dist/*.tar.gz, checked"
	@echo "make clean   remove what the other targets made (runs/ stays; so does $(VENV))"

demo: $(READY)
	$(BIN)/edgekit run $(RECIPE) --board $(BOARD) --out $(DEMO)

test: $(READY)
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile

PARSER := .venv-parser
test-parser test-parser-all: $(READY)
	bash tests/parser/make_parser_env.sh $(PARSER)
	EDGEKIT_PARSER_PYTHON=$(CURDIR)/$(PARSER)/bin/python $(if $(filter %-all,$@),EDGEKIT_NIGHTLY=1) $(BIN)/python -m pytest -q tests/parser

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# An environment that is there stays as it is: it may be another checkout's.
wheel: $(if $(wildcard $(BIN)/python),,$(READY))
	@$(BIN)/python -c 'import build, hatchling, twine' || { echo "$(VENV) cannot build a wheel: $(BIN)/python -m pip install build hatchling twine"; exit 1; }
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/twine check --strict dist/*

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find edgekit tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is newer than pyproject.toml and constraints.txt when the environment holds what they ask for.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 10) or sys.exit("EdgeKit needs Python 3.10 or later; $(PYTHON) is %d.%d. Name another one: make PYTHON=python3.11 ..." % v)'
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "$(PYTHON) cannot make a virtual environment. On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "Installing into $(VENV): a few minutes, once."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install $(PINS) --index-url $(TORCH_INDEX) torch)
	$(BIN)/python -m pip install $(PINS) torch -e '.[train,openvino,dev]'
	@touch $@
