# Both targets make .venv when it is missing. Needs Python 3.11 and nothing else.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: demo test lint clean

demo: .venv/.installed
	$(BIN)/python -m avdetect data/samples/sample_late.mp4 --html report.html
	@echo "report.html holds the same verdict with curves and faces"

test: .venv/.installed-dev
	$(BIN)/python -m pytest -n 2
	$(MAKE) --no-print-directory lint

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "avdetect needs Python 3.11 or 3.12 (mediapipe has no wheels for others); install it, or name yours: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' || { echo "$(PYTHON) is not Python 3.11 or 3.12 (mediapipe has no wheels for others); name another: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.installed: .venv/bin/python pyproject.toml
	$(BIN)/pip install --quiet -e .
	@touch $@

.venv/.installed-dev: .venv/bin/python pyproject.toml
	$(BIN)/pip install --quiet -e '.[dev]'
	@touch $@ .venv/.installed

clean:
	rm -rf .venv build *.egg-info report.html
