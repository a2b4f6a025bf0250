# SPDX-License-Identifier: Apache-2.0
"""Faults of the keys that concern releases: each is one line with file, line, key, what was found and what is right."""

from __future__ import annotations

import pytest

from plugins.module_utils.firmware import settings

from .conftest import FLEET, SITE, FleetOnDisk

KEY = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
FIRMWARE = f"""\
firmware:
  trust:
    threshold: 1
    keys: [{KEY}]
  adapters:
    moxa-uc-8220:
      install: [firmware-update, install, "{{image}}"]
      version: [firmware-update, version]
      back: [firmware-update, rollback]
      needs: {{write: [/data/slots], devices: [/dev/mtd0, block-loop], capabilities: [CAP_SYS_ADMIN]}}
"""


def test_a_sound_fleet_takes_releases(fleet: FleetOnDisk) -> None:
    fleet.file.write_text(FLEET + FIRMWARE, encoding="utf-8")
    assert fleet.faults() == []
    found = fleet.load().facts["firmware"]
    # What the inventory lets through the gateway can work with.
    assert settings.files_of("moxa-uc-8220", found["trust"], found["adapters"]["moxa-uc-8220"])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("threshold: 1", "threshold: 2", "firmware.trust.threshold: found 2, and there are only 1 keys"),
        (KEY, "11qYAYKxCrfVS=", "firmware.trust.keys[0]: found"),
        (', "{image}"', "", "firmware.adapters.moxa-uc-8220.install: found no {image}"),
        ("back: [firmware-update, rollback]", "reboot: itself", "back: missing, expected a command"),
        ("rollback]", "rollback]\n      reboot: maybe", 'reboot: found "maybe", expected'),
        ("rollback]", "rollback]\n      timeout: 0", "timeout: found 0, expected a number"),
        (
            "rollback]",
            'rollback]\n      version_pattern: "v[0-9]+"',
            "expected a regular expression with one",
        ),
        ("rollback]", "rollback]\n      image: /tmp/../{name}", "expected an absolute path"),
        ("rollback]", "rollback]\n      rollback: [a]", "rollback: unknown key"),
        (
            "needs:",
            "#",
            "needs: missing, expected what the tool needs of write, devices, capabilities and network: {}",
        ),
        ("[/data/slots]", "[data]", 'needs.write[0]: found "data", expected a file or folder'),
        (
            "[/data/slots]",
            "[/]",
            'needs.write[0]: found "/", expected a file or folder such as "/boot", not "/" itself',
        ),
        ("/dev/mtd0", "mtd0", 'needs.devices[0]: found "mtd0", expected a device such as "/dev/mtd0"'),
        ("CAP_SYS_ADMIN", "sys_admin", 'needs.capabilities[0]: found "sys_admin", expected a capability'),
        (
            "CAP_SYS_ADMIN",
            "CAP_SYSADMIN",
            "capabilities[0]: found CAP_SYSADMIN, which capabilities(7) does not have",
        ),
        (
            "needs: {",
            "needs: {everything: true, ",
            "needs.everything: found something beside it, expected nothing",
        ),
        ("rollback]", "rollback]\n      image: /{name}", "expected a folder that alone can be written to"),
    ],
)
def test_a_fault_is_one_line(fleet: FleetOnDisk, old: str, new: str, said: str) -> None:
    assert old in FIRMWARE
    fleet.file.write_text(FLEET + FIRMWARE.replace(old, new), encoding="utf-8")
    (fault,) = fleet.faults()
    assert fault.startswith("fleet.sites.yml:")
    assert said in fault


def test_a_site_may_have_an_adapter_of_its_own(fleet: FleetOnDisk) -> None:
    own = 'firmware: {adapter: {install: [x, "{image}"], version: [x, v], back: [x, b], needs: {}}}\n'
    fleet.write("plant-a", SITE + own)
    assert fleet.faults() == []
    fleet.write("plant-a", SITE + own.replace('"{image}"', "y"))
    (fault,) = fleet.faults()
    assert "firmware.adapter.install: found no {image}" in fault
