# The commands that the README and CI use. Each installs what it needs into .venv and is safe to run twice.

PYTHON ?= python3
ENGINE ?=
PORT ?= 8000
MODEL_PATH ?= weights/pneumonia_classifier.pth
DATA ?= chest_xray
XRAY ?= xray.jpg
STACK ?= pneumonia
TAG ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null)
ARCHITECTURE ?= x86_64
ROLLOUT ?= Canary10Percent5Minutes
PARAMETERS ?=
UPGRADE ?= --upgrade
BIN := .venv/bin

IS_ONNX := $(filter onnx,$(ENGINE))

.DEFAULT_GOAL := help
.PHONY: help develop run train unit test slow-test image-test check lint-template format bench lock deploy destroy clean

help:  ## list the commands
	@sed -n "s/^\([a-z-]*\):.*## /\1\t/p" $(MAKEFILE_LIST) | expand -t 14

# An environment for development also has what serving needs, and its PyTorch may be another build: it stays as it is. The
# engine onnx has an environment of its own, without PyTorch.
ifdef IS_ONNX
run: .venv/onnx/serving
run: BIN := .venv/onnx/bin
run: override MODEL_PATH := $(MODEL_PATH:.pth=.onnx)
else
run: $(or $(wildcard .venv/development),.venv/serving)
endif
run:  ## serve MODEL_PATH, by default the model in weights/, on http://127.0.0.1:PORT, by default 8000; ENGINE=onnx without PyTorch
	@test -f "$(MODEL_PATH)" || { echo "MODEL_PATH names $(MODEL_PATH), which is no file: name a weights file, or promote a model there." >&2; exit 1; }
	@ENGINE=$(ENGINE) MODEL_BUCKET= MODEL_PATH="$(MODEL_PATH)" exec $(BIN)/python -m pneumonia serve --port $(PORT)

develop: .venv/development  ## install what training, evaluation and tests need on top of serving

train: .venv/development  ## train on DATA/{train,val,test}; ARGUMENTS="--epochs 8"; goes on where it was stopped
	@test -d "$(DATA)/train" || { echo "DATA names $(DATA), which has no folder train: make train DATA=folder, see docs/tutorial.md." >&2; exit 1; }
	exec $(BIN)/python train_model.py --train "$(DATA)/train" --val "$(DATA)/val" --test "$(DATA)/test" --model-dir runs/model \
		--output-data-dir runs/output --checkpoint-dir runs/checkpoints $(ARGUMENTS)

# Threads that wait do not spin: where other work runs beside it, spinning makes training ten times slower.
train unit test slow-test image-test: export OMP_WAIT_POLICY := passive
# Python imports what it has compiled once, even where the shell says not to: the tests start it hundreds of times.
unit test slow-test image-test: export PYTHONDONTWRITEBYTECODE :=
# Two processes share the tests, so that one works while the other waits; each keeps to one core.
unit test: export OMP_NUM_THREADS := 1
unit test: PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

unit: .venv/development  ## the tests that start no process, server or browser, in about five minutes on two cores
	$(PYTEST) --unit

test: .venv/development  ## all tests but the slow ones and the image build
	$(PYTEST) -m "not image and not slow"

slow-test: .venv/development  ## train in SageMaker's way and serve the result; kill trainings and promotions at any moment
	$(BIN)/python -m pytest -m slow

image-test: .venv/development  ## build the Dockerfile with buildah and invoke its handler, for both engines or for ENGINE
	$(BIN)/python -m pytest -m image $(if $(ENGINE),-k "[$(ENGINE)]")

check: .venv/development  ## lint, formatting, types, the template of the AWS stack, and the security of the workflows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/cfn-lint template.yaml
	$(BIN)/zizmor --offline --no-progress --quiet .github

lint-template: .venv/sam/installed  ## what SAM's own validation finds in the template
	AWS_DEFAULT_REGION=eu-central-1 SAM_CLI_TELEMETRY=0 .venv/sam/bin/sam validate --lint --template template.yaml

format: .venv/development  ## fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/development  ## the figures of serving in docs/performance.md; XRAY is a full-size JPEG
	@test -f "$(XRAY)" || { echo "XRAY names $(XRAY), which does not exist: make bench XRAY=file." >&2; exit 1; }
	$(BIN)/python benchmarks/imports.py
	$(BIN)/python benchmarks/serving.py "$(XRAY)"

# Development's first, because it has the most packages: the others take its versions, so that what is tested is what is served.
lock: COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --custom-compile-command "make lock" $(UPGRADE) pyproject.toml
lock: .venv/bin/uv  ## pin the newest versions that pyproject.toml allows; UPGRADE= keeps those that are pinned
	$(COMPILE) --extra onnx --extra promotion --extra train --group dev --output-file requirements-dev.txt
	$(COMPILE) --extra onnx --extra promotion --constraint requirements-dev.txt --output-file requirements.txt
	echo torch | $(COMPILE) --extra onnx --excludes - --constraint requirements-dev.txt --output-file requirements-onnx.txt

# What talks to AWS. STACK names the stack, the image repository and the functions.

deploy destroy: export AWS_PAGER :=
deploy destroy: export SAM_CLI_TELEMETRY := 0
ifdef AWS_REGION
deploy destroy: export AWS_DEFAULT_REGION := $(AWS_REGION)  # the name that the SAM CLI reads
endif

# One sentence for what is missing, before anything is done.
define require
@for tool in $(1); do \
	command -v "$$tool" > /dev/null || { echo "$$tool is missing: docs/deployment.md says what to install." >&2; exit 1; }; \
