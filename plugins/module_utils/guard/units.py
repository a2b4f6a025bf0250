# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""systemd's units: active, enabled, masked."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import Any

from .errors import GuardError, StepError
from .host import Host

# Where systemctl keeps what is enabled and what is masked, as symbolic links.
LINKS = "/etc/systemd/system"
ENABLED = ("enabled", "enabled-runtime", "static", "alias", "indirect", "generated", "linked", "transient")
ACTIVE = ("active", "reloading", "activating", "refreshing")
TIMEOUT = 30.0


def look(host: Host, names: list[str]) -> dict[str, dict[str, str]]:
    """The units' states in systemd's words."""
    if not names:
        return {}
    command = ["systemctl", "show", "--property=LoadState,ActiveState,UnitFileState,Job", "--", *names]
    done = host.run(command)
    blocks = done.out.strip().split("\n\n")
    if done.code != 0 or len(blocks) != len(names):
        raise GuardError(f"systemd does not tell of {', '.join(names)}: {done.words}")
    states = {}
    for name, block in zip(names, blocks, strict=True):
        words = dict(line.partition("=")[::2] for line in block.splitlines())
        states[name] = {
            "load": words.get("LoadState", ""),
            "active": words.get("ActiveState", ""),
            "enabled": words.get("UnitFileState", ""),
            # Number of what systemd still has to do with it; none is said, or 0.
            "job": words.get("Job", "").removeprefix("0"),
        }
    return states


def at_boot(host: Host, names: list[str]) -> dict[str, str]:
    """What the next boot makes of units that are installed, by their files.

    systemd is not asked for the units themselves: it would load each, and an alias that is gone as a unit of its own.
    If that is there when the alias is back, the next daemon-reload may forget that the real unit runs (systemd 252, on
    every second boot). A unit that orders itself by the alias does the same.
    """
    done = host.run(["systemctl", "list-unit-files", "--no-legend", "--plain", "--", *names])
    found = [line.split() for line in done.out.splitlines()]
    return {words[0]: words[1] for words in found if len(words) > 1}


def is_active(state: dict[str, str]) -> bool:
    return state["active"] in ACTIVE


def _runs_or_will(state: dict[str, str]) -> bool:
    """A restart that was cut short stays in systemd's queue: the unit stops now, and starts when that is done."""
    return is_active(state) or bool(state["job"])


def is_masked(state: dict[str, str]) -> bool:
    return state["load"] == "masked" or state["enabled"].startswith("masked")


def as_wanted(state: dict[str, str], wanted: dict[str, Any]) -> bool:
    """Whether a unit is as it is wanted; what is not said does not matter."""
    return (
        wanted.get("active") in (None, is_active(state))
        and wanted.get("masked") in (None, is_masked(state))
        and wanted.get("enabled") in (None, state["enabled"] in ENABLED)
    )


def text_of(state: dict[str, str]) -> str:
    return f"{state['active'] or 'unknown'}, {state['enabled'] or 'not installed'}"


def text_of_wanted(wanted: dict[str, Any], state: dict[str, str]) -> str:
    """A wanted state in the same words, with what does not matter as it is."""
    active = {None: state["active"] or "unknown", True: "active", False: "inactive"}[wanted.get("active")]
    enabled = {None: state["enabled"] or "not installed", True: "enabled", False: "disabled"}[
        wanted.get("enabled")
    ]
    if wanted.get("enabled") is not None and (state["enabled"] in ENABLED) == wanted["enabled"]:
        enabled = state["enabled"] or enabled
    if wanted.get("masked"):
        enabled = "masked"
    elif wanted.get("masked") is False and is_masked(state) and wanted.get("enabled") is None:
        enabled = "not masked"
    return f"{active}, {enabled}"


def bring(host: Host, verb: str, *names: str) -> None:
    """Have systemd do something, or say which step failed."""
    done = host.run(["systemctl", verb, "--", *names], timeout=TIMEOUT)
    if done.code != 0:
        raise StepError(f"systemctl {verb} {' '.join(names)}".rstrip(), done.words)


def reload_manager(host: Host) -> None:
    """Have systemd read its unit files again."""
    done = host.run(["systemctl", "daemon-reload"], timeout=TIMEOUT)
    if done.code != 0:
        raise StepError("systemctl daemon-reload", done.words)


