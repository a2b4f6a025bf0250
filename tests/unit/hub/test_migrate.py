# SPDX-License-Identifier: Apache-2.0
"""Migrations against an empty, a current and a foreign database."""

from __future__ import annotations

import re
import threading

import pytest
from energy_hub import cli, migrate
from energy_hub.commands import tools

from .conftest import Database


def run(database: Database, *arguments: str) -> int:
    return cli.main(["migrate", "--database", database.conninfo("energy_migrate"), *arguments])


def test_check_then_apply_then_nothing_left(
    empty_database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(empty_database, "--check") == tools.WOULD_CHANGE
    assert "would apply migration 0001_readings" in capsys.readouterr().out
    assert empty_database.one("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    assert run(empty_database) == tools.OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "applied migration 0001_readings"
    months = [line for line in lines if re.fullmatch(r"applied partition \d{4}-\d\d", line)]
    assert len(months) == migrate.MONTHS_AHEAD + 2
    assert run(empty_database, "--check") == tools.OK
    assert run(empty_database) == tools.OK
    assert capsys.readouterr().out == ""


def test_two_at_once_apply_everything_once(empty_database: Database) -> None:
    lines: list[str] = []

    def work() -> None:
        with empty_database.connect("energy_migrate") as connection:
            lines.extend(migrate.apply(connection))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(lines) == len(set(lines)) == len(migrate.shipped()) + migrate.MONTHS_AHEAD + 2


def test_failing_migration_leaves_nothing(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = migrate.Migration(1, "broken", "CREATE TABLE a (x int); SELECT 1/0")
    monkeypatch.setattr(migrate, "shipped", lambda: [broken])
    assert run(empty_database) == tools.FAILED
    assert capsys.readouterr().err == "energy-hub: ERR database: division by zero\n"
    assert empty_database.one("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0


def alters_much(text: str) -> list[str]:
    """The ALTER TABLE statements that change more than one thing."""
    plain = re.sub(r"--[^\n]*|'(?:[^']|'')*'", "", text)
    within = re.compile(r"\([^()]*\)")
    while within.search(plain):
        plain = within.sub("", plain)
    statements = (" ".join(one.split()) for one in plain.split(";"))
    return [one for one in statements if one.startswith("ALTER TABLE") and "," in one]


def test_migrations_alter_one_thing_at_a_time() -> None:
    """A table on a node of Citus takes no more with one statement; those up to 63 are out."""
    found = {one.number: alters_much(one.sql) for one in migrate.shipped()}
    assert found[63] == [
        "ALTER TABLE evidence DROP CONSTRAINT evidence_kind_check, ADD CONSTRAINT evidence_kind_check CHECK"
    ]
    assert {number: much for number, much in found.items() if number > 63 and much} == {}


def test_edited_migration_is_refused(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    with database.connect("energy_migrate") as connection:
        connection.execute("UPDATE migration SET digest = '\\x00'")
    assert run(database, "--check") == tools.FAILED
    assert "released migrations must not be edited" in capsys.readouterr().err


def test_newer_database_is_refused(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    with database.connect("energy_migrate") as connection:
        connection.execute("INSERT INTO migration VALUES (9999, 'later', '\\x00')")
    assert run(database) == tools.FAILED
    assert "install the newer release again" in capsys.readouterr().err


def test_no_database_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["migrate", "--database", "host=/nonexistent dbname=energy"]) == tools.FAILED
    error = capsys.readouterr().err
    assert error.startswith("energy-hub: ERR CONNECTION_REFUSED database: ")
    assert error.count("\n") == 1
