# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What is updated, and by what means: the device by its vendor's tool, or the collector by a switch of releases."""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from ..guard import durable
from . import settings
from .host import PATH, TIMED_OUT, Done, FirmwareError, Host
from .incoming import require_space
from .store import Record
from .versions import is_version

# Seconds for what only asks or switches.
SHORT = 60.0
RELEASES = "/opt/energy/releases"
CURRENT = "/opt/energy/current"
UNLIMITED = "energy-firmware-unlimited.service"
COLLECTOR = "energy-collector.pyz"
SERVICES = ("energy-gateway.service", "energy-persistence.service")
CONFIG = "/etc/energy/config.yaml"


class Device(Protocol):
    """What is updated. Its commands may be asked for again at any time, but for `install`."""

    reboot: str

    def version(self) -> str | None:
        """The version that runs, as it tells itself; None while it tells none."""

    def check(self, length: int, name: str) -> None:
        """Raises FirmwareError where it could not be installed, whatever the image is."""

    def place(self, record: Record, image: Path) -> Path:
        """Put the image where it has to lie. Raises OSError."""

    def install(self, record: Record) -> Done: ...

    def back(self, record: Record) -> Done: ...

    def confirm(self, record: Record) -> Done: ...

    def cancel(self, record: Record) -> None:
        """An installation failed or was cut, and what ran before still runs: leave nothing that waits to be booted."""

    def clear(self, record: Record) -> None:
        """The attempt has ended: remove what it no longer needs."""


def device_of(host: Host, kind: str) -> Device:
    """Raises FirmwareError where the gateway has no settings for it."""
    if kind == "collector":
        return Collector(host)
    return Vendor(host, settings.load_adapter(host.root))


class Vendor:
    """The device itself, by its vendor's tool."""

    def __init__(self, host: Host, adapter: settings.Adapter) -> None:
        self.host = host
        self.adapter = adapter
        self.reboot = adapter.reboot

    def ask(self) -> Done:
        return self.host.run(list(self.adapter.version), timeout=SHORT)

    def version(self) -> str | None:
        return self.version_in(self.ask())

    def version_in(self, done: Done) -> str | None:
        found = re.search(self.adapter.version_pattern, done.out) if done.code == 0 else None
        return found.group(1) if found and is_version(found.group(1)) else None

    def model(self) -> str | None:
        """What the device calls itself; None where its tool cannot say."""
        if self.adapter.model is None:
            return None
        done = self.host.run(list(self.adapter.model), timeout=SHORT)
        if done.code != 0:
            raise FirmwareError(f"{' '.join(self.adapter.model)}: {done.words}")
        return done.out.strip()

    def check(self, length: int, name: str) -> None:
        model = self.model()
        expected = settings.load_gateway(self.host.root).model
        if model is not None and model != expected:
            raise FirmwareError(f"the device says that it is a {model}, and its site file says {expected}")
        self._check_needs()
        folder = self._place(name).parent
        if not folder.is_dir():
            raise FirmwareError(f"{folder}, where the image has to lie, is not there")
        require_space(folder, length, f"the image {name}")

    def _check_needs(self) -> None:
        """Our units pass over what is not there, and then the tool misses it."""
        needs = self.adapter.needs or settings.Needs()
        for path in needs.write:
            if not self.host.at(path).exists():
                raise FirmwareError(f"{path}, which the adapter's needs have under write, is not there")
        for path in needs.devices:
            if not path.startswith("/"):
                continue
            try:
                mode = self.host.at(path).stat().st_mode
            except OSError:
                mode = 0
            if not stat.S_ISBLK(mode) and not stat.S_ISCHR(mode):
                what = "is no device" if mode else "is not there"
                raise FirmwareError(f"{path}, which the adapter's needs have under devices, {what}")

    def place(self, record: Record, image: Path) -> Path:
        return _put(image, self._place(record["name"]))

    def install(self, record: Record) -> Done:
        return self.host.run(self._filled(self.adapter.install, record), timeout=self.adapter.timeout)

    def back(self, record: Record) -> Done:
        return self._surely(self._filled(self.adapter.back, record), self.adapter.timeout)

    def confirm(self, record: Record) -> Done:
        if self.adapter.confirm is None:
            return Done([], 0, "", "")
        return self._surely(self._filled(self.adapter.confirm, record), SHORT)

    def cancel(self, record: Record) -> None:
        if self.adapter.cancel is not None:
            done = self._surely(self._filled(self.adapter.cancel, record), SHORT)
            if done.code != 0:
                self.host.say(f"{' '.join(self.adapter.cancel)}: {done.words}", bad=True)

    def _surely(self, argv: list[str], timeout: float) -> Done:
        """Run what an update ends with. For want of something in the adapter's needs it must not fail.

        Whether it fails for that nobody can tell. So it is run once more, by systemd, without our unit's limits. The
        name keeps a second one from being run beside it.
        """
        done = self.host.run(argv, timeout=timeout)
        if done.code in (0, TIMED_OUT) or not self.host.is_limited():
            return done
        words = " ".join(argv)
        self.host.say(
            f"{words}: {done.words}; once more without the limits that the adapter's needs leave", bad=True
        )
        free = self.host.run(
            [
                *("systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--unit={UNLIMITED}"),
                *(
                    "--service-type=exec",
                    f"--property=RuntimeMaxSec={timeout:g}",
                    f"--setenv=PATH={PATH}",
                    "--",
                    *argv,
                ),
            ],
            timeout=timeout + 10,
        )
        if free.code == 0:
            self.host.say(f"{words} goes through without them: its adapter's needs lack something", bad=True)
        return replace(free, argv=argv)

    def clear(self, record: Record) -> None:
        if record["name"]:
            self._place(record["name"]).unlink(missing_ok=True)

    def _place(self, name: str) -> Path:
        return self.host.at(self.adapter.image.replace("{name}", name))

    def _filled(self, argv: tuple[str, ...], record: Record) -> list[str]:
        image = str(self._place(record["name"])) if record["name"] else ""
        return [word.replace("{image}", image).replace("{version}", record["to"] or "") for word in argv]


