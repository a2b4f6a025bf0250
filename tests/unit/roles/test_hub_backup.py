# SPDX-License-Identifier: Apache-2.0
"""Which backup is restored, and the files that go with the backups, in a repository of a real pgBackRest."""

from __future__ import annotations

import importlib.util
import json
import shutil
import stat
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible_collections.wattfleet.energy.plugins.filter.restore_plan import restore_plan

from tests.unit.controller import local_fleet

PROGRAM = Path(__file__).parents[3] / "roles/hub_backup/files/energy-backup.py"
# 2026-11-29 06:00:00 UTC
SIX = 1795932000
NOW = SIX + 7200


def backup(label: str, stop: int, timeline: int = 1, lsn: str = "0/3000100") -> dict[str, Any]:
    """As pgBackRest 2.45 tells it, with what counts here."""
    return {
        "label": label,
        "archive": {"start": f"{timeline:08X}0000000000000003", "stop": f"{timeline:08X}0000000000000003"},
        "database": {"id": 1, "repo-key": 1},
        "error": False,
        "info": {"size": 23025326},
        "lsn": {"start": lsn, "stop": lsn},
        "timestamp": {"start": stop - 10, "stop": stop},
    }


def stanza(*backups: dict[str, Any], timeline: int = 1) -> dict[str, Any]:
    return {
        "name": "main",
        "archive": [{"id": "15-1", "min": "0" * 24, "max": f"{timeline:08X}0000000000000009"}],
        "backup": list(backups),
        "db": [{"id": 1, "system-id": 7713474384263505632, "version": "15"}],
    }


FIRST, SECOND = backup("first", SIX - 3600), backup("second", SIX + 3600, lsn="0/5000100")
# At 06:30 it was restored to 06:00; the backup of 07:00 is of the timeline that was left.
FORKED = "1\t0/4000178\tbefore 2026-11-29 06:00:00.263079+00\n"


@pytest.mark.parametrize(
    ("to", "label", "target"),
    [
        ("2026-11-29 06:00:00+00", "first", "2026-11-29 06:00:00.000000+00"),
        ("2026-11-29T08:00:00.5+01:00", "second", "2026-11-29 07:00:00.500000+00"),
        ("latest", "second", ""),
    ],
)
def test_the_newest_backup_before_the_time_is_taken(to: str, label: str, target: str) -> None:
    plan = restore_plan(stanza(SECOND, FIRST), to, NOW)
    assert (plan["problem"], plan["set"], plan["target"], plan["timeline"]) == ("", label, target, 1)
    assert plan["type"] == ("time" if target else "default")


def test_of_two_backups_that_are_as_new_the_first_repository_has_the_one_that_counts() -> None:
    other = FIRST | {"database": {"id": 1, "repo-key": 2}}
    for found in (stanza(FIRST, other), stanza(other, FIRST)):
        assert restore_plan(found, "latest", NOW)["repo"] == 1


def test_a_backup_of_a_timeline_that_was_left_is_not_taken() -> None:
    """PostgreSQL: requested timeline 2 is not a child of this server's history."""
    found = stanza(FIRST, SECOND, timeline=2)
    assert restore_plan(found, "latest", NOW, history=FORKED)["set"] == "first"
    assert restore_plan(found, "2026-11-29 07:30:00+00", NOW, history=FORKED)["set"] == "first"
    third = backup("third", SIX + 7000, timeline=2, lsn="0/6000100")
    assert (
        restore_plan(stanza(FIRST, SECOND, third, timeline=2), "latest", NOW, history=FORKED)["set"]
        == "third"
    )


def test_the_timeline_that_was_left_can_be_had_by_its_number() -> None:
    plan = restore_plan(stanza(FIRST, SECOND, timeline=2), "2026-11-29 07:30:00+00", NOW, timeline=1)
    assert (plan["set"], plan["timeline"]) == ("second", 1)


@pytest.mark.parametrize(
    ("to", "words"),
    [
        (
            "2026-11-29 04:00:00+00",
            "no backup from before 2026-11-29T04:00:00Z: possible is from 2026-11-29T05:00:00Z",
        ),
        ("2026-11-30 04:00:00+00", "has not come yet: possible is from 2026-11-29T05:00:00Z"),
        ("2026-11-29 06:00:00", "has no offset from UTC; write it as 2026-11-29 06:00:00+00"),
        ("yesterday", "'yesterday' is no time"),
    ],
)
def test_what_cannot_be_restored_is_told_in_one_line(to: str, words: str) -> None:
    plan = restore_plan(stanza(FIRST, SECOND), to, NOW)
    assert words in plan["problem"]
    assert "\n" not in plan["problem"]
    assert not plan["set"]


