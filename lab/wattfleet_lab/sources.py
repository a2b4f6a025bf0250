# SPDX-License-Identifier: Apache-2.0
"""The machine's own package sources, as far as they serve a Debian release."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path


def debian_sources(suite: str, apt_folder: Path = Path("/etc/apt")) -> list[str]:
    """One-line ``deb`` entries for a suite, its updates and security fixes; empty when the machine has none.

    Both formats of sources.list(5) are read. With an empty list mmdebstrap uses Debian's own mirror.
    """
    suites = (suite, f"{suite}-updates", f"{suite}-security")
    files = [apt_folder / "sources.list", *sorted((apt_folder / "sources.list.d").glob("*"))]
    entries: list[str] = []
    for file in files:
        if file.suffix == ".sources":
            found = _deb822(file.read_text())
        elif file.suffix == ".list" and file.is_file():
            found = _one_line(file.read_text())
        else:
            continue
        for options, uri, distribution, components in found:
            if distribution in suites and "main" in components:
                entries.append(f"deb {options}{uri} {distribution} main")
    unique = list(dict.fromkeys(entries))
    # Updates alone cannot make a system.
    return unique if any(f" {suite} " in entry for entry in unique) else []


def _one_line(text: str) -> Iterator[tuple[str, str, str, list[str]]]:
    for line in text.splitlines():
        match = re.match(r"deb\s+(\[[^]]*\]\s+)?(\S+)\s+(\S+)\s+([^#]*)", line.strip())
        if match:
            yield match[1] or "", match[2], match[3], match[4].split()


def _deb822(text: str) -> Iterator[tuple[str, str, str, list[str]]]:
    for stanza in re.split(r"\n\s*\n", text):
        fields = {
            key.strip().lower(): value.split()
            for key, separator, value in (
                line.partition(":") for line in stanza.splitlines() if not line.startswith(("#", " "))
            )
            if separator
        }
        if "deb" not in fields.get("types", []) or fields.get("enabled") == ["no"]:
            continue
        signed = fields.get("signed-by", [])
        # An inline key has no place in a one-line entry; the distribution's keyring then has to do.
        options = f"[signed-by={signed[0]}] " if signed and signed[0].startswith("/") else ""
        for uri in fields.get("uris", []):
            for distribution in fields.get("suites", []):
                yield options, uri, distribution, fields.get("components", [])
