# Short names for what CONTRIBUTING.md describes. `just` alone lists them.

default:
    @just --list

# A balancer and three servers on one machine; then `curl localhost:8080`.
run *ARGS="-p . -c nginx-examples/quickstart.conf":
    cargo run --release -- {{ARGS}}

# Every test, or those whose name has NAME in it.
test *NAME:
    cargo test -- {{NAME}}

# What is quick to know: does it compile, is it tidy.
check:
    cargo fmt --check
    cargo clippy --all-targets --locked -- -D warnings
    cargo test --test main -- tidy

# Writes anew what is generated: DIRECTIVES.md, fixtures/faults/*.stderr. Read the difference before you commit it.
bless:
    BLESS=1 cargo test --test main -- tidy::directives versus::faults

# One fuzz target, for SECONDS. What it finds goes to a folder of its own; fuzz/corpus is only read.
fuzz TARGET SECONDS="60":
    mkdir -p fuzz/found/{{TARGET}}
    RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none {{TARGET}} fuzz/found/{{TARGET}} fuzz/corpus/{{TARGET}} -- -max_total_time={{SECONDS}} -timeout=10

# Side by side with nginx and HAProxy.
bench:
    cargo bench --bench side_by_side

# Nanoseconds per choice of a peer, by method and number of peers.
picks:
    cargo bench --bench picks

# Licences, sources and known faults of what is linked in.
deny:
    cargo deny check

# All that is checked before a change goes in.
ci:
    .ci/run
