# SPDX-License-Identifier: Apache-2.0
"""Reads /etc/energy-hub/ingest.yaml; every key is described in docs/reference/hub-configuration.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml


class ConfigError(ValueError):
    """The configuration cannot be used; the message names file, key, what was found and what would be
    right."""


@dataclass(frozen=True, slots=True)
class Broker:
    host: str
    port: int
    ca: Path
    certificate: Path
    key: Path
    client_id: str
    session_expiry: int


@dataclass(frozen=True, slots=True)
class Group:
    """How many batches one transaction takes: whatever bound is reached first."""

    batches: int
    readings: int
    wait: float


@dataclass(frozen=True, slots=True)
class Config:
    broker: Broker
    database: str
    authorities: Path
    crl: Path | None
    log: Path | None
    group: Group
    batch_bytes: int
    in_flight: int


def load(path: Path) -> Config:
    """Raises ConfigError, with one line for the first fault."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    top = _Section(path, "", document)
    broker = top.section("broker")
    ca = broker.path("ca", "/etc/ssl/energy/ca.crt")
    group = top.section("group")
    log = top.text("log", "/var/log/energy-audit/ingest.log")
    crl = top.text("crl", "/etc/ssl/energy/crl.pem")
    config = Config(
        broker=Broker(
            host=broker.text("host", None),
            port=broker.integer("port", 8883, 1, 65535),
            ca=ca,
            certificate=broker.path("certificate", "/etc/ssl/energy/ingest.crt"),
            key=broker.path("key", "/etc/ssl/energy/ingest.key"),
            client_id=broker.text("client_id", "ingest"),
            session_expiry=broker.integer("session_expiry", 60, 0, 86400),
        ),
        database=top.text("database", "dbname=energy user=energy_ingest"),
        authorities=top.path("authorities", str(ca)),
        crl=Path(crl) if crl != "none" else None,
        log=Path(log) if log != "none" else None,
        group=Group(
            batches=group.integer("batches", 200, 1, 10_000),
            readings=group.integer("readings", 50_000, 1, 1_000_000),
            wait=group.number("wait", 0.05, 0, 10),
        ),
        batch_bytes=top.integer("batch_bytes", 1_048_576, 1024, 16_777_216),
        in_flight=top.integer("in_flight", 200, 1, 65_535),
    )
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", config.broker.client_id):
        raise ConfigError(
            f"{path}: broker.client_id {config.broker.client_id!r}: expected letters, digits, . _ -"
        )
    for section in (top, broker, group):
        section.refuse_unknown()
    return config


class _Section:
    """A mapping of the file; remembers which of its keys were asked for."""

    def __init__(self, path: Path, name: str, content: object) -> None:
        self.where = f"{path}: {name}" if name else f"{path}"
        self.path_of_file = path
        self.name = name
        self.asked: set[str] = set()
        if content is None:
            content = {}
        if not isinstance(content, dict):
            raise ConfigError(f"{self.where}: found {content!r}, expected keys and values")
        self.content = content

    def section(self, key: str) -> _Section:
        self.asked.add(key)
        return _Section(self.path_of_file, key, self.content.get(key))

    def text(self, key: str, default: str | None) -> str:
        value = self._value(key, default)
        if not isinstance(value, str) or not value:
            raise self._wrong(key, value, "a text")
        return value

    def path(self, key: str, default: str) -> Path:
        return Path(self.text(key, default))

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        value = self._value(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self._wrong(key, value, f"an integer from {low} to {high}")
        return value

    def number(self, key: str, default: float, low: float, high: float) -> float:
        value = self._value(key, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
            raise self._wrong(key, value, f"a number from {low} to {high}")
        return float(value)

    def refuse_unknown(self) -> None:
        for key in self.content:
            if key not in self.asked:
                raise ConfigError(
                    f"{self.where}: unknown key {key!r}, expected one of {', '.join(sorted(self.asked))}"
                )

    def _value(self, key: str, default: object) -> object:
        self.asked.add(key)
        if key not in self.content and default is None:
            raise ConfigError(f"{self.where}: {key} is missing")
        return self.content.get(key, default)

    def _wrong(self, key: str, value: object, expected: str) -> ConfigError:
        return ConfigError(f"{self.where}: {key}: found {value!r}, expected {expected}")
