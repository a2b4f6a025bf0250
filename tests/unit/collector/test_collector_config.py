# SPDX-License-Identifier: Apache-2.0
"""Configurations: one fault each, and all faults of one told at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from energy_collector import config, config_file
from energy_collector.cli import main
from energy_collector.meters.making import make

from .collector_support import document

Change = Callable[[dict[str, Any]], object]


def _meter(**changes: Any) -> Change:
    return lambda doc: doc["meters"][0].update(changes)


def _bus(**changes: Any) -> Change:
    return lambda doc: doc["buses"][0].update(changes)


CHANNEL = {"input": 1, "signal": "4-20mA", "low": 0, "high": 150, "unit": "Cel"}


def _channel(**changes: Any) -> Change:
    channels = {"flow-temperature": {**CHANNEL, **changes}}
    return lambda doc: doc["meters"][0].update(profile="advantech-adam-6017", channels=channels)


FAULTS: list[tuple[Change, str]] = [
    (lambda doc: doc.pop("site"), "site: missing"),
    (lambda doc: doc.update(site="Plant A"), "site: 'Plant A' is not a name"),
    (lambda doc: doc.update(site=7), "site: 7 is not a text"),
    (lambda doc: doc.update(intervall=10), "intervall: unknown key; did you mean interval?"),
    (lambda doc: doc.update(interval=0), "interval: 0.0 is not between 0.1 and 3600"),
    (lambda doc: doc.update(buses={}, meters=[]), "buses: {} is not a list"),
    (lambda doc: doc.update(meters=["main"]), "meters[0]: 'main' is not a mapping"),
    (lambda doc: doc.pop("hub"), "hub: missing"),
    (lambda doc: doc["hub"].update(port=70000), "hub.port: 70000 is not between 1 and 65535"),
    (lambda doc: doc["hub"].update(ca="ca.crt"), "hub.ca: 'ca.crt' is not an absolute path"),
    (lambda doc: doc["buffer"].update(max_bytes=10), "buffer.max_bytes: 10 is not between"),
    (lambda doc: doc.update(batch={"interval": 61}), "batch.interval: 61.0 is not between 1 and 60"),
    (_bus(type="profibus"), "buses[0].type: 'profibus' is not one of modbus-tcp, rtu, rtu-over-tcp"),
    (
        lambda doc: (_bus(name="Hall 1")(doc), _meter(bus="Hall 1")(doc)),
        "buses[0].name: 'Hall 1' is not made of",
    ),
    (_bus(timeout="fast"), "buses[0].timeout: 'fast' is not a number"),
    (_bus(baudrate=9600), "buses[0].baudrate: unknown key"),
    (lambda doc: doc["buses"][0].pop("host"), "buses[0].host: missing"),
    (lambda doc: doc.update(buses=[{"name": "hall", "type": "rtu"}]), "buses[0].device: missing"),
    (
        lambda doc: doc.update(
            buses=[{"name": "hall", "type": "rtu", "device": "/dev/ttyS0", "baudrate": 9601}]
        ),
        "buses[0].baudrate: 9601 is not one of",
    ),
    (
        lambda doc: doc["buses"].append({**doc["buses"][0], "name": "other"}),
        "buses[1]: 127.0.0.1:1 is already the bus hall; a line has one master",
    ),
    (lambda doc: doc["buses"].append({**doc["buses"][0], "port": 2}), "buses[1].name: 'hall' is used twice"),
    (_meter(bus="hal"), "meters[0].bus: 'hal' is not one of the buses hall"),
    (_meter(unit=300), "meters[0].unit: 300 is not a Modbus unit id"),
    (_meter(unit=True), "meters[0].unit: True is not a whole number"),
    (_meter(profile="eastron-sdm63"), "did you mean eastron-sdm630?"),
    (_meter(role="solar"), "meters[0].role: 'solar' is not one of"),
    (_meter(ct_ratio="200/5"), "meters[0].ct_ratio: '200/5' is not a ratio like \"200:5\""),
    (_meter(ct_ratio=40), "meters[0].ct_ratio: 40 is not a text"),
    (
        _meter(channels={"x": CHANNEL}),
        "meters[0].channels: the profile eastron-sdm630 has no analogue inputs",
    ),
    (
        _meter(profile="advantech-adam-6017"),
        "meters[0].channels: the profile advantech-adam-6017 needs at least",
    ),
    (_channel(input=9), "meters[0].channels.flow-temperature.input: 9 is not between 1 and 8"),
    (_channel(signal="0-20mA"), "meters[0].channels.flow-temperature.signal: '0-20mA' is not one of"),
    (_channel(high=0), "meters[0].channels.flow-temperature.high: 0 is the same as low"),
    (
        _channel(broken_below=5),
        "meters[0].channels.flow-temperature.broken_below: 5.0 is not between 0 and 4",
    ),
    (
        _channel(signal="0-10V", broken_below=3),
        "meters[0].channels.flow-temperature.broken_below: a 0-10V signal does not show a broken wire",
    ),
    (
        _meter(points=["active_power", "freqency"]),
        "meters[0].points: 'freqency' is not a point of eastron-sdm630; did you mean frequency?",
    ),
    (_meter(points=[]), "meters[0].points: is empty; leave it out to read all points"),
    (
        lambda doc: doc.update(device_mapping="mapping.json"),
        "device_mapping: 'mapping.json' is not an absolute path",
    ),
    (
        lambda doc: doc["meters"].append({**doc["meters"][0], "name": "other"}),
        "meters[1].unit: 1 on bus hall is already the meter main",
    ),
    (
        lambda doc: doc["meters"].append({**doc["meters"][0], "unit": 2}),
        "meters[1].name: 'main' is used twice",
    ),
]


@pytest.mark.parametrize(("change", "message"), FAULTS, ids=[message[:40] for _, message in FAULTS])
def test_one_fault_gets_one_line_that_says_where(tmp_path: Path, change: Change, message: str) -> None:
    doc = document(tmp_path)
    change(doc)
    with pytest.raises(config.ConfigError) as caught:
        config_file.parse(doc)
    assert len(caught.value.faults) == 1, caught.value.faults
    assert message in caught.value.faults[0]


def test_all_faults_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    doc = document(tmp_path)
    for change, _ in (FAULTS[3], FAULTS[8], FAULTS[22]):
        change(doc)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(doc))
    assert main(["check", str(path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_a_right_one_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(document(tmp_path)))
    assert main(["check", str(path)]) == 0
    assert "site plant-a, 1 meters on 1 buses" in capsys.readouterr().out


def test_what_was_learned_lies_beside_the_buffer(tmp_path: Path) -> None:
    assert config_file.parse(document(tmp_path)).learned == tmp_path / "learned.json"
    elsewhere = str(tmp_path / "elsewhere.json")
    assert str(config_file.parse(document(tmp_path, learned=elsewhere)).learned) == elsewhere


def test_a_faulty_device_mapping_is_found_with_the_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mapping = tmp_path / "mapping.json"
    mapping.write_text('{"main/active_power": [{"multiplier": 2}]}')
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(document(tmp_path, device_mapping=str(mapping))))
    assert main(["check", str(path)]) == 1
    assert f"{mapping}: main/active_power[0].from: missing" in capsys.readouterr().err


def test_channels_can_be_chosen_like_points(tmp_path: Path) -> None:
    doc = document(tmp_path)
    _channel()(doc)
    _meter(points=["flow-temperature"])(doc)
    assert config_file.parse(doc).meters[0].points == ("flow-temperature",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("site: [", "config.yaml: line 1: not YAML"),
        ("- a\n", "config.yaml: ..a.. is not a mapping"),
        ("", "config.yaml: nothing is not a mapping of keys such as site"),
    ],
)
def test_what_is_no_configuration_at_all(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(config.ConfigError, match=message):
        config.load(path)


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "none.yaml")]) == 1
    assert "none.yaml: cannot be read: No such file" in capsys.readouterr().err


def test_the_documented_example_is_right() -> None:
    page = Path(__file__).parents[3] / "docs" / "reference" / "gateway-configuration.md"
    example = page.read_text().split("```yaml\n")[1].split("```")[0]
    doc = yaml.safe_load(example)
    # The example shows every key once, also the one that its profile has no use for.
    doc["meters"][0].pop("channels")
    parsed = config_file.parse(doc)
    assert parsed.meters[0].ct_ratio == 40
    assert parsed.batch == config.BatchConfig()
    assert parsed.buffer == config.BufferConfig()


OWN_PROFILE = """
model: Heat meter
source: Data sheet
function: 4
points:
  heat: {unit: W.h, address: 18, type: uint32, scale: 1000}
