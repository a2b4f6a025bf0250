# SPDX-License-Identifier: Apache-2.0
"""Strangers and a gateway that has turned bad do to the hub what they can, while the other sites' readings flow.

Each is refused and told of in a log, what has to be kept is kept, and the other sites' readings all arrive. How old
they were is measured beside each of them and without.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from energy_hub.times import LENGTH, MAX_MONTHS, MAX_SPANS

from tests.fault.report import FaultReport
from tests.fault.rig import crowd
from tests.fault.rig.broker import HubBroker
from tests.fault.rig.database import HEALTH
from tests.fault.rig.process import Process, wait_for
from tests.fault.rig.rig import PATIENCE, pause, say
from tests.fault.rig.sites import DOMAIN, METER, SitesRig
from tests.fault.rig.stranger import Stranger, now_ms
from tests.unit.hub.authority import Authority, Identity
from tests.unit.hub.writer import Gateway, Reading, seal

SITES = ["plant-1", "plant-2", "plant-3"]
BROKERS = ("broker-1", "broker-2")
# A site of the fleet whose gateway somebody has taken over, with its keys.
BAD = "plant-9"
VICTIM = SITES[0]
NOT_AUTHORIZED = "Not authorized"
HUGE = 100 * 1024 * 1024
# Connections, and addresses that they come from: as many as HAProxy may have, and more.
CROWD, SOURCES = 10_000, 50
QUICK_CROWD = 300
# s that a crowd stays, and that the fleet is looked at without any harm.
STAY, CALM = 20.0, 20.0
QUICK_STAY, QUICK_CALM = 2.0, 2.0
# s that a reading of another site may be old at most, as hub_away has it; 95 of 100 of the batches are held to it.
LIVE = 7.0
# Batches and statuses that are sent as fast as the broker takes them.
FLOOD = 4000
QUICK_FLOOD = 300

# Of the batches whose newest reading is of a span of time: how old that was when they were committed.
AGES = """
WITH delivered AS (
    SELECT extract(epoch FROM b.received - max(r.time))::float8 AS age, max(r.time) AS newest
    FROM batch b JOIN site s ON s.id = b.site JOIN reading r ON r.batch = b.id JOIN point p ON p.id = r.point
    WHERE s.name = ANY(%s) AND p.name !~ %s GROUP BY b.id
)
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY age), percentile_cont(0.95) WITHIN GROUP (ORDER BY age), max(age)
FROM delivered WHERE newest BETWEEN to_timestamp(%s) AND to_timestamp(%s)
"""
READINGS = """
SELECT count(*) FROM reading r JOIN point p ON p.id = r.point JOIN site s ON s.id = p.site WHERE s.name = %s
"""


@dataclass
class Field:
    """The hub, and who does harm to it."""

    rig: SitesRig
    report: FaultReport
    quick: bool
    bad: Stranger
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def brokers(self) -> list[HubBroker]:
        return [self.rig.hub_broker(name) for name in self.rig.brokers]

    def stranger(self, name: str, identity: Identity, authority: Authority | None = None) -> Stranger:
        """Whoever has this certificate, and asks the balancer for this site."""
        return _stranger(self.rig, name, identity, authority)

    def expect(self, what: bool, text: str) -> None:
        """Counts as evidence, and not as late: that is what a busy machine may be."""
        if not what:
            self.report.evidence += 1
            self.report.findings.append(text)

    def expect_line(self, where: str, pattern: str) -> None:
        """A line for people, within some seconds: `where` is broker, balancer or ingest."""
        texts: dict[str, Callable[[], Iterable[str]]] = {
            "broker": lambda: [one.told for one in self.brokers],
            "balancer": lambda: self.rig.balancer.lines,
            "ingest": lambda: [one.log for one in self.rig.ingests],
        }
        try:
            wait_for(
                lambda: any(re.search(pattern, text) for text in texts[where]()),
                f"{where} tells {pattern}",
                15,
            )
        except AssertionError:
            self.expect(False, f"the log of the {where} has no line {pattern!r}")

    def counted(self, outcome: str) -> float:
        """Batches with this end, of all workers."""
        return sum(one.metric("energy_ingest_batches_total", outcome=outcome) for one in self.rig.ingests)

    def kept(self, query: str) -> int:
        with self.rig.database.connect() as connection:
            row = connection.execute(query, (BAD,)).fetchone()
        return int(row[0]) if row else 0


# --- certificates


def a_foreign_certificate(field: Field) -> None:
    """The right name, from an authority of one's own."""
    foreign = Authority()
    why = field.stranger(VICTIM, foreign.client(VICTIM), foreign).handshake()
    field.expect(bool(why), "a foreign certificate is taken")
    field.expect_line("broker", r"refused a handshake from \S+.*its certificate is foreign")
    field.expect_line("balancer", rf"site={VICTIM}\.{re.escape(DOMAIN)} ")