def apply(host: Host, wanted: list[dict[str, Any]]) -> None:
    """Make units as they are wanted: links first, so that nothing is started that is to be masked."""
    for item in wanted:
        name = item["name"]
        state = look(host, [name])[name]
        if as_wanted(state, item):
            continue
        if item.get("active") is False and is_active(state):
            bring(host, "stop", name)
        if item.get("masked") is False and is_masked(state):
            bring(host, "unmask", name)
        if item.get("enabled") is not None and (state["enabled"] in ENABLED) != item["enabled"]:
            bring(host, "enable" if item["enabled"] else "disable", name)
        if item.get("masked") and not is_masked(state):
            bring(host, "mask", name)
        if item.get("active") and not is_active(state):
            bring(host, "start", name)
    states = look(host, [item["name"] for item in wanted])
    for item in wanted:
        if not as_wanted(states[item["name"]], item):
            raise StepError(
                item["name"], f"it is {text_of(states[item['name']])} and does not become what is wanted"
            )


def differences(host: Host, states: dict[str, dict[str, str]]) -> list[str]:
    """Where units are not in the states they were in."""
    if not states:
        return []
    found = look(host, list(states))
    return [
        f"{name} is {text_of(found[name])} instead of {text_of(state)}"
        for name, state in states.items()
        if is_active(found[name]) != is_active(state)
        or (_runs_or_will(found[name]) and not is_active(state))
        or found[name]["enabled"] != state["enabled"]
        or is_masked(found[name]) != is_masked(state)
    ]


def put_back(host: Host, states: dict[str, dict[str, str]]) -> None:
    """Ask for units to be started and stopped as they were. Their links have been put back before.

    Nothing is waited for here: a unit that hangs must not keep the next one from being started.
    """
    found = look(host, list(states))
    for name, state in states.items():
        if is_active(state) and not is_active(found[name]):
            _end_left_over(host, name)
            host.run(["systemctl", "reset-failed", "--", name])
            host.run(["systemctl", "start", "--no-block", "--", name])
        elif _runs_or_will(found[name]) and not is_active(state):
            host.run(["systemctl", "stop", "--no-block", "--", name])


def _left_over(host: Host, name: str) -> list[int]:
    """Processes of a unit that systemd has started, as far as they are nobody's children. Sessions are sshd's."""
    found = []
    for place in host.at("/proc").glob("[0-9]*"):
        try:
            group = (place / "cgroup").read_text(encoding="utf-8")
            parent = (place / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]
        except OSError:
            continue  # it has ended meanwhile
        if parent == "1" and any(line.endswith(f"/{name}") for line in group.splitlines()):
            found.append(int(place.name))
    return found


def _end_left_over(host: Host, name: str, wait: float = 3) -> None:
    """End what still runs of a unit that is not active, or it keeps the unit from starting.

    systemd 252 forgets a running sshd when `systemctl disable ssh` takes away the alias by which it had loaded the
    unit. A new sshd finds the port taken then, fails, and takes /run/sshd with it, without which the old one lets
    nobody in.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        left = _left_over(host, name)
        for process in left:
            # Not root's, and the guard has no right to end it: systemd says what is wrong then.
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, number)
        deadline = time.monotonic() + wait
        while left and _left_over(host, name) and time.monotonic() < deadline:
            time.sleep(0.1)


def _wait(host: Host, states: dict[str, dict[str, str]], wait: float) -> None:
    deadline = time.monotonic() + wait
    while differences(host, states) and time.monotonic() < deadline:
        time.sleep(0.2)


def settle(host: Host, states: dict[str, dict[str, str]], wait: float = 10) -> None:
    """Wait until units are what they were, as long as that may take them."""
    _wait(host, states, wait)
    hanging = [name for name, found in look(host, list(states)).items() if found["active"] == "deactivating"]
    if hanging and differences(host, states):
        # A restart that was cut short can meet a daemon that does not yet hear of its end; systemd gives it 90 s.
        host.run(["systemctl", "kill", "--signal=KILL", "--", *hanging])
        _wait(host, states, wait / 2)
    # What was ended while it started has failed, and had not.
    failed = [
        name
        for name, found in look(host, list(states)).items()
        if found["active"] == "failed" and states[name]["active"] not in ("failed", *ACTIVE)
    ]
    if failed:
        host.run(["systemctl", "reset-failed", "--", *failed])


def put_back_at_boot(host: Host, states: dict[str, dict[str, str]]) -> None:
    """The same while the host boots: only what the boot that has begun would do wrong is asked for, without waiting.

    systemd decided what to start by the links of the unconfirmed change.
    """
    for name, state in states.items():
        if is_active(state):
            host.run(["systemctl", "start", "--no-block", "--", name])
        elif state["enabled"] not in ENABLED:
            host.run(["systemctl", "stop", "--no-block", "--", name])
