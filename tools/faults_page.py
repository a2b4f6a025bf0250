# SPDX-License-Identifier: Apache-2.0
"""Writes docs/reference/faults.md from the results of the fault tests at full size, build/faults/NAME.json.

    python tools/faults_page.py

A fault that was not run on this machine keeps the row that the page has.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "build" / "faults"
SOURCES = ROOT / "tests" / "fault"
PAGE = ROOT / "docs" / "reference" / "faults.md"

HEAD = """\
<!-- Written by tools/faults_page.py from the results of `make faults`; change no figure by hand. -->
# What was broken, and what came of it

Faults at random instants while readings flow, by `make faults WHAT=<fault>`; CI runs most of them with few rounds.
[What each of them does](../../tests/fault/README.md). Every reading is counted at both ends, at the meters and in the
hub's database: lost is one that a meter gave and the hub has not, doubled one that it has twice, in conflict one
identity with two values, or a chain that does not hold. `failed` is a run in which any of them was not zero, or in
which the fault's own test found something else.

| fault | what is done | rounds | faults | readings | lost | doubled | in conflict | result | run |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |
"""
LOCKOUT_HEAD = """
## Changes that could lock us out

Changes that an operator makes with `ansible-playbook`, four of five of them so that they would cost a visit to the
site, and what dies meanwhile: the session, the controller, NetworkManager, the host's power. `make faults
WHAT=lockout`; the wait is 20 s.
[What it does and how it judges](../../tests/fault/README.md#lockout-nobody-is-ever-locked-out).
Never armed: refused before anything was changed, or cut short before that. Back: from the arming, or from the moment
the host runs again, until what was undone is as it was. `failed` is a run with a site lost, late, not exactly as it
was, or told otherwise than it is.

| fault | changes | undone | confirmed | never armed | lost | late | not exact | told wrongly | back, median | longest \
| result | run |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |
"""
ROW = re.compile(r"^\| ([a-z][a-z-]*) \|.*$", re.MULTILINE)
# A campaign that counts sites and not readings.
LOCKOUT = "lockout"
CHANGES = (
    "rounds", "undone", "confirmed", "never_armed", "sites_lost", "not_in_time", "not_exact", "wrong_verdicts"
)  # fmt: skip
WRONG = ("lost", "doubled", "invented", "locked_out", "disordered", "mistimed", "late", "evidence", "idle")


def row(found: dict[str, Any], run: str) -> str:
    passed = not any(found.get(what) for what in WRONG) and found["readings"] > 0
    figures = (f"{found[what]:,}" for what in ("rounds", "faults", "readings", "lost", "doubled", "evidence"))
    what = described(found["name"])
    return (
        f"| {found['name']} | {what} | {' | '.join(figures)} | {'passed' if passed else 'failed'} | {run} |"
    )


def lockout_row(found: dict[str, Any], run: str) -> str:
    figures = [f"{found[what]:,}" for what in CHANGES]
    back = found["seconds_to_return"]  # empty where nothing was undone
    figures += [f"{back[what]:.1f} s" if what in back else "-" for what in ("median", "longest")]
    return f"| {LOCKOUT} | {' | '.join(figures)} | {'passed' if found['passed'] else 'failed'} | {run} |"


def described(name: str) -> str:
    """The first sentence of what the test says of itself."""
    source = (SOURCES / f"{name.replace('-', '_')}.py").read_text(encoding="utf-8")
    text = " ".join((ast.get_docstring(ast.parse(source)) or "").split())
    return re.split(r"(?<=\.)\s", text)[0]


def main() -> int:
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    rows = {one[1]: one[0] for one in ROW.finditer(page) if one[1] != "fault"}
    for file in sorted(RESULTS.glob("*.json")):
        if file.stem.endswith("-quick") or file.stem.startswith(f"{LOCKOUT}-"):
            continue
        found = json.loads(file.read_text(encoding="utf-8"))
        run = datetime.fromtimestamp(file.stat().st_mtime, UTC).date().isoformat()
        rows[found["name"]] = (lockout_row if file.stem == LOCKOUT else row)(found, run)
    if not rows:
        print("faults_page: no results in build/faults; run `make faults` first", file=sys.stderr)
        return 1
    lockout = rows.pop(LOCKOUT, None)
    text = HEAD + "".join(f"{rows[name]}\n" for name in sorted(rows))
    if lockout:
        text += LOCKOUT_HEAD + f"{lockout}\n"
    PAGE.write_text(text, encoding="utf-8")
    print(f"Written to {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
