# `make help` lists what there is. Every target installs what it needs and can be run again at any time.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
SITES ?= 3
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

.PHONY: bootstrap
bootstrap:
	@tools/bootstrap.sh

.PHONY: lock
lock: bootstrap ## Resolve requirements.in (and the collector's, the hub's and the lab's) into the lock files again
	uv -q pip compile --universal --generate-hashes --no-annotate --no-header --python-version 3.11 requirements.in -o requirements.lock
	uv -q pip compile --no-deps --generate-hashes --no-annotate --no-header lab/data.in -o lab/data.lock
	for part in collector hub; do \
	  uv -q pip compile --universal --generate-hashes --no-annotate --no-header --python-version 3.10 \
	    -c requirements.lock $$part/requirements.in -o $$part/requirements.lock || exit 1; done
	uv -q pip compile --universal --generate-hashes --no-annotate --no-header tools/uv.in -o tools/uv.lock
