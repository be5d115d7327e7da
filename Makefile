# make demo | test | check: each builds .venv first, with the extras it needs.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test check clean

demo: .venv/installed
	$(BIN)/sslkit demo

test: .venv/installed-test
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

check: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py

clean:
	rm -rf .venv

.venv/bin/pip:
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/pip
	$(BIN)/pip install -q -e .
	touch $@

.venv/installed-test: pyproject.toml | .venv/bin/pip
	$(BIN)/pip install -q -e '.[test]'
	touch $@ .venv/installed

.venv/installed-dev: pyproject.toml | .venv/bin/pip
	$(BIN)/pip install -q -e '.[dev]'
	touch $@ .venv/installed-test .venv/installed
