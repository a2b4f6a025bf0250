# SPDX-License-Identifier: Apache-2.0
"""Radio meters through a real broker into the buffer: what the devices say is what the buffer holds."""

from __future__ import annotations

import json
import signal
import socket
import struct
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from energy_collector import quality
from energy_collector.cli import main
from energy_collector.config import ConfigError
from energy_collector.config_file import parse
from energy_collector.radio.meter import REMEMBERED
from energy_collector.radio.radio import SESSION
from wattfleet_lab.radio import GARBAGE

from .collector_support import document, wait_for
from .radio_site import EUI, PLUG, RadioSite, radio_site


def test_from_the_broker_to_the_buffer(tmp_path: Path) -> None:
    with radio_site(tmp_path) as site:
        for power in range(20):
            said = site.say(float(power), retain=True)
            for message in said:
                # Delivered twice, as a server does that did not get the broker's word.
                site.publisher.publish(message)
        for garbage in GARBAGE:
            site.publisher.raw(site.plug.topic, garbage)
            site.publisher.raw(site.socket.topic, garbage)
        site.publisher.raw("zigbee2mqtt/stranger", b'{"power": 1}')
        site.publisher.raw("application/1/device/0000000000000000/event/up", b"{}")
        site.say(77.0)
        site.judge(site.settle())
        assert site.counts("duplicates") == 40
        # An empty message is one too: nothing is passed over in silence.
        assert site.counts("unreadable") == 2 * len(GARBAGE)
        assert site.counts("unknown") == 2
        # Told once each, however often it comes.
        assert site.gateway.journal.count("Likely cause: something else publishes under its topic") <= 6
        assert site.gateway.journal.count("'stranger' is no meter") == 1
        # Served while nobody is there to be asked.
        answer = site.ask("read_meter", meter="plug")
        assert {one["point"]: one["value"] for one in answer["readings"]}["plug/active_power"] == 77.0
        meters = {one["name"]: one for one in site.ask("status")["meters"]}
        assert (meters["plug"]["bus"], meters["plug"]["unit"]) == ("air", PLUG)
        assert meters["socket"]["last_success"]


def test_the_broker_is_away_and_comes_back(tmp_path: Path) -> None:
    with radio_site(tmp_path) as site:
        site.say(1.0, retain=True)
        site.settle()
        for number in (signal.SIGTERM, signal.SIGKILL):
            # A second, in which the broker writes down what it keeps.
            time.sleep(1.2)
            site.broker.stop(number)
            wait_for(lambda: site.ask("status")["radios"][0]["connected"] is False, "the radios are gone")
            site.broker.start()
            site.again()
            site.wait_for_radios()
            site.say(float(number), retain=True)
        site.judge(site.settle())
        # What was retained has come again with each connection.
        assert site.counts("duplicates") >= 4


def test_the_service_is_killed_and_what_came_meanwhile_waits_at_the_broker(tmp_path: Path) -> None:
    with radio_site(tmp_path) as site:
        for round_ in range(2):
            for power in range(5):
                site.say(float(100 * round_ + power))
            site.gateway.kill(signal.SIGTERM if round_ == 1 else signal.SIGKILL)
            for power in range(5, 10):
                site.say(float(100 * round_ + power))
            site.start()
        found = site.settle()
        # After kill -9 the broker may repeat what was stored and not confirmed yet: the hub knows it by its identity.
        same = {(one.point, one.time): one for one in found}
        assert len(found) - len(same) <= 40
        assert all(same[one.point, one.time] == one for one in found)
        site.judge(list(same.values()))


def test_what_is_retained_from_before_a_kill_stays_the_reading_that_it_was(tmp_path: Path) -> None:
    with radio_site(tmp_path) as site:
        site.say(1.0, retain=True)
        site.settle()
        site.gateway.kill(signal.SIGKILL)
        # These wait at the broker and come first; then what it has retained, which the service does not know any more.
        for power in range(2, 7):
            site.say(float(power))
        site.start()
        site.settle()
        time.sleep(1)  # the retained one is on its way still
        found = site.readings()
        same = {(one.point, one.time): one for one in found}
        assert all(same[one.point, one.time] == one for one in found)
        assert {one.quality for one in found if one.value is not None} == {quality.GOOD}


