#!/usr/bin/env bash
# Runs every command of the README, so that none of them can rot.
#
# A fenced block whose info string begins with `sh` is run as it stands, from the checkout, and must
# succeed; what stands behind `sh` says otherwise:
#
#   sh                  runs to its end with exit code 0
#   sh until-ctrl-c     runs on; interrupted after a few seconds, it must end by itself with exit code 0
#   sh example          names hosts or files that are not here: checked for shell syntax alone
#   sh this             calls this very run (tests/all.sh): the file must be there and executable
#
# Other blocks (toml, text) are not commands.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly README=${1:-README.md}
# The longest a command may take, and how long an endless one runs before Ctrl-C.
readonly MAX_SECONDS=900
readonly ENDLESS_SECONDS=15

[ -f "$README" ] || {
    echo "readme: $README is missing" >&2
    exit 1
}

blocks=$(mktemp -d "${TMPDIR:-/tmp}/posthouse-readme.XXXXXX")
trap 'rm -rf "$blocks"' EXIT
# `cargo install` must not replace what is installed on this machine.
export CARGO_INSTALL_ROOT=$blocks/installed
awk -v folder="$blocks" '
    !inside && /^```sh($| )/ { inside = 1; file = sprintf("%s/%03d", folder, ++n)
                               kind = substr($0, 7); print kind > (file ".kind"); printf "" > file; next }
    inside && /^```/         { inside = 0; close(file); close(file ".kind"); next }
    inside                   { print > file }
' "$README"

passed=0
failed=0
for block in "$blocks"/[0-9][0-9][0-9]; do
    [ -e "$block" ] || continue
    kind=$(cat "$block.kind")
    printf -- '---- %s\n' "sh${kind:+ $kind}"
    sed 's/^/  $ /' "$block"
    code=0
    case $kind in
    '')
        timeout --kill-after=10 "$MAX_SECONDS" bash -euo pipefail "$block" </dev/null || code=$?
        ;;
    until-ctrl-c)
        # The signal goes to the whole group, as from a terminal; 124 is how timeout says that it had to.
        timeout --preserve-status --signal=INT --kill-after=20 "$ENDLESS_SECONDS" \
            bash -euo pipefail "$block" </dev/null || code=$?
        ;;
    example)
        bash -n "$block" || code=$?
        ;;
    this)
        while read -r program _; do
            [ -x "$program" ] || {
                echo "readme: $program is not an executable file"
                code=1
            }
        done <"$block"
        ;;
    *)
        echo "readme: what is \"sh $kind\"? See the head of tests/readme.sh"
        code=2
        ;;
    esac
    if [ "$code" = 0 ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "readme: FAILED with exit code $code"
    fi
done
echo "test result: $([ "$failed" = 0 ] && echo ok || echo FAILED). $passed passed; $failed failed; blocks of $README"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
