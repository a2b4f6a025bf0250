# SPDX-License-Identifier: Apache-2.0
"""Metrics for Prometheus, on loopback only, where the configuration asks for them. docs/reference/hub-metrics.md"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from energy_hub import __version__, migrate
from energy_hub.behind import MOST
from energy_hub.config import Config
from energy_hub.figures import Figures, Histogram
from energy_hub.revocation import Revocations
from energy_hub.trust import load_certificates, validity

if TYPE_CHECKING:
    from energy_hub.ingest import Worker

ADDRESS = "127.0.0.1"
PREFIX = "energy_ingest"


class Metrics:
    """Serves http://127.0.0.1:PORT/metrics from threads of its own. Raises OSError for a port in use, and for a
    certificate that is gone."""

    def __init__(self, port: int, config: Config, worker: Worker, revocations: Revocations) -> None:
        registry = CollectorRegistry()
        registry.register(_Collector(config, worker, revocations))
        ProcessCollector(registry=registry)
        self._server: WSGIServer
        self._thread: threading.Thread
        self._server, self._thread = start_http_server(port, ADDRESS, registry)

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Collector(Collector):
    def __init__(self, config: Config, worker: Worker, revocations: Revocations) -> None:
        self._client_id = config.brokers[0].client_id
        self._in_flight = config.in_flight
        self._expires = min(
            validity(load_certificates(one.certificate.read_bytes())[0])[1].timestamp()
            for one in config.brokers
        )
        self._schema = max(one.number for one in migrate.shipped())
        self._worker = worker
        self._revocations = revocations

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: which labels there are depends on the configuration."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """All that the worker has counted. Nothing is asked for it: neither database nor broker has to be there."""
        yield InfoMetricFamily(
            PREFIX, "The running worker", value={"version": __version__, "client_id": self._client_id}
        )
        yield from _databases(self._worker.figures())
        yield from self._states()
        yield from self._brokers()
        yield from self._ends()

    def _states(self) -> Iterable[Metric]:
        there = _gauge(
            "database_connected", "1 while the database takes what comes for its sites", "database"
        )
        queued = _gauge("queue_messages", "Messages that wait in the worker for their database", "database")
        for name, (is_there, waiting) in self._worker.states().items():
            there.add_metric([name], float(is_there))
            queued.add_metric([name], float(waiting))
        yield there
        yield queued
        yield GaugeMetricFamily(
            f"{PREFIX}_inbox_messages",
            "Messages that have come and that nobody has looked at",
            value=float(self._worker.inbox_length),
        )
        quota = CounterMetricFamily(
            f"{PREFIX}_over_quota_messages",
            "Beyond the quota of their site: batches that waited or were let go, and statuses",
            labels=["what"],
        )
        for what, count in self._worker.beyond_quota().items():
            quota.add_metric([what], float(count))
        yield quota
        yield GaugeMetricFamily(
            f"{PREFIX}_schema_migration_expected", "Number of this release's last migration", self._schema
        )

    def _brokers(self) -> Iterable[Metric]:
        there = _gauge("broker_connected", "1 while the worker is subscribed at the broker", "broker")
        backlog = _gauge(
            "broker_unacknowledged_messages",
            "Messages that the broker has handed over and that are not receipted (PUBACK)",
            "broker",
        )
        received = CounterMetricFamily(
            f"{PREFIX}_broker_messages", "Messages that have come by the broker", labels=["broker"]
        )
        dropped = CounterMetricFamily(
            f"{PREFIX}_broker_dropped_messages",
            "Of those, what nobody looks at: batches with QoS 0, and what the MQTT library cannot read",
            labels=["broker"],
        )
        for link in self._worker.broker_links:
            there.add_metric([link.where], float(link.subscribed.is_set()))
            backlog.add_metric([link.where], float(link.unacknowledged))
            received.add_metric([link.where], float(link.received))
            dropped.add_metric([link.where], float(link.dropped))
        yield there
        yield backlog
        yield received
        yield dropped
        yield GaugeMetricFamily(
            f"{PREFIX}_broker_unacknowledged_messages_most",
            "in_flight of the configuration: a broker hands over no more",
            value=float(self._in_flight),
        )

    def _ends(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            f"{PREFIX}_certificate_expires_timestamp_seconds",
            "End of the worker's own certificate",
            value=self._expires,
        )
        lists = _gauge(
            "revocation_list_expires_timestamp_seconds",
            "End of an issuer's revocation list: after it the broker refuses everybody",
            "issuer",
        )
        for issuer, ends in dict(self._revocations.ends).items():
            lists.add_metric([issuer], ends.timestamp())
        yield lists


def _databases(figures: Mapping[str, Figures]) -> Iterable[Metric]:
    batches = CounterMetricFamily(
        f"{PREFIX}_batches", "Batches by what became of them", labels=["database", "outcome"]
    )
    evidence = CounterMetricFamily(
        f"{PREFIX}_evidence", "What an auditor has to see, by kind", labels=["database", "kind"]
    )
    readings = CounterMetricFamily(f"{PREFIX}_readings", "Readings committed", labels=["database"])
    commits = HistogramMetricFamily(
        f"{PREFIX}_commit_seconds", "Time of one commit, which takes a group of batches", labels=["database"]
    )
    delays = HistogramMetricFamily(
        f"{PREFIX}_delivery_delay_seconds",
        "From the newest reading of a batch to its commit",
        labels=["database"],
    )
    last = _gauge(
        "last_commit_timestamp_seconds", "Time of the last commit, at first of the start", "database"
    )
    migration = _gauge("schema_migration", "Number of the newest migration in the database", "database")
    notes = _gauge(
        "rollup_waiting_notes", f"Spans that the rollups do not count yet, up to {MOST} of them", "database"
    )
    since = _gauge(
        "rollup_waiting_since_timestamp_seconds",
        "Time at which the oldest batch was committed that the rollups do not count yet; with none, of the last look",
        "database",
    )
    checkpoint = _gauge(
        "last_checkpoint_timestamp_seconds",
        "Time of the newest checkpoint, of the start before the first; of the database that has them",
        "database",
    )
    for name, one in figures.items():
        for outcome, count in one.batches.items():
            batches.add_metric([name, outcome], float(count))
        for kind, count in one.evidence.items():
            evidence.add_metric([name, kind], float(count))
        readings.add_metric([name], float(one.readings))
        _add(commits, name, one.commits)
        _add(delays, name, one.delays)
        last.add_metric([name], one.last_commit)
        migration.add_metric([name], float(one.migration))
        notes.add_metric([name], float(one.notes))
        since.add_metric([name], one.waiting_since)
        if one.last_checkpoint is not None:
            checkpoint.add_metric([name], one.last_checkpoint)
    return batches, evidence, readings, commits, delays, last, migration, notes, since, checkpoint


def _add(family: HistogramMetricFamily, name: str, one: Histogram) -> None:
    bounds = [*map(str, one.bounds), "+Inf"]
    counts = itertools.accumulate(list(one.counts))
    family.add_metric([name], list(zip(bounds, map(float, counts), strict=True)), one.sum)


def _gauge(name: str, text: str, label: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=[label])