def test_the_broker_leaves_no_more_unconfirmed_than_the_service_remembers(tmp_path: Path) -> None:
    # Several sent at once, and a connection that breaks before any is confirmed: all of them come again.
    with socket.create_server(("127.0.0.1", 0)) as server:
        site = RadioSite(tmp_path)
        try:
            settings = dict(site.settings)
            settings["radios"] = [{**one, "port": server.getsockname()[1]} for one in settings["radios"]]
            (tmp_path / "gateway.yaml").write_text(yaml.safe_dump(settings))
            server.settimeout(20)
            site.gateway.start()
            peer, _ = server.accept()
            with peer:
                said = peer.recv(4096)
        finally:
            site.close()
    # MQTT 5, 3.1.2.11.3: Receive Maximum, two bytes; here after the Session Expiry Interval.
    _, _, found = said.partition(struct.pack(">BIB", 0x11, SESSION, 0x21))
    assert 0 < int.from_bytes(found[:2], "big") <= REMEMBERED


def test_silence_and_a_device_that_is_offline(tmp_path: Path) -> None:
    with radio_site(tmp_path, interval=1, silence=1) as site:
        site.say(5.0)

        def nulls() -> set[tuple[str, int]]:
            return {(one.point, one.quality) for one in site.readings() if one.value is None}

        wait_for(lambda: ("plug/active_power", quality.BAD_NO_ANSWER) in nulls(), "the silence is seen")
        site.say(6.0)
        site.judge(site.settle())
        site.broker.stop()
        wait_for(lambda: ("socket/active_power", quality.BAD_CONNECTION) in nulls(), "the broker is missed")
        counts = site.ask("status")["meters"][0]
        assert counts["last_error"] == "the server does not publish"


def test_a_retained_availability_is_heard_at_the_start(tmp_path: Path) -> None:
    with radio_site(tmp_path) as site:
        site.publisher.publish(site.plug.availability(online=False), retain=True)
        wait_for(lambda: [one for one in site.readings() if one.value is None], "its points are null at once")
        assert {one.point.partition("/")[0] for one in site.readings()} == {"plug"}


def test_a_wrong_password_is_told(tmp_path: Path) -> None:
    site = RadioSite(tmp_path)
    try:
        (tmp_path / "password").write_text("wrong")
        site.gateway.start()
        wait_for(lambda: "user or password is wrong" in site.gateway.journal, "the refusal is told")
        assert "wrong\n" not in site.gateway.journal
    finally:
        site.close()


def test_radios_that_change_leave_the_others_alone(tmp_path: Path) -> None:
    with radio_site(tmp_path) as site:
        site.say(1.0)
        site.settle()
        path = tmp_path / "gateway.yaml"
        changed: dict[str, Any] = yaml.safe_load(path.read_text())
        changed["meters"][1]["interval"] = 120
        path.write_text(yaml.safe_dump(changed))
        assert site.ask("reload")["changed"] == ["field"]
        site.wait_for_radios()
        site.say(2.0)
        site.judge(site.settle())
        assert {one["connects"] for one in site.ask("counters")["radios"].values()} == {1}


def test_commands_know_the_meters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with radio_site(tmp_path) as site:
        config = str(tmp_path / "gateway.yaml")
        site.say(3.0)
        site.settle()
        assert main(["probe", "--config", config]) == 0
        assert f"plug: radio air, {PLUG}, zigbee2mqtt-plug: 4 of 4 points" in capsys.readouterr().out
        assert main(["status", "--config", config]) == 0
        out = capsys.readouterr().out
        assert "zigbee2mqtt  yes" in out
        assert EUI.upper() in out
        assert main(["counters", "--config", config]) == 0
        assert "without points" in capsys.readouterr().out
        assert main(["check", config]) == 0
        assert "0 meters on 0 buses and 2 by radio" in capsys.readouterr().out
    assert main(["read", "plug", "--config", config]) == 1
    assert "reports by radio, and the gateway, which listens, does not run" in capsys.readouterr().err


