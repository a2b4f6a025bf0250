# SPDX-License-Identifier: Apache-2.0
"""playbooks/renew_certificates.yml by plain ansible-playbook, ring after ring; a role stands in for `identity`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from . import local_fleet

pytestmark = pytest.mark.timeout(300)

# What matters of the role here: it leaves a new certificate, or fails and leaves the old one.
IDENTITY = """---
- name: Refuse the certificate
  ansible.builtin.fail:
    msg: "the hub does not take the new certificate, the old one stays"
  when: identity_site in refused

- name: Put the new certificate in place
  ansible.builtin.copy:
    content: new
    dest: "{{ certificates }}/{{ identity_site }}"
    mode: "0644"

- name: Tell why
  ansible.builtin.set_fact:
    identity_reasons: [all are renewed]
"""
RINGS = {"plant-a": "canary", "plant-b": "canary", "plant-c": "early", "plant-d": "rest"}


class Renewal:
    """The playbook with four gateways that are this machine, each with an old certificate."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificates = folder / "certificates"
        self.certificates.mkdir()
        (folder / "ca").mkdir()
        for site in RINGS:
            (self.certificates / site).write_text("old")
        inventory = {
            "all": {
                "children": {
                    "hub": {"hosts": {"hub": {}}},
                    "gateways": {"hosts": {site: self.of_site(site) for site in RINGS}},
                },
                "vars": {
                    "ansible_connection": "local",
                    "ansible_become": False,
                    "ansible_python_interpreter": sys.executable,
                    "identity_ca_directory": str(folder / "ca"),
                    "energy_fleet": {
                        "rings": ["canary", "early", "rest"],
                        "hub": {"name": "hub.energy.example", "address": "203.0.113.7", "port": 8883},
                    },
                    "certificates": str(self.certificates),
                },
            }
        }
        (folder / "hosts.yml").write_text(json.dumps(inventory), encoding="utf-8")
        self.collections = folder / "collections"
        collection = self.collections / "ansible_collections/wattfleet/energy"
        tasks = collection / "roles/identity/tasks"
        tasks.mkdir(parents=True)
        (tasks / "main.yml").write_text(IDENTITY)
        for name in ("galaxy.yml", "meta", "plugins"):
            (collection / name).symlink_to(local_fleet.ROOT / name)

    @staticmethod
    def of_site(site: str) -> dict[str, object]:
        return {"energy_site": {"site": site, "ring": RINGS[site], "link": {"type": "lan"}}}

    def play(self, refused: list[str]) -> tuple[int, str]:
        # The hub's own come first and are the same role's; here it is about the rings.
        return local_fleet.play(
            self.folder, "renew_certificates", {"refused": refused}, "--limit", "gateways"
        )

    def renewed(self) -> set[str]:
        return {site for site in RINGS if (self.certificates / site).read_text() == "new"}


@pytest.fixture
def renewal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Renewal:
    one = Renewal(tmp_path)
    monkeypatch.setenv(
        "ANSIBLE_COLLECTIONS_PATH",
        os.pathsep.join(map(str, (one.collections, local_fleet.ROOT / ".collections"))),
    )
    return one


def test_where_one_fails_the_rings_after_it_are_not_touched(renewal: Renewal) -> None:
    code, text = renewal.play(["plant-a"])
    assert code == 2, text
    # Its own ring goes on, and everything after that stays as it was.
    assert renewal.renewed() == {"plant-b"}, text
    table = (
        "plant-a canary - failed the hub does not take the new certificate, the old one stays"
        " - plant-b canary - renewed all are renewed"
        " - plant-c early - not tried ring after a failure at plant-a"
        " - plant-d rest - not tried ring after a failure at plant-a"
    )
    assert table in " ".join(text.split()), text
    # The next run begins where it has ended.
    code, text = renewal.play([])
    assert code == 0, text
    assert renewal.renewed() == set(RINGS)
