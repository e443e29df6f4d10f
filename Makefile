# make demo: four fine-tunes at once on this machine.   make test: everything that CI checks.
PYTHON ?= python3
BIN    := .venv/bin
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

demo: .venv/run.stamp
	$(BIN)/swarm run configs/demo.yaml --again

# Two lanes side by side: whole runs in one, everything else in the other, then what is left in both (tests/conftest.py).
test: .venv/dev.stamp check
	$(BIN)/python -m pytest -n 2 --max-worker-restart 0

check: .venv/dev.stamp
	$(BIN)/ruff format --check . && $(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

torture: .venv/dev.stamp
	TORTURE=1 $(BIN)/python -m pytest --timeout 3600

bench: .venv/dev.stamp
	for script in tests/benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

# The lock is a constraints file: it pins what pip installs, it names no place to get it from.
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: Python 3.11 or newer is needed; set PYTHON=python3.12, say" >&2; exit 2; }
	$(PYTHON) -m venv .venv

.venv/run.stamp: pyproject.toml requirements.lock | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[all]'
	touch $@

.venv/dev.stamp: .venv/run.stamp requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -r requirements-dev.txt
	touch $@

.PHONY: demo test check torture bench
