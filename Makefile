# A fresh clone needs Python 3.11 or newer and make; the first target run builds the environment in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DOCS := $(VENV)/.docs

.PHONY: demo test lint docs bench clean

demo: $(INSTALLED)  ## the whole way on Toytown, offline: demo/report.html
	$(BIN)/python -m patchword demo -o demo --overwrite

test: $(INSTALLED)  ## every test, in two processes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(INSTALLED)  ## style, format and types
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

docs: $(DOCS)  ## the pages of docs/ and the reference: site/index.html; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

bench: $(INSTALLED)  ## speed and memory; BENCH="--photos ... --masks ... --classes ... --scratch ..." adds photographs
	$(BIN)/python benchmarks/toytown_scenes.py
	$(BIN)/python benchmarks/proposal_recall.py --scenes 8
	$(BIN)/python benchmarks/loss_speed.py --runs 3
	$(BIN)/python benchmarks/bench_photographs.py $(BENCH)

clean:  ## remove whatever the targets above made
	rm -rf $(VENV) demo site build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests benchmarks tools -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "patchword needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

$(DOCS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	touch $@
