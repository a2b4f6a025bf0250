#!/usr/bin/env bash
# Runs `ansible-test sanity` on the collection, without containers and without Galaxy.
#
#   tools/sanity.sh [ansible-test options, for instance: --test validate-modules plugins/modules/modbus_probe.py]
#
# ansible-test insists on a path that ends in ansible_collections/NAMESPACE/NAME, and makes virtual environments of its own
# with a pip that it downloads from a server of the Ansible project. So the collection is copied to build/sanity, and pip
# comes from the Python that is there (ensurepip); what the tests require comes from PyPI, once, and stays in build/sanity.
set -euo pipefail
cd "$(dirname "$0")/.."

die() { printf 'sanity: %s\n' "$*" >&2; exit 1; }

venv=$(realpath "${WATTFLEET_VENV:-.venv}")
[ -x "$venv/bin/ansible-test" ] || die "$venv/bin/ansible-test is missing; run: make bootstrap"
git rev-parse --is-inside-work-tree >/dev/null 2>&1 || die "run this in a git clone: git tells which files are the collection's"

work=$PWD/build/sanity
collection=$work/ansible_collections/wattfleet/energy
export HOME=$work/home LC_ALL=C.UTF-8
# ansible-test tries every python3.X on PATH; a version manager's shims are there, but refuse to run.
export PATH=$venv/bin:/usr/sbin:/usr/bin:/sbin:/bin

# What belongs to the collection; the rest of the repository has linters of its own.
rm -rf "$collection"
mkdir -p "$collection"
git ls-files -z --cached --others --exclude-standard -- \
    plugins meta roles playbooks changelogs tests/sanity tests/config.yml galaxy.yml README.md LICENSE |
    while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
    tar --create --null --files-from=- | tar --extract --directory "$collection"
# ansible-test takes the files that git knows; a repository of its own hides that build/ is ignored in ours.
git -C "$collection" init --quiet

pip_version=$("$venv/bin/python" -c '
from types import SimpleNamespace
from ansible_test._internal.python_requirements import get_venv_packages
print(get_venv_packages(SimpleNamespace(version=""))["pip"])')
mkdir -p "$HOME/.ansible/test/cache"
printf 'import ensurepip\n\nensurepip.bootstrap()\n' > "$HOME/.ansible/test/cache/get_pip_${pip_version//./_}.py"

skip=(
    --skip-test pslint       # needs PowerShell, and there are no Windows modules here
    --skip-test shellcheck   # `make lint` runs it on all scripts of the repository
    --skip-test yamllint     # `make lint` runs it with this project's own rules on all YAML files
    --skip-test changelog    # `make lint` runs antsibull-changelog with the same check
    --skip-test pep8         # ruff in `make lint` checks the same and more, at this project's line length
)
case " $* " in *" --test "*) skip=() ;; esac

cd "$collection"
"$venv/bin/ansible-test" sanity --color no "${skip[@]}" "$@"
