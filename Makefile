# The few commands a person needs. Cargo decides what has to be built; nothing here is a file.

.DEFAULT_GOAL := help
.PHONY: help demo up test fuzz chaos handover lint fmt bench deny install-missing

# Where rustup puts cargo, for shells that have not been told yet.
export PATH := $(PATH):$(HOME)/.cargo/bin

CHAOS_MINUTES ?= 10
FUZZ_MINUTES ?= 10
CHAOS_SEED ?= 1
demo_binaries := --bin chiptided --bin chiptide-agent --bin chiptide --bin chiptide-sim

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | while IFS='	' read -r name what; do \
		printf '  make %-16s %s\n' "$$name" "$$what"; done

demo: install-missing ## See it work: a whole cluster on this machine, judged; writes demo-report.json
	cargo build --profile demo $(demo_binaries)
	target/demo/chiptide-sim demo --json demo-report.json

up: install-missing ## Run a cluster on this machine until Ctrl-C, on its own chips or on fake ones
	cargo build --profile demo $(demo_binaries)
	target/demo/chiptide up

test: install-missing ## Everything that must hold: format, tests, lints, query files
	cargo fmt --check
	cargo test --workspace
	cargo run --quiet --package chiptide-sim -- chaos --seeds 0..10000
	$(MAKE) --no-print-directory lint
	cargo xtask db-check

fuzz: install-missing ## Spoiled requests to every route for FUZZ_MINUTES (10), with new chance each time; a fixed few are part of `test`
	FUZZ_SECONDS=$$(( $(FUZZ_MINUTES) * 60 / 9 )) cargo test --package chiptide-daemon --test http hostile -- --nocapture --test-threads 1

chaos: install-missing ## Real faults under load for CHAOS_MINUTES (10), judged; a short version is part of `test`
	cargo build --profile demo $(demo_binaries) --features chiptide-daemon/failpoints,chiptide-agent/failpoints
	cargo build --profile demo --package fake-nvml
	target/demo/chiptide-sim faults --all --faults 100000 --minutes $(CHAOS_MINUTES) --seed $(CHAOS_SEED) --json chaos-report.json

handover: install-missing ## How long a chip takes from one holder to the next, with real processes
	cargo build --profile demo $(demo_binaries)
	cargo build --profile demo --package fake-nvml
	target/demo/chiptide-sim handover --json handover-report.json

lint: ## Clippy without a warning, and the house rules
	cargo clippy --workspace --all-targets -- -D warnings
	cargo xtask tidy

fmt: ## Format the sources
	cargo fmt

bench: install-missing ## Load a daemon built for speed; prints rates and percentiles
	cargo build --release $(demo_binaries)
	target/release/chiptide-sim load $(BENCH_ARGS)

deny: ## Licences, banned crates and sources of the dependencies (needs cargo-deny: cargo install cargo-deny)
	@command -v cargo-deny >/dev/null || { echo 'cargo-deny is not installed; run: cargo install --locked cargo-deny' >&2; exit 1; }
	cargo deny check bans licenses sources

install-missing: ## Install what this machine lacks: a C compiler, make, Postgres
	@deploy/install-missing.sh
