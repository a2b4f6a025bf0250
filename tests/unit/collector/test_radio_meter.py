# SPDX-License-Identifier: Apache-2.0
"""What becomes of the messages of a radio meter: each reading once, at its own time; and of its silence."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from energy_collector import payloads, quality
from energy_collector.clock import SourceClock
from energy_collector.config import RadioConfig, RadioMeterConfig
from energy_collector.journal import Faults
from energy_collector.radio import servers
from energy_collector.radio.meter import COUNTED, MOST_A_MINUTE, NEW, Flags, RadioMeter
from energy_collector.radio.radios import Radios
from energy_collector.reading import Reading, Record, readings
from energy_collector.times import iso

NOON = 1767268800000  # 2026-01-01T12:00:00Z
WEEK = 7 * 86_400_000


class Time:
    """Both clocks, which the test moves."""

    def __init__(self) -> None:
        self.ms = NOON

    def wall(self) -> float:
        return self.ms / 1000

    def monotonic(self) -> float:
        return self.ms / 1000


class Bench:
    """One meter, and what it has given."""

    def __init__(
        self, server: str = "zigbee2mqtt", profile: str = "zigbee2mqtt-plug", **changes: Any
    ) -> None:
        self.time = Time()
        mapping = payloads.load(profile)
        settings: dict[str, Any] = {"interval": 60.0, "silence": 180.0} | changes
        config = RadioMeterConfig("plug", "air", "kitchen", profile, mapping=mapping, **settings)
        boot = type("Boot", (), {"time": lambda _: self.time.ms, "id": "b"})()
        self.clock = SourceClock(0, wall=self.time.wall, boot=boot, built=0)
        self.counts = dict.fromkeys(COUNTED, 0)
        radio = RadioConfig("air", server, "127.0.0.1")
        self.meter = RadioMeter(
            config,
            servers.make(radio),
            self.clock,
            0,
            self.counts,
            Faults(self.time.monotonic),
            self.time.monotonic,
        )

    def hear(self, message: Any, flags: Flags = NEW, **fields: Any) -> list[Reading]:
        payload = message if isinstance(message, bytes) else json.dumps(message | fields).encode()
        return readings(self.meter.take(payload, flags))

    def tick(self, seconds: float = 0, *, connected: bool = True) -> list[Reading]:
        self.time.ms += int(seconds * 1000)
        return readings(self.meter.tick(connected=connected))


def plug(power: Any = 12.3, last_seen: Any = NOON - 50, **fields: Any) -> dict[str, Any]:
    """A message as zigbee2mqtt publishes it."""
    return {"power": power, "energy": 1.25, "state": "ON", "linkquality": 84, "last_seen": last_seen} | fields


def uplink(
    power: int = 7, time: str = "2026-01-01T11:59:59.950123456+00:00", **fields: Any
) -> dict[str, Any]:
    """An event `up` of ChirpStack; the first frame's counter is not there."""
    return {
        "deduplicationId": "3ac7e3c4-4401-4b8d-9386-a5c902f9202d",
        "time": time,
        "deviceInfo": {"devEui": "24e124148b000001"},
        "devAddr": "00189440",
        "fPort": 85,
        "object": {"active_power": power, "current": 74, "power_consumption": 26121, "power_factor": 44},
        "rxInfo": [{"gatewayId": "0016c001f153a14c", "rssi": -36, "snr": 10.5}],
    } | fields


def test_a_message_of_zigbee2mqtt() -> None:
    found = Bench().hear(plug())
    assert found == [
        ("plug/active_power", "W", NOON - 50, 12.3, quality.GOOD),
        ("plug/energy_import", "W.h", NOON - 50, 1250.0, quality.GOOD),
        ("plug/link_quality", "1", NOON - 50, 84.0, quality.GOOD),
    ]


def test_a_frame_of_chirpstack() -> None:
    bench = Bench("chirpstack", "milesight-ws523")
    assert [(one.point, one.value) for one in bench.hear(uplink())] == [
        ("plug/active_power", 7.0),
        ("plug/energy_import", 26121.0),
        ("plug/current_l1", 0.074),
        ("plug/power_factor", 0.44),
        ("plug/signal_strength", -36.0),
        ("plug/signal_to_noise", 10.5),
    ]
    assert {
        one.time for one in bench.hear(uplink(deduplicationId="other", fCnt=1, time="2026-01-01T12:00:00Z"))
    } == {NOON}


