# SPDX-License-Identifier: Apache-2.0
"""The databases that a command asks: one, or several with a directory. Questions of one site go to the one where it
lives, those of all sites to each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import psycopg

from energy_hub.config import Databases, databases, with_settings
from energy_hub.evidence.step import Shard
from energy_hub.shards import check_name

CONFIG = Path("/etc/energy-hub/ingest.yaml")
Answer = TypeVar("Answer")


def trouble(error: psycopg.Error, name: str = "") -> str:
    """What is said of a database, one of several by its name, that is not there or that has refused something: one
    line, with the word for the first that a person searches the logs for."""
    lost = isinstance(error, psycopg.OperationalError) and error.sqlstate is None
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{'CONNECTION_REFUSED ' if lost else ''}database{' ' if name else ''}{name}: {text}"


class Opened:
    """Connections, each made when it is needed: one database that is away keeps nobody from another. `fleet` is the one
    to what is kept once: the directory and the checkpoints."""

    def __init__(
        self, connect: Callable[[str], psycopg.Connection], names: Sequence[str], fleet: str
    ) -> None:
        self._connect = connect
        self._names = names
        self._fleet = fleet
        self._found: dict[str, psycopg.Connection] = {}
        self._homes: dict[str, str] | None = None

    @property
    def fleet(self) -> psycopg.Connection:
        return self.connection(self._fleet)

    def connection(self, name: str) -> psycopg.Connection:
        """Raises psycopg.Error."""
        if name not in self._found:
            self._found[name] = self._connect(name)
        return self._found[name]

    @property
    def homes(self) -> Mapping[str, str] | None:
        """The directory, None where there is one database."""
        if self._homes is None and self._names:
            self._homes = dict(self.fleet.execute("SELECT site, shard FROM directory").fetchall())
        return self._homes

    def names(self, sites: Collection[str] | None = None) -> Sequence[str]:
        """All databases, or those where some sites live."""
        homes = self.homes
        if homes is None:
            return [self._fleet]
        if sites is None:
            return self._names
        return [name for name in self._names if any(homes.get(site) == name for site in sites)]

    def shard(self, name: str) -> Shard:
        """With the sites that live there: one that has moved away may have left a copy. Raises psycopg.Error."""
        homes = self.homes
        living = None if homes is None else frozenset(site for site, home in homes.items() if home == name)
        return Shard(self.connection(name), living)

    def shards(self, sites: Collection[str] | None = None) -> list[Shard]:
        return [self.shard(name) for name in self.names(sites)]

    def of(self, site: str) -> psycopg.Connection:
        """Where a site lives; for one that nobody knows, where somebody would say so."""
        home = self.homes.get(site) if self.homes else None
        return self.fleet if home is None else self.connection(home)

    def merged(
        self, ask: Callable[[psycopg.Connection], Mapping[str, Answer]], site: str | None = None
    ) -> dict[str, Answer]:
        """Answers by site, of one or of all."""
        if site is not None:
            return dict(ask(self.of(site)))
        found: dict[str, Answer] = {}
        for shard in self.shards():
            answers = ask(shard.connection)
            found |= {
                name: one for name, one in answers.items() if shard.sites is None or name in shard.sites
            }
        return dict(sorted(found.items()))


def configured(conninfo: str | None, config: Path | None) -> Databases | None:
    """What a command is to ask: None for one database. One that is named is asked alone. Raises ConfigError."""
    if conninfo is not None:
        return None
    if config is None and not CONFIG.exists():
        return None
    return databases(config or CONFIG)


@contextmanager
def opened(
    conninfo: str | None, config: Path | None, role: str, name: str, settings: str = ""
) -> Iterator[Opened]:
    """Connect as `role`. Raises ConfigError, psycopg.Error."""
    several = configured(conninfo, config)
    with ExitStack() as stack:

        def connect(shard: str) -> psycopg.Connection:
            text = several.conninfo(shard, role) if several else conninfo or f"dbname=energy user={role}"
            try:
                connection = psycopg.connect(
                    with_settings(text, settings), autocommit=True, application_name=name, connect_timeout=10
                )
            except psycopg.OperationalError as error:
                raise psycopg.OperationalError(f"{shard}: {error}" if several else str(error)) from None
            stack.enter_context(connection)
            if several:
                check_name(connection, shard)
            return connection

        if several is None:
            yield Opened(connect, (), "")
        else:
            yield Opened(connect, sorted(several.conninfos), several.directory)