# Its configuration.


def radio_config(folder: Path, **changes: Any) -> dict[str, Any]:
    radio = {"name": "air", "type": "zigbee2mqtt", "host": "127.0.0.1"}
    meter = {"name": "plug", "radio": "air", "device": "plug", "profile": "zigbee2mqtt-plug"}
    found = document(folder, radios=[radio | changes.pop("radio", {})])
    found["meters"].append(meter | changes)
    return found


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"radio": {"type": "zigbee"}}, "radios[0].type: 'zigbee' is not one of chirpstack, zigbee2mqtt"),
        ({"radio": {"name": "hall"}}, "radios[0].name: 'hall' is the name of a bus"),
        ({"radio": {"topic": "z/#"}}, "radios[0].topic: 'z/#' is no base topic"),
        ({"radio": {"topics": "z"}}, "radios[0].topics: unknown key; did you mean topic?"),
        ({"radio": {"password_file": "/nowhere"}}, "radios[0].password_file: goes with user"),
        (
            {"radio": {"user": "x", "password_file": "/nowhere"}},
            "radios[0].password_file: /nowhere cannot be",
        ),
        (
            {"radio": {"user": "x"}},
            "password_file: /etc/energy/radio-air.password cannot be read: No such file",
        ),
        ({"device": "plug/+"}, "meters[1].device: 'plug/+' is no friendly name"),
        ({"profile": "zigbee2mqtt-plugs"}, "did you mean zigbee2mqtt-plug?"),
        (
            {"profile": "milesight-ws523"},
            "meters[1].profile: 'milesight-ws523' is of chirpstack, the radio air is zigbee2mqtt",
        ),
        ({"name": "main"}, "meters[1].name: 'main' is used twice"),
        ({"unit": 3}, "meters[1].unit: unknown key"),
        ({"points": ["active_powr"]}, "did you mean active_power?"),
        ({"points": []}, "meters[1].points: is empty"),
        ({"silence": 0}, "meters[1].silence: 0.0 is not between 1 and 1000"),
    ],
)
def test_a_fault_of_the_configuration_is_named(tmp_path: Path, changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(radio_config(tmp_path, **changes))
    assert any(fault in one for one in refused.value.faults), refused.value.faults


def test_a_radio_that_is_not_there(tmp_path: Path) -> None:
    config = radio_config(tmp_path)
    config["meters"][1]["radio"] = "sky"
    with pytest.raises(ConfigError, match=r"meters\[1\].radio: 'sky' is not one of the radios air"):
        parse(config)
    del config["radios"]
    with pytest.raises(ConfigError, match=r"'sky' is not one of the radios \(there is none\)"):
        parse(config)


def test_a_site_has_payload_files_of_its_own(tmp_path: Path) -> None:
    own = tmp_path / "payloads"
    own.mkdir()
    file = own / "boiler.yaml"
    file.write_text(
        json.dumps(
            {
                "model": "Boiler",
                "source": "Ours",
                "server": "zigbee2mqtt",
                "interval": 30,
                "time": {"path": "at", "format": "epoch_s"},
                "points": {"heat": {"unit": "W.h", "path": "sum.1", "scale": 1000}},
            }
        )
    )
    config = radio_config(tmp_path, profile="boiler") | {"payloads": str(own)}
    (meter,) = parse(config).radio_meters
    assert (meter.interval, meter.silence) == (30.0, 90.0)
    assert meter.mapping.points[0].path == ("sum", 1)
    file.write_text('{"model": "x", "points": {"A": {"unit": "W", "path": 5, "scale": 0}}}')
    with pytest.raises(ConfigError) as refused:
        parse(config)
    told = "; ".join(refused.value.faults)
    expected = ("server: missing", "interval: missing", "points.A: is not made of", "5 is no path", "0 makes")
    assert [one for one in expected if one not in told] == []
