# `make run` and `make test` need Python 3.11 and make, and nothing else; the virtual environment is made as needed.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help run test test-system check docs format lint types contracts bench torture soak powerloss fuzz lock audit clean

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml xybridd/client/_recorder.c xybridd/client/build_recorder.py examples/clients/xybridd_ring.h
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not there; name another with: make PYTHON=python3"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,examples]'
	@touch $@

run: $(STAMP)  ## a daemon, an app at work, a live view (DURATION=10: for ten seconds)
	@$(BIN)/python examples/demo.py $(if $(DURATION),--seconds $(DURATION))

# Most tests wait, for processes and disks: more of them at once than there are processors. JOBS=0 is one after the other.
test: $(STAMP)  ## the tests, in random order (JOBS=4 at once)
	$(BIN)/python -m pytest -n $(or $(JOBS),4) $(PYTEST_ARGS)

test-system: $(STAMP)  ## a Debian with systemd is booted, and xybridd installed on it (root; mmdebstrap, systemd-container)
	XYBRIDD_TEST_SYSTEM=1 $(BIN)/python -m pytest tests/system -rsP $(PYTEST_ARGS)

format: $(STAMP)  ## bring the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP)  ## write what follows from the code: references in docs/, the man page
	$(BIN)/python docs/generate.py

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

contracts: $(STAMP)
	$(BIN)/lint-imports

check: lint types contracts test  ## everything that CI runs

bench: $(STAMP)  ## measure, beside floors and peers of the same run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

torture: $(STAMP)  ## kill, starve, corrupt; compare to what producers wrote down (MINUTES=15, SEED= of an earlier run)
	$(BIN)/python -m tests.torture --minutes $(or $(MINUTES),5) $(if $(SEED),--seed $(SEED)) $(TORTURE_ARGS)

soak: $(STAMP)  ## a day of a device in minutes: what the daemon takes must not grow (MINUTES=15)
	$(BIN)/python -m tests.torture.soak --minutes $(or $(MINUTES),15) $(SOAK_ARGS)

lock: $(STAMP)  ## pin what a release is installed with, each file by its hash
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'
	{ sed -n '/^#/p;/^[^#]/q' .ci/requirements.lock; \
	  $(BIN)/uv pip compile pyproject.toml --extra metrics --extra network --extra nvidia --universal \
	    --python-version 3.11 --generate-hashes --no-header --quiet; } > .ci/requirements.lock.new
	mv .ci/requirements.lock.new .ci/requirements.lock

audit: $(STAMP)  ## ask for known weaknesses of what is pinned
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.7'
	$(BIN)/pip-audit --requirement .ci/requirements.lock --require-hashes --disable-pip

powerloss: $(STAMP)  ## every state that a disk may hold when the power fails, every kind of damage, many random lives (an hour)
	XYBRIDD_POWER_LOSSES=all XYBRIDD_DAMAGES=all XYBRIDD_LIVES=1000 $(BIN)/python -m pytest tests/damage $(PYTEST_ARGS)

fuzz: $(STAMP)  ## look for bytes that something does not bear, with atheris (MINUTES=1 for each target)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fuzz]'
	@for target in $$($(BIN)/python -c 'from tests.fuzz.targets import TARGETS; print(*TARGETS)'); do \
	    echo "$$target"; $(BIN)/python -m tests.fuzz.hunt $$target $$(( $(or $(MINUTES),1) * 60 )) || exit 1; done

clean:  ## take away what was made
	rm -rf $(VENV) .run build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
