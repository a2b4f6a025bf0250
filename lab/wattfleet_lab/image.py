# SPDX-License-Identifier: Apache-2.0
"""The base image: a Debian tree that every host is an overlay of, built once for a recipe and then kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

from wattfleet_lab import kernel, paths, recipe, registry
from wattfleet_lab.errors import LabError
from wattfleet_lab.progress import Progress
from wattfleet_lab.sources import debian_sources

SPACE_NEEDED = 1500  # MiB while it is built; 400 afterwards

# What mmdebstrap says when it begins something that takes time, and what we say then.
_PHASES = {
    "running apt-get update": "reading package lists",
    "downloading packages": "downloading packages",
    "extracting archives": "unpacking",
    "installing essential": "installing the base system",
    "installing remaining": "installing packages",
    "running --customize-hook": "filling the offline pool and setting the host up",
}


def ensure(progress: Progress) -> Path:
    """The image's tree, built first when there is none for the present recipe.

    Raises LabError in one line when a right, a program, disk space or a kernel feature is missing.
    """
    kernel.require_root()
    digest = recipe.digest()
    tree = paths.cache_root() / digest / "root"
    if tree.is_dir():
        return tree
    kernel.require_programs("mmdebstrap", "systemd-nspawn", "apt-ftparchive", "ip", "nft", "ssh-keygen")
    paths.cache_root().mkdir(parents=True, exist_ok=True)
    lock = paths.cache_root() / "lock"
    with registry.locked(
        lock, waiting=lambda: progress.start("waiting while somebody else builds the image")
    ):
        progress.done()
        if not tree.is_dir():
            kernel.require_space(paths.cache_root(), SPACE_NEEDED, "XDG_CACHE_HOME")
            _build(tree.parent, progress)
    return tree


def _build(target: Path, progress: Progress) -> None:
    for abandoned in target.parent.glob(".building-*"):  # of a build that was killed
        shutil.rmtree(abandoned)
    progress.say(f"==> building the base image {target.name} (once; about a minute)")
    # On the same file system as the target, so that the image appears at once or not at all.
    with tempfile.TemporaryDirectory(prefix=".building-", dir=target.parent) as folder:
        work = Path(folder)
        command = [
            "mmdebstrap",
            "--mode=root",
            "--variant=minbase",
            "--format=directory",
            "--skip=cleanup/apt/lists",  # the pool's index stays, so that hosts can install from it at once
            f"--include={','.join(recipe.PACKAGES)}",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in recipe.EXCLUDED_PATHS),
            f'--customize-hook={recipe.SCRIPT} "$1"',
            recipe.SUITE,
            str(work / "root"),
        ]
        entries = debian_sources(recipe.SUITE)
        if entries:
            (work / "sources.list").write_text("\n".join(entries) + "\n")
            command.append(str(work / "sources.list"))
        environment = {**os.environ, "WATTFLEET_POOL": " ".join(recipe.POOL), "LC_ALL": "C.UTF-8"}
        _run_showing_phases(command, environment, target.parent / "build.log", progress)
        (work / "sources.list").unlink(missing_ok=True)
        work.chmod(0o755)
        # Renamed away from under the TemporaryDirectory, which would remove it.
        target.mkdir(exist_ok=True)
        (work / "root").rename(target / "root")


def _run_showing_phases(
    command: list[str], environment: dict[str, str], log: Path, progress: Progress
) -> None:
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    finished = threading.Event()

    def count_seconds() -> None:
        while not finished.wait(1):
            progress.tick()

    counter = threading.Thread(target=count_seconds, daemon=True)
    counter.start()
    last = ""
    try:
        with log.open("w") as record:
            for line in process.stdout:
                record.write(line)
                last = line.strip() or last
                for mark, phase in _PHASES.items():
                    if mark in line:
                        progress.start(phase)
        status = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        finished.set()
        counter.join()
        progress.done()
    if status:
        raise LabError(f"building the base image failed: {last} (all of it: {log})")


def prune() -> list[str]:
    """Removes images of other recipes that no mounted host needs. Returns their digests."""
    kernel.require_root()
    removed: list[str] = []
    if not paths.cache_root().is_dir():
        return removed
    lower = kernel.overlay_lower_folders()
    with registry.locked(paths.cache_root() / "lock"):
        for folder in sorted(paths.cache_root().iterdir()):
            in_use = str(folder / "root") in lower
            if folder.is_dir() and folder.name != recipe.digest() and not in_use:
                shutil.rmtree(folder)
                removed.append(folder.name)
    return removed
