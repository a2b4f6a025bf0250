# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The steps of a guarded change: begin, apply, confirm, restore.

Whatever is cut at whatever moment: as long as pending/ exists, the snapshot in it is put back, by the
timer or at the next boot.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

from . import durable, entries, hands, originals, probes, snapshot, sysctls, timer, units, ways
from .change import (
    FILES,
    Change,
    content_of,
    filled,
    place_of,
    run_step,
    teller,
    text_of,
)
from .errors import GuardError, RefusedError, StepError
from .host import Host
from .store import Store

APPLY = "energy-guard-apply.service"
RESTORE = timer.SERVICE
REBOOT = "energy-guard-reboot.service"
REBOOT_TEXT = "Restart this host if a change of it cannot be undone otherwise"
# Seconds from the deadline until the host is restarted, where no attempt to undo the change has got as far as its
# comparison. A hung one is killed before.
LAST = 200.0
START_TIMEOUT = 60.0
CHECK_TIMEOUT = 30.0
RESERVE = 128 * 1024


# Begin


def _stage(store: Store, change: Change) -> dict[str, str]:
    """Write the wanted files beside, for commands that check them; the paths that they will have, by their own."""
    staged = {}
    for number, item in enumerate(change.files):
        if item["state"] != "file":
            continue
        name = f"staged/{number}/{Path(item['path']).name}"
        path = store.new / name
        path.parent.mkdir(mode=0o700, parents=True)
        path.touch(mode=0o600)
        path.write_bytes(content_of(item))
        staged[item["path"]] = name
    return staged


def _check(host: Host, store: Store, change: Change, staged: dict[str, str]) -> None:
    for argv in change.check:
        done = host.run(filled(argv, store.new, staged), timeout=CHECK_TIMEOUT)
        if done.code != 0:
            raise GuardError(f"{' '.join(argv)} refuses what is wanted, nothing is changed: {done.words}")


def _try(host: Host) -> None:
    """See that systemd starts what applies and undoes a change, while there is nothing for it to do.

    A kernel or a drop-in that lets it set up none of their namespaces is found here, and not when it is too late.
    """
    hands.forget(host)
    names = [APPLY, *hands.UNITS.values()]
    done = host.run(["systemctl", "start", "--", *names], timeout=START_TIMEOUT)
    if done.code != 0:
        # Which would be started over and over for one that has failed.
        host.run(["systemctl", "stop", "--", RESTORE, *names])
        raise GuardError(f"systemd cannot start what would undo the change, nothing is changed: {done.words}")


def begin(host: Host, change: Change, digest: str, wait: float) -> dict[str, Any]:
    """Prepare a change, arm the timer, and have systemd apply it. Raises GuardError if nothing has been changed."""
    store = Store(host)
    with store.lock():
        store.finish()
        if store.pending.exists():
            raise GuardError("another change waits for its confirmation; confirm it or undo it first")
        durable.remove_tree(store.new)
        _try(host)
        store.new.mkdir(mode=0o700)
        try:
            record = _prepare(host, store, change, digest, wait)
            timer.arm(host, record["deadline"])
            timer.arm(host, record["deadline"] + LAST, REBOOT, REBOOT_TEXT)
        except BaseException:
            shutil.rmtree(store.new, ignore_errors=True)  # the error that led here is the one to tell
            raise
        durable.rename(store.new, store.pending)
        host.say(f"{change.subject} {record['id']}: begun; undone in {wait:g} s unless it is confirmed")
        done = host.run(["systemctl", "start", "--no-block", APPLY])
    if done.code != 0:
        request_restore(host, f"{APPLY} could not be started: {done.words}")
    return record


def _prepare(host: Host, store: Store, change: Change, digest: str, wait: float) -> dict[str, Any]:
    """Everything that has to be on the disk before the first thing is changed."""
    staged = _stage(store, change)
    _check(host, store, change, staged)
    was, contents = originals.take(host, store, change) if change.revert else snapshot.take(host, change)
    refusal = ways.refusal(change, was["ways"])
    if refusal:
        raise GuardError(refusal)
    for item, entry in change.differing_files(host):
        if entry["type"] == "file":
            contents[entry["sha256"]] = content_of(item)
    snapshot.write(store.new, was, contents)
    # Room that a restore gives back first, should the change have filled the disk.
    (store.new / "reserve").write_bytes(bytes(RESERVE + sum(map(len, contents.values()))))
    originals.prepare(store, change, was, contents)
    record = {
        "id": secrets.token_hex(4),
        "subject": change.subject,
        "revert": change.revert,
        "digest": digest,
        "wait": wait,
        "boot": host.boot_id(),
        "change": change.to_dict(),
        "wanted": {item["path"]: change.wanted_entry(item) for item in change.files},
        "staged": staged,
        "probes": probes.passing(change.probes),
    }
    (store.new / "phase.json").write_text(json.dumps({"phase": "armed"}), encoding="utf-8")
    durable.sync_tree(store.new)
    begun = host.now()
    record |= {"begun": begun, "deadline": begun + wait}
    durable.write(store.new / "change.json", json.dumps(record).encode())
    return record


