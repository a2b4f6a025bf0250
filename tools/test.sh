#!/usr/bin/env bash
# Everything CI runs. What checks the text comes first; then two tracks side by side, since tests on real hosts wait
# more than they compute. Each part writes into build/test/<part>.log, and its time is told in the end.
# A part that fails shows its end, and nothing is begun after it.
set -euo pipefail
cd "$(dirname "$0")/.."

logs=build/test
rm -rf "$logs"
mkdir -p "$logs"

part() { # NAME COMMAND…
    local name=$1 log=$logs/$1.log started=$SECONDS took
    shift
    [ ! -e "$logs/failed" ] || return 1
    printf '==== %s: begun; follow it in %s\n' "$name" "$log"
    if "$@" >"$log" 2>&1 </dev/null; then
        took=$(printf '%-20s %5d s' "$name" $((SECONDS - started)))
        echo "$took" >>"$logs/times"
        printf '==== passed: %s   %s\n' "$took" "$(tail -n 1 "$log")"
    else
        touch "$logs/failed"
        tail -n 200 "$log"
        printf '==== FAILED: %s after %d s; the whole output is in %s\n' "$name" $((SECONDS - started)) "$log"
        return 1
    fi
}

# The other supported line-up of Python and ansible-core, where this machine has it beside the newest one.
floor() {
    .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 12))' &&
        /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'
}
# The collector runs on older Pythons than the controller: on what gateways have.
gateway() {
    compgen -G "${PYENV_ROOT:-$HOME/.pyenv}/versions/3.10.*/bin/python3" >/dev/null || command -v python3.10 >/dev/null
}

prepare() {
    make --no-print-directory bootstrap-tests release &&
        { ! floor || tools/bootstrap.sh floor; } &&
        .venv/bin/python -m wattfleet_lab image   # two labs would build it at once
}

loose() {
    part unit make --no-print-directory unit
    if floor; then
        # The collector is tested on the newest Python and on 3.10; where that is missing, 3.11 is the oldest.
        part unit-floor make --no-print-directory unit-floor WITHOUT="$(gateway >/dev/null && echo tests/unit/collector)"
    else
        echo "==== only one supported Python here: the second line-up (Python 3.11 with ansible-core 2.19) was not tested"
    fi
    if gateway; then
        part unit-gateway make --no-print-directory unit-gateway
    else
        echo "==== no Python 3.10 here: the collector was not tested on the oldest Python of a gateway"
    fi
    part faults-readings make --no-print-directory faults-readings
    if floor; then
        part molecule-floor env WATTFLEET_LAB=floor WATTFLEET_VENV=.venv-floor tools/molecule.sh preflight identity
    fi
    part fleet-rollout env WATTFLEET_LAB=rollout make --no-print-directory fleet-rollout
}

hosts() {
    part molecule make --no-print-directory molecule
    part faults-lockout make --no-print-directory faults-lockout
    part fleet-short make --no-print-directory fleet-short SITES=2
}

part prepare prepare
part lint make --no-print-directory lint
part sanity make --no-print-directory sanity
set -m   # each track is a process group, so that what is interrupted is not left running
loose & tracks=($!)
hosts & tracks+=($!)
trap 'kill -- "${tracks[@]/#/-}" 2>/dev/null; wait; exit 130' INT TERM
failed=0
for track in "${tracks[@]}"; do wait "$track" || failed=1; done
[ "$failed" -eq 0 ] || { echo "==== not all parts passed"; exit 1; }

printf '\n==== all parts passed\n'
cat "$logs/times"