def test_backups_that_failed_or_are_of_another_cluster_do_not_count() -> None:
    failed, old = FIRST | {"error": True}, FIRST | {"database": {"id": 0, "repo-key": 1}}
    for found in (stanza(failed, old), {"name": "main"}):
        assert "no backup of main" in restore_plan(found, "latest", NOW)["problem"]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    if shutil.which("pgbackrest") is None:
        pytest.fail("pgbackrest is missing: apt-get install pgbackrest")
    spec = importlib.util.spec_from_file_location("energy_backup", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "CONFIG", tmp_path / "etc")
    (tmp_path / "etc/conf.d").mkdir(parents=True)
    # As the role writes them, with a second repository.
    (tmp_path / "etc/pgbackrest.conf").write_text(
        f"[global]\nrepo1-path={tmp_path}/one\nrepo1-cipher-type=aes-256-cbc\nlog-level-file=off\n"
        f"lock-path={tmp_path}/lock\n\n[main]\npg1-path=/nowhere\n"
    )
    (tmp_path / "etc/conf.d/repositories.conf").write_text(
        f"[global]\nrepo1-cipher-pass={'x' * 40}\nrepo2-path={tmp_path}/two\n"
        f"repo2-cipher-type=aes-256-cbc\nrepo2-cipher-pass={'y' * 40}\n"
    )
    monkeypatch.setenv("PGBACKREST_CONFIG", str(tmp_path / "etc/pgbackrest.conf"))
    monkeypatch.setenv("PGBACKREST_CONFIG_INCLUDE_PATH", str(tmp_path / "etc/conf.d"))
    return module


def test_files_come_back_where_they_are_missing(
    program: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "hub"
    home.mkdir()
    key, log = home / "checkpoint.key", home / "ingest.log"
    key.write_text("secret of the hub")
    key.chmod(0o600)
    log.write_text("a line\n")
    assert program.main(["files", "--keep", "2", str(key), str(home / "none"), str(log)]) == 0
    for repository in ("one", "two"):
        (copy,) = (tmp_path / repository / "energy-hub").iterdir()
        assert b"secret" not in copy.read_bytes()
        assert copy.read_bytes()[:8] == b"Salted__"

    log.write_text("a line\nand one more\n")
    key.unlink()
    program.restore_files()
    assert key.read_text() == "secret of the hub"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert log.read_text() == "a line\nand one more\n"
    # The first repository is lost.
    shutil.rmtree(tmp_path / "one")
    key.unlink()
    program.restore_files()
    assert key.read_text() == "secret of the hub"
    capsys.readouterr()
    key.write_text("another one")
    program.restore_files()
    assert key.read_text() == "another one"
    assert "checkpoint.key is another one" in capsys.readouterr().out


def test_old_copies_of_files_go(program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "checkpoint.key"
    key.write_text("k")
    for minute in range(4):
        name = f"20261129T06{minute:02}00Z.tar.gz"
        monkeypatch.setattr(program.time, "strftime", lambda *_, name=name: name)
        program.files([key], 2)
    for number in (1, 2):
        assert program.kept(number) == ["20261129T060200Z.tar.gz", "20261129T060300Z.tar.gz"]


def test_a_wrong_passphrase_is_told_in_one_line(
    program: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "checkpoint.key"
    key.write_text("k")
    program.files([key], 2)
    config = tmp_path / "etc/conf.d/repositories.conf"
    config.write_text(config.read_text().replace("x" * 40, "z" * 40))
    assert program.main(["restore-files"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("energy-backup: ERR ")
    assert said.count("\n") == 1
    assert "zzz" not in said


def test_a_repository_that_no_backup_would_get_into_is_refused(tmp_path: Path) -> None:
    """pgBackRest would archive to it, and say at the first backup that this has to run on the other host."""
    role = {"include_role": {"name": "wattfleet.energy.hub_backup"}}
    playbook = tmp_path / "play.yml"
    playbook.write_text(json.dumps([{"hosts": "hub", "gather_facts": False, "tasks": [role]}]))
    local_fleet.write_inventory(tmp_path)
    given = {
        "hub_backup_passphrase": "x" * 20,
        "hub_backup_repositories": [{"path": "/mnt/nas"}, {"host": "backup.example.org", "path": "/srv/hub"}],
    }
    code, text = local_fleet.play(tmp_path, playbook, given)
    assert code == 2
    assert "hub: hub_backup_repositories names a repository on host backup.example.org" in " ".join(
        text.split()
    )
