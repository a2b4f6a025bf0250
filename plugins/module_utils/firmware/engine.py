# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The steps of an update on the gateway: begin, install, settle, confirm, back.

What is about to be done is on the disk before it is done. After a cut nothing is done again that may have been done:
the device is asked which version it runs, and that decides. Every attempt ends, as `confirmed` or as `failed`.

  accepted    written down, not begun: after a restart it is forgotten, and may be asked for again
  installing  the vendor's tool is being run, once
  installed   it has reported success; the device is about to restart
  running     the new version runs; unless somebody confirms it in time, the device goes back
  confirming  it is to stay; the device is being told
  returning   it is to go back; the device is being told
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from . import settings, timer
from .device import Device, Vendor, device_of
from .host import FirmwareError, Host
from .incoming import Incoming
from .manifest import Manifest, Refused, open_envelope
from .store import Record, Store, stamp
from .verdict import Gateway, check_image, check_manifest
from .versions import parts

INSTALL = "energy-firmware-install.service"
SETTLE = timer.SERVICE
FORWARD, BACK = "forward", "back"
# Boots with a version that nobody has confirmed: each begins the wait again, and one more ends it.
BOOTS = 3
# Times that the way back is tried.
RETURNS = 5
# Times that a device may refuse to keep what runs.
REFUSALS = 3
# Seconds that a device may take to restart by itself after an installation, before it is restarted.
RESTART_WITHIN = 180.0
# Seconds that a device gets to tell its version once it is up.
TELL_WITHIN = 60.0
# Seconds that a rehearsal may take: the time-out of what only asks, and that of its unit's start.
REHEARSAL = 90.0
# How the program ends where the tool does not tell its version, and how systemd does where it cannot begin.
MUTE = 3
NOT_BEGUN = range(200, 256)


@dataclass(frozen=True)
class Answer:
    """What is told of an attempt. `kind` is one of the rollout engine's."""

    kind: str
    why: str = ""
    changed: bool = False


@dataclass(frozen=True)
class Order:
    """What is to be installed. `envelope` is the signed manifest, `name` the image's file name."""

    attempt: str
    kind: str
    envelope: bytes
    name: str
    confirm_within: float


# Judging


def judge(
    host: Host, kind: str, envelope: bytes, name: str, now: datetime | None = None
) -> tuple[Manifest, str]:
    """The manifest of a release that this gateway takes, and its digest. Raises Refused and FirmwareError."""
    gateway = settings.load_gateway(host.root)
    try:
        manifest, digest = open_envelope(envelope, gateway.trust)
    except ImportError:
        raise FirmwareError(
            "python3-cryptography is missing: without it no signature can be checked"
        ) from None
    if manifest.kind != kind:
        raise Refused(f"the release is one of {manifest.kind}, and {kind} was asked for")
    if not settings.is_image_name(name):
        raise Refused(f"the image is called {name!r}; letters, digits, '.', '_' and '-' may be in its name")
    device = device_of(host, kind)
    version = device.version()
    if version is None:
        raise FirmwareError(
            f"the device does not tell which version of its {kind} it runs; nothing is installed"
        )
    number, taken = Store(host).taken(kind)
    known = Gateway(gateway.model, version, number, taken)
    check_manifest(manifest, digest, known, now or datetime.now(timezone.utc))
    return manifest, digest


# Rehearsing


def rehearse(host: Host, kind: str) -> None:
    """Have the unit that installs ask for the version, before anything is sent or begun. Raises FirmwareError.

    What keeps it from that would keep the settling from it as well, and it has the same limits: with an installation
    behind it that would be too late. The version was told without limits a moment ago.
    """
    record = Store(host).attempt()
    if record is not None and record["phase"] != "running":
        return
    done = host.run(["systemctl", "start", INSTALL], timeout=REHEARSAL)
    status = _status(host, INSTALL)
    if done.code == 0 or (status == MUTE and kind != "firmware"):
        return
    if status == MUTE:
        why = "the tool does not tell the version within its limits: the adapter's needs lack something"
    elif status in NOT_BEGUN:
        why = f"its limits cannot be set up (status {status}, see systemd.exec(5))"
    else:
        why = done.words
    raise FirmwareError(f"{INSTALL}: {why}; nothing is installed, and journalctl -u {INSTALL} tells more")


def _status(host: Host, unit: str) -> int:
    """How a unit's process has ended; 0 while nothing is known of one."""
    done = host.run(["systemctl", "show", "--property=ExecMainStatus", "--value", unit])
    return int(done.out.strip()) if done.out.strip().isdigit() else 0


