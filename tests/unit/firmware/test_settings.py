# SPDX-License-Identifier: Apache-2.0
"""Settings of a gateway: bad ones are told in one line, good ones come back the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.wattfleet.energy.plugins.filter.firmware_files import firmware_files
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware import engine, install, settings
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware.host import FirmwareError

from .gateway import ADAPTER, MODEL, TRUST, FakeGateway


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"install": ...}, "adapter: install is missing, expected a command as a list of words"),
        (
            {"install": "firmware-update install {image}"},
            'install: found "firmware-update install {image}", expected a command',
        ),
        ({"install": ["firmware-update"]}, "install: firmware-update has no {image}"),
        ({"back": []}, "back: found [], expected a command"),
        ({"confirm": ["a", 1]}, 'confirm: found ["a", 1], expected a command'),
        ({"timeout": 0}, "timeout: found 0, expected seconds from 1 to 21600"),
        ({"timeout": "soon"}, 'timeout: found "soon", expected seconds'),
        ({"reboot": "maybe"}, 'reboot: found "maybe", expected command, itself or none'),
        ({"version_pattern": "v[0-9]+"}, "version_pattern: found"),
        ({"version_pattern": "("}, "version_pattern: found"),
        ({"image": "tmp/{name}"}, "image: found"),
        ({"image": "/tmp/../etc/{name}"}, "image: found"),
        ({"image": "/tmp/{name};reboot"}, "image: found"),
        ({"rollback": ["a"]}, "rollback is not known, expected back, cancel, confirm"),
        ({"needs": "rauc"}, 'needs: found "rauc", expected what the tool needs of write, devices'),
        (
            {"needs": {"writes": []}},
            "needs: writes is not known, expected capabilities, devices, everything, network, write",
        ),
        ({"needs": {"write": "/boot"}}, 'needs: write: found "/boot", expected a list'),
        ({"needs": {"write": ["boot"]}}, 'needs: write: found "boot", expected a file or folder'),
        (
            {"needs": {"write": ["/"]}},
            'needs: write: found "/", expected a file or folder such as /boot, not / itself',
        ),
        ({"needs": {"write": ["/boot/../etc"]}}, 'needs: write: found "/boot/../etc", expected'),
        ({"needs": {"write": ["/boot\nUser=x"]}}, 'needs: write: found "/boot\\nUser=x", expected'),
        ({"needs": {"write": ["/data/%i"]}}, 'needs: write: found "/data/%i", expected'),
        (
            {"needs": {"devices": ["mtd0"]}},
            'needs: devices: found "mtd0", expected a device such as /dev/mtd0 or',
        ),
        ({"needs": {"devices": ["/dev/../etc"]}}, 'needs: devices: found "/dev/../etc", expected a device'),
        (
            {"needs": {"capabilities": ["SYS_ADMIN"]}},
            'found "SYS_ADMIN", expected a capability such as CAP_SYS',
        ),
        ({"needs": {"network": "yes"}}, 'needs: network: found "yes", expected true or false'),
        ({"needs": {"everything": True, "network": True}}, "needs: everything: found something beside it"),
        (
            {"image": "/{name}"},
            'image: found "/{name}", expected a folder that alone can be written to, as in /tmp/',
        ),
    ],
)
def test_a_bad_adapter_is_one_clear_line(changes: dict[str, Any], said: str) -> None:
    content = {key: value for key, value in {**ADAPTER, **changes}.items() if value is not ...}
    with pytest.raises(FirmwareError) as refused:
        settings.adapter_of(content, "adapter")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("trust", "said"),
    [
        ({"threshold": 2}, "trust: expected a mapping with threshold and keys"),
        ({**TRUST, "threshold": 4}, "threshold: found 4, expected 1 to 3, the number of keys"),
        ({**TRUST, "threshold": True}, "threshold: found true"),
        ({**TRUST, "keys": []}, "keys: found []"),
        ({"threshold": 2, "keys": [TRUST["keys"][0]] * 2}, "threshold: found 2, expected 1 to 1"),
        ({"threshold": 1, "keys": ["short"]}, "expected an Ed25519 public key, 32 bytes in base64"),
    ],
)
def test_a_bad_trust_is_one_clear_line(trust: dict[str, Any], said: str) -> None:
    with pytest.raises(FirmwareError) as refused:
        settings.files_of(MODEL, trust, None)
    assert said in str(refused.value)
    with pytest.raises(AnsibleFilterError, match="firmware_files: trust"):
        firmware_files(MODEL, trust, {}, "/usr/bin/python3")


def test_what_the_tool_needs_has_to_be_said() -> None:
    silent = {key: value for key, value in ADAPTER.items() if key != "needs"}
    with pytest.raises(
        FirmwareError, match=r"^adapter: needs is missing, expected what the tool needs .* \{\} for"
    ):
        settings.files_of(MODEL, TRUST, silent)
    with pytest.raises(AnsibleFilterError, match="firmware_files: adapter: needs is missing"):
        firmware_files(MODEL, TRUST, silent, "/usr/bin/python3")
    # A gateway that an earlier release has written to still finds its adapter: its units have no limits.
    assert settings.adapter_of(silent, "adapter").needs is None


def unit_lines(needs: dict[str, Any] | None, **changes: Any) -> list[str]:
    """The lines of the unit that installs, for an adapter with these needs; None for a gateway without one."""
    adapter = None if needs is None else {**ADAPTER, **changes, "needs": needs}
    files = install.wanted("/usr/bin/python3", MODEL, TRUST, adapter)
    limits = []
    for name in (engine.INSTALL, engine.SETTLE):
        text = files[f"/etc/systemd/system/{name}"].decode()
        begin, end = text.index("OOMScoreAdjust=-900\n"), text.index("ExecStart=")
        limits.append(text[begin:end].splitlines()[1:])
    # What the installation could do, its way back can.
    assert limits[0] == limits[1]
    return limits[0]


@pytest.mark.parametrize("needs", [None, {}, {"write": [], "network": False}])
def test_a_tool_that_needs_nothing_is_closed_in(needs: dict[str, Any] | None) -> None:
    lines = unit_lines(needs)
    for line in (
        "CapabilityBoundingSet=CAP_DAC_READ_SEARCH",
        "NoNewPrivileges=yes",
        "DevicePolicy=closed",
        "IPAddressDeny=any",
        "PrivateDevices=yes",
        "PrivateNetwork=yes",
        "ProtectClock=yes",
        "ProtectHome=yes",
        "ProtectKernelLogs=yes",
        "ProtectKernelModules=yes",
        "ProtectSystem=strict",
        "RestrictAddressFamilies=AF_UNIX",
        "RestrictSUIDSGID=yes",
        "SystemCallFilter=@system-service",
        "ReadWritePaths=-/opt/energy -/run/lock -/tmp -/var/lib/energy-firmware -/var/tmp",
    ):
        assert line in lines


@pytest.mark.parametrize(
    ("needs", "there", "gone"),
    [
        ({"write": ["/boot"]}, ["=-/boot -/opt/energy "], []),
        ({"write": ["/home/admin/fw"]}, ["ProtectHome=read-only"], ["ProtectHome=yes"]),
        (
            {"devices": ["/dev/mtd0", "block-loop"]},
            ["DeviceAllow=/dev/mtd0 rw", "DeviceAllow=block-loop rw", "DevicePolicy=closed"],
            ["PrivateDevices"],
        ),
        (
            {"capabilities": ["CAP_SYS_ADMIN", "CAP_CHOWN"]},
            [
                "CapabilityBoundingSet=CAP_CHOWN CAP_DAC_READ_SEARCH CAP_SYS_ADMIN",
                "SystemCallFilter=@system-service @mount",
                "PrivateDevices=yes",
            ],
            [],
        ),
        ({"capabilities": ["CAP_SYS_RAWIO"]}, ["@system-service @raw-io"], ["PrivateDevices"]),
        ({"capabilities": ["CAP_FSETID"]}, [], ["RestrictSUIDSGID"]),
        ({"capabilities": ["CAP_SYS_TIME"]}, ["@system-service @clock"], ["ProtectClock"]),
        (
            {"network": True},
            ["RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK"],
            ["PrivateNetwork", "IPAddressDeny"],
        ),
    ],
)
def test_what_an_adapter_needs_is_opened_and_nothing_else(
    needs: dict[str, Any], there: list[str], gone: list[str]
) -> None:
    lines = unit_lines(needs)
    for words in there:
        assert any(words in line for line in lines)
    for words in gone:
        assert not any(line.startswith(words) for line in lines)
    closed = {line.partition("=")[0] for line in unit_lines({})}
    assert closed - {line.partition("=")[0] for line in lines} <= {*gone}


def test_the_folder_of_the_image_can_be_written_to() -> None:
    for image in ("/srv/firmware/{name}", "/srv/firmware/{name}/image", "/srv/firmware/image.bin"):
        assert any(" -/srv/firmware " in line for line in unit_lines({}, image=image))
    assert "ProtectHome=read-only" in unit_lines({}, image="/root/{name}")


def test_a_tool_that_needs_everything_has_no_limits() -> None:
    assert unit_lines({"everything": True}) == []
    assert unit_lines({"everything": True}, image="/{name}") == []


@pytest.mark.parametrize(
    "needs",
    [{}, {"write": ["/boot"], "devices": ["/dev/mtd0"], "capabilities": ["CAP_SYS_ADMIN"], "network": True}],
)
def test_no_limit_keeps_a_unit_from_its_work(needs: dict[str, Any]) -> None:
    lines = unit_lines(needs)
    names = {line.partition("=")[0] for line in lines}
    # systemd 252 gives a unit a /proc of its own for these, and in a container that has another boot_id.
    assert not names & {
        "ProtectProc",
        "ProcSubset",
        "ProtectKernelTunables",
        "ProtectControlGroups",
        "MountAPIVFS",
    }
    # A daemon has its socket in /tmp, and reads the image there; root has to be root to PID 1.
    assert not names & {"PrivateTmp", "PrivateUsers", "User", "RootDirectory"}
    # What is not there must not end in 226/NAMESPACE.
    for line in lines:
        name, _equals, value = line.partition("=")
        if name.endswith("Paths"):
            assert all(path.startswith("-/") for path in value.split())


def test_settings_come_back_as_they_were_given(place: Path) -> None:
    host = FakeGateway.make(place / "root")
    assert settings.load_adapter(host.root) == settings.adapter_of(dict(ADAPTER), "adapter")
    assert settings.load_gateway(host.root).model == MODEL
    host.at(settings.ADAPTER).write_text("{")
    with pytest.raises(FirmwareError, match=r"adapter\.json is not JSON"):
        settings.load_adapter(host.root)
    host.at(settings.GATEWAY).unlink()
    with pytest.raises(FirmwareError, match=r"gateway\.json is missing: run the role firmware"):
        settings.load_gateway(host.root)


def test_the_program_is_the_same_bytes_and_runs_by_itself(tmp_path: Path) -> None:
    program = tmp_path / "energy-firmware.pyz"
    program.write_bytes(install.archive())
    assert install.archive() == program.read_bytes()
    # Without anything of ours in its path: all that it needs is in it.
    done = subprocess.run(
        [sys.executable, "-I", "-B", str(program), "offset", "../x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "energy-firmware: found '../x', expected the SHA-256 of an image\n"


def test_files_are_written_once_and_named_when_they_differ(place: Path) -> None:
    host = FakeGateway.make(place / "root")
    files = install.wanted("/usr/bin/python3", MODEL, TRUST, ADAPTER)
    described = firmware_files(MODEL, TRUST, ADAPTER, "/usr/bin/python3")
    assert described.keys() == files.keys()
    without = firmware_files(MODEL, TRUST, {}, "/usr/bin/python3")
    assert without[settings.ADAPTER] == {"type": "absent"}
    unit = files["/etc/systemd/system/energy-firmware-install.service"].decode()
    assert "TimeoutStartSec=1800\n" in unit
    assert json.loads(files[settings.GATEWAY])["threshold"] == 2
    assert set(install.install(host, files, check=True)) <= {*files}
    assert not host.at(install.PROGRAM).exists()
