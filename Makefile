# A handful of words. `make demo` and `make test` do everything on a fresh machine: they make .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help install demo test slow check format docs

help:
	@echo "make demo     install what is needed, learn from one bundled photo, write runs/demo/report.html"
	@echo "make test     install what is needed, run the tests (SELFTAUGHT_TEST_PRECISION=32 or bf16: in that precision)"
	@echo "make slow     run the longer checks"
	@echo "make check    lint and types"
	@echo "make format   format the code"
	@echo "make docs     write the pages of the pretext tasks from their code"

# Installed once, and again when the list of what is needed changes. uv is used where it is at hand: it is quicker.
install: .venv/.installed
.venv/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	if command -v uv >/dev/null; then uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev]'; \
	else $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'; fi
	touch .venv/.installed

demo: install
	$(BIN)/selftaught demo

test: install
	$(BIN)/python -m pytest -n auto

slow: install
	$(BIN)/python -m pytest -m slow

check: install
	$(BIN)/ruff format --check src tests recipes benchmarks docs
	$(BIN)/ruff check src tests recipes benchmarks docs
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix --quiet src tests recipes benchmarks docs
	$(BIN)/ruff format src tests recipes benchmarks docs

docs: install
	$(BIN)/python docs/make.py
