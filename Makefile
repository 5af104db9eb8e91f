# `make demo` and `make test` work on a fresh machine: they create .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help install demo test slow check format docs

help:
	@echo "make demo     install, pretrain on one bundled photo and write runs/demo/report.html"
	@echo "make test     install and run the tests, or those in TESTS=files (SELFTAUGHT_TEST_PRECISION=32 or bf16)"
	@echo "make slow     run the slow tests"
	@echo "make check    check formatting, lint and types"
	@echo "make format   format the code"
	@echo "make docs     generate the pages of the pretext tasks and of the studies"

# Reinstalled when the dependencies change. uv is used if available, because it is faster.
install: .venv/.installed
.venv/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	if command -v uv >/dev/null; then uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev]'; \
	else $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'; fi
	touch .venv/.installed

demo: install
	$(BIN)/selftaught demo

test: install
	$(BIN)/python -m pytest -n auto --dist worksteal $(TESTS)

slow: install
	$(BIN)/python -m pytest -m slow

check: install
	$(BIN)/ruff format --check src tests benchmarks docs
	$(BIN)/ruff check src tests benchmarks docs
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix --quiet src tests benchmarks docs
	$(BIN)/ruff format src tests benchmarks docs

docs: install
	$(BIN)/python docs/make.py
	$(BIN)/python docs/make_studies.py
