# The commands that the README and CI use. Each installs what it needs into .venv and is safe to run twice.

PYTHON ?= python3
PORT ?= 8000
MODEL_PATH ?= weights/pneumonia_classifier.pth
DATA ?= chest_xray
XRAY ?= xray.jpg
BIN := .venv/bin
# PyTorch's CPU wheels: TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu. Unset, the ordinary index serves.
TORCH_INDEX := $(if $(TORCH_INDEX_URL),--extra-index-url $(TORCH_INDEX_URL) --index-strategy unsafe-best-match)
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python $(TORCH_INDEX)

.DEFAULT_GOAL := help
.PHONY: help run train test image-test check format bench lock clean

help:  ## list the commands
	@sed -n "s/^\([a-z-]*\):.*## /\1\t/p" $(MAKEFILE_LIST) | expand -t 14

run: .venv/serving  ## serve MODEL_PATH, by default the model in weights/, on http://127.0.0.1:8000
	MODEL_PATH=$(MODEL_PATH) $(BIN)/uvicorn app:app --port $(PORT)

train: .venv/development  ## train on DATA/{train,val,test}; ARGUMENTS="--epochs 8"; goes on where it was stopped
	$(BIN)/python train_model.py --train $(DATA)/train --val $(DATA)/val --test $(DATA)/test --model-dir runs/model \
		--output-data-dir runs/output --checkpoint-dir runs/checkpoints $(ARGUMENTS)

test: .venv/development  ## all tests but the image build
	$(BIN)/python -m pytest -m "not image"

image-test: .venv/development  ## build the Dockerfile with buildah and invoke its handler
	$(BIN)/python -m pytest -m image

check: .venv/development  ## lint, formatting, types and what is unsafe in workflows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/zizmor --offline --no-progress --quiet .github

format: .venv/development  ## mend what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/development  ## the figures of serving in docs/performance.md; XRAY is a full-size JPEG
	$(BIN)/python benchmarks/imports.py
	$(BIN)/python benchmarks/serving.py $(XRAY)

lock: .venv/bin/uv  ## pin the newest versions that pyproject.toml allows
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --custom-compile-command "make lock" \
		pyproject.toml --output-file requirements.txt
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --custom-compile-command "make lock" \
		pyproject.toml --extra train --group dev --constraint requirements.txt --output-file requirements-dev.txt

clean:  ## remove .venv
	rm -rf .venv

.venv/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.13 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

.venv/serving: requirements.txt .venv/bin/uv
	$(INSTALL) --requirement requirements.txt
	@touch $@

.venv/development: requirements-dev.txt .venv/bin/uv
	$(INSTALL) --requirement requirements-dev.txt
	@touch $@
