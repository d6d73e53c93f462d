# `make demo` and `make test` need Python 3.11+ and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Installing compiles this where there is a C compiler; then the tests insist on it.
NATIVE := setup.py $(wildcard src/robocache/_native/*.[ch] src/robocache/_native/*.inc src/robocache/_native/python/*.[ch])
LONG := tests/stress/test_long_running.py
export ROBOCACHE_REQUIRE_NATIVE ?= $(if $(shell command -v cc),1,0)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test check lint fuzz clean
.DEFAULT_GOAL := help

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "PYTHON=python3.12 chooses the interpreter of $(VENV) (now: $(PYTHON), 3.11 or newer)."
	@echo "TEST_PROCESSES=8 runs the tests, but not those of $(LONG), in so many processes instead of 2."
	@echo "FUZZ_SECONDS=600 FUZZ_TARGETS='mcap image' fuzzes these so long, instead of all for a minute each."
	@echo "STRESS_TEST_DURATION=3600 makes the burn-in of 'make test' an hour instead of 20 seconds."

$(STAMP): pyproject.toml constraints.txt $(NATIVE)
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "RoboCache needs Python 3.11 or newer: run make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

demo: $(STAMP) ## record, align, build and load a generated robot; writes demo-output/report.html
	$(BIN)/robocache demo --out demo-output

test: check ## everything: lint, tests and the short stress suite
	STRESS_TEST_DURATION=$${STRESS_TEST_DURATION:-20} $(BIN)/python -m pytest $(LONG) -q
	$(BIN)/python -m pytest tests/stress --ignore=$(LONG) -q -n $${TEST_PROCESSES:-2} --dist worksteal

check: lint ## lint and tests without the stress suite: before every commit
	$(BIN)/python -m pytest -q -n $${TEST_PROCESSES:-2} --dist worksteal

lint: $(STAMP) ## ruff, mypy, import rules and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

fuzz: $(STAMP) ## fuzz the readers with atheris; what is found goes to fuzz-finds/
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[fuzz]'
	$(BIN)/python -m tests.readers.fuzz run $(FUZZ_TARGETS) --seconds $${FUZZ_SECONDS:-60}

clean: ## remove the virtual environment, caches and results
	rm -rf $(VENV) build src/*.egg-info src/robocache/_native/*.so .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis demo-output