"""


def _own(folder: Path, name: str, text: str) -> dict[str, Any]:
    profiles = folder / "profiles"
    profiles.mkdir(exist_ok=True)
    (profiles / f"{name}.yaml").write_text(text)
    return document(folder, profiles=str(profiles))


def test_a_site_can_have_profiles_of_its_own(tmp_path: Path) -> None:
    doc = _own(tmp_path, "heat-meter", OWN_PROFILE)
    doc["meters"][0]["profile"] = "heat-meter"
    meter = make(config_file.parse(doc).meters[0])
    assert meter.points == {"main/heat": "W.h"}


def test_a_changed_profile_of_the_site_is_read_again(tmp_path: Path) -> None:
    doc = _own(tmp_path, "heat-meter", OWN_PROFILE)
    doc["meters"][0]["profile"] = "heat-meter"
    before = config_file.parse(doc).meters[0]
    _own(tmp_path, "heat-meter", OWN_PROFILE.replace("heat:", "warmth:"))
    after = config_file.parse(doc).meters[0]
    # A reload leaves alone what is equal.
    assert after != before
    assert make(after).points == {"main/warmth": "W.h"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("heat-meter", OWN_PROFILE.replace("uint32", "uint23"), "points.heat.type: 'uint23' is not one of"),
        ("heat-meter", OWN_PROFILE.replace("address: 18, ", ""), "points.heat.address: missing"),
        ("heat-meter", "points: [", "heat-meter.yaml: line 1: not YAML"),
        ("heat-meter", "", "nothing is not a mapping"),
        ("heat-meter", OWN_PROFILE.replace("scale: 1000", "valid: [a, b]"), "heat-meter.yaml: "),
        ("eastron-sdm630", OWN_PROFILE, "eastron-sdm630 is a profile of the collector"),
    ],
)
def test_a_faulty_profile_of_the_site_gets_one_line(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    with pytest.raises(config.ConfigError) as caught:
        config_file.parse(_own(tmp_path, name, text))
    assert len(caught.value.faults) == 1, caught.value.faults
    assert message in caught.value.faults[0]
    assert str(tmp_path / "profiles" / f"{name}.yaml") in caught.value.faults[0]


def test_no_folder_of_own_profiles_is_no_fault(tmp_path: Path) -> None:
    config_file.parse(document(tmp_path, profiles=str(tmp_path / "none")))
