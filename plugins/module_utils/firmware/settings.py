# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Who this gateway is, whom it trusts, and how its vendor's tool is driven: two files below /etc/energy-firmware.

The role writes them from the fleet file. What is wrong in them is told in one line: where, what, what would be right.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .host import FirmwareError
from .manifest import Trust, key_id
from .needs import EXPECTED, Needs, needs_of, shown

FOLDER = "/etc/energy-firmware"
GATEWAY = f"{FOLDER}/gateway.json"
ADAPTER = f"{FOLDER}/adapter.json"
REBOOTS = ("command", "itself", "none")
TIMEOUT = 900.0
LONGEST = 6 * 3600.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MODEL = re.compile(r"[a-z0-9][a-z0-9-]{0,38}")


@dataclass(frozen=True)
class Adapter:
    """A model's tool. Each command is an argv; `{image}` in it is the image's path, `{version}` the version meant.

    `version` and `model` are commands that print what the device itself knows; `version_pattern` finds it in what they
    print. `reboot` says who restarts the device after an installation: `command` us, `itself` the tool, `none` nobody.
    `back` makes the device run what it ran before, `confirm` gives that up, `cancel` gives up an installation that
    failed before the restart. `image` is where the image has to lie, with `{name}` for its file name. `needs` is what
    the tool needs beyond what our units leave it; None by a file of an earlier release, whose units had no limits.
    """

    install: tuple[str, ...]
    version: tuple[str, ...]
    back: tuple[str, ...]
    timeout: float = TIMEOUT
    version_pattern: str = r"([0-9]+(?:\.[0-9]+)*)"
    reboot: str = "command"
    model: tuple[str, ...] | None = None
    confirm: tuple[str, ...] | None = None
    cancel: tuple[str, ...] | None = None
    image: str = "/tmp/{name}"  # noqa: S108  (where the field's document puts it; made by root, never followed)
    needs: Needs | None = None

    @property
    def folder(self) -> str:
        """The folder that images lie in, or that has the folders that they lie in."""
        return self.image.partition("{name}")[0].rpartition("/")[0] or "/"


@dataclass(frozen=True)
class Gateway:
    """A gateway's model as its site file says it, and the keys that may sign releases for it."""

    model: str
    trust: Trust


def is_image_name(text: str) -> bool:
    """Whether a text may be an image's file name: it becomes part of a path and of a command."""
    return _NAME.fullmatch(text) is not None


def adapter_of(content: Any, where: str) -> Adapter:
    """An adapter out of its mapping. Raises FirmwareError."""
    if not isinstance(content, dict):
        raise FirmwareError(f"{where}: found {shown(content)}, expected a mapping of the adapter's keys")
    known = set(Adapter.__dataclass_fields__)
    content = {key: value for key, value in content.items() if value is not None}
    for key in sorted(set(content) - known):
        raise FirmwareError(f"{where}: {key} is not known, expected {', '.join(sorted(known))}")
    for key in ("install", "version", "back"):
        if key not in content:
            raise FirmwareError(f"{where}: {key} is missing, expected a command as a list of words")
    for key in ("install", "version", "back", "model", "confirm", "cancel"):
        if key in content:
            _check_command(content[key], f"{where}: {key}")
            content[key] = tuple(content[key])
    if not any("{image}" in word for word in content["install"]):
        raise FirmwareError(
            f"{where}: install: {' '.join(content['install'])} has no {{image}} for the image's path"
        )
    timeout = content.get("timeout", TIMEOUT)
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 1 <= timeout <= LONGEST:
        raise FirmwareError(
            f"{where}: timeout: found {shown(timeout)}, expected seconds from 1 to {LONGEST:g}"
        )
    content["timeout"] = float(timeout)
    if content.get("reboot", "command") not in REBOOTS:
        raise FirmwareError(
            f"{where}: reboot: found {shown(content['reboot'])}, expected {', '.join(REBOOTS[:-1])} or {REBOOTS[-1]}"
        )
    _check_pattern(content.get("version_pattern", Adapter.version_pattern), where)
    image = content.get("image", Adapter.image)
    filled = image.replace("{name}", "image.bin") if isinstance(image, str) else ""
    if not re.fullmatch(r"(/[A-Za-z0-9._-]+)+", filled) or ".." in filled.split("/"):
        raise FirmwareError(
            f"{where}: image: found {shown(image)}, expected an absolute path such as /tmp/{{name}}"
        )
    if "needs" in content:
        content["needs"] = needs_of(content["needs"], f"{where}: needs")
    found = Adapter(**content)
    if found.needs is not None and not found.needs.everything and found.folder == "/":
        raise FirmwareError(
            f"{where}: image: found {shown(image)}, expected a folder that alone can be written to, as in /tmp/{{name}}"
        )
    return found


