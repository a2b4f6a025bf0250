# SPDX-License-Identifier: Apache-2.0
"""A real PostgreSQL cluster and a real mosquitto with mutual TLS, both private to the test run."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from energy_hub import migrate
from energy_hub.shards import adopt
from energy_hub.store import Store
from energy_hub.trust import TrustedKey

from tests.ports import free_port

from . import citus
from .authority import Authority
from .delivery import Fleet
from .writer import Gateway


def wait_until(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def _program(name: str) -> str:
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / name).exists():
            return str(folder / name)
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    assert found, f"{name} is missing: apt-get install postgresql mosquitto"
    return found


class Cluster:
    """PostgreSQL refuses to run as root, so there the user postgres of its Debian package runs it."""

    def __init__(self, folder: Path, port: int = 0, **settings: str) -> None:
        """With a port it listens on loopback too."""
        self.folder = folder
        self.port = port
        self.nodes: list[Cluster] = []
        self.settings = {
            "listen_addresses": "127.0.0.1" if port else "",
            "port": str(port or 5432),
            "unix_socket_directories": str(folder),
            "max_connections": "30",
        } | settings
        self.data = folder / "data"
        self.user = "postgres" if os.geteuid() == 0 else None
        if self.user:
            owner = pwd.getpwnam(self.user)
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        self._run(
            _program("initdb"),
            "-A",
            "trust",
            "-U",
            "owner",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "-D",
            self.data,
        )

    def start(self) -> None:
        options = " ".join(f"-c {name}={value}" for name, value in self.settings.items())
        log = self.folder / "log"
        self._run(_program("pg_ctl"), "-D", self.data, "-w", "-l", log, "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        self._run(_program("pg_ctl"), "-D", self.data, "-w", "-m", mode, "stop")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It takes connections and answers nothing."""
        server = int((self.data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        every = [server, *map(int, children)]
        try:
            for one in every:
                os.kill(one, signal.SIGSTOP)
            yield
        finally:
            for one in every:
                os.kill(one, signal.SIGCONT)

    def conninfo(self, database: str, user: str) -> str:
        return f"host={self.folder} port={self.settings['port']} dbname={database} user={user}"

    def create(self, database: str) -> None:
        for one in (self, *self.nodes):
            one.do(f"CREATE DATABASE {database} OWNER energy_migrate")
        if self.nodes:
            citus.join(self, database)

    def drop(self, database: str) -> None:
        for one in (self, *self.nodes):
            one.do(f"DROP DATABASE {database} WITH (FORCE)")

    def do(self, statement: str, database: str = "postgres") -> None:
        with psycopg.connect(self.conninfo(database, "owner"), autocommit=True) as connection:
            connection.execute(statement)

    def _run(self, *command: str | Path) -> None:
        subprocess.run(
            [str(part) for part in command],
            check=True,
            user=self.user,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            extra_groups=[] if self.user else None,
        )


@contextmanager
def running_cluster(port: int = 0, **settings: str) -> Iterator[Cluster]:
    # Not below pytest's folder: only root may enter that, and a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="energy-pg-"))
    one = Cluster(folder, port, **settings)
    one.start()
    try:
        with psycopg.connect(one.conninfo("postgres", "owner"), autocommit=True) as connection:
            for role in ("energy_migrate", "energy_ingest", "energy_rollup", "energy_read"):
                connection.execute(f"CREATE ROLE {role} LOGIN")
        yield one
    finally:
        one.stop("immediate")
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as one:
        yield one


@dataclass(frozen=True)
class Database:
    """Or a schema of one, which is the same to the hub."""

    cluster: Cluster
    name: str
    schema: str = ""

    def conninfo(self, user: str) -> str:
        text = self.cluster.conninfo(self.name, user)
        return f"{text} options=-csearch_path={self.schema}" if self.schema else text

    def connect(self, user: str = "owner") -> psycopg.Connection:
        return psycopg.connect(self.conninfo(user), autocommit=True)

    def one(self, query: str, *values: object) -> object:
        with self.connect() as connection:
            row = connection.execute(query, values).fetchone()
            assert row is not None
            return row[0]

    def rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        with self.connect() as connection:
            return connection.execute(query, values).fetchall()


_count = 0


@pytest.fixture
def empty_database(cluster: Cluster) -> Iterator[Database]:
    global _count
    _count += 1
    name = f"energy_{_count}"
    cluster.create(name)
    yield Database(cluster, name)
    cluster.drop(name)


@pytest.fixture
def database(empty_database: Database) -> Database:
    with empty_database.connect("energy_migrate") as connection:
        list(migrate.apply(connection))
    return empty_database


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    one = Store(database.conninfo("energy_ingest"))
    yield one
    one.close()


@dataclass(frozen=True)
class Shards:
    """Two clusters with a database each, or two schemas of one database; north has the directory."""

    clusters: dict[str, Cluster]
    databases: dict[str, Database]

    def config(self) -> dict[str, Any]:
        """What is said of them in ingest.yaml."""
        return {
            "database": None,
            "databases": {
                name: one.conninfo("-").replace(" user=-", "") for name, one in self.databases.items()
            },
            "directory": "north",
        }

    def homes(self) -> dict[str, str]:
        rows = self.databases["north"].rows("SELECT site, shard FROM directory")
        return {str(site): str(shard) for site, shard in rows}


@pytest.fixture(scope="session")
def second_cluster() -> Iterator[Cluster]:
    with running_cluster() as one:
        yield one


# Of a test that is to hold as well where the databases of the directory are schemas of one. They are spread over nodes
# of Citus where it is asked for (citus.py).
IN_SCHEMAS_TOO = pytest.mark.parametrize("shards", ["clusters", "schemas"], indirect=True)
IN_SCHEMAS = pytest.mark.parametrize("shards", ["schemas"], indirect=True)


@pytest.fixture(scope="session")
def cluster_of_schemas(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    if not citus.WANTED:
        yield request.getfixturevalue("cluster")
        return
    with ExitStack() as stack:
        found = [stack.enter_context(running_cluster(free_port(), **citus.SETTINGS)) for _ in range(3)]
        found[0].nodes = found[1:]
        yield found[0]


@pytest.fixture
def shards(request: pytest.FixtureRequest) -> Iterator[Shards]:
    """The names of both sort as they are made, so that new sites go to north first."""
    global _count
    _count += 1
    if getattr(request, "param", "clusters") == "schemas":
        one = request.getfixturevalue("cluster_of_schemas")
        found = {name: Database(one, f"energy_{_count}", name) for name in ("north", "south")}
    else:
        found = {
            name: Database(request.getfixturevalue(fixture), f"{name}_{_count}")
            for name, fixture in (("north", "cluster"), ("south", "second_cluster"))
        }
    clusters = {name: database.cluster for name, database in found.items()}
    for cluster, name in {(database.cluster, database.name) for database in found.values()}:
        cluster.create(name)
    with found["north"].connect("energy_migrate") as north, found["south"].connect("energy_migrate") as south:
        for name, connection in (("north", north), ("south", south)):
            list(migrate.apply(connection))
            if found[name].cluster.nodes:
                citus.spread(found[name].conninfo("energy_migrate"))
            adopt(name, connection, north)
    if found["north"].cluster.nodes:
        citus.check(found["north"])
    yield Shards(clusters, found)
    for cluster, name in {(database.cluster, database.name) for database in found.values()}:
        cluster.drop(name)


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@dataclass(frozen=True)
class RunningBroker:
    port: int
    folder: Path


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def running_broker(authority: Authority, folder: Path) -> Iterator[RunningBroker]:
    folder.mkdir()
    server = authority.client("localhost", server=True)
    client = authority.client("ingest")
    files = {
        "ca.crt": authority.root.pem() + authority.intermediate.pem(),
        "server.crt": authority.chain(server),
        "server.key": server.key_pem(),
        "ingest.crt": authority.chain(client),
        "ingest.key": client.key_pem(),
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    port = free_port()
    (folder / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\n"
        f"cafile {folder}/ca.crt\ncertfile {folder}/server.crt\nkeyfile {folder}/server.key\n"
        "require_certificate true\nuse_identity_as_username true\ntls_version tlsv1.3\n"
        "allow_anonymous true\nuser root\nlog_type error\nlog_type warning\n"
        "max_queued_messages 0\nmax_inflight_messages 0\n"
    )
    with running([_program("mosquitto"), "-c", str(folder / "mosquitto.conf")]) as process:

        def listening() -> bool:
            assert process.poll() is None, "mosquitto did not start"
            with socket.socket() as one:
                return one.connect_ex(("127.0.0.1", port)) == 0

        wait_until(listening, "mosquitto listens")
        yield RunningBroker(port, folder)


@pytest.fixture
def broker(authority: Authority, tmp_path: Path) -> Iterator[RunningBroker]:
    # One for each test: the session of a worker that was stopped would go on taking its share of the batches.
    with running_broker(authority, tmp_path / "broker") as one:
        yield one


@pytest.fixture
def other_broker(authority: Authority, tmp_path: Path) -> Iterator[RunningBroker]:
    with running_broker(authority, tmp_path / "other-broker") as one:
        yield one


@pytest.fixture
def fleet(database: Database) -> Iterator[Fleet]:
    store = Store(database.conninfo("energy_ingest"))
    authority = Authority()
    gateways = {name: Gateway(name, Ed25519PrivateKey.generate()) for name in ("plant-a", "plant-b")}
    for name, one in gateways.items():
        certificate = authority.client(name).pem()
        store.trust(name, TrustedKey(one.public, b"s", certificate, b"f", datetime(2030, 1, 1, tzinfo=UTC)))
    yield Fleet(database, store, gateways)
    store.close()
