# SPDX-License-Identifier: Apache-2.0
"""A gateway below a temporary directory: real files, a device with two slots, and a systemd that does what is asked.

The device keeps its state in a file beside the root, so that it outlives a process that is killed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ansible_collections.wattfleet.energy.plugins.module_utils.firmware import engine, settings
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware.host import Done, Host
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware.incoming import Incoming
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware.manifest import PREFIX, key_id
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware.store import Store
from ansible_collections.wattfleet.energy.plugins.module_utils.guard import durable
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2, 3)]
PUBLIC = [key.public_key().public_bytes_raw() for key in KEYS]
TRUST = {"threshold": 2, "keys": [base64.b64encode(one).decode() for one in PUBLIC]}
MODEL = "moxa-uc-8220"
ADAPTER: dict[str, Any] = {
    "install": ["firmware-update", "install", "{image}"],
    "version": ["firmware-update", "version"],
    "model": ["firmware-update", "model"],
    "back": ["firmware-update", "rollback"],
    "confirm": ["firmware-update", "confirm"],
    "cancel": ["firmware-update", "cancel"],
    "image": "/tmp/{name}",
    "needs": {},
}
ATTEMPT = "2026-11/plant-a/1"
OLD, NEW = "2.3.0", "2.4.1"
WITHIN = 300.0
EXPIRES = (datetime.now(UTC) + timedelta(days=90)).strftime("%Y-%m-%dT%H:%M:%SZ")


def image_of(version: str = NEW, behaviour: str = "good") -> bytes:
    return json.dumps({"version": version, "behaviour": behaviour}).encode() + bytes(range(256)) * 40


def envelope(image: bytes, keys: tuple[int, ...] = (0, 1), **changes: Any) -> bytes:
    content = {
        "format": 1,
        "kind": "firmware",
        "version": NEW,
        "number": 17,
        "models": [MODEL],
        "length": len(image),
        "sha256": hashlib.sha256(image).hexdigest(),
        "expires": EXPIRES,
        **changes,
    }
    data = json.dumps(content).encode()
    signatures = [
        {"key": key_id(PUBLIC[one]), "signature": base64.b64encode(KEYS[one].sign(PREFIX + data)).decode()}
        for one in keys
    ]
    return json.dumps({"manifest": base64.b64encode(data).decode(), "signatures": signatures}).encode()


class FakeGateway(Host):
    """A device with slots a and b. What it is told it does at once, or as its image's behaviour says."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.fake = root.with_name(root.name + ".device.json")
        self.said: list[str] = []
        self.late = 0.0
        # In one of our units, with the limits that it has.
        self.inside = False

    @classmethod
    def make(cls, root: Path, adapter: dict[str, Any] | None = None) -> FakeGateway:
        """A gateway as the role firmware leaves it."""
        for name in ("etc/energy-firmware", "var/lib", "tmp", "etc/systemd/system"):
            (root / name).mkdir(parents=True)
        for path, text in settings.files_of(MODEL, TRUST, ADAPTER if adapter is None else adapter).items():
            (root / path.lstrip("/")).write_text(text)
        folder = root / "opt/energy/releases/0.3.0"
        folder.mkdir(parents=True)
        (folder / "energy-collector.pyz").write_text("collector 0.3.0")
        (root / "opt/energy/current").symlink_to("/opt/energy/releases/0.3.0")
        one = cls(root)
        one.keep(
            {
                "slots": {"a": OLD, "b": "2.2.0"},
                "active": "a",
                "next": None,
                "boot": "1",
                "flashed": [],
                "units": [],
                "restart": False,
                "timer": None,
                "refuse": {},
                "limits": {},  # what is refused within our units only
                "status": {},  # how a unit's process has ended
                "unstartable": 0,
                "kept": 0,
                "model": MODEL,
            }
        )
        return one

    def device(self) -> dict[str, Any]:
        return json.loads(self.fake.read_text())

    def keep(self, state: dict[str, Any]) -> None:
        temporary = self.fake.with_suffix(".new")
        temporary.write_text(json.dumps(state))
        temporary.replace(self.fake)

    def change(self, **changes: Any) -> None:
        self.keep({**self.device(), **changes})

    @property
    def version(self) -> str:
        state = self.device()
        return str(state["slots"][state["active"]])

    # What the program asks for

    def say(self, text: str, *, bad: bool = False) -> None:
        self.said.append(text)

    def now(self) -> float:
        return time.monotonic() + self.late

    def boot_id(self) -> str:
        return str(self.device()["boot"])

    def run(self, argv: list[str], *, timeout: float = 20, stdin: str | None = None) -> Done:
        if argv[0] == "systemd-run" and "--wait" in argv:
            return self._freely(argv[argv.index("--") + 1 :])
        words, state = " ".join(argv[:2]), self.device()
        refused = state["refuse"].get(words) or (self.inside and state["limits"].get(words))
        if refused:
            return Done(argv, *refused)
        if argv[0] == "firmware-update":
            return self._update(argv)
        if argv[0] == "systemd-run":
            moments = [float(word.partition("=")[2][:-1]) for word in argv if word.startswith("--on-boot")]
            self.change(timer=min(moments))
        elif argv[0] == "systemd-detect-virt":
            return Done(argv, 1, "", "")
        elif argv[0] == "systemctl":
            return self._systemctl(argv)
        elif argv[-1] == "--version":
            # The link is absolute, as on a real gateway, and this root is below another one.
            folder = self.at(str(self.at("/opt/energy/current").readlink()))
            return Done(argv, 0, f"energy-{(folder / 'energy-collector.pyz').read_text()}\n", "")
        elif "check" in argv:
            bad = "broken" in Path(argv[1]).read_text()
            return Done(argv, int(bad), "", "the configuration is refused" if bad else "")
        return Done(argv, 0, "", "")

    def is_limited(self) -> bool:
        return self.inside

    def _within(self, work: Callable[[Host], int]) -> int:
        """What one of our units runs."""
        self.inside = True
        try:
            return work(self)
        finally:
            self.inside = False

    def _freely(self, argv: list[str]) -> Done:
        """What systemd runs for us, in no unit of ours."""
        before, self.inside = self.inside, False
        try:
            return self.run(argv)
        finally:
            self.inside = before

    def _systemctl(self, argv: list[str]) -> Done:
        state = self.device()
        words = [word for word in argv[1:] if not word.startswith("--")]
        if words[0] == "start" and "--no-block" not in argv:
            code = state["unstartable"] or self._within(engine.install)
            self.change(status={words[1]: code})
            return Done(argv, int(code != 0), "", "Job for it failed." if code else "")
        if "--property=ExecMainStatus" in argv:
            return Done(argv, 0, f"{state['status'].get(words[-1], 0)}\n", "")
        if words[0] == "reboot":
            self.change(restart=True)
        elif words[0] == "start":
            self.change(units=[*state["units"], *words[1:]])
        elif words[0] == "stop":
            self.change(timer=None)
        elif words[0] == "show" and words[-1].endswith(".timer"):
            fires = state["timer"]
            text = f"ActiveState=active\nSubState=waiting\nNextElapseUSecMonotonic={fires}s\n"
            return Done(argv, 0, "ActiveState=inactive\n" if fires is None else text, "")
        elif words[0] == "show":
            return Done(argv, 0, "inactive\n", "")
        return Done(argv, 0, "", "")

    def _update(self, argv: list[str]) -> Done:
        state = self.device()
        other = "b" if state["active"] == "a" else "a"
        if argv[1] == "version":
            return Done(argv, 0, f"{state['slots'][state['active']]}\n", "")
        if argv[1] == "model":
            return Done(argv, 0, f"{state['model']}\n", "")
        durable.watch("tool", self.fake)
        if argv[1] == "install":
            image = json.loads(Path(argv[2]).read_bytes().split(b"}")[0] + b"}")
            self.change(flashed=[*state["flashed"], image["version"]])
            durable.watch("tool", self.fake)
            if image["behaviour"] == "fails":
                return Done(argv, 1, "", "block 40: write error")
            if image["behaviour"] == "hangs":
                return Done(argv, 124, "", f"no answer within {900:g} s")
            slots = {**state["slots"], other: image["version"]}
            self.change(slots=slots)
            durable.watch("tool", self.fake)
            if image["behaviour"] != "lies":
                self.change(next=other)
        elif argv[1] == "rollback":
            self.change(next=other)
        elif argv[1] == "cancel":
            self.change(next=None)
        elif argv[1] == "confirm":
            self.change(kept=state["kept"] + 1)
        durable.watch("tool", self.fake)
        return Done(argv, 0, "", "")

    # What systemd and the power do

    def boot(self) -> None:
        """The device starts: from the slot that is due, with an empty /tmp, and `settle` is run."""
        state = self.device()
        active = state["next"] or state["active"]
        self.keep(
            {
                **state,
                "boot": state["boot"] + "1",
                "active": active,
                "next": None,
                "units": [],
                "restart": False,
            }
            | {"timer": None}
        )
        for path in self.at("/tmp").iterdir():
            path.unlink()
        self.settle()

    def settle(self) -> None:
        """The unit, which systemd starts again while it fails."""
        for _time in range(20):
            if self._within(engine.settle) == 0 or self.device()["restart"]:
                return
        raise AssertionError(f"settle never ends: {self.said[-5:]}")

    def work(self) -> None:
        """systemd does what it was asked for until nothing is left to do."""
        for _time in range(20):
            state = self.device()
            if state["restart"]:
                self.boot()
            elif state["units"]:
                unit = state["units"][0]
                self.change(units=state["units"][1:])
                if unit == engine.SETTLE or self._within(engine.install) != 0:
                    self.settle()
            else:
                return
        raise AssertionError(f"it never comes to rest: {self.said[-5:]}")

    def pass_by(self, seconds: float) -> None:
        """Time passes, and the timer fires."""
        self.late += seconds
        fires = self.device()["timer"]
        if fires is not None and self.now() >= fires:
            self.settle()
            self.work()

    # What the controller does

    def send(self, image: bytes, release: bytes) -> None:
        """A whole transfer."""
        incoming = Incoming(self, hashlib.sha256(image).hexdigest())
        incoming.prepare(release, len(image))
        path = self.root.with_name("sent")
        path.write_bytes(image[incoming.offset() :])
        with path.open("rb") as stream:
            incoming.receive(stream.fileno(), incoming.offset(), len(image))

    def order(self, release: bytes, attempt: str = ATTEMPT, kind: str = "firmware") -> engine.Order:
        return engine.Order(attempt, kind, release, "gateway-2.4.1.bin", WITHIN)

    def begin(self, release: bytes, attempt: str = ATTEMPT, kind: str = "firmware") -> engine.Answer:
        return engine.begin(self, self.order(release, attempt, kind))

    def look(self, attempt: str = ATTEMPT, kind: str = "firmware") -> engine.Answer:
        return engine.look(self, attempt, kind)[0]

    @property
    def release(self) -> str:
        """The collector's release that the link leads to."""
        return self.at("/opt/energy/current").readlink().name

    @property
    def phase(self) -> str | None:
        record = Store(self).attempt()
        return record["phase"] if record else None
