# In-store orders to the Profile Store. `make help` lists what there is.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
HOSTILE ?=
WEEK ?=
CASES ?= tests/cases
LOCK ?= constraints.txt
NAME ?=
# The newest Azurite that runs on Node 18, which Debian 12 has.
AZURITE := azurite@3.35.0
AUDIT := pip-audit@2.9.0
AXE := axe-core@4.14.1
REQUIREMENTS := requirements.txt requirements-celery.txt requirements-parquet.txt sandbox/requirements.txt demo/requirements.txt \
  requirements-dev.txt

.DEFAULT_GOAL := help

.PHONY: help
help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(INSTALLED)  ## A week of orders through a real Airflow, twice; HOSTILE=1 for a bad day, WEEK=mixed for a mixed one
	$(BIN)/python -m demo run $(if $(HOSTILE),--hostile) $(if $(WEEK),--week $(WEEK))

.PHONY: demo-backfill
demo-backfill: $(INSTALLED)  ## A past day backfilled beside the hourly run, again, and again with resend
	$(BIN)/python -m demo backfill

.PHONY: up
up: $(INSTALLED)  ## Start the sandbox and Airflow and leave them running; HOSTILE=1 for a bad day
	$(BIN)/python -m demo up $(if $(HOSTILE),--hostile)

.PHONY: down
down: $(INSTALLED)  ## Stop what `make up` left running; it keeps everything
	$(BIN)/python -m demo down

.PHONY: status
status: $(INSTALLED)  ## What of `make up` is running, and what has died
	$(BIN)/python -m demo status

.PHONY: reset
reset: $(INSTALLED)  ## Stop what `make up` left running and forget everything it held
	$(BIN)/python -m demo reset