def _rehearsed(host: Host) -> int:
    """The unit's side of it: nothing waits to be installed."""
    if not host.at(settings.ADAPTER).exists():
        return 0
    device = Vendor(host, settings.load_adapter(host.root))
    done = device.ask()
    if device.version_in(done) is not None:
        return 0
    host.say(f"rehearsed: {' '.join(done.argv)}: {done.words}", bad=True)
    return MUTE


# Begin


def begin(host: Host, order: Order) -> Answer:
    """Take an order, once for each attempt. Raises Refused and FirmwareError, and has changed nothing then."""
    store = Store(host)
    if store.find(order.attempt, FORWARD) is None:
        rehearse(host, order.kind)
    with store.lock():
        known = store.find(order.attempt, FORWARD)
        if known is None:
            record = _accept(host, store, order)
        elif known["phase"] != "accepted":
            return answer(known)
        else:
            record = known
    if record["phase"] == "accepted":
        _start(host, INSTALL)
    return Answer(answer(record).kind, changed=known is None)


def _accept(host: Host, store: Store, order: Order) -> Record:
    current = _let_go(store, store.attempt())
    if current is not None:
        raise Refused(f"{current['attempt']} is {current['phase']} here: it has to end first")
    manifest, digest = judge(host, order.kind, order.envelope, order.name)
    incoming = Incoming(host, manifest.sha256)
    if not incoming.image.exists():
        raise Refused(f"nothing of {order.name} is on the gateway: transfer it first")
    check_image(manifest, incoming.image)
    device = device_of(host, order.kind)
    device.check(manifest.length, order.name)
    version = device.version()
    runs_already = version is not None and parts(version) == parts(manifest.version)
    record = _record(
        host,
        order.attempt,
        order.kind,
        FORWARD,
        "running" if runs_already else "accepted",
        version,
        manifest.version,
    )
    record |= {
        "name": order.name,
        "sha256": manifest.sha256,
        "confirm_within": order.confirm_within,
        # Nothing was changed, so there is nothing to go back to.
        "guarded": not runs_already,
    }
    store.begin(record, manifest.number, digest)
    host.say(f"{order.attempt}: {version} runs, {manifest.version} is taken (release {manifest.number})")
    return record


def _let_go(store: Store, current: Record | None) -> Record | None:
    """An attempt that waits to be confirmed and has nothing to go back to stands in nobody's way."""
    if current is None or current["phase"] != "running" or current["guarded"]:
        return current
    store.end(current, "confirmed", "nobody has confirmed it, and there was nothing to go back to")
    return None


def _record(
    host: Host, attempt: str, kind: str, direction: str, phase: str, found: str | None, wanted: str
) -> Record:
    return {
        "attempt": attempt,
        "kind": kind,
        "direction": direction,
        "phase": phase,
        "from": found,
        "to": wanted,
        "name": "",
        "sha256": "",
        "confirm_within": 0,
        "guarded": False,
        "boot": host.boot_id(),
        "boots": 0,
        "returns": 0,
        "refusals": 0,
        "deadline": None,
        "begun": stamp(),
        "why": "",
    }


def _start(host: Host, unit: str) -> None:
    done = host.run(["systemctl", "start", "--no-block", unit])
    if done.code != 0:
        raise FirmwareError(f"{unit} could not be started: {done.words}")


# Install: run by its own unit


def install(host: Host) -> int:
    """Run the vendor's tool for the attempt that was accepted. Never twice for one attempt."""
    store = Store(host)
    if not store.base.is_dir():
        return _rehearsed(host)
    with store.lock():
        record = store.attempt()
        if record is None or record["phase"] != "accepted" or record["boot"] != host.boot_id():
            return _rehearsed(host)
        device = device_of(host, record["kind"])
        failed = _place(host, device, record) if record["direction"] == FORWARD else ""
        if failed:
            _fail(host, store, device, record, failed)
            return 1
        record = store.note(record, phase="installing")
    # Without the lock: it takes minutes, and whoever asks meanwhile gets an answer.
    forward = record["direction"] == FORWARD
    done = device.install(record) if forward else device.back(record)
    with store.lock():
        if done.code != 0:
            _failed(host, store, device, record, f"{' '.join(done.argv) or 'the installation'}: {done.words}")
            return 1
        if device.reboot == "none":
            return 0 if _arrived(host, store, device, record, "the installation has reported success") else 1
        store.note(record, phase="installed")
    if device.reboot == "itself":
        time.sleep(RESTART_WITHIN)
        host.say(f"{record['attempt']}: the device has not restarted by itself for {RESTART_WITHIN:g} s")
    _restart(host)
    return 0


