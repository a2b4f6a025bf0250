# SPDX-License-Identifier: Apache-2.0
"""Backups of the rig's database by pgBackRest, with the settings of the role hub_backup, and what its restore does."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import time
from datetime import datetime

from wattfleet.paths import ROOT

from tests.fault.rig.database import USER, Database

STANZA = "main"
# A filter of the collection, which is on no path here.
restore_plan = runpy.run_path(str(ROOT / "plugins/filter/restore_plan.py"))["restore_plan"]


class Backup:
    """A repository beside the database, and the archive of its log. Restarts the database to turn that on."""

    def __init__(self, database: Database) -> None:
        self._database = database
        folder = self._folder = database.folder
        self._data = folder / "data"
        self._config = folder / "pgbackrest.conf"
        self._config.write_text(
            f"[global]\nrepo1-path={folder}/repository\nrepo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass={'x' * 40}\n"
            "repo1-bundle=y\nrepo1-retention-full=4\ncompress-type=zst\nstart-fast=y\nlog-level-file=off\n"
            f"lock-path={folder}/lock\n\n[{STANZA}]\npg1-path={self._data}\npg1-socket-path={folder}\n"
            "pg1-user=owner\npg1-database=postgres\n"
        )
        archive = f"pgbackrest --config={self._config} --stanza={STANZA} archive-push %p"
        with database.connect() as connection:
            connection.execute("ALTER SYSTEM SET archive_mode = on")
            connection.execute(f"ALTER SYSTEM SET archive_command = '{archive}'")
        database.stop()
        database.again()
        self._run("stanza-create")

    def take(self, kind: str) -> None:
        """A backup, while everything goes on."""
        self._run(f"--type={kind}", "backup")

    def moment(self) -> datetime:
        """A time that everything committed so far lies before."""
        with self._database.connect() as connection:
            row = connection.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None
        found: datetime = row[0]
        return found

    def restore(self, to: datetime) -> None:
        """Set the database back, and note it there. Nobody may be connected."""
        self._database.end()
        stanza = json.loads(self._run("--output=json", "info"))[0]
        timeline = int(stanza["archive"][-1]["max"][:8], 16)
        history = ""
        if timeline > 1:
            path = f"archive/{STANZA}/{stanza['archive'][-1]['id']}/{timeline:08X}.history"
            history = self._run("repo-get", path, stanza=False)
        plan = restore_plan(stanza, to.isoformat(), time.time(), timeline, history)
        assert not plan["problem"], plan["problem"]
        shutil.rmtree(self._data)
        self._as_user("mkdir", "--mode=700", str(self._data))
        self._run(
            f"--set={plan['set']}",
            "--type=time",
            f"--target={plan['target']}",
            "--target-action=promote",
            f"--target-timeline={timeline}",
            "restore",
        )
        self._database.again()
        self._database.wait_for_the_end_of_recovery()
        with self._database.connect() as connection:
            connection.execute(
                "INSERT INTO restored (target, checkpoint, generation)"
                " SELECT %s, coalesce((SELECT max(number) FROM checkpoint), 0), ''",
                (to,),
            )

    def _run(self, *arguments: str, stanza: bool = True) -> str:
        chosen = [f"--stanza={STANZA}"] if stanza else []
        return self._as_user("pgbackrest", f"--config={self._config}", *chosen, *arguments)

    def _as_user(self, *command: str) -> str:
        as_user = ["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups"]
        done = subprocess.run(
            [*as_user, *command], capture_output=True, text=True, check=False, cwd=self._folder
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-1000:]}{done.stderr[-1000:]}"
        return done.stdout
