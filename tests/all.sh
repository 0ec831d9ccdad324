#!/usr/bin/env bash
# Runs everything that says whether Posthouse is good, and how long each stage took.
#
#   tests/all.sh            every stage, in order
#   tests/all.sh STAGE…     these stages alone; `tests/all.sh --list` names them
#
# Needs root (packages, mail servers, network namespaces) on Debian 12, and Rust. A stage that fails
# does not keep the later ones from running, so one run shows all that is wrong; the exit code is then 1.
# A stage that cannot run is a failure: nothing is skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly STAGES=(
    install fmt clippy tests doctests doc release gates config interop fuzz readme
)
# The longest a stage may take before it counts as hung, in seconds.
readonly STAGE_MAX_SECONDS=1500

export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
# A clean checkout gains nothing from incremental files, and they are most of the disk.
[ -z "${CI:-}" ] || export CARGO_INCREMENTAL=0

# Test binaries of tests/ that have a stage of their own.
readonly OWN_STAGE="interop gates"

test_binaries() {
    cargo metadata --no-deps --format-version 1 --offline 2>/dev/null ||
        cargo metadata --no-deps --format-version 1
}

# run_tests FILTER-ARGUMENTS…: by nextest where it is, by cargo's own runner otherwise.
run_tests() {
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --locked --no-fail-fast --no-tests=fail "$@"
    else
        cargo test --locked --no-fail-fast "$@"
    fi
}

stage_install() { tests/install.sh; }

stage_fmt() { cargo fmt --check; }

stage_clippy() { cargo clippy --locked --all-targets -- -D warnings; }

# Units, and every test binary without a stage of its own.
stage_tests() {
    local names
    names=$(test_binaries | python3 -c '
import json, sys
own = sys.argv[1].split()
for package in json.load(sys.stdin)["packages"]:
    for target in package["targets"]:
        if "test" in target["kind"] and target["name"] not in own:
            print("--test", target["name"])' "$OWN_STAGE")
    # shellcheck disable=SC2086 # two words per test binary
    run_tests --lib --bins $names
}

stage_doctests() { cargo test --locked --doc; }

stage_doc() { RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items; }

stage_release() { cargo build --locked --release; }

# Counts (system calls, instructions, octets, allocations) of the release build.
stage_gates() { cargo test --locked --test gates -- --test-threads=1; }

# Every example of config/ is accepted by the program itself.
stage_config() {
    local file checked=0
    for file in config/*.toml; do
        echo "config: $file"
        target_program release check --file-only "$file"
        checked=$((checked + 1))
    done
    echo "config: $checked files loaded"
    [ "$checked" -gt 0 ]
}

# Real servers and clients, and two hosts over network namespaces.
stage_interop() { run_tests --test interop; }

# The same inputs for the same commit; FUZZ_SECONDS=N hunts for new ones instead.
stage_fuzz() { fuzz/run.sh "${FUZZ_SECONDS:---same}"; }

# Every command of the README.
stage_readme() { tests/readme.sh; }

# target_program PROFILE ARGUMENTS…: the built program.
target_program() {
    local profile=$1
    shift
    "${CARGO_TARGET_DIR:-target}/$profile/posthouse" "$@"
}

# ---- running stages ---------------------------------------------------------------------------

if [ "${1:-}" = --list ]; then
    printf '%s\n' "${STAGES[@]}"
    exit 0
fi
if [ "${1:-}" = --stage ]; then # how this script calls itself, so that a stage can be timed out
    "stage_$2"
    exit
fi

wanted=("$@")
[ ${#wanted[@]} -gt 0 ] || wanted=("${STAGES[@]}")
for stage in "${wanted[@]}"; do
    [[ " ${STAGES[*]} " == *" $stage "* ]] || {
        echo "all: no stage is called $stage; stages: ${STAGES[*]}" >&2
        exit 2
    }
done

logs=$(mktemp -d "${TMPDIR:-/tmp}/posthouse-all.XXXXXX")
trap 'rm -rf "$logs"' EXIT
report=()
failed=()
begin=$SECONDS
# At a terminal Ctrl-C must reach the stage; without one, a hung stage is ended with all it started.
foreground=
[ ! -t 1 ] || foreground=--foreground
for stage in "${wanted[@]}"; do
    printf '\n==== %s\n' "$stage"
    start=$SECONDS
    code=0
    # shellcheck disable=SC2086 # no word or one
    timeout $foreground --kill-after=10 "$STAGE_MAX_SECONDS" "$0" --stage "$stage" </dev/null 2>&1 |
        tee "$logs/$stage" || code=$?
    took=$((SECONDS - start))
    if [ "$code" = 0 ]; then
        verdict=ok
    elif [ "$code" = 124 ]; then
        verdict="FAILED (longer than $STAGE_MAX_SECONDS s)"
        failed+=("$stage")
    else
        verdict="FAILED (exit code $code)"
        failed+=("$stage")
    fi
    printf '==== %s: %s, %d s\n' "$stage" "$verdict" "$took"
    report+=("$(printf '%-10s %5d s  %s' "$stage" "$took" "$verdict")")
    # Nothing after it can mean anything.
    if [ "$stage" = install ] && [ "$verdict" != ok ]; then break; fi
done

# Sums over what the runners said: nextest's summary lines and libtest's result lines.
sum() {
    cat "$logs"/* | sed 's/\x1b\[[0-9;]*m//g' |
        grep -hE "^ *Summary \[|^test result:" | grep -oE "[0-9]+ $1" | awk '{ n += $1 } END { print n + 0 }'
}
printf '\n==== seconds per stage\n'
printf '%s\n' "${report[@]}"
printf '%-10s %5d s\n' total $((SECONDS - begin))
echo "stages: $((${#report[@]} - ${#failed[@]})) passed, ${#failed[@]} failed"
echo "tests: $(sum passed) passed, $(sum failed) failed"
[ ${#failed[@]} = 0 ] || {
    echo "failed: ${failed[*]}"
    exit 1
}