def no_certificate(field: Field) -> None:
    with_none = field.stranger(VICTIM, field.rig.authority.client(VICTIM))
    fresh = type(with_none.context)(with_none.context.protocol)
    fresh.name = with_none.host
    fresh.load_verify_locations(field.brokers[0].folder / "ca.crt")
    with_none.context = fresh
    field.expect(bool(with_none.handshake()), "a client without a certificate is taken")
    field.expect_line("broker", r"refused a handshake from \S+.*it has no certificate")


def a_revoked_certificate(field: Field) -> None:
    thief = field.rig.authority.client("plant-8")
    stranger = field.stranger("plant-8", thief)
    field.expect(not stranger.handshake(), "a certificate that is not revoked is refused")
    for broker in field.brokers:
        broker.revoke([thief])
        broker.reload()
    pause(1, 1)
    field.expect(bool(stranger.handshake()), "a revoked certificate is taken")
    field.expect_line("broker", r"refused a handshake from \S+.*revoked")


def another_sites_topic(field: Field) -> None:
    """A certificate of its own, and another's topics."""
    bad = field.bad
    forged = forged_batch(VICTIM, bad.gateway.key)
    for kind, payload in (("batch", forged), ("status", bad.status(VICTIM)), ("ack", b"{}")):
        answer = bad.publish(f"energy/v1/{VICTIM}/{kind}", payload)
        field.expect(answer == NOT_AUTHORIZED, f"{BAD} may publish to {VICTIM}/{kind}: {answer}")
        field.expect_line("broker", rf"refused a topic: {BAD} may not publish to 'energy/v1/{VICTIM}/{kind}'")


def another_sites_key(field: Field) -> None:
    """On its own topic, a key statement for another's name, and what that other site has sent."""
    bad = field.bad
    bad.publish(f"energy/v1/{BAD}/status", bad.status(VICTIM, Ed25519PrivateKey.generate()))
    field.expect_line("ingest", rf"ERR untrusted: site {BAD}: key statement")
    bad.publish(f"energy/v1/{BAD}/batch", recorded(field, VICTIM))
    field.expect_line(
        "ingest", rf"ERR untrusted: site {BAD}: stream \w+ sequence \d+: signed by no known key"
    )


# --- batches


def forged_batch(site: str, key: Ed25519PrivateKey) -> bytes:
    """Readings that no meter has given."""
    return Gateway(site, key, stream=os.urandom(8)).batch(
        {f"{METER}/voltage_l1": [(now_ms(), 12_345_679.0, 0)]}
    )


def recorded(field: Field, site: str) -> bytes:
    """An old batch of a site, as somebody on the way could have recorded it."""
    with field.rig.database.connect() as connection:
        row = connection.execute(
            "SELECT content FROM batch b JOIN site s ON s.id = b.site WHERE s.name = %s ORDER BY b.id LIMIT 1",
            (site,),
        ).fetchone()
    assert row is not None, f"{site} has sent nothing"
    return bytes(row[0])


def send(field: Field, payload: bytes) -> None:
    field.bad.publish(f"energy/v1/{BAD}/batch", payload)


def own_batch(field: Field) -> bytes:
    readings: list[Reading] = [(now_ms() - 1000, 1.0, 0), (now_ms(), 2.0, 0)]
    return field.bad.gateway.batch({"main/active_power": readings})


def wait_for_own(field: Field) -> None:
    """Until all that the bad one has sealed is acknowledged, which is when nothing of it waits."""
    wanted = set(range(1, field.bad.gateway.sequence + 1))
    wait_for(lambda: wanted <= field.bad.committed, f"batches of {BAD} are acknowledged", PATIENCE)


def a_replayed_batch(field: Field) -> None:
    """Its own, which is acknowledged once more and stored once."""
    first = own_batch(field)
    send(field, first)
    wait_for_own(field)
    before = field.kept(READINGS)
    field.bad.committed = set()
    for _ in range(20):
        send(field, first)
    wait_for_own(field)
    after = field.kept(READINGS)
    field.expect(before == after, f"a replay was stored: {before} readings, then {after}")


