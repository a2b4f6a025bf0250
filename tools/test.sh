#!/usr/bin/env bash
# Everything CI runs, in order, with the time each part took. A part that fails ends the run.
set -euo pipefail
cd "$(dirname "$0")/.."

summary=()
part() { # NAME COMMAND…
    local name=$1 started=$SECONDS
    shift
    printf '\n==== %s\n' "$name"
    "$@"
    summary+=("$(printf '%-28s %4d s' "$name" $((SECONDS - started)))")
}

part "bootstrap" make --no-print-directory bootstrap-tests
part "lint" make --no-print-directory lint
part "sanity" make --no-print-directory sanity
part "unit" make --no-print-directory unit

# The other supported line-up of Python and ansible-core, where this machine has it beside the newest one.
if .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 12))' &&
    /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
    part "unit (Python 3.11)" make --no-print-directory unit-floor
    part "molecule" make --no-print-directory molecule
    part "molecule (core 2.19)" env WATTFLEET_VENV=.venv-floor tools/molecule.sh preflight identity
else
    echo "==== only one supported Python here: the second line-up (Python 3.11 with ansible-core 2.19) was not tested"
    part "molecule" make --no-print-directory molecule
fi
# The collector runs on older Pythons than the controller: on what gateways have.
if compgen -G "${PYENV_ROOT:-$HOME/.pyenv}/versions/3.10.*/bin/python3" >/dev/null || command -v python3.10 >/dev/null; then
    part "collector (Python 3.10)" make --no-print-directory unit-gateway
else
    echo "==== no Python 3.10 here: the collector was not tested on the oldest Python of a gateway"
fi
part "faults (few rounds)" make --no-print-directory faults-few
part "fleet" make --no-print-directory fleet-short SITES=2

printf '\n==== all parts passed\n'
printf '%s\n' "${summary[@]}"
