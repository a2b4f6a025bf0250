# SPDX-License-Identifier: Apache-2.0
"""The single-file release: the same twice, nothing compiled inside, and it runs alone."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from energy_collector import __version__, profiles

from .collector_support import document

ROOT = Path(__file__).parents[3]


def build(output: Path) -> Path:
    command = [sys.executable, str(ROOT / "tools" / "build_release.py"), "collector", "--output", str(output)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    release = Path(printed[0])
    assert printed[1] == "sha256=" + hashlib.sha256(release.read_bytes()).hexdigest()
    return release


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("release"))


def test_it_is_the_same_twice(release: Path, tmp_path: Path) -> None:
    assert build(tmp_path).read_bytes() == release.read_bytes()


def test_nothing_compiled_is_inside(release: Path) -> None:
    names = zipfile.ZipFile(release).namelist()
    assert not [name for name in names if name.endswith((".so", ".pyc", ".pyd"))]
    assert {"yaml/__init__.py", "pymodbus/__init__.py"} <= set(names)
    assert not [name for name in names if name.startswith("cryptography")]


def test_it_runs_alone_and_finds_its_profiles(release: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    settings = document(tmp_path)
    settings["meters"][0]["profile"] = "none-such"
    path.write_text(yaml.safe_dump(settings))
    isolated = [sys.executable, "-I", str(release)]
    version = subprocess.run([*isolated, "--version"], capture_output=True, text=True, cwd=tmp_path)
    assert version.stdout == f"energy-collector {__version__}\n"
    check = subprocess.run([*isolated, "check", str(path)], capture_output=True, text=True, cwd=tmp_path)
    assert check.returncode == 1
    assert ", ".join(profiles.names()) in check.stderr
