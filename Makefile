# make train: set up and train.  make test: set up and test.  make parity: compare every network with its references.
# make check: everything that CI runs.
# Any of them with PYTHON=/path/to/python3.12 to choose the interpreter.

VENV := .venv
BIN := $(VENV)/bin
ifeq ($(PYTHON),)
PYTHON := $(shell for each in python3 python3.14 python3.13 python3.12 python3.11; do \
	if $$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$each; break; fi; done)
endif

.PHONY: train test test-slow parity test-torch-range lint types imports docs smoke check clean

train: $(VENV)/train.installed
	$(BIN)/python scripts/train.py

test: $(VENV)/test.installed
	$(BIN)/python -m pytest -n 2

# The tests that take long: processes that are killed and resumed, torch.compile of every layer, every network.
test-slow: $(VENV)/dev.installed
	$(BIN)/python -m pytest -n 2 -m slow --ignore tests/test_parity.py

parity: $(VENV)/test.installed
	$(BIN)/python -m pytest -n 2 -m slow tests/test_parity.py

test-torch-range: $(VENV)/dev.installed
	$(BIN)/nox --session torch_range

lint: $(VENV)/dev.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: $(VENV)/dev.installed
	$(BIN)/pyright

imports: $(VENV)/dev.installed
	$(BIN)/lint-imports

docs: $(VENV)/dev.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

smoke: $(VENV)/test.installed
	rm -rf runs/smoke
	$(BIN)/python scripts/train.py --epochs 1 --limit-batches 2 --output runs/smoke
	$(BIN)/python scripts/train.py --epochs 2 --output runs/smoke --resume
	$(BIN)/python scripts/export.py runs/smoke/best.safetensors --format onnx
	$(BIN)/python scripts/parity.py resnet18
	$(BIN)/python scripts/zoo_pages.py
	$(BIN)/python scripts/benchmark.py --rows build --models resnet18 --rounds 1 --plot runs/smoke/benchmark.svg

check: test lint types imports docs smoke test-slow parity

clean:
	rm -rf $(VENV) .nox runs site

# One stamp for each set of dependencies; made again when they change.
$(VENV)/%.installed: pyproject.toml | $(BIN)/python
	@echo 'Installing what "$*" needs into $(VENV); the first time PyTorch is downloaded, which takes a few minutes.'
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[$*]'
	@touch $@

$(BIN)/python:
	@if [ -z '$(PYTHON)' ]; then \
		echo 'lazytorch needs Python 3.11 or newer; python3 here is '"$$(python3 --version 2>&1 || echo none)"', and no' >&2; \
		echo 'other was found. Install one, or name one: make PYTHON=/path/to/python3.12 ...' >&2; exit 1; fi
	@command -v '$(PYTHON)' >/dev/null || { echo 'There is no PYTHON=$(PYTHON).' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'lazytorch needs Python 3.11 or newer; PYTHON=$(PYTHON) is '"$$($(PYTHON) --version 2>&1)"'.' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo '$(PYTHON) cannot make virtual environments: install its venv package (Debian: python3-venv).' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
