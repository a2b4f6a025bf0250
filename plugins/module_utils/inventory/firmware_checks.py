# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What the schema cannot say of releases of firmware: thresholds that can be reached, and commands that can work."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..firmware.needs import CAPABILITIES
from .findings import Finding, Steps, dig


def fleet_findings(fleet: Mapping[str, Any]) -> Iterator[Finding]:
    trust = dig(fleet, "firmware", "trust")
    if isinstance(trust, dict):
        yield from _trust_findings(trust)
    adapters = dig(fleet, "firmware", "adapters")
    if isinstance(adapters, dict):
        for model, adapter in adapters.items():
            yield from _adapter_findings(adapter, ("firmware", "adapters", model))


def site_findings(site: Mapping[str, Any]) -> Iterator[Finding]:
    yield from _adapter_findings(dig(site, "firmware", "adapter"), ("firmware", "adapter"))


def _trust_findings(trust: dict[str, Any]) -> Iterator[Finding]:
    keys, threshold = trust.get("keys"), trust.get("threshold")
    if not isinstance(keys, list):
        return
    for number, text in enumerate(keys):
        try:
            length = len(base64.b64decode(text, validate=True))
        except (TypeError, ValueError, binascii.Error):
            continue  # the schema has said so
        if length != 32:
            yield Finding(
                ("firmware", "trust", "keys", number), f"found {length} bytes, expected 32 bytes in base64"
            )
    if isinstance(threshold, int) and threshold > len(keys):
        yield Finding(
            ("firmware", "trust", "threshold"),
            f"found {threshold}, and there are only {len(keys)} keys: no release could ever be signed by enough",
        )


def _adapter_findings(adapter: Any, steps: Steps) -> Iterator[Finding]:
    if not isinstance(adapter, dict):
        return
    install = adapter.get("install")
    if isinstance(install, list) and not any("{image}" in str(word) for word in install):
        yield Finding(
            (*steps, "install"), "found no {image}, expected it where the command takes the image's path"
        )
    pattern = adapter.get("version_pattern")
    if isinstance(pattern, str):
        try:
            groups = re.compile(pattern).groups
        except re.error:
            groups = 0
        if groups != 1:
            yield Finding(
                (*steps, "version_pattern"),
                f'found "{pattern}", expected a regular expression with one group',
            )
    needs = adapter.get("needs")
    if isinstance(needs, dict):
        yield from _needs_findings(needs, adapter.get("image"), steps)


def _needs_findings(needs: dict[str, Any], image: Any, steps: Steps) -> Iterator[Finding]:
    if needs.get("everything") is True:
        if any(value for key, value in needs.items() if key != "everything"):
            yield Finding((*steps, "needs", "everything"), "found something beside it, expected nothing")
        return
    # What is not text, or no name of that kind, the schema has said.
    for number, name in enumerate(needs.get("capabilities") or ()):
        if isinstance(name, str) and name not in CAPABILITIES:
            yield Finding(
                (*steps, "needs", "capabilities", number),
                f"found {name}, which capabilities(7) does not have, expected one such as CAP_SYS_ADMIN",
            )
    if isinstance(image, str) and not image.partition("{name}")[0].rpartition("/")[0]:
        yield Finding(
            (*steps, "image"),
            f'found "{image}", expected a folder that alone can be written to, as in /tmp/{{name}}',
        )
