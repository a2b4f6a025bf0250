# SPDX-License-Identifier: Apache-2.0
"""Whether sshd follows the role's file, asked of a real sshd that reads files of this test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible.plugins.test.core import version_compare
from ansible_collections.wattfleet.energy.plugins.module_utils import _sshd_in_force
from ansible_collections.wattfleet.energy.plugins.module_utils.guard.peer import Connection
from ansible_collections.wattfleet.energy.plugins.modules import host_state
from jinja2 import Environment, FileSystemLoader, StrictUndefined

ROLE = Path(__file__).parents[3] / "roles" / "hardening"
SESSION = "user=admin,host=198.18.0.1,addr=198.18.0.1,laddr=198.18.0.11,lport=22"


def ours(version: str = "9.1", **given: object) -> str:
    """The role's file for an sshd of a version; with that of all that the lab's own knows."""
    environment = Environment(
        loader=FileSystemLoader(ROLE / "templates"), trim_blocks=True, undefined=StrictUndefined
    )
    environment.tests["version"] = version_compare
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
    ours = {"hardening_sshd_version": version, "hardening_ssh_users": ["admin"], "ansible_managed": "ours"}
    return environment.get_template("sshd.conf.j2").render({**defaults, **ours, **given})


class Sshd:
    """A real sshd, with a folder in the place of /etc/ssh."""

    def __init__(self, folder: Path) -> None:
        self.main, self.file, self.key = folder / "sshd_config", folder / "10-energy.conf", folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)
        self.file.write_text(ours())
        if os.geteuid() == 0:  # where its service has never run
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.asked = 0

    def run(self, command: list[str]) -> tuple[int, str, str]:
        self.asked += 1
        main = [] if "-f" in command else ["-f", str(self.main)]
        done = subprocess.run(
            [*command, "-h", str(self.key), *main], capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout, done.stderr

    def overruled(self, main: str, session: str | None = SESSION) -> str | None:
        """What is said where sshd_config is `main`, in which OURS stands for the role's file."""
        self.main.write_text(main.replace("OURS", str(self.file)))
        found = _sshd_in_force.overruled(session, self.run, str(self.file))
        return found and found.replace(str(self.file), "OURS")


@pytest.fixture
def sshd(tmp_path: Path) -> Sshd:
    return Sshd(tmp_path)


def test_an_sshd_that_follows_is_asked_three_times_and_nothing_is_said(sshd: Sshd) -> None:
    distributions = "Include OURS\nUsePAM yes\nPasswordAuthentication yes\nX11Forwarding yes\n"
    assert sshd.overruled(distributions) is None
    assert sshd.asked == 3
    assert sshd.overruled("Include OURS\n", session=None) is None
    assert sshd.asked == 5


def test_each_keyword_of_the_file_is_one_that_sshd_tells(sshd: Sshd) -> None:
    # One that it does not tell would be the same in any case, and its loss go unseen.
    _code, out, _err = sshd.run(["/usr/sbin/sshd", "-T", "-f", str(sshd.file)])
    told = {line.split()[0] for line in out.splitlines()}
    written = {word.lower() for word in re.findall(r"^([A-Z]\w+) ", ours(), re.MULTILINE)}
    assert written - told <= {"kerberosauthentication", "gssapiauthentication"}  # built without them


@pytest.mark.parametrize(
    ("main", "said"),
    [
        (
            "UsePAM yes\n",
            r"OURS: AuthenticationMethods is any, wanted is publickey; .*; \d\d more differ\.",
        ),
        (
            "PasswordAuthentication yes\nInclude OURS\n",
            r"OURS: PasswordAuthentication is yes, wanted is no\.",
        ),
        # The only lists that grow from file to file.
        (
            "Include OURS\nAllowUsers careless\n",
            r"OURS: AllowUsers is admin careless, wanted is admin\.",
        ),
        (
            "Ciphers aes256-cbc\nInclude OURS\n",
            r"OURS: Ciphers is aes256-cbc, wanted is \S{60}…\.",
        ),
        (
            "Include OURS\nMatch User admin Address 198.18.0.0/16\nPasswordAuthentication yes\n",
            rf"OURS for {SESSION}: PasswordAuthentication is yes, wanted is no\.",
        ),
        ("Include OURS\nNonsense yes\n", r"-T fails: .*Nonsense"),
    ],
)
def test_what_is_not_in_force_is_told_in_one_line(sshd: Sshd, main: str, said: str) -> None:
    line = sshd.overruled(main)
    assert line is not None
    assert re.search(said, line)
    assert "\n" not in line


def test_a_match_for_somebody_else_is_nothing_to_tell(sshd: Sshd) -> None:
    assert sshd.overruled("Include OURS\nMatch User robot\nMaxSessions 1\n") is None


def test_without_the_file_sshd_is_not_asked(sshd: Sshd) -> None:
    sshd.file.unlink()
    assert sshd.overruled("UsePAM yes\n") is None
    assert sshd.asked == 0


@pytest.mark.parametrize("step", ["is_file", "read_text"])
def test_a_file_that_cannot_be_read_ends_nothing(
    sshd: Sshd, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    # host_state may be run as somebody else than root, and the file is root's alone; so is its folder on some.
    def refused(*_arguments: object, **_options: object) -> str:
        raise PermissionError(13, "Permission denied", str(sshd.file))

    monkeypatch.setattr(Path, step, refused)
    line = _sshd_in_force.overruled(SESSION, sshd.run, str(sshd.file))
    assert line is not None
    assert "Permission denied" in line
    assert sshd.asked == 0


def test_as_a_program_it_needs_nothing_but_python_and_fails_with_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Path(_sshd_in_force.__file__).read_text()
    program = tmp_path / "sshd_in_force.py"
    program.write_text(source.replace(_sshd_in_force.FILE, str(tmp_path / "none")))
    done = subprocess.run([sys.executable, "-I", program, ""], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    monkeypatch.setattr(sys, "argv", ["sshd_in_force.py", SESSION])
    monkeypatch.setattr(_sshd_in_force, "overruled", lambda session, _run: f"not followed for {session}")
    with pytest.raises(SystemExit) as ended:
        _sshd_in_force.main()
    assert ended.value.code == f"not followed for {SESSION}"


@pytest.mark.parametrize(
    ("connection", "session"),
    [
        (Connection("198.18.0.1", "198.18.0.11", 22), SESSION),
        (
            Connection("fe80::1%eth0", "fe80::12%eth0", 2222),
            "user=admin,host=fe80::1,addr=fe80::1,laddr=fe80::12,lport=2222",
        ),
        (None, None),
    ],
)
def test_host_state_asks_for_the_user_and_the_address_that_it_is_read_by(
    monkeypatch: pytest.MonkeyPatch, connection: Connection | None, session: str | None
) -> None:
    monkeypatch.setenv("SUDO_USER", "admin")
    monkeypatch.setattr(host_state.peer, "connection", lambda: connection)
    monkeypatch.setattr(_sshd_in_force, "overruled", lambda asked, _run: f"asked for {asked}")
    told = host_state.sshd_facts(lambda _command: (0, "", ""))
    assert told == {"session": session, "overruled": f"asked for {session}"}
