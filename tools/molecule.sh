#!/usr/bin/env bash
# Runs Molecule scenarios one after the other and says how long each took.
#
#   tools/molecule.sh network firewall
#   WATTFLEET_VENV=.venv-floor tools/molecule.sh network     # on the oldest supported Python and ansible-core
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -gt 0 ] || { echo "molecule.sh: name at least one scenario of tests/molecule, for instance network" >&2; exit 1; }
venv=${WATTFLEET_VENV:-.venv}
export PATH=$PWD/$venv/bin:$PATH MOLECULE_GLOB='tests/molecule/*/molecule.yml'
export WATTFLEET_LAB=${WATTFLEET_LAB:-molecule}   # the lab that the hosts are added to
mkdir -p build/molecule

# Whatever happens, no host of the scenarios stays behind.
trap 'python -m wattfleet_lab down >/dev/null' EXIT

version=$(ansible --version)
version=${version%%$'\n'*}
passed=0
for scenario in "$@"; do
    [ -f "tests/molecule/$scenario/molecule.yml" ] ||
        { echo "molecule.sh: there is no scenario tests/molecule/$scenario" >&2; exit 1; }
    log=build/molecule/$scenario.log
    started=$SECONDS
    printf '==> %s (%s)\n' "$scenario" "$version"
    # Molecule finds the shared configuration by itself only in a git clone, and passes without it, having tested nothing.
    if molecule --base-config .config/molecule/config.yml test -s "$scenario" >"$log" 2>&1 </dev/null; then
        printf '    passed in %d s\n' $((SECONDS - started))
        passed=$((passed + 1))
    else
        tail -n 120 "$log"
        printf '    FAILED after %d s; the whole output is in %s\n' $((SECONDS - started)) "$log" >&2
        exit 1
    fi
done
printf '%d passed, 0 failed\n' "$passed"
