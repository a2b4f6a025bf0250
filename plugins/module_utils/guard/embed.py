# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""For modules of a concern: how their change is begun under the guard.

A module computes its difference, calls settle() and ends with conclude(); its action plugin is a GuardedAction.
"""

from __future__ import annotations

import os
import time
from typing import Any, NoReturn

from . import engine, install
from .change import Change
from .errors import GuardError, StepError
from .host import Host
from .store import Store

PROBES = {
    "type": "list",
    "elements": "dict",
    "default": [],
    "options": {"host": {"type": "str", "required": True}, "port": {"type": "int", "required": True}},
}
GUARD_SPEC: dict[str, Any] = {
    "type": "dict",
    "options": {
        # The action plugin sets these three. The nonce itself stays on the controller until the confirmation.
        "phase": {"type": "str", "choices": ["compare", "begin"], "default": "compare"},
        "digest": {"type": "str"},
        "wait": {"type": "float"},
        "wait_min": {"type": "float", "default": 60},
        "probes": PROBES,
    },
}
# Seconds that the beginning waits for the end of the application; what takes longer is waited for over new connections.
APPLIED_WAIT = 20.0
UNDONE_WAIT = 120.0


def refuse_others(module: Any) -> None:
    """What the guard keeps is root's alone."""
    if os.geteuid() != 0:
        module.fail_json(msg="only root can do this; set become: true")


def settle(module: Any, host: Host | None = None) -> None:
    """Undo a change that an earlier run has left unconfirmed, before anything is compared."""
    refuse_others(module)
    host = host or Host()
    store = Store(host)
    record = store.change()
    if record is None:
        return
    text = f"the change of {record['subject']} ({record['id']}) of an earlier run was never confirmed"
    if module.check_mode:
        module.warn(f"{text}; it will be undone")
        return
    engine.request_restore(host, "a new run began before it was confirmed")
    if not _wait_for_end(store):
        module.fail_json(msg=f"{text}, and it could not be undone yet; see journalctl -t energy-guard")
    outcome = (store.last(record["digest"]) or {}).get("outcome")
    if outcome == "confirmed":
        module.warn(
            f"the change of {record['subject']} ({record['id']}) was confirmed by another run meanwhile"
        )
    else:
        module.warn(f"{text}; it has been undone before this one")


def conclude(
    module: Any,
    change: Change,
    *,
    changed: bool,
    diff: list[dict[str, str]],
    host: Host | None = None,
    **extra: Any,
) -> NoReturn:
    """End the module: unchanged, compared, or with the change begun and applied."""
    host = host or Host()
    options = module.params.get("guard") or {"phase": "compare"}
    if not changed or module.check_mode or options["phase"] == "compare":
        needed = {"guard": {"needed": True}} if changed and not module.check_mode else {}
        module.exit_json(changed=changed, diff=diff, **needed, **extra)
    change.probes = change.probes or list(options.get("probes") or [])
    if not options.get("digest") or not options.get("wait"):
        module.fail_json(
            msg="guard.digest and guard.wait are set by the action plugin; call the module through Ansible"
        )
    try:
        install.install(host)
        record = engine.begin(host, change, options["digest"], options["wait"])
    except (GuardError, StepError) as error:
        module.fail_json(msg=str(error))
    guard = {
        "id": record["id"],
        "subject": record["subject"],
        **_wait_for_applied(Store(host), options["digest"]),
    }
    module.exit_json(changed=True, diff=diff, guard=guard, **extra)
    raise AssertionError  # exit_json does not return


def _wait_for_applied(store: Store, digest: str) -> dict[str, Any]:
    """How far the change has come once it is applied or undone, or after a while."""
    deadline = time.monotonic() + APPLIED_WAIT
    while time.monotonic() < deadline:
        phase = store.phase()["phase"]
        if phase == "applied":
            return {"phase": phase}
        if phase not in ("armed", "applying"):
            break
        time.sleep(0.1)
    else:
        return {"phase": "applying"}
    return ended(store, digest)


def ended(store: Store, digest: str) -> dict[str, Any]:
    """How a change ended that is being undone, once it is."""
    _wait_for_end(store)
    entry = store.last(digest)
    if entry is None:
        return {"phase": "restoring"}
    return {"phase": "undone", **{key: entry.get(key) for key in ("outcome", "reason", "exact", "took")}}


def _wait_for_end(store: Store) -> bool:
    deadline = time.monotonic() + UNDONE_WAIT
    while time.monotonic() < deadline:
        if not store.pending.exists():
            with store.lock():
                store.finish()
            return True
        time.sleep(0.1)
    return False