.PHONY: chromium
chromium: $(INSTALLED)
	@command -v "$${CHROMIUM:-chromium}" >/dev/null || \
	  { echo "Chromium is not installed; install it (Debian: apt install chromium) or name one in CHROMIUM."; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r demo/requirements-browser.txt -c constraints.txt

.PHONY: browser
browser: chromium  ## A backfill by its form in a real browser, still there after down and up; needs Debian's chromium
	$(BIN)/python -m demo.promise

.PHONY: screenshots
screenshots: chromium  ## Forms and buttons tried in a real browser, and the pictures in docs/images; the same chromium
	$(BIN)/python -m demo.screenshots

.PHONY: test
test: $(INSTALLED)  ## All tests: real SDK, real HTTP, both databases, the real scheduler
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder --durations=10

.PHONY: test-production
test-production: $(INSTALLED)  ## The week on CeleryExecutor, Redis and PostgreSQL, one of two workers killed; needs Debian's redis-server
	$(BIN)/python -m pytest tests/production/celery_workers.py

.PHONY: test-browser
test-browser: chromium .cache/axe/$(AXE)  ## The page in a real browser: views, actions, strangers, what axe says; needs Debian's chromium and npm
	$(BIN)/python -m pytest -n 2 tests/page/in_a_browser.py

.cache/axe/$(AXE):
	npm install --no-save --no-audit --no-fund --prefix .cache/axe $(AXE)
	@touch $@

.PHONY: compose-check
compose-check: $(INSTALLED) servers  ## docker-compose.yaml carried out without a registry; as root, with Debian's docker.io, iptables, debootstrap
	$(BIN)/python -m tests.production.compose_check

.PHONY: servers
servers: .servers/$(AZURITE)  ## Azurite for the tests of Azure Blob Storage, which are skipped without it; needs npm

.servers/$(AZURITE):
	npm install --no-save --no-audit --no-fund --prefix .servers $(AZURITE)
	@touch $@

.PHONY: faults
faults: $(INSTALLED)  ## The whole fault suite: kills, bad networks, full disks; its totals as JSON on the last line
	$(BIN)/python -m tests.faults

.PHONY: wake-up
wake-up: $(INSTALLED)  ## Runs woken by messages and extracts; triggerer, scheduler and tasks killed fifteen times; ten minutes
	FAULTS_FULL=1 WAKE_UP_KILLS=15 $(BIN)/python -m pytest -q tests/faults/test_wake_up.py

.PHONY: cases
cases: $(INSTALLED)  ## Inputs that went wrong elsewhere, through the DAG's tasks: what came out, what is right; CASES=DIR for yours
	$(BIN)/python -m tests.cases $(CASES)

MINUTES ?= 30
.PHONY: fuzz
fuzz: $(INSTALLED)  ## Made-up and damaged files in made-up dialects against other readers, for half an hour; MINUTES=5
	@end=$$(( $$(date +%s) + 60 * $(MINUTES) )); while [ $$(date +%s) -lt $$end ]; do \
	  FUZZ_EXAMPLES=300 $(BIN)/python -m pytest -q -n 2 tests/instore/sources/adapters/test_fuzz.py \
	    tests/instore/sources/adapters/test_damage.py || exit 1; done

.PHONY: benchmark
benchmark: $(INSTALLED)  ## What people ask of the ledger, timed with a million orders in it, on both databases; ten minutes
	$(BIN)/python -W ignore -m benchmarks

.PHONY: bench
bench: $(INSTALLED)  ## What a run costs, beside the release before and beside simple scripts; ratios as JSON on the last line; 40 minutes
	$(BIN)/python -W ignore -m benchmarks.compare full

.PHONY: bench-quick
bench-quick: $(INSTALLED)  ## The same of a month of extracts, a small run and a ledger of 100,000 orders; 4 minutes
	$(BIN)/python -W ignore -m benchmarks.compare quick

.PHONY: benchmark-files
benchmark-files: $(INSTALLED)  ## CSV, JSON and XML of 2 GB each read in less than 200 MB of memory; an hour, MB=200 for less
	$(BIN)/python -W ignore -m benchmarks.streaming --mb $(or $(MB),2000)

.PHONY: mutants
mutants: $(INSTALLED)  ## Bugs planted one by one, each named with the test that kills it; totals as JSON on the last line
	$(BIN)/python -m tests.mutants

.PHONY: audit
audit: $(INSTALLED)  ## Known weaknesses of what is locked, by pip-audit; where advisories cannot be reached it fails
	@$(BIN)/uv tool run $(AUDIT) --strict --no-deps --disable-pip -r constraints.txt || \
	  { echo "Not audited, or not clean: either pip-audit or its advisories cannot be reached, or it names weaknesses above."; exit 1; }

.PHONY: lint
lint: $(INSTALLED)  ## Style, types, who imports whom, and whether lock file and generated pages are up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports --no-cache
	PYTHONPATH=. $(BIN)/python docs/configuration_docs.py
	PYTHONPATH=. $(BIN)/python docs/codes_docs.py
	PYTHONPATH=. $(BIN)/python docs/adapters_docs.py
	$(MAKE) --no-print-directory lock LOCK=$(VENV)/constraints.txt
	diff constraints.txt $(VENV)/constraints.txt || { echo "constraints.txt is not what the requirements resolve to; run: make lock"; exit 1; }

.PHONY: adapter
adapter: $(INSTALLED)  ## A new adapter with its sample and test: make adapter NAME=acme
	$(BIN)/python adapters/new.py "$(NAME)"

.PHONY: docs
docs: $(INSTALLED)  ## Write the pages that are made from the code: settings, codes, connection fields, the order's schema
	PYTHONPATH=. $(BIN)/python docs/configuration_docs.py --write
	PYTHONPATH=. $(BIN)/python docs/codes_docs.py --write
	PYTHONPATH=. $(BIN)/python docs/adapters_docs.py --write

.PHONY: lock
lock: $(INSTALLED)  ## Resolve the requirements into constraints.txt
	test $(LOCK) = constraints.txt || cp constraints.txt $(LOCK)
	UV_PYTHON_DOWNLOADS=never $(BIN)/uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.10 \
	  --no-header --no-annotate --output-file $(LOCK) $(REQUIREMENTS)

.PHONY: clean
clean:  ## Stop everything, remove what the demo wrote and the virtual environment
	for folder in .demo .demo-run .cache/screenshots .cache/browser; do \
	  test ! -x $(BIN)/python || $(BIN)/python -m demo reset --folder $$folder || exit 1; rm -rf $$folder; done
	rm -rf .servers .cache/axe $(VENV)

$(INSTALLED): $(REQUIREMENTS) constraints.txt plugins/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed; name one with: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	  { echo "Python's venv module is missing; install it (Debian: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "Installing what the requirements name; the first time takes a minute or two."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(REQUIREMENTS:%=-r %) -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e ./plugins
	@touch $@
