# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""A fleet file and its folder of sites to plain values, or to the list of every fault in every file."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import checks
from .document import Fault, Faults, compose, decode, locate
from .findings import Finding, text_at
from .kinds import Record
from .profiles import Payloads, Profiles
from .schema import schemas


class FaultsFoundError(Exception):
    """The files have faults: ``faults`` by file and line; ``lines`` is the text, one line for each."""

    def __init__(self, faults: list[Fault], folder: Path) -> None:
        self.faults = faults
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        self.headline = f"{count} in {folder}"
        self.lines = "\n".join(str(fault) for fault in faults)
        super().__init__(f"{self.headline}:\n{self.lines}")


@dataclass(frozen=True)
class Fleet:
    """A fleet without faults.

    ``facts``: the fleet file without ``plugin``, and with ``sites`` as the list of names.
    ``sites``: each site's file by name, defaults filled in.
    """

    facts: dict[str, Any]
    sites: dict[str, dict[str, Any]]


@dataclass
class _Document:
    """A file as it was read: its text stays, so that a line can be looked up later."""

    shown: str
    text: str
    values: Any
    faults: Faults

    def add(self, finding: Finding) -> None:
        path = ""
        for step in finding.steps:
            path += f"[{step}]" if isinstance(step, int) else f".{step}"
        self.faults.add(locate(self.text, finding.steps), finding.message, path)

    def finished(self) -> list[Fault]:
        for fault in self.faults.found:
            fault.file = self.shown
            fault.path = fault.path.lstrip(".")
        return sorted(self.faults.found, key=lambda fault: fault.line)


def load_fleet(file: Path, profiles: Profiles | None = None) -> Fleet:
    """Reads and checks a fleet file and all its sites.

    Raises FaultsFoundError with all faults of all files. Needs no network and contacts no host.
    """
    profiles = profiles or Profiles()
    payloads = Payloads()
    schema = schemas(profiles.names, payloads.names)
    with _no_collection():
        fleet = _read(file, file.name, schema.fleet)
        facts = fleet.values if isinstance(fleet.values, dict) else {}
        for finding in checks.fleet_findings(facts):
            fleet.add(finding)
        documents = _read_sites(file, fleet, schema.site)
        site_checks = checks.SiteChecks(facts, profiles, payloads)
        for name, document in documents.items():
            if isinstance(document.values, dict):
                for finding in site_checks.findings(document.values, name):
                    document.add(finding)
        sites = {name: document.values for name, document in documents.items()}
        for name, finding in checks.between_sites(sites, facts):
            documents[name].add(finding)
    faults = [fault for document in (fleet, *documents.values()) for fault in document.finished()]
    if faults:
        raise FaultsFoundError(faults, file.parent)
    for name, site in sites.items():
        site.setdefault("name", name)
    del facts["plugin"]
    facts["sites"] = list(sites)
    return Fleet(facts, sites)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Holds the cycle collector off: many small nodes without cycles, which it would walk again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _read(file: Path, shown: str, schema: Record, defaults: dict[str, Any] | None = None) -> _Document:
    document = _Document(shown, "", None, Faults())
    try:
        content = file.read_bytes()
    except OSError as error:
        document.faults.add(0, f"cannot be read: {error.strerror}")
        return document
    text = decode(content, document.faults)
    if text is not None:
        document.text = text
        node = compose(text, document.faults)
        if node is not None:
            document.values = schema.read(node, document.faults, defaults)
    return document


def _read_sites(file: Path, fleet: _Document, schema: Record) -> dict[str, _Document]:
    """The documents of the fleet's folder by name without suffix; notes what is wrong with the folder."""
    facts = fleet.values if isinstance(fleet.values, dict) else {}
    name = text_at(facts, "sites")
    if name is None:
        return {}
    folder = file.parent / name
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        fleet.add(Finding(("sites",), f'found "{name}", which cannot be read as a folder: {error.strerror}'))
        return {}
    defaults = facts.get("defaults")
    documents = {}
    for entry in entries:
        if entry.name.startswith(".") or entry.name.endswith("~"):
            continue
        if entry.suffix == ".yml":
            documents[entry.stem] = _read(
                entry, f"{name}/{entry.name}", schema, defaults if defaults else None
            )
        elif entry.suffix in (".yaml", ".json"):
            fleet.add(Finding(("sites",), f"found {name}/{entry.name}, expected site files to end with .yml"))
        elif entry.is_dir():
            fleet.add(Finding(("sites",), f"found the folder {name}/{entry.name}, expected only site files"))
    if not documents:
        fleet.add(Finding(("sites",), f'found no site file in "{name}", expected at least one <site>.yml'))
    return documents
