#!/usr/bin/env bash
# Turns the fragments in changelogs/fragments into a release's section of CHANGELOG.md:  tools/changelog.sh 0.2.0
# antsibull-changelog copies the whole collection to read its plugins' documentation, and a running lab has sockets that
# cannot be copied. So it works on a copy of what git knows, and the two results are brought back.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -eq 1 ] || { echo "changelog.sh: name the version to release, for instance 0.2.0" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
copy=$work/ansible_collections/wattfleet/energy
mkdir -p "$copy"
git ls-files -z --cached --others --exclude-standard -- changelogs plugins roles playbooks meta galaxy.yml README.md |
    tar --create --null --files-from=- | tar --extract --directory "$copy"
(cd "$copy" && antsibull-changelog release --version "$1")
cp "$copy/CHANGELOG.md" .
rm -rf changelogs/fragments changelogs/changelog.yaml
cp -r "$copy/changelogs/." changelogs/
mkdir -p changelogs/fragments
touch changelogs/fragments/.keep
