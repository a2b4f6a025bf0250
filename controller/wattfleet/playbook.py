# SPDX-License-Identifier: Apache-2.0
"""Run one playbook through ansible-runner and tell a person how it goes."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ansible_runner
from rich.console import Console

from wattfleet.paths import BUILD, ROOT
from wattfleet.progress import PlaybookProgress

# Counted for each host from the run's closing statistics.
STATS = ("ok", "changed", "failures", "dark", "skipped", "rescued", "ignored")


@dataclass(frozen=True)
class Failure:
    """One failed task of one host: enough to say where to look."""

    host: str
    task: str
    message: str


@dataclass
class PlaybookResult:
    """What a run did. `stats` is host -> counter -> number, counters as in :data:`STATS`."""

    playbook: str
    ok: bool
    seconds: float
    log: Path
    stats: dict[str, dict[str, int]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    @property
    def changed(self) -> int:
        """Changed tasks over all hosts; zero on a run that found everything as described."""
        return sum(host["changed"] for host in self.stats.values())


def run_playbook(
    playbook: str,
    inventory: Path,
    *,
    extra_vars: Mapping[str, Any] | None = None,
    arguments: Sequence[str] = (),
    console: Console | None = None,
) -> PlaybookResult:
    """Run `playbooks/<playbook>.yml` against `inventory`, showing one line of progress a host.

    The complete output goes to `build/runs/<playbook>.log`, which the newest of several runs has. `extra_vars` are
    passed in a folder of mode 0700 that is removed afterwards. Does not raise for failed hosts: look at `ok` and
    `failures`.
    """
    private = _private_folder(playbook)
    log = BUILD / "runs" / f"{playbook}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)  # another run may be writing to it: it keeps the file, and loses the name
    started = time.monotonic()
    failures: list[Failure] = []
    result_stats: dict[str, dict[str, int]] = {}

    with (
        log.open("w", encoding="utf-8") as output,
        PlaybookProgress(playbook, console or Console()) as progress,
    ):

        def on_event(event: dict[str, Any]) -> bool:
            text = event.get("stdout") or ""
            if text:
                output.write(text + "\n")
            data = event.get("event_data") or {}
            kind = event.get("event", "")
            progress.update(kind, data)
            if kind in ("runner_on_failed", "runner_on_unreachable") and not data.get("ignore_errors"):
                failures.append(
                    Failure(data.get("host", "?"), data.get("task", "?"), _message(data.get("res") or {}))
                )
            if kind == "playbook_on_stats":
                result_stats.update(_stats(data))
            return False  # nothing is kept on disk besides the log

        try:
            run = ansible_runner.run(
                private_data_dir=str(private),
                project_dir=str(ROOT),
                playbook=f"playbooks/{playbook}.yml",
                inventory=str(inventory.resolve()),
                extravars=dict(extra_vars or {}),
                cmdline=" ".join(arguments) or None,
                envvars=_environment(),
                event_handler=on_event,
                quiet=True,
            )
        finally:
            shutil.rmtree(private, ignore_errors=True)  # what cannot go nobody else can read
    if run.status not in ("successful", "failed"):
        failures.append(Failure("controller", playbook, f"the run ended as '{run.status}', see {log}"))
    elif run.status == "failed" and not failures:
        failures.append(Failure("controller", playbook, _last_lines(log)))
    return PlaybookResult(
        playbook, run.status == "successful", time.monotonic() - started, log, result_stats, failures
    )


def _private_folder(playbook: str) -> Path:
    """A folder of this process alone: another fleet may be under way with the same playbook."""
    folder = BUILD / "runner"
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.iterdir():
        # Of a run that was killed; its variables stay no longer than that.
        if not Path("/proc", left.name.rpartition(".")[2]).exists():
            shutil.rmtree(left, ignore_errors=True)  # what cannot go nobody else can read
    return Path(tempfile.mkdtemp(prefix=f"{playbook}.", suffix=f".{os.getpid()}", dir=folder))


def _environment() -> dict[str, str]:
    return {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_HOST_KEY_CHECKING": "True",  # ansible-runner would switch it off
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def _stats(data: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    hosts = {host for counter in STATS for host in (data.get(counter) or {})}
    return {
        host: {counter: (data.get(counter) or {}).get(host, 0) for counter in STATS} for host in sorted(hosts)
    }


def _message(result: Mapping[str, Any]) -> str:
    for key in ("msg", "stderr", "stdout", "censored"):
        if result.get(key):
            return str(result[key])
    for item in result.get("results") or []:
        if item.get("failed"):
            return _message(item)
    return "no message; the log has the whole result"


def _last_lines(log: Path, count: int = 8) -> str:
    return "\n".join(log.read_text(encoding="utf-8").strip().splitlines()[-count:])