def a_forged_chain(field: Field) -> None:
    """The right key and the wrong batch before; the right one before and a wrong signature; one number twice."""
    bad = field.bad
    # The right link, by a key that nobody vouches for.
    content = Gateway(BAD, bad.gateway.key).batch({"main/active_power": [(now_ms(), 3.0, 0)]})
    before = bad.gateway.previous
    number = bad.gateway.sequence + 1
    foreign = seal(Ed25519PrivateKey.generate(), content, bad.gateway.stream, number, before)
    untrusted = field.counted("untrusted")
    send(field, foreign)
    # Its line may have been said for this site lately.
    wait_for(lambda: field.counted("untrusted") > untrusted, "a wrong signature is counted", 15)
    bad.gateway.previous = os.urandom(32)
    send(field, own_batch(field))
    wait_for_own(field)
    field.expect_line("ingest", rf"ERR chain broken: site {BAD} stream \w+ sequence {number}")
    fork = Gateway(BAD, bad.gateway.key, bad.gateway.stream, number - 1, before)
    send(field, fork.batch({"main/active_power": [(now_ms(), 4.0, 0)]}))
    field.expect_line("ingest", rf"ERR fork: site {BAD} stream \w+ sequence {number}")
    for kind in ("chain-broken", "fork"):
        found = field.kept(
            "SELECT count(*) FROM evidence e JOIN site s ON s.id = e.site"
            f" WHERE s.name = %s AND e.kind = '{kind}'"
        )
        field.expect(found == 1, f"{found} pieces of evidence {kind}, expected 1")


def poison(field: Field) -> None:
    """What cannot be read, signed and not, between batches that can."""
    bad = field.bad
    send(field, b"rubbish")
    send(field, os.urandom(1000))
    send(field, bad.gateway.seal(bytes(32 * 1024 * 1024)))  # inflates to more than is read
    send(field, bad.gateway.seal(b"\x07plant"))
    other = Gateway(VICTIM, bad.gateway.key, bad.gateway.stream, bad.gateway.sequence, bad.gateway.previous)
    send(field, other.batch({"main/active_power": [(now_ms(), 5.0, 0)]}))
    bad.gateway.sequence, bad.gateway.previous = other.sequence, other.previous
    send(field, own_batch(field))
    wait_for_own(field)
    field.expect_line("ingest", rf"ERR quarantine: site {BAD}: batch: ")
    field.expect_line("ingest", rf"ERR quarantine: site {BAD} sequence \d+: ")
    foreign = field.kept(
        f"SELECT count(*) FROM quarantine WHERE topic_site = %s AND reason LIKE 'is of site ''{VICTIM}''%%'"
    )
    field.expect(foreign == 1, "a batch of another site is not in quarantine")
    signed = field.kept(
        "SELECT count(*) FROM quarantine WHERE topic_site = %s AND signed AND reason NOT LIKE 'fork%%'"
    )
    unsigned = field.kept("SELECT count(*) FROM quarantine WHERE topic_site = %s AND NOT signed")
    field.expect(signed >= 3, f"{signed} signed payloads in quarantine, expected 3")
    field.expect(unsigned >= 2, f"{unsigned} unsigned payloads in quarantine, expected 2")


def a_batch_of_100_mb(field: Field) -> None:
    bad = field.bad
    bad.close()  # one certificate is one session
    before = max(_resident(broker) for broker in field.brokers)
    took = bad.send_huge(HUGE)
    after = max(_resident(broker) for broker in field.brokers)
    bad.connect()
    field.report.figures["bytes_of_100_mb_taken"] = took
    field.report.figures["broker_grew_mb"] = round(max(0, after - before) / 1e6, 1)
    field.expect(took < HUGE, "100 MB were taken")
    field.expect(after - before < HUGE / 2, f"the broker grew by {(after - before) / 1e6:.0f} MB")
    wait_for(
        lambda: any(
            re.search(rf"{BAD}.*(oversize|too large|Packet too large|protocol error)", one.log, re.IGNORECASE)
            for one in field.brokers
        ),
        "the broker tells of a packet that is too large",
    )