# Apply


def apply(host: Host) -> int:
    """Run by its own unit, which a restore kills."""
    store = Store(host)
    record, phase = store.change(), store.phase()["phase"]
    if record is None:
        return 0  # see _try()
    if phase != "armed" or record["boot"] != host.boot_id() or host.now() >= record["deadline"]:
        host.say(f"nothing is applied: the change is {phase}", bad=True)
        return 0
    tell = teller(host, record)
    begun = host.now()
    try:
        if record["revert"]:
            _apply_originals(host, store, tell)
        else:
            _apply_change(host, store, record)
    except Exception as error:  # noqa: BLE001 - whatever failed, the change is undone, and the reason told
        step, words = (
            (error.step, error.words) if isinstance(error, StepError) else ("the guard itself", repr(error))
        )
        store.set_phase("failed", step=step, words=words)
        tell(f"failed at {step}: {words}")
        return 1
    took = round(host.now() - begun, 3)
    store.set_phase("applied", step=None, took=took, since_boot=time.clock_gettime(time.CLOCK_BOOTTIME))
    tell(f"applied in {took:g} s; it waits for its confirmation")
    return 0


def _apply_originals(host: Host, store: Store, tell: Any) -> None:
    store.set_phase("applying", step="originals")
    was = store.snapshot("originals")
    with hands.Hands(host, snapshot.hands_of(was), "originals") as live:
        snapshot.put_back(host, was, store.pending / "originals" / "contents", tell, live)
        left = snapshot.static_differences(host, was) + live.differences()
    if left:
        raise StepError("originals", "; ".join(left))


def _apply_change(host: Host, store: Store, record: dict[str, Any]) -> None:
    change = record["change"]
    settings = {sysctls.hand_of(name) for name in change["sysctls"]}
    needed = settings | {place_of(step) for step in change["apply"]} - {FILES}
    with hands.Hands(host, sorted(needed)) as live:
        _apply_parts(host, store, record, live, sorted(settings))


def _apply_parts(
    host: Host, store: Store, record: dict[str, Any], live: hands.Hands, settings: list[str]
) -> None:
    change = record["change"]
    store.set_phase("applying", step="files")
    changed = _write_files(host, store, record, late=False)
    if any(path.startswith(snapshot.SYSTEMD) for path in changed):
        units.reload_manager(host)
    if change["sysctls"]:
        store.set_phase("applying", step="sysctls")
        for name in settings:
            live.ask(name, "set")
    if change["units"]:
        store.set_phase("applying", step="units")
        units.apply(host, change["units"])
    for number, step in enumerate(change["apply"]):
        store.set_phase("applying", step=text_of(step))
        left = max(1.0, record["deadline"] - host.now())
        place = place_of(step)
        if place == FILES:
            run_step(host, step, store.pending, record["staged"], left)
        else:
            live.ask(place, "step", number=number, left=left, timeout=left + hands.ANSWER)


def _write_files(host: Host, store: Store, record: dict[str, Any], *, late: bool) -> list[str]:
    """Write the files that differ, at once or at the confirmation; their paths."""
    return [
        item["path"]
        for item in record["change"]["files"]
        if item["late"] == late
        and entries.put_back(
            host.at(item["path"]), record["wanted"][item["path"]], store.pending / "contents"
        )
    ]


# Confirm


def digest_of(nonce: str | None) -> str:
    """What is kept of a nonce."""
    return hashlib.sha256((nonce or "").encode()).hexdigest()


def confirm(host: Host, nonce: str | None, connection_age: float | None) -> dict[str, Any]:
    """Keep the change that waits. Raises RefusedError, and has changed nothing, unless all is as it has to be.

    `connection_age` is how long the connection exists that the confirmation came over; None if that is not known.
    """
    store = Store(host)
    with store.lock():
        store.finish()
        waiting = store.change()
        try:
            record = _admit(host, store, waiting, nonce, connection_age)
        except RefusedError as refusal:
            if refusal.kind not in (
                "early",
                "old_connection",
            ):  # those are asked again, over a new connection
                host.say(f"confirmation refused: {refusal}", bad=True)
                known = {"id": waiting["id"], "subject": waiting["subject"]} if waiting else {}
                store.note({**known, "outcome": "refused", "kind": refusal.kind, "reason": str(refusal)})
            raise
        took = round(host.now() - record["begun"], 3)
        _write_files(host, store, record, late=True)
        _bring_to_disk(host, store)
        store.end("confirmed", took=took, reason=None, exact=None)
        _disarm(host)
        host.say(f"{record['subject']} {record['id']}: confirmed after {took:g} s")
        store.finish()
        return {"outcome": "confirmed", "id": record["id"], "subject": record["subject"], "took": took}


