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
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware import install, settings
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
