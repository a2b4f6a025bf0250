# SPDX-License-Identifier: Apache-2.0
"""Reads /etc/energy-hub/ingest.yaml; every key is described in docs/reference/hub-configuration.md."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import yaml
from psycopg.conninfo import conninfo_to_dict, make_conninfo

# Messages in flight: one that is worked on and one that waits, and as many again for the others.
LEAST_OF_A_LANE = 4


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
    # What its certificate bears, where that is not `host`.
    server_name: str

    @property
    def where(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Group:
    """How many batches one transaction takes: whatever bound is reached first."""

    batches: int
    readings: int
    wait: float


@dataclass(frozen=True, slots=True)
class Databases:
    """Several databases: their connection strings by name, without a role, and the one that has the directory."""

    conninfos: dict[str, str]
    directory: str

    def conninfo(self, name: str, role: str) -> str:
        return make_conninfo(self.conninfos[name], user=role)


@dataclass(frozen=True, slots=True)
class Quota:
    """What one site may send through one worker; 0 is no bound."""

    batches: float
    bytes: float
    readings: float
    burst: float


@dataclass(frozen=True, slots=True)
class Config:
    brokers: tuple[Broker, ...]
    database: str
    # In place of `database`, where the sites are spread over several.
    databases: Databases | None
    authorities: Path
    crl: Path | None
    log: Path | None
    group: Group
    quota: Quota
    batch_bytes: int
    in_flight: int
    # Port of loopback where Prometheus may ask; None for nowhere.
    metrics_port: int | None


def with_settings(conninfo: str, settings: str) -> str:
    """A connection string with settings for its sessions beside those that it has, the schema for instance."""
    own = conninfo_to_dict(conninfo).get("options", "")
    return make_conninfo(conninfo, options=f"{own} {settings}".strip()) if settings else conninfo


def databases(path: Path) -> Databases | None:
    """What the file says of several databases, None where it names one. Raises ConfigError."""
    return _databases(_read(path))


def raw_months(path: Path) -> int:
    """How many whole months of readings are kept beside this one; 0 is for ever. Raises ConfigError."""
    return _raw_months(_read(path))


def of_worker(config: Config, number: int) -> Config:
    """The same for a further worker of a host, 2 and on: the broker tells workers apart by what their certificates are
    called, and each has a port of its own for its metrics. Raises ConfigError."""
    if number == 1:
        return config
    port = config.metrics_port
    if port is not None and port + number - 1 > 65535:
        raise ConfigError(f"metrics: port: found {port}, expected room for {number} workers from there")
    return replace(
        config,
        brokers=tuple(
            replace(
                one,
                client_id=f"{one.client_id}-{number}",
                certificate=one.certificate.with_stem(f"{one.certificate.stem}-{number}"),
                key=one.key.with_stem(f"{one.key.stem}-{number}"),
            )
            for one in config.brokers
        ),
        metrics_port=None if port is None else port + number - 1,
    )


def _raw_months(top: _Section) -> int:
    section = top.section("retention")
    months = section.integer("raw_months", 0, 0, 1200)
    section.refuse_unknown()
    return months


def _read(path: Path) -> _Section:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    return _Section(path, "", document)


def _databases(top: _Section) -> Databases | None:
    section = top.section("databases")
    directory = top.text("directory", "-")
    if not section.content:
        if directory != "-":
            raise ConfigError(f"{top.where}: directory without databases: expected both, or database alone")
        return None
    if "database" in top.content:
        raise ConfigError(f"{top.where}: found database and databases, expected one of the two")
    found: dict[str, str] = {}
    for name in section.content:
        if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", name):
            raise ConfigError(f"{section.where}: name {name!r}: expected small letters, digits and -")
        found[name] = section.text(name, None)
        try:
            parts = conninfo_to_dict(found[name])
        except psycopg.ProgrammingError as error:
            raise ConfigError(f"{section.where}: {name}: {' '.join(str(error).split())}") from None
        if "user" in parts:
            raise ConfigError(
                f"{section.where}: {name}: found a user, expected none: each command has its role"
            )
    if directory not in found:
        raise ConfigError(
            f"{top.where}: directory: found {directory!r}, expected one of databases: {', '.join(sorted(found))}"
        )
    return Databases(found, directory)


def load(path: Path) -> Config:
    """Raises ConfigError, with one line for the first fault."""
    top = _read(path)
    brokers = _brokers(top)
    group = top.section("group")
    quota = top.section("quota")
    metrics = top.section("metrics")
    log = top.text("log", "/var/log/energy-audit/ingest.log")
    crl = top.text("crl", "/etc/ssl/energy/crl.pem")
    config = Config(
        brokers=brokers,
        database=top.text("database", "dbname=energy user=energy_ingest"),
        databases=_databases(top),
        authorities=top.path("authorities", str(brokers[0].ca)),
        crl=Path(crl) if crl != "none" else None,
        log=Path(log) if log != "none" else None,
        group=Group(
            batches=group.integer("batches", 200, 1, 10_000),
            readings=group.integer("readings", 50_000, 1, 1_000_000),
            wait=group.number("wait", 0.05, 0, 10),
        ),
        quota=Quota(
            batches=quota.number("batches", 20, 0, 1_000_000),
            bytes=quota.number("bytes", 1_048_576, 0, 1_000_000_000),
            readings=quota.number("readings", 10_000, 0, 1_000_000_000),
            burst=quota.number("burst", 10, 1, 3600),
        ),
        batch_bytes=top.integer("batch_bytes", 1_048_576, 1024, 16_777_216),
        in_flight=top.integer("in_flight", 200, 1, 65_535),
        metrics_port=metrics.integer("port", None, 1, 65_535) if metrics.content else None,
    )
    _raw_months(top)
    if config.databases is not None and config.in_flight < LEAST_OF_A_LANE * len(config.databases.conninfos):
        raise ConfigError(
            f"{path}: in_flight: found {config.in_flight}, expected {LEAST_OF_A_LANE} or more for each of databases"
        )
    for section in (top, group, quota, metrics):
        section.refuse_unknown()
    return config


def _brokers(top: _Section) -> tuple[Broker, ...]:
    """One in `broker`, or several in the list `brokers`."""
    if "broker" in top.content and "brokers" in top.content:
        raise ConfigError(f"{top.where}: found broker and brokers, expected one of the two")
    sections = top.sections("brokers") or [top.section("broker")]
    brokers = tuple(_broker(section) for section in sections)
    places = [one.where for one in brokers]
    for place in places:
        if places.count(place) > 1:
            raise ConfigError(f"{top.where}: brokers: {place} is there twice, expected every broker once")
    return brokers


def _broker(section: _Section) -> Broker:
    host = section.text("host", None)
    broker = Broker(
        host=host,
        port=section.integer("port", 8883, 1, 65535),
        ca=section.path("ca", "/etc/ssl/energy/ca.crt"),
        certificate=section.path("certificate", "/etc/ssl/energy/ingest.crt"),
        key=section.path("key", "/etc/ssl/energy/ingest.key"),
        client_id=section.text("client_id", "ingest"),
        session_expiry=section.integer("session_expiry", 60, 0, 86400),
        server_name=section.text("server_name", host),
    )
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", broker.client_id):
        raise ConfigError(f"{section.where}: client_id {broker.client_id!r}: expected letters, digits, . _ -")
    section.refuse_unknown()
    return broker


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

    def sections(self, key: str) -> list[_Section]:
        """The sections of a list; none when it is not there."""
        self.asked.add(key)
        if key not in self.content:
            return []
        value = self.content[key]
        if not isinstance(value, list) or not value:
            raise self._wrong(key, value, "a list of at least one")
        return [_Section(self.path_of_file, f"{key}[{number}]", one) for number, one in enumerate(value)]

    def text(self, key: str, default: str | None) -> str:
        value = self._value(key, default)
        if not isinstance(value, str) or not value:
            raise self._wrong(key, value, "a text")
        return value

    def path(self, key: str, default: str) -> Path:
        return Path(self.text(key, default))

    def integer(self, key: str, default: int | None, low: int, high: int) -> int:
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
