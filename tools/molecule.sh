#!/usr/bin/env bash
# Runs Molecule scenarios, two at a time on hosts of two labs, and says how long each took.
#
#   tools/molecule.sh network firewall
#   WATTFLEET_LANES=1 tools/molecule.sh network              # one after the other
#   WATTFLEET_VENV=.venv-floor tools/molecule.sh network     # on the oldest supported Python and ansible-core
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -gt 0 ] || { echo "molecule.sh: name at least one scenario of tests/molecule, for instance network" >&2; exit 1; }
for scenario in "$@"; do
    [ -f "tests/molecule/$scenario/molecule.yml" ] ||
        { echo "molecule.sh: there is no scenario tests/molecule/$scenario" >&2; exit 1; }
done
venv=${WATTFLEET_VENV:-.venv}
export PATH=$PWD/$venv/bin:$PATH MOLECULE_GLOB='tests/molecule/*/molecule.yml'
lanes=${WATTFLEET_LANES:-2}
lab=${WATTFLEET_LAB:-molecule}   # the labs that the hosts are added to are called so, the second one with a 2, …
# Each line-up has a folder of its own: one may run beside the other.
folder=$PWD/build/molecule${venv#.venv}
mkdir -p "$folder"

version=$(ansible --version)
version=${version%%$'\n'*}

lane() { # NUMBER SCENARIO…
    local number=$1 scenario log started
    shift
    export WATTFLEET_LAB=$lab
    [ "$number" -eq 1 ] || WATTFLEET_LAB=$lab$number
    # Whatever happens, no host of the scenarios stays behind.
    trap 'python -m wattfleet_lab down >/dev/null' EXIT
    for scenario in "$@"; do
        log=$folder/$scenario.log
        started=$SECONDS
        # Molecule finds the shared configuration by itself only in a git clone, and passes without it, having tested nothing.
        if MOLECULE_EPHEMERAL_DIRECTORY=$folder/$scenario molecule --base-config .config/molecule/config.yml test -s "$scenario" >"$log" 2>&1 </dev/null; then
            printf '    %-14s passed in %d s\n' "$scenario" $((SECONDS - started))
        else
            tail -n 120 "$log"
            printf '    %-14s FAILED after %d s; the whole output is in %s\n' "$scenario" $((SECONDS - started)) "$log" >&2
            return 1
        fi
    done
}

printf '==> %s\n' "$version"
# The image is built once, before two lanes would ask for it.
python -m wattfleet_lab image >/dev/null
waited=()
for number in $(seq "$lanes"); do
    scenarios=()
    for index in $(seq "$number" "$lanes" $#); do scenarios+=("${!index}"); done
    [ ${#scenarios[@]} -eq 0 ] && continue
    (lane "$number" "${scenarios[@]}") &
    waited+=($!)
done
failed=0
for lane in "${waited[@]}"; do wait "$lane" || failed=1; done
[ "$failed" -eq 0 ] || exit 1
printf '%d passed, 0 failed\n' $#
