# Each target sets up what it needs; nothing is done twice.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test test-long lint

run: .venv/ready
	$(BIN)/bench run --ablation mask_ratio

test: .venv/ready
	$(BIN)/python -m pytest -n auto --dist loadgroup

test-long: .venv/ready
	$(BIN)/python -m pytest -m long

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/python tests/structure.py
	$(BIN)/mypy

.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	touch $@