def _place(host: Host, device: Device, record: Record) -> str:
    """Put the image where it has to lie, and read it again from there. Why that did not work, or nothing."""
    incoming = Incoming(host, record["sha256"])
    try:
        manifest, _digest = open_envelope(
            incoming.release.read_bytes(), settings.load_gateway(host.root).trust
        )
        check_image(manifest, device.place(record, incoming.image))
    except OSError as error:
        return f"{error.filename or record['name']}: {error.strerror}"
    except Refused as error:
        return str(error)
    return ""


def _restart(host: Host) -> None:
    done = host.run(["systemctl", "--no-block", "reboot"])
    if done.code != 0:
        raise FirmwareError(f"the device could not be restarted: {done.words}")


def _failed(host: Host, store: Store, device: Device, record: Record, why: str) -> None:
    """The tool has failed: if what ran before still runs, that is the end, and otherwise the device goes back."""
    if _same(device.version(), record["from"]):
        device.cancel(record)
        _fail(host, store, device, record, why)
    elif record["direction"] == BACK:
        _fail(host, store, device, record, why)
    else:
        record = _give_up(host, store, record, why)
        _start(host, SETTLE)


def _fail(host: Host, store: Store, device: Device, record: Record, why: str) -> None:
    device.clear(record)
    store.end(record, "failed", why)
    timer.disarm(host)
    host.say(f"{record['attempt']}: failed: {why}", bad=True)


def _give_up(host: Host, store: Store, record: Record, why: str) -> Record:
    host.say(f"{record['attempt']}: goes back to {record['from']}: {why}", bad=True)
    return store.note(record, phase="returning", why=why)


def _arrived(host: Host, store: Store, device: Device, record: Record, what: str) -> bool:
    """Look which version runs, after what should have brought a new one; whether it did."""
    version = _tell(device)
    if _same(version, record["to"]):
        _run(host, store, record)
        return True
    why = f"{what}, and the device runs {version or 'a version that it does not tell'} instead of {record['to']}"
    if _same(version, record["from"]) or record["direction"] == BACK:
        if _same(version, record["from"]):
            device.cancel(record)
        _fail(host, store, device, record, why)
    else:
        _give_up(host, store, record, why)
        _go_back(host, store, device, store.attempt() or record)
    return False


def _tell(device: Device) -> str | None:
    """The version that runs. A device that has just restarted gets some time to know."""
    deadline = time.monotonic() + TELL_WITHIN
    while True:
        version = device.version()
        if version is not None or time.monotonic() >= deadline:
            return version
        time.sleep(1)


def _same(version: str | None, wanted: str | None) -> bool:
    return version is not None and wanted is not None and parts(version) == parts(wanted)


def _run(host: Host, store: Store, record: Record) -> None:
    """The version that was meant runs: from now on somebody has to confirm it."""
    boots = record["boots"] + 1
    deadline = host.now() + record["confirm_within"]
    guarded = record["direction"] == FORWARD and record["guarded"]
    # Before the note: what runs unconfirmed has a way back at every moment.
    if guarded:
        try:
            timer.arm(host, deadline)
        except FirmwareError as error:
            _give_up(host, store, record, str(error))
            _start(host, SETTLE)
            return
    store.note(
        record, phase="running", boot=host.boot_id(), boots=boots, deadline=deadline if guarded else None
    )
    wait = f"; it goes back in {record['confirm_within']:g} s unless it is confirmed" if guarded else ""
    host.say(f"{record['attempt']}: runs {record['to']}{wait}")


# Settle: run at boot, at the deadline, and when an installation has ended in a bad way


def settle(host: Host) -> int:
    """Bring what was begun a step nearer to its end. 0 unless systemd has to try again."""
    store = Store(host)
    if not store.base.is_dir():
        # Nothing was ever begun, and a unit with limits cannot make the folder: it writes to what is there.
        return 0
    with store.lock():
        record = store.attempt()
        if record is None:
            timer.disarm(host)
            return 0
        restarted = record["boot"] != host.boot_id()
        if record["phase"] in ("accepted", "installing", "installed") and not restarted and _is_running(host):
            return 0
        if record["phase"] == "accepted":
            if restarted:
                host.say(f"{record['attempt']}: never begun before the device went down; it is forgotten")
                store.drop()
            else:
                _start(host, INSTALL)
            return 0
        device = device_of(host, record["kind"])
        if record["phase"] == "installing" and record["direction"] == BACK and _may_try_again(device, record):
            # Unlike an installation a way back may be gone twice, since the version says whether it was.
            store.note(record, phase="accepted", boot=host.boot_id(), returns=record["returns"] + 1)
            _start(host, INSTALL)
            return 0
        if record["phase"] == "installing":
            what = (
                "the device went down while it was installed" if restarted else "the installation was killed"
            )
            _arrived(host, store, device, record, what)
        elif record["phase"] == "installed":
            if not restarted:
                _restart(host)
                return 0
            _arrived(host, store, device, record, "the installation has reported success")
        elif record["phase"] == "running":
            _watch(host, store, device, record, restarted)
        elif record["phase"] == "confirming":
            return 0 if _keep(host, store, device, record) or store.attempt() is None else 1
        else:
            return _go_back(host, store, device, record)
        record = store.attempt()
        return 1 if record is not None and record["phase"] == "returning" else 0


