# `make help` lists what there is. Every target installs what it needs and can be run again at any time.
SHELL := /bin/bash
.DEFAULT_GOAL := help
SITES ?= 3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
PYTHON_SOURCES := collector controller hub lab plugins tests tools
MOLECULE_SCENARIOS := $(notdir $(patsubst %/molecule.yml,%,$(wildcard tests/molecule/*/molecule.yml)))

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

.PHONY: bootstrap
bootstrap: ## Install the Debian packages and make .venv from the lock (every other target does it first)
	@tools/bootstrap.sh

.PHONY: bootstrap-tests
bootstrap-tests:
	@tools/bootstrap.sh tests

# ---- Use

.PHONY: demo
demo: bootstrap ## Lab, provisioning and data in one go: make demo [SITES=3]
	@wattfleet demo --sites $(SITES)

.PHONY: lab-down
lab-down: bootstrap ## End the lab and leave nothing of it behind
	@wattfleet lab down

.PHONY: release
release: bootstrap ## Build the collector's and the hub's single-file releases into build/dist
	@python tools/build_release.py collector
	@python tools/build_release.py hub

# ---- Check

.PHONY: test
test: ## Everything CI runs: lint, sanity, unit, molecule, fleet
	@tools/test.sh

.PHONY: lint
lint: bootstrap-tests ## ruff, mypy, yamllint, ansible-lint, generated files up to date
	ruff check $(PYTHON_SOURCES)
	ruff format --check $(PYTHON_SOURCES)
	mypy
	mypy --python-version 3.10 -p energy_collector
	mypy --explicit-package-bases plugins/module_utils/inventory tools tests/fleet tests/fault tests/bench
	yamllint --strict .
	ansible-lint --offline
	shellcheck tools/*.sh .ci/run
	python tools/role_readme.py --check
	python tools/generate_schema.py --check
	antsibull-changelog lint

.PHONY: sanity
sanity: bootstrap ## ansible-test sanity, as far as it runs without containers
	tools/sanity.sh

.PHONY: unit
unit: bootstrap-tests ## Python tests; they wait for real time-outs more than they compute, hence four at a time
	pytest -n 4

.PHONY: unit-floor
unit-floor: ## The same on the oldest supported line-up: Python 3.11 with ansible-core 2.19; WITHOUT=<folder> leaves one out
	@tools/bootstrap.sh floor
	.venv-floor/bin/pytest -n 4 $(addprefix --ignore=,$(WITHOUT))

.PHONY: unit-gateway
unit-gateway: ## The collector's tests on the oldest Python of a gateway: 3.10
	@tools/bootstrap.sh gateway
	PYTHONPATH=collector:controller:lab:tools:. .venv-gateway/bin/python -m pytest -n 4 tests/unit/collector

.PHONY: rollout-properties
rollout-properties: bootstrap-tests ## 10,000 random fleets and fault plans through the rollout engine
	WATTFLEET_EXAMPLES=10000 pytest tests/unit/controller/rollout/test_properties.py

.PHONY: molecule
molecule: bootstrap release ## Roles on real systemd hosts: make molecule [ROLE=network]
	tools/molecule.sh $(or $(ROLE),$(MOLECULE_SCENARIOS))

.PHONY: fleet
fleet: bootstrap release ## The whole path, every reading counted at both ends: make fleet [SITES=3]
	pytest tests/fleet --fleet-sites $(SITES)

.PHONY: fleet-short
fleet-short: bootstrap release ## The same without what takes many minutes: renewal, replacement, revocation, an upgrade, hardening undone, a hub that grows
	pytest tests/fleet --fleet-sites $(SITES) -m "not long and not rollout"

.PHONY: fleet-rollout
fleet-rollout: SITES = 12
fleet-rollout: bootstrap release ## Firmware across a fleet, good images and bad ones: make fleet-rollout [SITES=12]
	pytest tests/fleet -m rollout --fleet-sites $(SITES)

.PHONY: bootstrap-bench
bootstrap-bench:
	@tools/bootstrap.sh bench

.PHONY: bench
bench: bootstrap-bench ## Benchmarks into build/bench and docs/reference/costs.md: make bench [WHAT=inventory]
	python tests/bench/run.py $(WHAT)
	python tools/costs_page.py

.PHONY: faults
faults: bootstrap-tests release ## Fault tests at full size into build/faults and docs/reference/faults.md: make faults [WHAT=name] [ROUNDS=n]
	python tests/fault/run.py $(if $(ROUNDS),--rounds $(ROUNDS)) $(WHAT)
	python tools/faults_page.py

.PHONY: faults-few
faults-few: faults-readings faults-lockout ## The fault tests with few rounds, those that count readings of a lab fleet left out

.PHONY: faults-readings
faults-readings: bootstrap-tests
	pytest tests/fault --ignore=tests/fault/test_lockout.py

.PHONY: faults-lockout
faults-lockout: bootstrap-tests
	pytest tests/fault/test_lockout.py

# ---- Keep up to date

.PHONY: docs
docs: bootstrap ## Write the generated pages and the roles' READMEs again
	python tools/role_readme.py
	python tools/generate_schema.py

.PHONY: format
format: bootstrap ## Format and fix what ruff can
	ruff check --fix $(PYTHON_SOURCES)
	ruff format $(PYTHON_SOURCES)

.PHONY: lock
lock: bootstrap ## Resolve requirements.in (and the collector's, the hub's and the lab's) into the lock files again
	uv -q pip compile --universal --generate-hashes --no-annotate --no-header --python-version 3.11 requirements.in -o requirements.lock
	uv -q pip compile --no-deps --generate-hashes --no-annotate --no-header lab/data.in -o lab/data.lock
	for part in collector hub; do \
	  uv -q pip compile --universal --generate-hashes --no-annotate --no-header --python-version 3.10 \
	    -c requirements.lock $$part/requirements.in -o $$part/requirements.lock || exit 1; done
	uv -q pip compile --generate-hashes --no-annotate --no-header --python-version 3.10 -c collector/requirements.lock \
	  tests/unit/collector/requirements.in -o tests/unit/collector/requirements.lock
	uv -q pip compile --universal --generate-hashes --no-annotate --no-header tools/uv.in -o tools/uv.lock

.PHONY: clean
clean: lab-down ## End the lab and remove everything that was made here, the image cache included
	python -m wattfleet_lab image --prune
	rm -rf build .lab .venv .venv-floor .venv-gateway