def test_a_meter_that_is_wired_the_other_way_round() -> None:
    found = Bench(reverse=True).hear(plug())
    assert [(one.point, one.value) for one in found][:2] == [
        ("plug/active_power", -12.3),
        ("plug/energy_export", 1250.0),
    ]


@pytest.mark.parametrize(
    "last_seen", [NOON - 50, "2026-01-01T11:59:59.950Z", "2026-01-01T12:59:59.950+01:00"]
)
def test_every_form_of_last_seen(last_seen: Any) -> None:
    assert {one.time for one in Bench().hear(plug(last_seen=last_seen))} == {NOON - 50}


# Once.


def test_a_frame_that_is_delivered_twice_is_one_reading() -> None:
    bench = Bench("chirpstack", "milesight-ws523")
    assert bench.hear(uplink())
    assert bench.hear(uplink()) == []
    # The device repeats an unconfirmed frame, and the server takes it for a new one: other identity, same counter.
    assert bench.hear(uplink(deduplicationId="other", time="2026-01-01T12:00:00.9Z")) == []
    assert bench.counts["duplicates"] == 2


def test_a_counter_of_frames_that_begins_anew_is_no_repetition() -> None:
    bench = Bench("chirpstack", "milesight-ws523")
    bench.time.ms += 300_000
    assert bench.hear(uplink())
    assert bench.hear(uplink(deduplicationId="two", time="2026-01-01T12:05:00Z"))
    assert bench.counts["duplicates"] == 0


def test_a_retained_message_after_each_connection_is_one_reading() -> None:
    bench = Bench()
    assert len(bench.hear(plug(), Flags(retained=True))) == 3
    for _ in range(3):
        bench.time.ms += 60_000
        assert bench.hear(plug(), Flags(retained=True)) == []
    assert (bench.counts["readings"], bench.counts["duplicates"]) == (3, 3)


def test_a_retained_message_that_newer_ones_have_overtaken_brings_only_what_is_new() -> None:
    # After a kill -9 nothing is known of it. It was stored as a good one then, and is no late one now.
    bench = Bench()
    bench.hear(plug())
    assert bench.hear(plug(11.0, NOON - 5_000), Flags(retained=True)) == []
    assert (bench.counts["duplicates"], bench.counts["late"]) == (1, 0)
    found = bench.hear(plug(11.0, NOON - 4_000, voltage=230.1), Flags(retained=True))
    assert found == [("plug/voltage_l1", "V", NOON - 4_000, 230.1, quality.GOOD)]


def test_a_time_and_two_values_is_the_first_one() -> None:
    bench = Bench()
    bench.hear(plug(12.3))
    # What is new in it is taken.
    assert bench.hear(plug(99.9, voltage=230.1)) == [("plug/voltage_l1", "V", NOON - 50, 230.1, quality.GOOD)]


def test_what_was_heard_outlasts_the_service() -> None:
    bench, after = Bench("chirpstack", "milesight-ws523"), Bench("chirpstack", "milesight-ws523")
    bench.hear(uplink())
    after.meter.remember(json.loads(json.dumps(bench.meter.memory())))
    assert after.hear(uplink()) == []
    zigbee, later = Bench(), Bench()
    zigbee.hear(plug())
    later.meter.remember(json.loads(json.dumps(zigbee.meter.memory())))
    assert later.hear(plug(), Flags(retained=True)) == []


# Times.


def test_a_late_message_keeps_its_time_and_its_energy_does_not_count_again() -> None:
    bench = Bench()
    bench.hear(plug())
    found = bench.hear(plug(11.0, NOON - 5_000, energy=1.2))
    assert [(one.time, one.value, one.quality) for one in found] == [
        (NOON - 5_000, 11.0, quality.GOOD),
        (NOON - 5_000, 1200.0, quality.UNCERTAIN),
        (NOON - 5_000, 84.0, quality.GOOD),
    ]
    assert bench.counts["late"] == 3
    assert bench.meter.last_success == NOON - 50