def _admit(
    host: Host, store: Store, record: dict[str, Any] | None, nonce: str | None, connection_age: float | None
) -> dict[str, Any]:
    """The change that a confirmation is for. Raises RefusedError if it may not be followed."""
    if not nonce:
        raise RefusedError("no_nonce", "a confirmation without its nonce; nothing is confirmed")
    digest = digest_of(nonce)
    if record is None or not hmac.compare_digest(digest, record["digest"]):
        raise _refusal_of_other(store, record, digest)
    phase = store.phase()
    if record["boot"] != host.boot_id():
        raise RefusedError(
            "late", "too late: the host has been restarted since, and the change is being undone"
        )
    if phase["phase"] in ("failed", "restoring"):
        raise RefusedError(
            "late", f"too late: the change is being undone, because {reason_of(host, record, phase)}"
        )
    if host.now() >= record["deadline"]:
        raise RefusedError(
            "late", f"too late: {record['wait']:g} s have passed, and the change is being undone"
        )
    if phase["phase"] != "applied":
        raise RefusedError(
            "early", f"too early: the change is still being applied ({phase.get('step') or 'not begun'})"
        )
    applied = time.clock_gettime(time.CLOCK_BOOTTIME) - phase["since_boot"]
    if connection_age is not None and connection_age > applied:
        raise RefusedError(
            "old_connection", "this connection is older than the change and proves nothing; open a new one"
        )
    passed = probes.passing(record["probes"])
    lost = [probes.name_of(probe) for probe in record["probes"] if probe not in passed]
    if lost:
        raise _undoing(
            host, store, "probe", f"{', '.join(lost)} answered before the change and does not any more"
        )
    lost = ways.lost(host, Change.from_dict(record["change"]), store.snapshot(), snapshot.unit_links(host))
    if lost:
        raise _undoing(
            host, store, "boot", f"the next boot would lack a way in that it had before: {', '.join(lost)}"
        )
    return record


def _undoing(host: Host, store: Store, kind: str, reason: str) -> RefusedError:
    """Have a change undone that works, but not as it has to; the refusal of its confirmation."""
    store.set_phase("restoring", reason=reason)
    host.run(["systemctl", "start", "--no-block", RESTORE])
    return RefusedError(kind, f"{reason}; the change is undone")


def _refusal_of_other(store: Store, record: dict[str, Any] | None, digest: str) -> RefusedError:
    """Why a nonce is refused that is not that of the change that waits."""
    ended = store.last(digest)
    if ended is not None and ended["outcome"] == "confirmed":
        return RefusedError(
            "twice",
            f"this change of {ended['subject']} has been confirmed already, at {ended['at']}",
            "confirmed",
        )
    if ended is not None:
        return RefusedError(
            "late", f"too late: this change was undone at {ended['at']}, because {ended['reason']}", "undone"
        )
    if record is not None:
        return RefusedError(
            "wrong_nonce", f"this nonce is not that of the change of {record['subject']} that waits"
        )
    return RefusedError("nothing", "no change waits for a confirmation")


def _disarm(host: Host) -> None:
    timer.disarm(host)
    timer.disarm(host, REBOOT)


def _bring_to_disk(host: Host, store: Store) -> None:
    """All that the change has written, by us and by the commands that it ran."""
    was = store.snapshot()
    for name in was["entries"]:
        path = host.at(name)
        if path.is_file() and not path.is_symlink():
            durable.sync_file(path)
        if path.parent.is_dir():
            durable.sync_file(path.parent)
    for name in was["directories"]:
        if host.at(name).is_dir():
            durable.sync_tree(host.at(name))
    # Links of units, and whatever else a command of the change has written.
    host.sync()


# Restore


def reason_of(host: Host, record: dict[str, Any], phase: dict[str, Any]) -> str:
    """Why a change is undone."""
    if phase["phase"] == "restoring":
        return str(phase["reason"])
    if phase["phase"] == "failed":
        return f"{phase['step']} failed: {phase['words']}"
    if record["boot"] != host.boot_id():
        return "the host was restarted before a confirmation came"
    if host.now() >= record["deadline"]:
        return f"no confirmation came within {record['wait']:g} s"
    return "it was asked for" if phase["phase"] == "applied" else f"{APPLY} ended before it was done"


