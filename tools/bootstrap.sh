#!/usr/bin/env bash
# Makes the Python environments this project runs in, from locked versions, and installs the Debian packages
# that the lab needs. Safe to run at any time: what is already there is left alone.
#
#   tools/bootstrap.sh            .venv on the newest usable Python, and the Debian packages of the lab
#   tools/bootstrap.sh tests      also the Debian packages that tests need: a broker, a database, a linter
#   tools/bootstrap.sh bench      also those that benchmarks need: what we are compared with
#   tools/bootstrap.sh floor      also .venv-floor on the oldest supported Python (3.11), for `make unit-floor`
#   tools/bootstrap.sh gateway    also .venv-gateway on the oldest Python of a gateway (3.10), for `make unit-gateway`
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '==> %s\n' "$*"; }
die() { printf 'bootstrap: %s\n' "$*" >&2; exit 1; }

install_debian_packages() { # LIST…
    command -v dpkg-query >/dev/null || die "this is not a Debian system; the lab needs Debian 12 or newer"
    local wanted missing=() package
    mapfile -t wanted < <(cat "$@")
    for package in "${wanted[@]}"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    [ "$(id -u)" -eq 0 ] || die "these Debian packages are missing and need root: sudo apt-get install --no-install-recommends ${missing[*]}"
    say "installing Debian packages: ${missing[*]}"
    DEBIAN_FRONTEND=noninteractive apt-get -qq update
    local policy=/usr/sbin/policy-rc.d
    if [ -e "$policy" ]; then
        policy=''
    else
        # Debian asks this before it starts a service, and 101 forbids it.
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 0755 "$policy"
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends "${missing[@]}" >/dev/null
    [ -z "$policy" ] || { rm -f "$policy"; trap - EXIT; }
    # Tests run brokers, databases and an sshd of their own. Those of the packages stay off, at the next start as well.
    for package in "${missing[@]}"; do
        case $package in
            haproxy | mosquitto | postgresql) systemctl --quiet disable "$package.service" ;;
            openssh-server) systemctl --quiet disable ssh.service ;;
        esac
    done
}

# A version manager's shim can be on PATH and still refuse to run, so every candidate is tried before it is named.
newest_python() {
    local candidate
    for candidate in "${WATTFLEET_PYTHON:-}" python3.14 python3.13 python3.12 \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[234].*/bin/python3 /usr/bin/python3; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
            # With our own .venv on PATH the candidate may be its Python: the one behind it is meant.
            "$candidate" -c 'import os, sys; print(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))'
            return
        fi
    done
    die "no Python 3.11 to 3.14 with the venv module was found; on Debian: apt-get install python3-venv"
}

# The oldest Python that the collector runs on; the controller needs a newer one, so this has the collector's tests only.
gateway_python() {
    local candidate
    for candidate in python3.10 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.10.*/bin/python3; do
        "$candidate" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info[:2] != (3, 10))' 2>/dev/null && { echo "$candidate"; return; }
    done
    return 1
}

make_gateway_venv() { # PYTHON
    local python=$1 venv=.venv-gateway digest
    digest=$(cat tests/unit/collector/requirements.lock lab/data.lock tools/bootstrap.sh | sha256sum | cut -d' ' -f1)
    [ "$(cat "$venv/.digest" 2>/dev/null)" = "$digest $python" ] && return
    say "making $venv with $("$python" --version)"
    rm -rf "$venv"
    "$python" -m venv "$venv"
    VIRTUAL_ENV=$PWD/$venv .venv/bin/uv --quiet pip install --require-hashes -r tests/unit/collector/requirements.lock
    VIRTUAL_ENV=$PWD/$venv .venv/bin/uv --quiet pip install --require-hashes --no-deps -r lab/data.lock
    printf '%s %s\n' "$digest" "$python" > "$venv/.digest"
}

make_venv() { # DIRECTORY PYTHON
    local venv=$1 python=$2 digest
    digest=$(cat requirements.lock lab/data.lock tools/uv.lock tools/bootstrap.sh | sha256sum | cut -d' ' -f1)
    [ "$(cat "$venv/.digest" 2>/dev/null)" = "$digest $python" ] && return
    { [ -w . ] && { [ ! -e "$venv" ] || [ -w "$venv" ]; }; } ||
        die "$venv has to be made again, and $(id -un) may not write here: run it as the owner of this folder"
    say "making $venv with $("$python" --version) (one to two minutes the first time)"
    rm -rf "$venv"
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r tools/uv.lock
    local uv=("$venv/bin/uv" --quiet pip)
    VIRTUAL_ENV=$PWD/$venv "${uv[@]}" install --require-hashes -r requirements.lock
    VIRTUAL_ENV=$PWD/$venv "${uv[@]}" install --require-hashes --no-deps -r lab/data.lock
    # The four packages of this repository run from the working tree.
    "$venv/bin/python" - <<'PY'
import pathlib, site
root = pathlib.Path.cwd()
lines = [str(root / part) for part in ("collector", "controller", "hub", "lab")]
pathlib.Path(site.getsitepackages()[0], "wattfleet.pth").write_text("\n".join(lines) + "\n")
PY
    printf '#!/bin/sh\nexec "%s/bin/python" -m wattfleet "$@"\n' "$PWD/$venv" > "$venv/bin/wattfleet"
    chmod +x "$venv/bin/wattfleet"
    printf '%s %s\n' "$digest" "$python" > "$venv/.digest"
}

lists=(tools/debian-packages.txt)
case "${1:-}" in
    "") ;;
    bench) lists+=(tests/debian-packages-bench.txt) ;;
    tests | floor | gateway) lists+=(tests/debian-packages.txt) ;;
    *) die "unknown argument $1; there are tests, bench, floor and gateway" ;;
esac
install_debian_packages "${lists[@]}"
make_venv .venv "$(newest_python)"
if [ "${1:-}" = floor ]; then
    if /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
        make_venv .venv-floor /usr/bin/python3
    else
        die "the oldest supported line-up needs Python 3.11 at /usr/bin/python3, which is $(/usr/bin/python3 --version)"
    fi
fi
if [ "${1:-}" = gateway ]; then
    python=$(gateway_python) || die "no Python 3.10 was found, the oldest that the collector runs on"
    make_gateway_venv "$python"
fi
