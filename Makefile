# The commands of the README. Everything runs in .venv, which is made on first use.
PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

# Kernels for processors without AVX: with them OpenBLAS, PyTorch, MKL and NumPy round otherwise.
KERNELS := OPENBLAS_CORETYPE=Prescott ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE \
           NPY_DISABLE_CPU_FEATURES="X86_V3 X86_V4 AVX512_ICL"

# Everything but the package.
READER := README.md CHANGELOG.md CONTRIBUTING.md Makefile mkdocs.yml pyproject.toml constraints.txt \
          benchmarks configs docs examples tests

# Programs that tests start read what the first of them has compiled: otherwise each compiles the package for itself.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: train loop test fast check lint types docs kernels reader slow benchmark coverage format dist clean

train: $(STAMP)
	$(BIN)/python train.py $(ARGS)

loop: $(STAMP)
	$(BIN)/crosschannel simulate --config configs/closed_loop.yaml --out runs/closed_loop $(ARGS)
	$(BIN)/crosschannel trial --config runs/closed_loop/config.yaml --out runs/closed_loop/trial --force

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 $(ARGS)

fast: $(STAMP)
	$(BIN)/python -m pytest -n 2 -q -m fast $(ARGS)

check: lint types docs

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP)
	$(BIN)/mypy -p crosschannel -p benchmarks
	$(BIN)/mypy examples

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

kernels: $(STAMP)
	$(KERNELS) $(BIN)/python -m pytest -n 2 -m "numerics and not slow" $(ARGS)

# What a reader of the pages has: the wheel in a fresh environment, and no package in the folder. The commands, snippets,
# walkthroughs, notebooks and examples of the documentation run there.
reader: $(STAMP)
	rm -rf build/reader
	mkdir -p build/reader/folder
	$(BIN)/python -m build --wheel --outdir build/reader . > build/reader/build.log
	$(PYTHON) -m venv build/reader/venv
	build/reader/venv/bin/python -m pip install --quiet --constraint constraints.txt "$$(ls build/reader/*.whl)[test]"
	tar -c --exclude=__pycache__ $(READER) | tar -x -C build/reader/folder
	cd build/reader/folder && env -u PYTHONPATH ../venv/bin/python -m pytest -n 2 tests/docs tests/examples $(ARGS)

slow: $(STAMP)
	$(BIN)/python -m pytest -m slow $(ARGS)

benchmark: $(STAMP)
	$(BIN)/python -m pytest benchmarks -m benchmark $(ARGS)

coverage: $(STAMP)
	$(BIN)/python -m pytest -n 2 --cov --cov-report=term --cov-report=html $(ARGS)

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Builds and checks what is released; TAG, such as v0.2.0, must be that of the version.
dist: $(STAMP)
	test -z "$(TAG)" || test "$(TAG)" = "v$$($(BIN)/python -c 'from crosschannel.version import __version__; print(__version__)')"
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

clean:
	rm -rf $(VENV) build dist site htmlcov .coverage *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
