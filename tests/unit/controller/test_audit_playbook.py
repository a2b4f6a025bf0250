# SPDX-License-Identifier: Apache-2.0
"""playbooks/audit.yml by plain ansible-playbook; a script stands in for `energy-audit verify`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from . import local_fleet

pytestmark = pytest.mark.timeout(300)

FINDING = {
    "site": "plant-a",
    "kind": "tail-cut",
    "subject": "tree",
    "first": "2026-01-01T00:00:00.000Z",
    "last": "2026-01-02T00:00:00.000Z",
    "count": 3,
    "detail": "the last 3 are gone",
}


class Audit:
    """The playbook with a hub and two gateways that are this machine; plant-b has kept nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked = folder / "asked"
        self.key = folder / "hub.pub"
        self.key.write_text("a key\n")
        (folder / "plant-a").write_text('{"site": "plant-a"}\n')
        local_fleet.write_inventory(folder)

    def play(self, said: dict[str, object], code: int, **variables: object) -> tuple[int, str]:
        answer = self.folder / "answer"
        answer.write_text(json.dumps({"checked": {"batches": 7}, "findings": [], "unchecked": []} | said))
        # What it was given, and the files' content.
        script = (
            f'echo "$@" > {self.asked}; for one in "$@"; do [ -f "$one" ] && cat "$one" >> {self.asked}; done;'
            f" cat {answer}; exit {code}"
        )
        given = {
            "audit_source": f"{self.folder}/{{{{ inventory_hostname }}}}",
            "audit_witnesses": str(self.folder / "witnesses"),
            "audit_key": str(self.key),
            "audit_report": str(self.folder / "report.json"),
            "audit_verify": ["sh", "-c", script, "verify"],
        }
        return local_fleet.play(self.folder, "audit", given | variables)


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    return Audit(tmp_path)


def test_the_witnesses_go_to_the_verifier(audit: Audit) -> None:
    code, text = audit.play({}, 0, audit_whole=True)
    assert code == 2
    assert "not all could be looked at: no witness of plant-b" in text
    json_option, witness_option, first, key_option, second = audit.asked.read_text().split()[:5]
    assert (json_option, witness_option, key_option) == ("--json", "--witness", "--key")
    assert audit.asked.read_text().splitlines()[1:] == ['{"site": "plant-a"}', "a key"]
    assert not Path(first).parent.exists(), "nothing is left on the hub"
    assert not Path(second).parent.exists()


def test_what_was_found_fails_and_is_written_down(audit: Audit) -> None:
    code, text = audit.play({"findings": [FINDING]}, 1)
    assert code == 2
    assert "plant-a tail-cut 2026-01-01T00:00:00.000Z 2026-01-02T00:00:00.000Z the last 3 are gone" in text
    report = json.loads((audit.folder / "report.json").read_text())
    assert report["findings"] == [FINDING]
    assert report["unchecked"] == ["no witness of plant-b: not reached, or nothing kept yet"]


def test_a_note_is_told_and_fails_nobody(audit: Audit) -> None:
    note = FINDING | {"site": "-", "kind": "restored", "detail": "the hub was restored to an earlier point"}
    code, text = audit.play({"notes": [note]}, 0)
    assert code == 0
    assert "- restored the hub was restored to an earlier point" in text
