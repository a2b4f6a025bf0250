# SPDX-License-Identifier: Apache-2.0
"""What sshd is given by its version; and Debian 13's sshd, which is newer than that of the lab's hosts, with the file.

From 9.8 on sshd shuts addresses out whose logins fail. The controller's must not be one of them.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.wattfleet.energy.plugins.module_utils import _sshd_in_force
from wattfleet.paths import BUILD
from wattfleet_lab import recipe, registry
from wattfleet_lab.sources import debian_sources

from tests.ports import free_port
from tests.unit.roles.test_sshd_in_force import ROLE, SESSION, ours

SUITE = "trixie"
# Unpacked and not installed: what sshd is linked to, and a shell for whoever logs in.
PACKAGES = ("base-files", "dash", "openssh-server")
MANAGEMENT, ELSEWHERE = "127.0.0.2", "127.0.0.3"
# Each costs 5 s, and from 15 s on nobody is let in; some of it is over by the time of the last one.
FAILED_LOGINS = 8


@pytest.mark.parametrize(
    ("package", "version"),
    [
        ("1:9.2p1-2+deb12u3", "9.2"),
        ("1:10.0p1-7+deb13u1", "10.0"),
        ("1:8.9p1-3ubuntu0.10", "8.9"),
        ("8.7p1-38.el9_4.4", "8.7"),
        (None, "0"),
    ],
)
def test_the_version_comes_from_the_package(package: str | None, version: str) -> None:
    loader = DataLoader()
    variables = loader.load_from_file(str(ROLE / "vars" / "main.yml"), trusted_as_template=True)
    facts = {"energy_host": {"packages": {"openssh-server": package}}}
    templar = Templar(loader=loader, variables={**variables, "ansible_facts": facts})
    assert templar.template(variables["hardening_sshd_version"]).strip() == version


@pytest.mark.parametrize(
    ("version", "known"),
    [("0", 0), ("8.7", 1), ("9.2", 2), ("9.7", 2), ("9.8", 3), ("10.0", 3)],
)
def test_what_an_sshd_does_not_know_is_not_written(version: str, known: int) -> None:
    written = ours(version, hardening_trusted=["198.18.0.0/19", "198.18.0.2"])
    lines = (
        "PerSourceMaxStartups 25\nPerSourceNetBlockSize 32:64\n",
        "RequiredRSASize 2048\n",
        "PerSourcePenalties yes\nPerSourcePenaltyExemptList 198.18.0.0/19,198.18.0.2\n",
    )
    assert [line in written for line in lines] == [number < known for number in range(len(lines))]


def unpacked() -> Path:
    """The tree of Debian 13's sshd, made the first time."""
    tree = BUILD / "sshd" / SUITE
    with registry.locked(BUILD / "sshd" / "lock"):
        if not tree.is_dir():
            with tempfile.TemporaryDirectory(dir=tree.parent) as folder:
                made = Path(folder) / "tree"
                made.mkdir()
                # From where the machine has its own packages, where it is a Debian.
                sources = debian_sources(recipe.SUITE)
                _unpack(made, [one.replace(f" {recipe.SUITE}", f" {SUITE}") for one in sources])
                made.rename(tree)
    return tree


