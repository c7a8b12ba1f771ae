# Each target sets up what it needs; nothing is done twice.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test test-long lint docs references

run: .venv/ready
	$(BIN)/bench run --ablation mask_ratio

test: .venv/ready
	$(BIN)/python -m pytest -n auto --dist loadgroup

test-long: .venv/ready
	$(BIN)/python -m pytest -m long

# The tables of docs/reference.md, in its order. Resumes: stored stages and recorded rows are not built again.
references: .venv/ready
	$(BIN)/bench run --reference --ablation table2 --nulls each --seeds 0,1,2
	$(BIN)/bench run --reference --ablation table2 --seeds 3,4,5,6,7
	$(BIN)/bench run --reference --ablation controls --nulls each --seeds 0,1,2
	$(BIN)/bench run --reference --ablation controls --seeds 3,4
	$(BIN)/bench run --reference --ablation tuning --seeds 0
	$(BIN)/bench run --reference --ablation systems --nulls each --seeds 0,1,2
	$(BIN)/bench run --reference --ablation systems --seeds 3,4
	$(BIN)/bench run --reference --ablation worlds --seeds 0,1
	for each in block_design supervision guided_encoders guided_parts guided_retrieval projector channels \
	  released_code masking conditioning encoders selection guided_selection artefacts; do \
	  $(BIN)/bench run --reference --ablation $$each --nulls each --seeds 0,1,2 || exit; done

docs: .venv/ready
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build/html

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/python tests/structure.py
	$(BIN)/mypy

.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	touch $@
