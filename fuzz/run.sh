#!/usr/bin/env bash
# usage: fuzz/run.sh [SECONDS] [TARGET…]
#        fuzz/run.sh --same [TARGET…]
#
# Builds the fuzz targets once and runs each for SECONDS (default 30) on its corpus, two at a time.
# Exits 1 when one crashes; the input is then in fuzz/artifacts/TARGET. New inputs go to
# fuzz/target/corpus/TARGET, so that a run leaves the working tree as it was.
#
# --same plays the same inputs at every run of one build: from the committed corpus alone, with one
# seed and a number of runs for each target. tests/all.sh wants that: what it says of a commit
# depends on the commit. Mistakes that are new are hunted with SECONDS, for hours if you like.
#
# Plain cargo instead of cargo-fuzz: nothing to install, and nothing hidden. The flags are those
# cargo-fuzz sets, without a sanitizer, because the house forbids unsafe code.
set -euo pipefail
cd "$(dirname "$0")"

same=
seconds=${1:-30}
shift || true
case $seconds in
--same) same=yes ;;
'' | *[!0-9]*) echo "usage: fuzz/run.sh [SECONDS | --same] [TARGET...]" >&2; exit 2 ;;
esac
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(greeting command proxy_header probe data session config)

if ! cargo +nightly --version >/dev/null 2>&1; then
	echo "fuzz: no nightly toolchain; install one: rustup toolchain install nightly --profile minimal" >&2
	exit 2
fi
if ! command -v c++ >/dev/null; then
	echo "fuzz: no C++ compiler, which libFuzzer is built with; install one: apt-get install g++" >&2
	exit 2
fi

host=$(rustc +nightly -vV | sed -n 's/^host: //p')
flags=(
	--cfg fuzzing
	-Cpasses=sancov-module
	-Cllvm-args=-sanitizer-coverage-level=4
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters
	-Cllvm-args=-sanitizer-coverage-pc-table
	-Cllvm-args=-sanitizer-coverage-trace-compares
	-Ccodegen-units=1
)
# A target folder of its own: other flags would build everything anew. --target keeps the flags
# away from build scripts and macros.
export CARGO_TARGET_DIR=$PWD/target
export CARGO_ENCODED_RUSTFLAGS
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; echo "${flags[*]}")
cargo +nightly build --locked --quiet --release --target "$host"

# Addresses of memory are among the values libFuzzer learns from.
fixed_addresses=()
if [ -n "$same" ] && setarch -R true 2>/dev/null; then
	fixed_addresses=(setarch -R)
fi

# runs_of TARGET: about 20 seconds of it.
runs_of() {
	case $1 in
	probe) echo 2500000 ;;
	session) echo 500000 ;;
	config) echo 40000 ;;
	*) echo 200000 ;;
	esac
}

run() {
	local target=$1 artifacts=$PWD/artifacts/$1/ found=$PWD/target/corpus/$1 seeds=("corpus/$1")
	local bounds=(-max_total_time="$seconds")
	if [ -n "$same" ]; then
		found=$PWD/target/same/$target
		rm -rf "$found"
		bounds=(-runs="$(runs_of "$target")" -seed=1 -reload=0)
		# Its values hold times.
		[ "$target" != session ] || bounds+=(-use_cmp=0)
	fi
	mkdir -p "$artifacts" "$found"
	# The length reaches over the largest limit that matters to the reader.
	local length=4500
	# Message content has no such limit, and every prefix is looked at.
	[ "$target" != data ] || length=300
	# An octet is an event: so many make many transactions.
	[ "$target" != session ] || length=400
	if [ "$target" = config ]; then
		length=3000
		seeds+=(../config ../tests/it/config_bad)
	fi
	if "${fixed_addresses[@]}" "$CARGO_TARGET_DIR/$host/release/$target" "$found" "${seeds[@]}" \
		"${bounds[@]}" -max_len=$length -timeout=10 -rss_limit_mb=1024 \
		-artifact_prefix="$artifacts" -print_final_stats=1 >"target/$target.log" 2>&1; then
		echo "fuzz: $target: $(sed -n 's/^stat::number_of_executed_units: *//p' "target/$target.log") inputs, no crash"
	else
		tail -n 40 "target/$target.log" >&2
		echo "fuzz: $target CRASHED; the input is in fuzz/artifacts/$target" >&2
		return 1
	fi
}

status=0
while [ ${#targets[@]} -gt 0 ]; do
	pids=()
	for target in "${targets[@]:0:2}"; do
		run "$target" &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do
		wait "$pid" || status=1
	done
	targets=("${targets[@]:2}")
done
exit $status