def _unpack(tree: Path, sources: list[str]) -> None:
    command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=extract", "--format=directory"]
    done = subprocess.run(
        [*command, f"--include={','.join(PACKAGES)}", SUITE, str(tree), *(["-"] if sources else [])],
        input="\n".join(sources) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (tree / "etc/passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nsshd:x:997:997::/run/sshd:/usr/sbin/nologin\nadmin:x:1000:1000::/:/bin/sh\n"
    )
    (tree / "etc/group").write_text("root:x:0:\nsshd:x:997:\nadmin:x:1000:\n")
    (tree / "etc/shadow").write_text("root:*:1::::::\nsshd:*:1::::::\nadmin:*:1::::::\n")
    (tree / "run/sshd").mkdir(mode=0o755, parents=True, exist_ok=True)
    (tree / "dev").mkdir(exist_ok=True)
    if not (tree / "dev/null").is_char_device():
        os.mknod(tree / "dev/null", 0o20666, os.makedev(1, 3))
        (tree / "dev/null").chmod(0o666)


class NewerSshd:
    """Debian 13's sshd on a port of loopback, and those who log in, right or wrong, from one address or another."""

    def __init__(self, tree: Path, folder: Path) -> None:
        self.tree, self.folder = tree, folder
        self.port = free_port()
        self.file, self.main = folder / "10-energy.conf", folder / "sshd_config"
        keys = {}
        for name in ("host", "right", "wrong"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
            keys[name] = (folder / f"{name}.pub").read_text()
        (folder / "authorized").write_text(keys["right"])
        (folder / "known").write_text(f"[127.0.0.1]:{self.port} {keys['host']}")
        self.file.write_text(ours("10.0", hardening_trusted=[f"{MANAGEMENT}/32"]))
        self.main.write_text(
            f"Include {self.inside(self.file)}\nPort {self.port}\nListenAddress 127.0.0.1\nPidFile none\n"
            f"HostKey {self.inside(folder / 'host')}\nAuthorizedKeysFile {self.inside(folder / 'authorized')}\n"
        )

    def inside(self, path: Path) -> str:
        """A path as those see it whose root is the tree."""
        return f"/{path.relative_to(self.tree)}"

    def run(self, command: list[str]) -> tuple[int, str, str]:
        """Run sshd in the tree, with the main configuration where the command names none."""
        main = [] if "-f" in command else ["-f", self.inside(self.main)]
        main += ["-h", self.inside(self.folder / "host")]
        words = [word.replace(str(self.tree), "") for word in command]
        done = subprocess.run(
            ["chroot", self.tree, *words, *main], capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout, done.stderr

    def serve(self) -> subprocess.Popen[bytes]:
        """Start it, and wait until it listens."""
        with (self.folder / "log").open("wb") as log:
            server = subprocess.Popen(
                ["chroot", self.tree, "/usr/sbin/sshd", "-D", "-e", "-f", self.inside(self.main)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        while True:
            assert server.poll() is None, self.log
            try:
                # Who only looks in is punished, too: from an address that nobody logs in from.
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return server
            except ConnectionRefusedError:
                time.sleep(0.05)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def login(self, source: str, key: str) -> bool:
        """Whether somebody who comes from an address gets in with a key."""
        options = ["IdentitiesOnly=yes", "BatchMode=yes", f"UserKnownHostsFile={self.folder / 'known'}"]
        done = subprocess.run(
            ["ssh", "-F", "/dev/null", "-b", source, "-p", str(self.port), "-i", self.folder / key]
            + [word for option in options for word in ("-o", option)]
            + ["admin@127.0.0.1", "echo in"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout == "in\n"


@pytest.fixture
def newer() -> Iterator[NewerSshd]:
    tree = unpacked()
    folder = Path(tempfile.mkdtemp(dir=tree / "home"))
    folder.chmod(0o755)  # sshd reads the keys as the user
    yield NewerSshd(tree, folder)
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="chroot and sshd need root")
def test_a_newer_sshd_follows_the_file_and_shuts_out_anybody_but_the_controller(newer: NewerSshd) -> None:
    code, _out, said = newer.run(["/usr/sbin/sshd", "-t"])
    assert code == 0, said
    _code, told, _said = newer.run(["/usr/sbin/sshd", "-T"])
    assert f"\npersourcepenaltyexemptlist {MANAGEMENT}/32\n" in told
    assert _sshd_in_force.overruled(SESSION, newer.run, str(newer.file)) is None

    server = newer.serve()
    try:
        for source in (MANAGEMENT, ELSEWHERE):
            assert newer.login(source, "right"), newer.log
            for _ in range(FAILED_LOGINS):
                assert not newer.login(source, "wrong")
        assert newer.login(MANAGEMENT, "right"), newer.log
        assert not newer.login(ELSEWHERE, "right"), "an address is let in right after it has tried wrong keys"
        assert f"from [{ELSEWHERE}]" in newer.log
        assert "penalty: failed authentication" in newer.log
        assert f"from [{MANAGEMENT}]" not in newer.log
    finally:
        server.terminate()
        server.wait()