def _may_try_again(device: Device, record: Record) -> bool:
    return bool(record["returns"] < RETURNS and _same(_tell(device), record["from"]))


def _is_running(host: Host) -> bool:
    """Whether the installation's unit is still at work."""
    done = host.run(["systemctl", "show", "--property=ActiveState", "--value", INSTALL])
    return done.out.strip() in ("activating", "active", "reloading", "deactivating")


def _watch(host: Host, store: Store, device: Device, record: Record, restarted: bool) -> None:
    if restarted:
        version = _tell(device)
        if _same(version, record["from"]) and record["guarded"]:
            _fail(host, store, device, record, f"the device went back by itself, and runs {version}")
        elif not record["guarded"]:
            store.note(record, boot=host.boot_id())
        elif not _same(version, record["to"]):
            why = f"after a restart it runs {version or 'a version that it does not tell'}"
            _go_back(host, store, device, _give_up(host, store, record, why))
        elif record["boots"] >= BOOTS:
            why = f"it was restarted {record['boots']} times and nobody has confirmed it"
            _go_back(host, store, device, _give_up(host, store, record, why))
        else:
            _run(host, store, record)
    elif record["deadline"] is not None and host.now() >= record["deadline"] - 0.5:
        why = f"nobody has confirmed it within {record['confirm_within']:g} s"
        _go_back(host, store, device, _give_up(host, store, record, why))


def _go_back(host: Host, store: Store, device: Device, record: Record) -> int:
    """Have the device run what it ran before. The version is asked for first: nothing is turned back twice."""
    version = _tell(device) if record["boot"] != host.boot_id() else device.version()
    if not _same(version, record["from"]):
        if record["returns"] >= RETURNS:
            why = f"{record['why']}; and it could not go back: it runs {version or 'a version that it does not tell'}"
            _fail(host, store, device, record, why)
            return 0
        record = store.note(record, returns=record["returns"] + 1)
        done = device.back(record)
        if done.code != 0:
            host.say(f"{record['attempt']}: {' '.join(done.argv)}: {done.words}", bad=True)
            return 1
        version = device.version()
    if _same(version, record["from"]):
        _fail(host, store, device, record, record["why"])
        return 0
    if device.reboot == "none":
        return 1
    _restart(host)
    return 0


# Confirm and back: asked for by the rollout


def confirm(host: Host, attempt: str) -> Answer:
    """Keep what runs. Raises FirmwareError while the device cannot be told."""
    store = Store(host)
    with store.lock():
        record = store.find(attempt)
        if record is None:
            return Answer("unknown", "this gateway has never heard of the attempt")
        if record["phase"] not in ("running", "confirming"):
            return answer(record)
        device = device_of(host, record["kind"])
        version = device.version()
        if not _same(version, record["to"]):
            raise FirmwareError(f"the device runs {version}, not {record['to']}: there is nothing to confirm")
        if record["phase"] == "running":
            if record["deadline"] is not None and host.now() >= record["deadline"]:
                raise FirmwareError("too late: the device is about to go back")
            record = store.note(record, phase="confirming")
        if not _keep(host, store, device, record):
            raise FirmwareError(f"the device runs {version} and could not be told to keep it; see journalctl")
    return Answer("confirmed", f"runs {version}", changed=True)


def _keep(host: Host, store: Store, device: Device, record: Record) -> bool:
    """Tell the device to keep what runs. One that refuses several times goes back: it might do so at its next boot."""
    done = device.confirm(record)
    if done.code != 0:
        why = f"{' '.join(done.argv)}: {done.words}"
        host.say(f"{record['attempt']}: {why}", bad=True)
        record = store.note(record, refusals=record["refusals"] + 1)
        if record["refusals"] >= REFUSALS and record["guarded"]:
            _give_up(host, store, record, f"the device cannot be told to keep it: {why}")
        elif record["refusals"] >= REFUSALS:
            _fail(host, store, device, record, f"the device cannot be told to keep it: {why}")
        return False
    device.clear(record)
    store.end(record, "confirmed", "")
    timer.disarm(host)
    if record["sha256"]:
        Incoming(host, record["sha256"]).remove()
    host.say(f"{record['attempt']}: {record['to']} is confirmed")
    return True


