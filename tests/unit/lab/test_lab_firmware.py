# SPDX-License-Identifier: Apache-2.0
"""The lab's firmware-update: two slots, and images that do what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest
from wattfleet_lab import cli, firmware, paths
from wattfleet_lab.errors import LabError

MODEL = "moxa-uc-8220"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("usr/sbin", "usr/lib/systemd/system", "etc/systemd/system", "var/lib", "run"):
        (tmp_path / "root" / name).mkdir(parents=True)
    firmware.give(tmp_path / "root", MODEL)
    return tmp_path / "root"


@pytest.fixture
def tool(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tool as a host has it, with that host's files."""
    loader = SourceFileLoader("firmware_update", str(root / firmware.TOOL))
    spec = spec_from_loader("firmware_update", loader)
    assert spec is not None
    module = module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader.exec_module(module)
    monkeypatch.setattr(module, "SECONDS", 0)
    for name in ("BASE", "STATE", "MODEL", "UNMANAGED"):
        monkeypatch.setattr(module, name, root / str(getattr(module, name)).lstrip("/"))
    return module


def image(tmp_path: Path, behaviour: str = "good", model: str = MODEL, version: str = "2.4.1") -> Path:
    path = tmp_path / f"{behaviour}.bin"
    firmware.make(path, version=version, models=[model], behaviour=behaviour, length=100_000)
    return path


def state(root: Path) -> dict[str, Any]:
    return dict(json.loads((root / "var/lib/firmware/state.json").read_text()))


def run(tool: Any, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["firmware-update", *words])
    tool.main()


def test_an_image_is_reproducible_and_as_long_as_it_was_asked_for(tmp_path: Path) -> None:
    first = image(tmp_path).read_bytes()
    assert len(first) == 100_000
    assert image(tmp_path).read_bytes() == first
    assert first != image(tmp_path, version="2.4.2").read_bytes()


def test_an_image_runs_after_a_restart_and_back_again(
    root: Path, tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tool, monkeypatch, "install", str(image(tmp_path)))
    assert "100 %" in capsys.readouterr().out
    run(tool, monkeypatch, "version")
    assert capsys.readouterr().out == "2.3.0\n"
    run(tool, monkeypatch, "boot")
    run(tool, monkeypatch, "version")
    assert capsys.readouterr().out == "2.4.1\n"
    assert not state(root)["confirmed"]
    run(tool, monkeypatch, "confirm")
    assert state(root)["confirmed"]
    run(tool, monkeypatch, "rollback")
    run(tool, monkeypatch, "cancel")
    run(tool, monkeypatch, "boot")
    assert state(root)["active"] == "b"
    run(tool, monkeypatch, "rollback")
    run(tool, monkeypatch, "boot")
    assert state(root)["active"] == "a"
    assert state(root)["writes"] == 1


@pytest.mark.parametrize("behaviour", ["lies", "fails"])
def test_a_bad_image_leaves_the_slot_that_runs(
    root: Path, tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behaviour: str
) -> None:
    if behaviour == "fails":
        with pytest.raises(SystemExit):
            run(tool, monkeypatch, "install", str(image(tmp_path, behaviour)))
        assert state(root)["slots"]["b"] is None
    else:
        run(tool, monkeypatch, "install", str(image(tmp_path, behaviour)))
    run(tool, monkeypatch, "boot")
    assert state(root)["active"] == "a"


def test_an_image_that_breaks_the_network_says_so_to_networkmanager(
    root: Path, tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tool, monkeypatch, "boot")
    assert not (root / "run/NetworkManager").exists()
    run(tool, monkeypatch, "install", str(image(tmp_path, "breaks-network")))
    run(tool, monkeypatch, "boot")
    assert "unmanaged-devices=interface-name:eth0" in tool.UNMANAGED.read_text()


def test_an_image_that_breaks_the_polling_drops_what_goes_to_the_meters(
    root: Path, tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(
        subprocess, "run", lambda argv, **options: loaded.append(f"{argv} {options['input']}")
    )
    run(tool, monkeypatch, "late")
    assert loaded == []
    run(tool, monkeypatch, "install", str(image(tmp_path, "breaks-polling")))
    run(tool, monkeypatch, "boot")
    run(tool, monkeypatch, "late")
    assert 'oifname "eth1" drop' in loaded[0]


def test_what_is_no_image_or_another_model_is_refused(
    tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "text"
    other.write_text("no image\n")
    with pytest.raises(SystemExit):
        run(tool, monkeypatch, "install", str(other))
    with pytest.raises(SystemExit):
        run(tool, monkeypatch, "install", str(image(tmp_path, model="moxa-uc-3100")))
    assert capsys.readouterr().err.count("firmware-update: ") == 2


def test_both_sides_know_an_image_by_the_same_words(tool: Any) -> None:
    assert tool.MAGIC == firmware.MAGIC
    assert (paths.PACKAGE / "vendor" / "firmware-slot.service").exists()


@pytest.mark.parametrize("text", ["", "0", "-1", "1T", "M", "1.5M"])
def test_a_size_that_is_none_is_one_line(text: str) -> None:
    with pytest.raises(LabError, match="expected a number of bytes such as 4M"):
        firmware.size_of(text)


def test_the_command_writes_an_image(tmp_path: Path) -> None:
    target = tmp_path / "x.bin"
    assert cli.main(["firmware", "make", str(target), "--version", "2.4.1", "--size", "600K"]) == 0
    assert target.stat().st_size == 600 * 1024
