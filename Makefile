# The commands of the README. Everything runs in .venv, which is made on first use.
PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: train test fast check docs slow benchmark coverage format clean

train: $(STAMP)
	$(BIN)/python train.py $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 $(ARGS)

fast: $(STAMP)
	$(BIN)/python -m pytest -n 2 -q -m fast $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p crosschannel
	$(BIN)/mypy examples
	$(BIN)/lint-imports
	$(MAKE) docs

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet $(ARGS)

slow: $(STAMP)
	$(BIN)/python -m pytest -m slow $(ARGS)

benchmark: $(STAMP)
	$(BIN)/python -m pytest benchmarks -m benchmark $(ARGS)

coverage: $(STAMP)
	$(BIN)/python -m pytest -n 2 --cov --cov-report=term --cov-report=html $(ARGS)

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build site htmlcov .coverage *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