def request_restore(host: Host, reason: str) -> None:
    """Have systemd undo the change that waits. It does not need the session that asks."""
    store = Store(host)
    with store.lock():
        if store.pending.exists() and store.phase()["phase"] not in ("restoring", "failed"):
            store.set_phase("restoring", reason=reason)
    host.run(["systemctl", "start", "--no-block", RESTORE])


def restore(host: Host, *, boot: bool = False, now: bool = False) -> int:
    """Undo the change that waits. 0 when the host is exactly as it was before; else systemd tries again."""
    store = Store(host)
    with store.lock():
        store.finish()
        record = store.change()
        if record is None:
            host.say("no change waits, so there is nothing to undo")
            _disarm(host)
            return 0
        tell = teller(host, record)
        begun = host.now()
        if not boot and not _stop_apply(host, tell):
            return 1
        phase = store.phase()
        reason = (
            "it was asked for" if now and phase["phase"] != "restoring" else reason_of(host, record, phase)
        )
        attempts = int(phase.get("attempts", 0)) + 1
        tell(f"undoing, because {reason}" if attempts == 1 else f"undoing, attempt {attempts}")
        (store.pending / "reserve").unlink(missing_ok=True)
        try:
            store.set_phase("restoring", reason=reason, attempts=attempts)
        except OSError as error:
            tell(f"the phase cannot be noted: {error}")
        was = store.snapshot()
        contents = store.pending / "contents"
        if boot:
            # The live state of a boot that is over cannot come back by itself; the boot makes it from the files.
            snapshot.put_back(host, was, contents, tell, None)
            left = snapshot.static_differences(host, was, boot=True)
        else:
            # Who asks at the console has all that the hands have, and needs nobody.
            own = hands.Direct(host, was, tell) if now else hands.Hands(host, snapshot.hands_of(was))
            with own as live:
                snapshot.put_back(host, was, contents, tell, live, gentle=_gentle(attempts))
                left = _compare(host, was, live, tell)
        if left:
            tell(f"not yet as it was: {'; '.join(left)}")
            return 1
        _bring_to_disk(host, store)
        took = round(host.now() - begun, 3)
        store.end("undone", reason=reason, took=took, attempts=attempts, exact=True, at_boot=boot)
        if not boot:
            _disarm(host)
        tell(f"undone in {took:g} s: all is as it was")
        store.finish()
        return 0


def _compare(host: Host, was: dict[str, Any], live: snapshot.Live, tell: Any) -> list[str]:
    """Where the host is not as it was. Without the live state, which somebody else compares, it is not as it was."""
    left = snapshot.static_differences(host, was)
    try:
        left += live.differences()
    except StepError as error:
        return [*left, f"not compared: {error}"]
    try:
        hands.note_compared(host)
    except OSError as error:
        tell(f"that the host has been compared cannot be noted: {error}")
    return left


def _gentle(attempts: int) -> bool:
    """Whether to leave NetworkManager in peace: what it has not done several times need not be asked of it every time.

    Each time it is asked, the links are cut again.
    """
    return attempts > 3 and attempts % 10 != 0


def _stop_apply(host: Host, tell: Any) -> bool:
    """Kill what is still being applied, so that nothing changes behind the restore's back."""
    names = [APPLY, *hands.UNITS.values()]
    done = host.run(["systemctl", "stop", "--", *names], timeout=15)
    left = [name for name, state in units.look(host, names).items() if units.is_active(state)]
    if left:
        tell(f"{' and '.join(left)} cannot be stopped: {done.words}")
    return not left


# Status


def status(host: Host) -> dict[str, Any]:
    """What waits, and what has happened, for people and programs."""
    store = Store(host)
    record, history = store.change(), store.history()
    found: dict[str, Any] = {"phase": "none", "subject": None, "originals": [], "history": history}
    base = store.base / "originals"
    if base.is_dir():
        found["originals"] = sorted(path.name for path in base.iterdir() if not path.name.startswith("."))
    ended = [line for line in history if line["outcome"] != "refused"]
    found["last"] = ended[-1] if ended else None
    if record is not None:
        phase = store.phase()
        fires = timer.next_elapse(host)
        found |= {key: record[key] for key in ("id", "subject", "revert", "wait")}
        found |= {key: phase.get(key) for key in ("phase", "step", "words", "reason", "attempts")}
        found["remaining"] = (
            round(record["deadline"] - host.now(), 1) if record["boot"] == host.boot_id() else None
        )
        found["timer"] = None if fires is None else round(fires - host.now(), 1)
    for line in history:
        line.pop("digest", None)
    return found