def back(host: Host, attempt: str, kind: str) -> Answer:
    """Begin to take the gateway back to what it ran before its last release. Raises Refused and FirmwareError."""
    store = Store(host)
    if store.find(attempt, BACK) is None:
        rehearse(host, kind)
    with store.lock():
        known = store.find(attempt, BACK)
        if known is not None and known["phase"] != "accepted":
            return answer(known)
        record = known or _accept_back(host, store, attempt, kind)
    if record["phase"] == "accepted":
        _start(host, INSTALL)
    return Answer(answer(record).kind, changed=known is None)


def _accept_back(host: Host, store: Store, attempt: str, kind: str) -> Record:
    current = _let_go(store, store.attempt())
    if current is not None and (current["phase"] not in ("accepted", "running") or current["kind"] != kind):
        raise Refused(f"{current['attempt']} is {current['phase']} here: it has to end first")
    wanted = current["from"] if current is not None else store.before(kind)
    if wanted is None:
        raise Refused(f"no earlier version of the {kind} is known here, so there is none to go back to")
    device = device_of(host, kind)
    version = device.version()
    if version is None:
        raise FirmwareError(f"the device does not tell which version of its {kind} it runs")
    if current is not None:
        _fail(host, store, device, current, f"taken back by {attempt}")
    phase = "running" if _same(version, wanted) else "accepted"
    record = _record(host, attempt, kind, BACK, phase, version, wanted)
    store.begin(record)
    host.say(f"{attempt}: {version} runs, and is taken back to {wanted}")
    return record


def forget(host: Host, attempt: str) -> Answer:
    """Remove what was transferred for an attempt that has ended, or for one that was never begun."""
    store = Store(host)
    with store.lock():
        current = store.attempt()
        if current is not None:
            raise Refused(f"{current['attempt']} is {current['phase']} here: it has to end first")
        folder = store.base / "incoming"
        found = [path for path in folder.glob("*.*") if path.suffix in (".image", ".json", ".release")]
        for path in found:
            Incoming(host, path.name.split(".")[0]).remove()
        known = store.find(attempt)
    told = answer(known) if known else Answer("unknown", "this gateway has never heard of the attempt")
    return Answer(told.kind, told.why, changed=bool(found))


# Telling


def answer(record: Record) -> Answer:
    """What is told of an attempt by its record."""
    phase = record["phase"]
    if phase in ("accepted", "installing", "installed"):
        return Answer("begun")
    if phase in ("running", "confirming"):
        return Answer("running", f"runs {record['to']}")
    if phase == "returning":
        return Answer("failed", f"goes back to {record['from']}: {record['why']}")
    return Answer(phase, record["why"])


def look(host: Host, attempt: str, kind: str) -> tuple[Answer, dict[str, Any]]:
    """What has become of an attempt, and how the gateway is."""
    store = Store(host)
    record = store.find(attempt)
    told = answer(record) if record else Answer("unknown", "this gateway has never heard of the attempt")
    current = store.attempt()
    if current is not None and current["attempt"] == attempt:
        told = replace(told, why="; ".join(filter(None, (told.why, unsettled(host)))))
    data: dict[str, Any] = {
        "attempt": current["attempt"] if current else None,
        "confirm_by": None,
        "left": None,
    }
    data["version"] = device_of(host, kind).version()
    if current is not None and current["phase"] == "running" and current["deadline"] is not None:
        # The wall clock may be set meanwhile; what counts is the seconds that are left.
        data["left"] = max(math.floor(current["deadline"] - host.now()), 0)
        data["confirm_by"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + data["left"]))
    return told, data


def unsettled(host: Host) -> str:
    """Why nothing brings an attempt to its end: the unit that does cannot begin. Otherwise nothing."""
    status = _status(host, SETTLE)
    if status not in NOT_BEGUN:
        return ""
    return (
        f"{SETTLE} cannot begin (status {status}, see systemd.exec(5)) and is tried again; until then nothing is armed "
        "and nothing taken back, unless by hand with the program's settle"
    )


def status(host: Host) -> dict[str, Any]:
    """Everything that is remembered, for people and programs."""
    state = Store(host).state()
    return {**state, "armed": timer.is_armed(host), "unsettled": unsettled(host) if state["attempt"] else ""}