def test_without_a_time_the_arrival_counts_and_is_marked() -> None:
    bench = Bench()
    message = {"power": 5.0}
    (found,) = bench.hear(message)
    assert (found.time, found.quality) == (NOON, quality.UNCERTAIN_CLOCK)
    # Again, as a new message; as the repetition of the one before, which the broker marks; and from who knows when.
    assert len(bench.hear(message)) == 1
    assert bench.hear(message, Flags(repeated=True)) == []
    assert bench.hear({"power": 7.0}, Flags(retained=True)) == []
    assert (bench.counts["duplicates"], bench.counts["retained"]) == (1, 1)


@pytest.mark.parametrize("own", [NOON + 1_001, NOON + WEEK, NOON - WEEK - 1, 86_400_000, "yesterday"])
def test_a_time_that_cannot_be_is_that_of_the_arrival(own: Any, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    found = bench.hear(plug(last_seen=own))
    assert {(one.time, one.quality) for one in found} == {(NOON, quality.UNCERTAIN_CLOCK)}
    assert "the arrival's is taken" in caplog.text
    assert bench.hear(plug(last_seen=own), Flags(retained=True)) == []


def test_a_little_ahead_is_no_fault() -> None:
    assert {one.time for one in Bench().hear(plug(last_seen=NOON + 900))} == {NOON + 900}


def test_while_our_own_clock_is_wrong_it_is_the_one_that_counts() -> None:
    """Readings of a wrong clock move when it is right: those of another clock among them would move too."""
    bench = Bench()
    bench.clock.now()
    bench.time.ms += 1
    bench.clock._least = NOON + WEEK
    found = bench.hear(plug())
    assert {one.quality for one in found} == {quality.UNCERTAIN_CLOCK}
    assert {one.time for one in found} == {NOON + 1}
    # The clock is right, and what was retained comes again: it was here.
    bench.clock._least = 0
    assert bench.hear(plug(), Flags(retained=True)) == []
    # What was stamped by a wrong clock makes nothing late.
    assert {one.quality for one in bench.hear(plug(last_seen=NOON))} == {quality.GOOD}


def test_a_clock_that_stands_still_loses_no_frame() -> None:
    bench = Bench("chirpstack", "milesight-ws523")
    for number in range(3):
        bench.time.ms += 1
        found = bench.hear(uplink(time="1970-01-01T00:00:01Z", deduplicationId=str(number), fCnt=number))
        assert {one.quality for one in found} == {quality.UNCERTAIN_CLOCK}
    assert bench.counts["duplicates"] == 0


# What cannot be used.


@pytest.mark.parametrize(
    "power", ["12.5", None, True, [], {"value": 1}, float("nan"), float("-inf"), 10**400]
)
def test_a_field_that_is_no_number_is_null(power: Any) -> None:
    bench = Bench()
    found = bench.hear(plug(power))
    assert found[0] == ("plug/active_power", "W", NOON - 50, None, quality.BAD_SENSOR)
    assert found[1].value == 1250.0
    assert bench.counts["unusable"] == 1


def test_a_field_that_is_missing_is_no_reading() -> None:
    bench = Bench()
    assert [one.point for one in bench.hear({"voltage": 231.0, "last_seen": NOON})] == ["plug/voltage_l1"]
    assert bench.hear({"state": "ON", "last_seen": NOON}) == []
    assert bench.counts["without_points"] == 1


def test_a_value_out_of_range_keeps_it() -> None:
    found = Bench().hear(plug(voltage=6553.5))
    assert found[2][3:] == (6553.5, quality.UNCERTAIN_OUT_OF_RANGE)


def test_scaling_into_infinity_is_null() -> None:
    assert Bench().hear(plug(energy=1.7e308))[1].value is None


@pytest.mark.parametrize("garbage", [b"", b"\xff\x00", b"[" * 50_000, b"{}" * 40_000, b"null"])
def test_garbage_is_counted_and_told_once(garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    for _ in range(50):
        assert bench.hear(garbage) == []
    assert bench.counts["unreadable"] == 50
    assert len(caplog.records) == 1
    assert len(bench.hear(plug())) == 3


def test_a_flood_is_not_taken() -> None:
    bench = Bench()
    taken = [bench.hear(plug(last_seen=NOON - 5_000 + number)) for number in range(MOST_A_MINUTE + 50)]
    assert len([one for one in taken if one]) == MOST_A_MINUTE
    assert bench.counts["flooded"] == 50
    bench.time.ms += 60_000
    assert bench.hear(plug(last_seen=NOON + 60_000))


# Silence.


def test_silence_is_null_once_an_interval_and_for_what_the_device_has() -> None:
    bench = Bench()
    bench.hear(plug())
    assert bench.tick(179) == []
    first = bench.tick(1)
    assert [(one.point, one.value, one.quality) for one in first] == [
        ("plug/active_power", None, quality.BAD_NO_ANSWER),
        ("plug/energy_import", None, quality.BAD_NO_ANSWER),
        ("plug/link_quality", None, quality.BAD_NO_ANSWER),
    ]
    assert bench.tick(59) == []
    assert len(bench.tick(1)) == 3
    assert bench.meter.failures == 2
    # After an hour of sleep there is one, not sixty.
    assert len(bench.tick(3600)) == 3
    bench.hear(plug(last_seen=bench.time.ms))
    assert (bench.tick(100), bench.meter.failures) == ([], 0)


def test_a_point_that_stays_away_is_null_alone() -> None:
    bench = Bench()
    bench.hear(plug())
    for _ in range(3):
        bench.time.ms += 60_000
        bench.hear({"power": 1.0, "last_seen": bench.time.ms})
        bench.tick()
    assert [one.point for one in bench.tick(1)] == []
    bench.hear({"power": 1.0, "last_seen": bench.time.ms})
    assert [one.point for one in bench.tick(59)] == ["plug/energy_import", "plug/link_quality"]


def test_an_old_message_is_no_sign_of_life() -> None:
    bench = Bench()
    assert len(bench.hear(plug(last_seen=NOON - 170_000), Flags(retained=True))) == 3
    assert bench.tick(9) == []
    assert len(bench.tick(1)) == 3
    bench.hear(plug(last_seen=NOON - 100_000))
    assert bench.tick(69) == []
    assert len(bench.tick(1)) == 3


def test_a_device_that_was_never_heard_is_null() -> None:
    bench = Bench()
    assert len(bench.tick(180)) == len(payloads.load("zigbee2mqtt-plug").points)


def test_points_that_the_configuration_names_are_expected() -> None:
    bench = Bench(points=("active_power", "frequency"))
    assert len(bench.hear(plug())) == 1
    assert [one.point for one in bench.tick(180)] == ["plug/active_power", "plug/frequency"]


@pytest.mark.parametrize(
    ("happens", "connected", "code"),
    [
        (None, True, quality.BAD_NO_ANSWER),
        (None, False, quality.BAD_CONNECTION),
        (b"garbage", True, quality.BAD_FRAME),
    ],
)
def test_why_it_is_silent(happens: bytes | None, connected: bool, code: int) -> None:
    bench = Bench()
    bench.hear(plug())
    if happens is not None:
        bench.hear(happens)
    assert {one.quality for one in bench.tick(180, connected=connected)} == {code}


def test_a_device_that_the_server_calls_offline_is_null_at_once() -> None:
    bench = Bench()
    bench.hear(plug())
    bench.meter.gone()
    assert {one.quality for one in bench.tick()} == {quality.BAD_NO_ANSWER}
    bench.hear(plug(last_seen=NOON + 1))
    assert bench.tick(100) == []


@pytest.mark.parametrize(
    ("payload", "state"),
    [
        (b'{"state":"online"}', True),
        (b'{"state": "offline"}', False),
        (b"online", True),
        (b"offline", False),
        (b"", None),
        (b'{"state"', None),
        (b"{" * 100_000, None),
        (b'{"state": 1}', None),
        (b"[]", None),
        (b"\xff", None),
    ],
)
def test_states(payload: bytes, state: bool | None) -> None:
    assert servers.is_online(payload) is state


@pytest.mark.parametrize(
    ("topic", "heard"),
    [
        ("z/plug", ("message", "plug")),
        ("z/hall/plug", ("message", "hall/plug")),
        ("z/hall/plug/availability", ("availability", "hall/plug")),
        ("z/bridge/state", ("server", "")),
    ],
)
def test_topics_of_zigbee2mqtt(topic: str, heard: tuple[str, str]) -> None:
    server = servers.Zigbee2Mqtt("z")
    assert server.heard(topic) == heard
    assert server.heard("other/plug") is None
    assert server.topics(["plug", "hall/plug"]) == [
        "z/+",
        "z/+/availability",
        "z/hall/plug",
        "z/hall/plug/availability",
        "z/bridge/state",
    ]


def test_topics_of_chirpstack() -> None:
    server = servers.ChirpStack("")
    assert server.topics([]) == ["application/+/device/+/event/up"]
    assert server.heard("application/1/device/24E124148B000001/event/up") == ("message", "24e124148b000001")
    assert server.heard("application/1/device/24e124148b000001/event/join") is None
    assert server.heard("application") is None
    assert servers.ChirpStack("2").heard("application/1/device/24e124148b000001/event/up") is None


def test_a_damaged_memory_is_not_used(tmp_path: Any) -> None:
    path = tmp_path / "heard.json"

    async def begin() -> None:
        for text in ("", "[]", '{"meters": 3}', '{"meters": {"plug": {"points": 5}}}'):
            path.write_text(text)

            def sink(_: list[Record]) -> None:
                raise AssertionError

            radios = Radios(path, SourceClock(), 0, sink, Faults())
            meter = Bench().meter
            radios._remember(meter)
            assert meter.memory()["points"] == {}

    asyncio.run(begin())


def test_a_radio_that_overhears_that_it_has_to_end_is_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("energy_collector.radio.radios.CANCEL_AGAIN", 0.01)

    async def listen() -> None:
        for _ in range(3):
            # As wait_for does before Python 3.12 where a message comes at the same moment.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
        await asyncio.sleep(3600)

    async def stop() -> None:
        radios = Radios(tmp_path / "heard.json", SourceClock(), 0, [].append, Faults())
        task = asyncio.create_task(listen())
        radios._running["air"] = cast(Any, SimpleNamespace(meters=[])), task
        await asyncio.sleep(0)
        stopping = asyncio.create_task(radios.stop())
        await asyncio.wait([stopping], timeout=20)
        ended = task.cancelled()
        while not task.done():  # or the loop would wait for it for ever, and nobody be told
            task.cancel()
            await asyncio.sleep(0)
        await stopping
        assert ended

    asyncio.run(stop())


def test_damaged_messages_stop_nothing() -> None:
    """Bits, bytes and fields that are exchanged: whatever comes, there is a reading, a null or nothing."""
    chance = random.Random(56)
    benches = Bench(), Bench("chirpstack", "milesight-ws523")
    strange: list[Any] = [
        None,
        True,
        "",
        "x",
        -1,
        1e308,
        10**400,
        [],
        {},
        [[]],
        {"a": {}},
        "2026-01-01T00:00:00Z",
    ]
    for number in range(3000):
        bench = benches[number % 2]
        bench.time.ms += 1000
        when = str(iso(bench.time.ms))
        message = plug(last_seen=when) if number % 2 == 0 else uplink(time=when, deduplicationId=str(number))
        for key in chance.sample(sorted(message), 2):
            message[key] = chance.choice(strange)
        payload = bytearray(json.dumps(message).encode())
        for _ in range(chance.choice((0, 0, 1, 5))):
            payload[chance.randrange(len(payload))] = chance.randrange(256)
        found = bench.hear(bytes(payload), Flags(chance.random() < 0.1, chance.random() < 0.1))
        assert all(one.value is None or math.isfinite(one.value) for one in found)
        assert all((one.value is None) == quality.is_bad(one.quality) for one in found)
        assert all(one.time <= bench.time.ms + 1000 for one in found)
        bench.tick()
    assert all(bench.counts["readings"] > 1000 for bench in benches)
