# The house's commands. `make demo` and `make test` are the two of the README: they install what is missing.
#
#   make demo        two hosts, two networks, one guest that moves, in namespaces that vanish afterwards
#   make test        everything that is tested; root, because the end-to-end tests make namespaces
#   make check       format, lints, unit tests: before each commit
#   make e2e         the end-to-end tests alone
#   make e2e-vm      the same with virtual machines; they are emulated where KVM does not work
#   make guest       the agent for guests, static and small: target/guest/TARGET/guest/shunt-guest
#   make bench       criterion
#   make bench-e2e   the product as a whole, in processes and namespaces, beside its peers; PART=control|moves for one part of it
#   make bench-pool  the forecast of a pool's size beside a fixed size, simulated; SEED
#   make bench-restart  ROUNDS (default 100) × kill -9 and ROUNDS × SIGTERM of a switch under RATE (50000) datagrams a second
#   make fuzz        each fuzz target for SECONDS_PER_TARGET seconds (default 60); needs cargo-fuzz and a C++ compiler
#   make fuzz-coverage   a table of what the fuzz corpora reach; needs llvm-19
#   make fresh       `make demo` and `make test` in a new Debian 12 root that has nothing but Rust and make

CARGO ?= cargo
SECONDS_PER_TARGET ?= 60
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

.PHONY: guest demo test check e2e e2e-vm bench bench-e2e bench-pool bench-restart chaos fuzz fresh tools-build tools-demo tools-test tools-vm tools-bench pure loom fuzz-replay fuzz-coverage

demo: tools-demo
	$(CARGO) run --quiet --locked -- demo

test: tools-test pure
	$(CARGO) test --workspace --locked
	$(MAKE) --no-print-directory loom fuzz-replay

check: tools-build
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) test --workspace --lib --locked

# The core compiles without its feature `io`; tests/purity.rs looks at what it then depends on.
pure:
	$(CARGO) check -p dataplane --no-default-features --locked

# Exhaustive models of publication, of settling and of the directory. A target directory of its own, for the flag would
# rebuild everything else.
loom:
	RUSTFLAGS="--cfg dataplane_loom" $(CARGO) test -p dataplane --no-default-features --lib --release --locked \
	    --target-dir target/loom loom_

# Corpora and past finds, replayed on stable. In the same target directory: most dependencies are then built already.
fuzz-replay:
	$(CARGO) test --manifest-path fuzz/Cargo.toml --target-dir target --locked

# What the corpora reach in the rooms that each target is about; needs llvm-19.
fuzz-coverage:
	scripts/fuzz-coverage.sh

# Static, so that one file runs in any guest. A target directory of its own: the flag would rebuild everything else.
GUEST_TARGET ?= $(shell rustc -vV | sed -n 's/^host: //p')
guest:
	RUSTFLAGS="-C target-feature=+crt-static" $(CARGO) build -p shunt-guest --profile guest --target $(GUEST_TARGET) \
	    --locked --target-dir target/guest
	@stat -c '%n: %s bytes' target/guest/$(GUEST_TARGET)/guest/shunt-guest

e2e: tools-test
	$(CARGO) test -p shunt --tests --locked

# Machines take a processor each while they boot, so one test at a time.
e2e-vm: tools-vm
	images/tiny/build >/dev/null
	$(CARGO) test --workspace --lib --locked -- --ignored hypervisor::qemu
	$(CARGO) test --workspace --test vm --locked -- --ignored --test-threads=1 --skip inside_

bench:
	$(CARGO) bench -p benches --locked

bench-e2e: tools-bench
	$(CARGO) bench --workspace --bench e2e --locked

bench-pool:
	$(CARGO) bench --workspace --bench pool --locked

bench-restart: tools-test
	$(CARGO) bench -p shunt --bench restart --locked

fuzz:
	scripts/fuzz.sh $(SECONDS_PER_TARGET)

fresh:
	scripts/fresh.sh

chaos:
	@echo "make $@: not there yet" >&2; exit 1

tools-build tools-demo tools-test tools-vm tools-bench:
	@scripts/install-tools.sh $(@:tools-%=%)
