# Everything that a newcomer or the CI needs; git, make and Python 3.11 or later are enough to begin.

VENV := .venv
BIN := $(VENV)/bin
NODE := tests/services/node
# One pytest worker per core of a small machine; each starts its own servers. `make test PYTEST="-k redis"` narrows it.
WORKERS ?= 2
PYTEST ?=

.DEFAULT_GOAL := help
.PHONY: help demo test check format clean

help: ## Say what can be made
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

demo: $(VENV)/installed ## Run the sidecar in front of a small application, with a small identity provider
	@$(BIN)/sidecar demo

test: $(VENV)/installed-for-development system-packages $(NODE)/node_modules/.package-lock.json ## Run every test against real servers
	@$(BIN)/pytest -n $(WORKERS) --dist loadfile $(PYTEST)

check: $(VENV)/installed-for-development ## Check format, style, types and architecture
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@test ! -f tests/test_architecture.py || $(BIN)/pytest tests/test_architecture.py

format: $(VENV)/installed-for-development ## Format the code, and mend what ruff can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean: ## Delete everything that was made here
	rm -rf $(VENV) $(NODE)/node_modules build dist .demo .mypy_cache .pytest_cache .ruff_cache .hypothesis test-results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: system-packages
system-packages:
	@tools/system-packages

# A stamp that is older than pyproject.toml is made again.
$(VENV)/installed: pyproject.toml
	@tools/virtual-environment $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/installed-for-development: pyproject.toml
	@tools/virtual-environment $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,check]'
	@touch $(VENV)/installed $@

$(NODE)/node_modules/.package-lock.json: $(NODE)/package.json $(NODE)/package-lock.json
	@cd $(NODE) && npm ci --silent
	@touch $@