def _resident(broker: HubBroker) -> int:
    fields = Path(f"/proc/{broker.pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def a_flood_of_batches(field: Field) -> None:
    """As fast as the broker takes them: the quota lets the others through."""
    batches = [own_batch(field) for _ in range(QUICK_FLOOD if field.quick else FLOOD)]
    for payload in batches:
        field.bad.publish(f"energy/v1/{BAD}/batch", payload, wait=False)
    if not field.quick:
        field.expect_line("ingest", rf"ERR quota: energy/v1/{BAD}/batch")
    pause(*(2 * (QUICK_STAY if field.quick else STAY,)))
    # It would send again what was let go; it does not come to that here.
    field.bad.gateway = Gateway(BAD, field.bad.gateway.key, stream=os.urandom(8))
    field.bad.committed = set()


def a_flood_of_readings(field: Field) -> None:
    """Some kilobytes that hold a hundred thousand readings each, of times as scattered as is taken, and more scattered:
    the quota lets the others through."""
    bad = field.bad
    begin = now_ms() - MAX_SPANS * LENGTH
    spread = [begin + span * LENGTH + number for span in range(MAX_SPANS - 1) for number in range(50)]
    points = [f"{METER}/spread_{number}" for number in range(12 if field.quick else 40)]
    payloads = [bad.gateway.batch({point: [(time_ms, None, 129) for time_ms in spread]}) for point in points]
    months = [begin - number * 31 * 86_400_000 for number in range(MAX_MONTHS + 1, 0, -1)]
    payloads.append(bad.gateway.batch({f"{METER}/months": [(time_ms, None, 129) for time_ms in months]}))
    for payload in payloads:
        bad.publish(f"energy/v1/{BAD}/batch", payload, wait=False)
    field.expect_line("ingest", rf"ERR quota: energy/v1/{BAD}/batch")
    pause(*(2 * (QUICK_STAY if field.quick else STAY,)))
    bad.gateway = Gateway(BAD, bad.gateway.key, stream=os.urandom(8))
    bad.committed = set()


def a_flood_of_statuses(field: Field) -> None:
    status = field.bad.status()
    for _ in range(QUICK_FLOOD if field.quick else FLOOD):
        field.bad.publish(f"energy/v1/{BAD}/status", status, wait=False)
    pause(*(2 * (QUICK_STAY if field.quick else STAY,)))


# --- connections


def a_crowd(field: Field, kind: str, sources: int = SOURCES) -> None:
    """Ten thousand at once, from addresses that are no gateway's."""
    rig = field.rig
    count = QUICK_CROWD if field.quick else CROWD
    identity = Authority().client(BAD) if kind == crowd.CHURN else rig.authority.client(BAD)
    shown = field.stranger(BAD, identity)
    names = ["--name", shown.host, "--certificate", str(shown.certificate), "--key", str(shown.key)]
    what = [str(rig.balancer.port), str(count), str(sources), kind, *names]
    log = rig.folder / f"crowd-{kind}-{sources}"
    process = Process(["nice", "-n", "19", *Process.python("tests.fault.rig.crowd"), *what], log)
    process.start()
    most = 0
    try:
        end = time.monotonic() + (QUICK_STAY if field.quick else STAY)
        anew: float | None = None
        while time.monotonic() < end or anew is None:
            pause(0.5, 0.5)
            seen = _last(process)
            most = max(most, seen.get("open", 0))
            if anew is None and time.monotonic() > end - (QUICK_STAY if field.quick else STAY) / 2:
                # Who has to connect anew in the middle of it gets in, too.
                anew = _reconnects(field)
        seen = _last(process)
        most = max(most, seen.get("open", 0))
    finally:
        process.kill()
    name = f"crowd_{kind}_from_{sources}"
    field.report.figures |= {
        f"{name}_made": seen.get("made", 0),
        f"{name}_open_at_most": most,
        f"{name}_refused": seen.get("refused", 0),
        f"{name}_reconnection_s": round(anew, 1),
    }
    if kind == crowd.CHURN:
        field.expect_line("broker", r"refused a handshake from .*its certificate is foreign")


def _reconnects(field: Field) -> float:
    began = time.time()
    field.rig.reconnect([VICTIM])
    wait_for(
        lambda: field.rig.newest().get(VICTIM, 0) > began, f"{VICTIM} connects anew in the crowd", PATIENCE
    )
    return time.time() - began


def _last(process: Process) -> dict[str, int]:
    whole = [line for line in process.journal.splitlines() if line.startswith("{") and line.endswith("}")]
    return dict(json.loads(whole[-1])) if whole else {}


HARMS: dict[str, Callable[[Field], None]] = {
    "a foreign certificate": a_foreign_certificate,
    "no certificate": no_certificate,
    "a revoked certificate": a_revoked_certificate,
    "another site's topic": another_sites_topic,
    "another site's key and batch": another_sites_key,
    "a replayed batch": a_replayed_batch,
    "a forged chain": a_forged_chain,
    "poison": poison,
    "a batch of 100 MB": a_batch_of_100_mb,
    "a flood of batches": a_flood_of_batches,
    "a flood of readings": a_flood_of_readings,
    "a flood of statuses": a_flood_of_statuses,
    "connections that say nothing": partial(a_crowd, kind=crowd.MUTE),
    "half a handshake": partial(a_crowd, kind=crowd.HELLO),
    "half a handshake, from one address": partial(a_crowd, kind=crowd.HELLO, sources=1),
    "whole handshakes that say nothing after": partial(a_crowd, kind=crowd.FULL),
    "handshakes with a foreign certificate": partial(a_crowd, kind=crowd.CHURN),
}


# Crowds whose likes are in the quick run.
FULL_ONLY = {
    "connections that say nothing",
    "half a handshake, from one address",
    "whole handshakes that say nothing after",
}


def run(rounds: int, only: Iterable[str] = ()) -> FaultReport:
    """All of them, one after the other. With one or two rounds a few hundred connections are a crowd, and there are two
    crowds."""
    report = FaultReport("harm", rounds)
    quick = rounds <= 2
    with SitesRig(SITES, BROKERS, as_the_hub=True, balancer={"hub_balancer_connections": 8000}) as rig:
        field = _field(rig, report, quick)
        calm = QUICK_CALM if quick else CALM
        field.spans["calm"] = (time.time(), time.time() + calm)
        pause(calm, calm)
        try:
            for name, harm in HARMS.items():
                if (only and name not in only) or (quick and name in FULL_ONLY):
                    continue
                say(name)
                began = time.time()
                harm(field)
                report.faults += 1
                field.spans[name] = (began, max(time.time(), began + 1))
            field.bad.close()
            rig.wait_for_everybody()
            rig.finish(report, stranger=BAD)
        finally:
            field.bad.close()
        _judge(field)
    return report


def _stranger(rig: SitesRig, name: str, identity: Identity, authority: Authority | None = None) -> Stranger:
    ca = rig.brokers[BROKERS[0]].folder / "ca.crt"
    return Stranger(name, DOMAIN, rig.balancer.port, rig.folder, ca, authority or rig.authority, identity)


def _field(rig: SitesRig, report: FaultReport, quick: bool) -> Field:
    field = Field(rig, report, quick, _stranger(rig, BAD, rig.authority.client(BAD)))
    field.bad.connect()
    field.bad.publish(f"energy/v1/{BAD}/status", field.bad.status())
    field.bad.publish(f"energy/v1/{BAD}/batch", own_batch(field))
    wait_for_own(field)
    return field


def _judge(field: Field) -> None:
    """How old the other sites' readings were when they were committed, beside each harm and without."""
    for name, (begin, end) in field.spans.items():
        with field.rig.database.connect() as connection:
            row = connection.execute(
                AGES,
                (SITES, HEALTH, begin, end),
            ).fetchone()
        if row is None or row[0] is None:
            continue
        median, high, most = (round(float(one), 2) for one in row)
        say(
            f"{name}: delivered {median:g} s after it was measured, 95 of 100 within {high:g} s, all within {most:g} s"
        )
        key = re.sub(r"\W+", "_", name)
        field.report.figures |= {f"{key}_median_s": median, f"{key}_p95_s": high, f"{key}_most_s": most}
        if high > LIVE:
            field.report.late += 1
            field.report.findings.append(
                f"{name}: readings of the others were {high:g} s old, at most {LIVE:g} are right"
            )


def control() -> FaultReport:
    """A broker where everybody may publish everything, and an ingest that takes any signature."""
    report = FaultReport("harm-control", 1)
    with SitesRig(
        SITES[:1], BROKERS[:1], as_the_hub=True, ingest="tests.fault.rig.ingest_without_signature"
    ) as rig:
        stranger = _stranger(rig, BAD, rig.authority.client(BAD))
        broker = rig.hub_broker(BROKERS[0])
        access = broker.folder / "access"
        access.write_text("pattern readwrite energy/v1/#\n" + access.read_text())
        broker.reload()
        pause(1, 1)
        stranger.connect()
        stranger.publish(f"energy/v1/{VICTIM}/batch", forged_batch(VICTIM, stranger.gateway.key))
        report.faults = 1
        rig.wait_for_everybody()
        stranger.close()
        rig.finish(report, patience=10)
    return report