done
@aws sts get-caller-identity > /dev/null 2>&1 || { \
	echo "No valid AWS credentials were found: run 'aws configure' or 'aws sso login', or set AWS_PROFILE." >&2; exit 1; }
@[ -n "$${AWS_DEFAULT_REGION:-$$(aws configure get region)}" ] || { \
	echo "The region is missing: set AWS_REGION, for example to eu-central-1." >&2; exit 1; }
endef

# Images to go back to; older ones expire.
KEEP := {"rules": [{"rulePriority": 1, "description": "the newest 20", "action": {"type": "expire"}, \
	"selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 20}}]}

# An image's tag is its commit, and after it the engine unless it is torch, and the architecture unless it is x86_64.
tag = $(TAG)$(patsubst %,-%,$(filter-out torch,$(1)))$(patsubst %,-%,$(filter-out x86_64,$(ARCHITECTURE)))

# Promotion always has the image of torch. The repository is not part of the stack, because the stack's functions need an
# image when they are created.
deploy:  ## build, push, and deploy template.yaml behind a canary; ENGINE=onnx ARCHITECTURE=arm64 PARAMETERS="UrlAuthorization=NONE"
	$(if $(filter-out torch onnx,$(ENGINE)),@echo "ENGINE is $(ENGINE): set it to torch or onnx." >&2; exit 1)
	$(if $(filter x86_64 arm64,$(ARCHITECTURE)),,@echo "ARCHITECTURE is $(ARCHITECTURE): set it to x86_64 or arm64." >&2; exit 1)
	$(call require,git docker aws sam)
	$(if $(TAG),,@echo "The image is named by its commit, and this is not a git checkout: clone the repository." >&2; exit 1)
	@aws ecr describe-repositories --repository-names $(STACK) > /dev/null 2>&1 || \
		aws ecr create-repository --repository-name $(STACK) --image-tag-mutability IMMUTABLE \
			--image-scanning-configuration scanOnPush=true > /dev/null
	@aws ecr put-lifecycle-policy --repository-name $(STACK) --lifecycle-policy-text '$(KEEP)' > /dev/null
	@set -eu; \
	repository=$$(aws ecr describe-repositories --repository-names $(STACK) \
		--query "repositories[0].repositoryUri" --output text); \
	tools/push_image.sh torch $(ARCHITECTURE) "$$repository:$(call tag,torch)"; \
	$(if $(IS_ONNX),tools/push_image.sh onnx $(ARCHITECTURE) "$$repository:$(call tag,onnx)";) \
	sam deploy --template-file template.yaml --stack-name $(STACK) --capabilities CAPABILITY_IAM \
		--image-repository "$$repository" --no-confirm-changeset --no-fail-on-empty-changeset --parameter-overrides \
		ImageUri="$$repository:$(call tag,torch)" $(if $(IS_ONNX),OnnxImageUri="$$repository:$(call tag,onnx)") \
		Engine=$(or $(ENGINE),torch) Architecture=$(ARCHITECTURE) \
		Revision="$$(date -u +%y%m%d%H%M)" Rollout=$(ROLLOUT) $(PARAMETERS); \
	live=$$(aws lambda get-alias --function-name $(STACK)-inference --name live --query FunctionVersion --output text); \
	for version in $$(aws lambda list-versions-by-function --function-name $(STACK)-inference --output text --query \
		"Versions[?SnapStart.ApplyOn=='PublishedVersions' && Version!='\$$LATEST' && Version!='$$live'].Version"); do \
		echo "Version $$version is deleted, as AWS charges for its snapshot."; \
		aws lambda delete-function --function-name $(STACK)-inference --qualifier "$$version"; \
	done

destroy:  ## take the stack down, and say what is left
	$(call require,aws sam)
	@set -eu; \
	buckets=$$(aws cloudformation describe-stack-resources --stack-name $(STACK) \
		--query "StackResources[?ResourceType=='AWS::S3::Bucket' && ResourceStatus!='DELETE_COMPLETE'].PhysicalResourceId" --output text); \
	sam delete --stack-name $(STACK) --no-prompts; \
	echo "Left, with what is in them (docs/deployment.md tells how to delete them):"; \
	for bucket in $$buckets; do echo "  the bucket $$bucket"; done; \
	echo "  the image repository $(STACK)"; \
	echo "  the log group /aws/sagemaker/TrainingJobs, which all training jobs of the account share"

clean:  ## remove .venv
	rm -rf .venv

IS_NEW_ENOUGH := 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.13 ...")'

.venv/bin/uv:
	@$(PYTHON) -c $(IS_NEW_ENOUGH)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

.venv/serving: requirements.txt .venv/bin/uv
	tools/install.sh cpu requirements.txt
	@touch $@

# With pip: uv is there to choose a build of PyTorch, and would take an eighth of this environment's disk space.
.venv/onnx/serving: requirements-onnx.txt
	@$(PYTHON) -c $(IS_NEW_ENOUGH)
	$(PYTHON) -m venv --clear .venv/onnx
	.venv/onnx/bin/python -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-compile --requirement requirements-onnx.txt
	@touch $@

.venv/development: requirements-dev.txt .venv/bin/uv
	tools/install.sh auto requirements-dev.txt
	@touch $@

# An environment of its own: the SAM CLI pins what it needs.
.venv/sam/installed: .venv/bin/uv Makefile
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv/sam
	$(BIN)/uv pip install --quiet --python .venv/sam/bin/python aws-sam-cli==1.170.0
	@touch $@