class Collector:
    """The collector: a release is one file, beside those before it, and a link says which one runs."""

    reboot = "none"

    def __init__(self, host: Host) -> None:
        self.host = host
        self.releases = host.at(RELEASES)
        self.current = host.at(CURRENT)

    def _python(self) -> str:
        """The Python that its services run by."""
        try:
            unit = self.host.at(f"/etc/systemd/system/{SERVICES[0]}").read_text(encoding="utf-8")
        except OSError:
            return sys.executable
        found = re.search(r"^ExecStart=(\S+)", unit, re.MULTILINE)
        return found.group(1) if found else sys.executable

    def version(self) -> str | None:
        program = self.current / COLLECTOR
        done = self.host.run([self._python(), str(program), "--version"], timeout=SHORT)
        found = re.search(r"([0-9]+(?:\.[0-9]+)*)\s*$", done.out) if done.code == 0 else None
        return found.group(1) if found else None

    def check(self, length: int, name: str) -> None:  # noqa: ARG002  (as the other one)
        if not self.releases.is_dir():
            raise FirmwareError(f"{RELEASES} is not there: the role collector has not run here")
        require_space(self.releases, length, "the release")

    def place(self, record: Record, image: Path) -> Path:
        folder = self.releases / record["to"]
        durable.make_directory(folder)
        return _put(image, folder / COLLECTOR, mode=0o755)

    def install(self, record: Record) -> Done:
        # The new release judges the configuration that it is going to run with.
        program = self.releases / record["to"] / COLLECTOR
        done = self.host.run(
            [self._python(), str(program), "check", str(self.host.at(CONFIG))], timeout=SHORT
        )
        return done if done.code != 0 else self._switch(record["to"])

    def back(self, record: Record) -> Done:
        wanted = record["to"] if record["direction"] == "back" else record["from"]
        if not (self.releases / wanted / COLLECTOR).is_file():
            return Done([], 1, "", f"{RELEASES}/{wanted} is gone")
        return self._switch(wanted)

    def _switch(self, version: str) -> Done:
        durable.link(self.current, f"{RELEASES}/{version}")
        return self.host.run(["systemctl", "restart", *SERVICES], timeout=SHORT)

    def confirm(self, record: Record) -> Done:  # noqa: ARG002  (as the other one)
        return Done([], 0, "", "")

    def cancel(self, record: Record) -> None:
        """The release that failed is only a folder that nothing leads to."""

    def clear(self, record: Record) -> None:
        """Releases are the role collector's to remove."""


def _put(source: Path, place: Path, mode: int = 0o600) -> Path:
    """A copy of the image where it has to lie, made anew: nothing that somebody has left there is followed.

    A copy and no link, since tools are known to change their image.
    """
    temporary = place.with_name(f".{place.name}.energy-firmware")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with source.open("rb") as stream, os.fdopen(handle, "wb") as target:
            shutil.copyfileobj(stream, target, 1 << 20)
            target.flush()
            os.fchmod(target.fileno(), mode)
            os.fsync(target.fileno())
        durable.rename(temporary, place)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return place
