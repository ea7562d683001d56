# Everything starts here: each target makes .venv and installs what it needs by itself.
# Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check
WORKERS ?= 2

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/.installed-demo ## VGG16 before and after docs/rules/vgg16_batchnorm.rw, with checked facts
	@$(BIN)/python docs/demo.py

.PHONY: test
test: $(VENV)/.installed-test ## The whole check: lint, format, types, tests; what CI runs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n $(WORKERS) -m "not long"

.PHONY: test-long
test-long: $(VENV)/.installed-test ## The tests that take minutes: 10,000 random networks and rules
	$(BIN)/python -m pytest -n $(WORKERS) -m long

.PHONY: bench
bench: $(VENV)/.installed-test ## Sites reached on real models; times beside torch.fx, networkx and Keras; one rule file on both VGG16s
	$(BIN)/python -m benchmarks.sites
	$(BIN)/python -m benchmarks.models
	$(BIN)/python -m benchmarks.zoo_times
	$(BIN)/python -m benchmarks.chains
	$(BIN)/python -m benchmarks.parsing
	$(BIN)/python -m benchmarks.patterns
	$(BIN)/python -m benchmarks.worked_rules
	$(BIN)/python -m benchmarks.both_frameworks
	$(BIN)/python -m benchmarks.keras_rebuild

.PHONY: docs
docs: $(VENV)/.installed-test ## Write the pages of docs that are made from tables of the code
	KERAS_BACKEND=torch $(BIN)/python -m docs.generate

.PHONY: clean
clean: ## Remove .venv and everything that tools leave behind
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build

# The stamps: a file that is newer than what it was made from means "installed already".
# The build backend is installed first, so that pip builds with the pinned one and not in a fresh environment.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "rewrite needs Python 3.11 or newer; give one: make PYTHON=python3.12"; exit 1; }
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed-demo: $(VENV)/.made pyproject.toml constraints.txt
	@echo "installing rewrite and torchvision into $(VENV)"
	@$(PIP) install -c constraints.txt hatchling editables
	@$(PIP) install -c constraints.txt --no-build-isolation -e '.[vision]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed-demo
	@echo "installing what the tests need into $(VENV)"
	@$(PIP) install -c constraints.txt --no-build-isolation -e '.[vision,test,zoo]'
	@touch $@
