# Everything that a newcomer or the CI needs; git, make and Python 3.11 or later are enough to begin.

VENV := .venv
BIN := $(VENV)/bin
NODE := tests/services/node
# Pytest workers, one more than a small machine has cores: tests mostly wait. Each starts its own servers. `make test PYTEST="-k redis"` narrows it.
WORKERS ?= 3
# Those are checks: they need the network once.
NOT_HERE := --ignore tests/test_deployment.py --ignore tests/test_image.py
COMPILED := .cache/compiled
BARE := .cache/bench/environment
# What `make test` runs once more with compiled modules, and on the event loop that all run on; `make test-compiled PYTEST=tests` runs everything so.
TESTS_OF_COMPILED := $(filter-out %_variants.py,$(wildcard tests/test_express*.py tests/test_upstream_*.py tests/test_audit_*.py tests/test_attacks_*.py)) \
  tests/test_proxying.py tests/test_policy.py tests/test_paths.py tests/test_rulebook.py tests/test_regulars.py tests/test_limits.py \
  tests/test_headers.py tests/test_listening.py tests/test_forwarding.py tests/test_forward_auth.py tests/test_questions.py tests/test_journey.py tests/test_compiled.py
PYTEST ?=
# What failed, in whichever half, said once more at the end.
FAILED := $(CURDIR)/.cache/failed-tests
TEST := $(CURDIR)/$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --failed-to $(FAILED) $(NOT_HERE)
# `make check DEPLOYMENT=skip` leaves out the container image and the chart, which need the network once, to build Helm.
DEPLOYMENT ?=
# `make bench BENCH="--quick small"` takes about a minute, or only one scenario.
BENCH ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-compiled check bench bench-saml docs format clean

help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: $(VENV)/installed ## Run the sidecar in front of a small application, with a small identity provider
	@$(BIN)/sidecar demo

test: $(VENV)/installed-for-development system-packages keycloak $(NODE)/node_modules/.package-lock.json ## Run every test against real servers (those of image and chart: make check)
	@rm -f $(FAILED)
	@$(TEST) --no-loadscope-reorder $(PYTEST) || failed=1; \
	$(if $(PYTEST),,$(MAKE) --no-print-directory test-compiled || failed=1;) \
	if [ -e $(FAILED) ]; then printf '\nFailed:\n' >&2; cat $(FAILED) >&2; fi; exit $${failed:-0}

test-compiled: $(COMPILED)/made system-packages keycloak $(NODE)/node_modules/.package-lock.json ## Run the tests of the request path with the modules compiled that the image has compiled
	@cd $(COMPILED) && $(TEST) -p no:cacheprovider -p tests.services.on_uvloop $(or $(PYTEST),$(TESTS_OF_COMPILED))

check: $(VENV)/installed-for-development $(if $(filter skip,$(DEPLOYMENT)),,$(VENV)/installed-for-deployment) ## Check format, style, types, architecture, container image and Helm chart
	@BIN=$(BIN) DEPLOYMENT=$(DEPLOYMENT) tools/check

bench: $(COMPILED)/made $(BARE)/installed ## Measure speed and memory beside nginx, Apache mod_auth_openidc and oauth2-proxy
	@tools/bench-peers
	@cd $(COMPILED) && $(abspath $(BIN))/python -m bench $(BENCH)

bench-saml: $(VENV)/installed-for-development ## Measure how many SAML answers a process verifies in a second
	@$(BIN)/python -m bench.saml

docs: $(VENV)/installed-for-deployment ## Build the documentation as a site, into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: $(VENV)/installed-for-development ## Format the code, and mend what ruff can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean: ## Delete everything that was made here
	rm -rf $(VENV) $(NODE)/node_modules build dist site .demo .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis test-results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: build-packages
build-packages:
	@tools/system-packages build

.PHONY: system-packages
system-packages:
	@tools/system-packages

.PHONY: keycloak
keycloak: system-packages
	@tools/keycloak

.PHONY: engines
engines: ## Build OpenFGA and OPA once, which takes minutes; without them the tests that ask them are skipped
	@tools/engines || echo "The tests that ask a real OpenFGA and a real OPA are skipped." >&2

# A copy of all this in which the request path is compiled, made anew when anything in it has changed.
$(COMPILED)/made: $(VENV)/installed-for-development $(filter-out bench/results.md,$(wildcard $(shell git ls-files 2>/dev/null)))
	@echo "Compiling the request path, which takes about a minute"
	@$(BIN)/python tools/compiled.py
	@touch $@

# What is measured has its own dependencies and no others: the Redis client, for one, loads OpenTelemetry where it is.
$(BARE)/installed: pyproject.toml | $(VENV)/installed-for-development
	@$(BIN)/python -m venv --clear $(BARE)
	@tools/install $(BARE) .
	-@$(BARE)/bin/python -m compileall -q $(BARE)/lib # as pip does; without, each start takes more time and memory
	@touch $@

# A stamp that is older than pyproject.toml is made again.
$(VENV)/installed: pyproject.toml
	@tools/virtual-environment $(VENV)
	@tools/install $(VENV) --editable .
	@touch $@

$(VENV)/installed-for-development: pyproject.toml | build-packages
	@tools/virtual-environment $(VENV)
	@tools/install $(VENV) --editable '.[test,check]'
	@touch $(VENV)/installed $@

$(VENV)/installed-for-deployment: $(VENV)/installed-for-development
	@tools/install $(VENV) --editable '.[deploy]'
	@touch $@

$(NODE)/node_modules/.package-lock.json: $(NODE)/package.json $(NODE)/package-lock.json
	@cd $(NODE) && npm ci --silent
	@touch $@