def gateway_of(content: Any, where: str) -> Gateway:
    """Model and trust out of their mapping. Raises FirmwareError."""
    if not isinstance(content, dict) or set(content) - {"model", "threshold", "keys"}:
        raise FirmwareError(f"{where}: expected a mapping with model, threshold and keys")
    model, threshold, keys = (content.get(key) for key in ("model", "threshold", "keys"))
    if not isinstance(model, str) or not _MODEL.fullmatch(model):
        raise FirmwareError(f"{where}: model: found {shown(model)}, expected a name such as moxa-uc-8220")
    if not isinstance(keys, list) or not keys:
        raise FirmwareError(f"{where}: keys: found {shown(keys)}, expected a list of public keys in base64")
    found = {}
    for text in keys:
        try:
            public = base64.b64decode(text, validate=True)
        except (TypeError, ValueError, binascii.Error):
            public = b""
        if len(public) != 32:
            raise FirmwareError(
                f"{where}: keys: found {shown(text)}, expected an Ed25519 public key, 32 bytes in base64"
            )
        found[key_id(public)] = public
    if isinstance(threshold, bool) or not isinstance(threshold, int) or not 1 <= threshold <= len(found):
        raise FirmwareError(
            f"{where}: threshold: found {shown(threshold)}, expected 1 to {len(found)}, the number of keys"
        )
    return Gateway(model, Trust(threshold, found))


def load_gateway(root: Path) -> Gateway:
    return gateway_of(_read(root, GATEWAY), GATEWAY)


def load_adapter(root: Path) -> Adapter:
    return adapter_of(_read(root, ADAPTER), ADAPTER)


def _read(root: Path, name: str) -> Any:
    try:
        return json.loads((root / name.lstrip("/")).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FirmwareError(f"{name} is missing: run the role firmware for this gateway first") from None
    except ValueError as error:
        raise FirmwareError(f"{name} is not JSON: {error}") from None


def files_of(model: str, trust: Mapping[str, Any], adapter: Mapping[str, Any] | None) -> dict[str, str]:
    """The text of each file, checked; the same for the same settings. Raises FirmwareError."""
    if not isinstance(trust, Mapping) or set(trust) != {"threshold", "keys"}:
        raise FirmwareError("trust: expected a mapping with threshold and keys")
    gateway = {"model": model, "threshold": trust["threshold"], "keys": list(trust["keys"] or [])}
    gateway_of(gateway, "trust")
    texts = {GATEWAY: _text(gateway)}
    if adapter:
        found = adapter_of(dict(adapter), "adapter")
        if found.needs is None:
            raise FirmwareError(f"adapter: needs is missing, expected {EXPECTED}")
        texts[ADAPTER] = _text(asdict(found))
    return texts


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def _check_command(value: Any, where: str) -> None:
    if (
        not isinstance(value, (list, tuple))
        or not value
        or not all(isinstance(word, str) and word for word in value)
    ):
        raise FirmwareError(f"{where}: found {shown(value)}, expected a command as a list of words")


def _check_pattern(pattern: Any, where: str) -> None:
    try:
        groups = re.compile(pattern).groups
    except (TypeError, re.error):
        groups = 0
    if groups != 1:
        raise FirmwareError(
            f"{where}: version_pattern: found {shown(pattern)}, expected a regular expression with one group"
        )
