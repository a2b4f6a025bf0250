#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Build a part's release: one zipapp with its locked dependencies inside.

    tools/build_release.py collector|hub [--output FOLDER]

The same commit, lock and zlib give the same bytes: files are sorted and carry one fixed time, and the moment that the
release knows as its own is that of the last commit to the part, or SOURCE_DATE_EPOCH. Nothing
compiled goes in either, so that one file serves every processor; PyYAML runs without its C part. The
dependencies are kept under build/dependencies by a digest of the lock: only the first build uses the network.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
PACKAGES = {"collector": "energy_collector", "hub": "energy_hub"}
SHEBANG = b"#!/usr/bin/env python3\n"
# The oldest Python that the release has to run on decides which dependencies the lock's markers call for.
PYTHON = "3.10"
# The first moment that a zip file can hold.
EPOCH = (1980, 1, 1, 0, 0, 0)
COMPILED = (".so", ".pyd", ".pyc", ".dylib")
# What an installer writes down about itself differs from machine to machine and serves nobody inside a zip.
INSTALLER_FILES = {"RECORD", "INSTALLER", "REQUESTED", "WHEEL", "direct_url.json", "uv_cache.json"}
SKIPPED_FOLDERS = {"__pycache__", "bin", "_yaml"}

# Without runpy, which would stay in the memory of a service for as long as it runs.
MAIN = """\
import sys

from {package}.__main__ import main

sys.exit(main())
"""


class BuildError(Exception):
    """The release cannot be built; the message is one line."""


def version(package: Path) -> str:
    """The version that the package's __init__.py states."""
    match = re.search(r'^__version__ = "([^"]+)"$', (package / "__init__.py").read_text(), re.MULTILINE)
    if match is None:
        raise BuildError(f'{package}/__init__.py: no line __version__ = "…"')
    return match[1]


def installer() -> list[str]:
    """uv from this environment or the path, which reads the lock's markers for another Python than its
    own."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise BuildError("uv is missing: run tools/bootstrap.sh, or start this with .venv/bin/python")
    return [found, "--quiet", "pip", "install"]


def dependencies(lock: Path) -> Path:
    """A folder with what the lock names, installed without compiled files; made once a lock."""
    content = lock.read_bytes() + Path(__file__).read_bytes()
    folder = BUILD / "dependencies" / f"{lock.parent.name}-{hashlib.sha256(content).hexdigest()[:16]}"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        target = Path(temporary) / "target"
        options = ["--target", str(target), "--python-version", PYTHON, "--no-deps", "--require-hashes"]
        command = [*installer(), *options, "--only-binary", ":all:", "-r", str(lock)]
        if subprocess.run(command, check=False).returncode:
            raise BuildError(f"{lock.relative_to(ROOT)}: the dependencies could not be installed")
        try:
            target.rename(folder)
        except OSError:
            # Another build has made it meanwhile; the lock says that it is the same.
            if not folder.exists():
                raise
    return folder


def files(folder: Path, prefix: str = "") -> Iterator[tuple[str, Path]]:
    """Names in the zip and their files, without what must not go in."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if not path.is_file() or SKIPPED_FOLDERS & set(name.parts) or path.suffix in COMPILED:
            continue
        if name.parts[0].endswith(".dist-info") and name.name in INSTALLER_FILES:
            continue
        if name.name == ".lock":
            continue
        yield prefix + name.as_posix(), path


def built(part: str) -> int | None:
    """When a part was last changed, s since 1970; None where neither the environment nor git tells."""
    told = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not told:
        command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct", "--", part]
        try:
            told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        except FileNotFoundError:
            return None
    if not told:
        return None
    if not told.isdigit():
        raise BuildError(f"SOURCE_DATE_EPOCH is {told!r}, not a number of seconds since 1970")
    return int(told)


def build(part: str, output: Path) -> Path:
    """Write the release of a part and return its path."""
    package = ROOT / part / PACKAGES[part]
    contents = {
        name: path.read_bytes() for name, path in files(dependencies(ROOT / part / "requirements.lock"))
    }
    contents |= {name: path.read_bytes() for name, path in files(package, f"{package.name}/")}
    moment, stamp = built(part), f"{package.name}/built.py"
    if stamp in contents and moment is not None:
        contents[stamp] = f"BUILT = {moment * 1000}\n".encode()
    contents["__main__.py"] = MAIN.format(package=package.name).encode()
    release = output / f"{package.name.replace('_', '-')}-{version(package)}.pyz"
    output.mkdir(parents=True, exist_ok=True)
    # Written beside it and renamed, so that nobody ever finds half a release.
    unfinished = release.with_name(f".{release.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as stream:
            stream.write(SHEBANG)
            with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
                for name in sorted(contents):
                    entry = zipfile.ZipInfo(name, EPOCH)
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    entry.create_system = 3
                    entry.external_attr = 0o644 << 16
                    archive.writestr(entry, contents[name])
        unfinished.chmod(0o755)
        unfinished.replace(release)
    finally:
        unfinished.unlink(missing_ok=True)
    return release


def main() -> int:
    """Build what the command line asks for, and print path and digest."""
    parser = argparse.ArgumentParser(description="Build a part's release as one file.")
    parser.add_argument("part", choices=sorted(PACKAGES))
    parser.add_argument("--output", type=Path, default=BUILD / "dist", metavar="FOLDER")
    options = parser.parse_args()
    try:
        release = build(options.part, options.output)
    except (BuildError, OSError) as error:
        print(f"build_release: {error}", file=sys.stderr)
        return 1
    print(f"{release} sha256={hashlib.sha256(release.read_bytes()).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
