"""Links, certificates, services and the clock: the parts of gateway_info that concern the host itself."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wattfleet.energy.plugins.action import gateway_info as action
from ansible_collections.wattfleet.energy.plugins.module_utils import (
    _certificate,
    _gateway,
    _growth,
    _links,
    _services,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def make_link(folder: Path, name: str, **values: str) -> None:
    link = folder / name
    (link / "statistics").mkdir(parents=True)
    defaults = {"operstate": "up", "carrier": "1", "speed": "1000", "duplex": "full", "mtu": "1500"}
    for file, value in {**defaults, **values}.items():
        target = link / "statistics" / file if file.startswith(("rx_", "tx_", "coll")) else link / file
        target.write_text(value + "\n")


def test_links_as_the_kernel_tells_them(tmp_path: Path) -> None:
    make_link(tmp_path, "eth1", rx_crc_errors="7", collisions="0", carrier_down_count="2")
    make_link(tmp_path, "lo")
    (tmp_path / "bonding_masters").write_text("")
    links = _links.read(str(tmp_path), None)
    assert list(links) == ["eth1"]
    assert links["eth1"] == {
        "present": True,
        "kind": "ethernet",
        "operstate": "up",
        "carrier": True,
        "speed": 1000,
        "duplex": "full",
        "mtu": 1500,
        "counters": {"rx_crc_errors": 7, "collisions": 0, "carrier_down": 2},
    }
    assert _links.judge(links, 100, "full") == []


@pytest.mark.parametrize(
    ("values", "finding"),
    [
        ({"carrier": "0", "operstate": "down"}, "no_carrier"),
        ({"speed": "10"}, "speed"),
        ({"duplex": "half"}, "duplex"),
    ],
)
def test_bad_links_are_named(tmp_path: Path, values: dict[str, str], finding: str) -> None:
    make_link(tmp_path, "eth1", **values)
    (found,) = _links.judge(_links.read(str(tmp_path), ["eth1"]), 100, "full")
    assert (found["interface"], found["finding"]) == ("eth1", finding)


def test_missing_link(tmp_path: Path) -> None:
    links = _links.read(str(tmp_path), ["eth9"])
    assert [found["finding"] for found in _links.judge(links, None, None)] == ["missing"]
    assert _links.counters_of(links) == {"links": {}}


@pytest.mark.parametrize("speed", ["-1", "65535", "unknown", ""])
def test_links_without_a_speed_are_not_judged_by_it(tmp_path: Path, speed: str) -> None:
    make_link(tmp_path, "wwan0", speed=speed, duplex="unknown")
    assert _links.judge(_links.read(str(tmp_path), None), 100, "full") == []


@pytest.mark.parametrize(
    ("kind", "look_at"), [("bond", "ports"), ("vlan", "carries it"), ("wwan", "antenna"), ("", "cable")]
)
def test_a_link_is_down_for_reasons_of_its_kind(tmp_path: Path, kind: str, look_at: str) -> None:
    uevent = f"DEVTYPE={kind}\nINTERFACE=x0" if kind else "INTERFACE=x0"
    make_link(tmp_path, "x0", carrier="0", uevent=uevent)
    links = _links.read(str(tmp_path), None)
    assert links["x0"]["kind"] == (kind or "ethernet")
    (found,) = _links.judge(links, None, None)
    assert look_at in found["message"]


def test_a_modem_has_neither_speed_nor_duplex(tmp_path: Path) -> None:
    make_link(tmp_path, "wwan0", uevent="DEVTYPE=wwan", operstate="unknown")
    for name in ("speed", "duplex"):  # the kernel answers EINVAL
        (tmp_path / "wwan0" / name).unlink()
    links = _links.read(str(tmp_path), None)
    assert (links["wwan0"]["speed"], links["wwan0"]["duplex"], links["wwan0"]["carrier"]) == (
        None,
        None,
        True,
    )
    assert _links.judge(links, 100, "full") == []


def test_growth_of_a_link(tmp_path: Path) -> None:
    make_link(tmp_path, "eth1", rx_errors="1")
    before = _links.counters_of(_links.read(str(tmp_path), None))
    (tmp_path / "eth1/statistics/rx_errors").write_text("4\n")
    grown = _growth.growth(before, _links.counters_of(_links.read(str(tmp_path), None)))
    assert _growth.exceeded(grown, _links.WATCHED, 0)[0]["growth"] == 3


def test_the_machines_own_links() -> None:
    links = _links.read(_links.DEFAULT_PATH, ["lo"])
    assert links["lo"]["present"]
    assert "rx_errors" in links["lo"]["counters"]


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Example, Inc."),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, "plant-a"),
        ]
    )
    names = [
        x509.DNSName("hub.energy.internal"),
        *(x509.IPAddress(ipaddress.ip_address(one)) for one in ("198.18.0.2", "2001:db8::1")),
    ]
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(0x1F3A)
        .not_valid_before(dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2057, 2, 3, 4, 5, 6, tzinfo=dt.UTC))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "gateway.crt"
    path.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    return path


def test_a_certificate_is_read_without_openssl_and_cryptography(certificate: Path) -> None:
    assert _certificate.read(str(certificate)) == {
        "subject": "CN=plant-a,O=Example\\, Inc.",
        "issuer": "CN=plant-a,O=Example\\, Inc.",
        "common_name": "plant-a",
        "names": ["DNS:hub.energy.internal", "IP:198.18.0.2", "IP:2001:db8::1"],
        "serial": "1f3a",
        "not_before": dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp(),
        # From 2050 on a certificate tells its time in another form.
        "not_after": dt.datetime(2057, 2, 3, 4, 5, 6, tzinfo=dt.UTC).timestamp(),
    }


def test_days_left() -> None:
    assert _certificate.days_left(86400.0 * 10, 86400.0 * 7.5) == 2.5
    assert _certificate.days_left(0.0, 86400.0) == -1


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file or directory"), (b"", "no PEM certificate in it")]
)
def test_no_certificate(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "gateway.crt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(_certificate.UnreadableError, match=reason):
        _certificate.read(str(path))


def test_broken_certificate(tmp_path: Path) -> None:
    path = tmp_path / "gateway.crt"
    path.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(_certificate.UnreadableError, match=r"gateway\.crt: "):
        _certificate.read(str(path))


SHOWN = """\
Id=energy-gateway.service
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
Result=success
NRestarts=3

Id=missing.service
LoadState=not-found
ActiveState=inactive
SubState=dead
UnitFileState=
Result=success
NRestarts=0
"""


def test_services() -> None:
    units = ["energy-gateway.service", "missing.service"]
    services = _services.read(units, lambda *_arguments, **_options: (0, SHOWN, ""))
    assert services["energy-gateway.service"] == {
        "load": "loaded",
        "active": "active",
        "sub": "running",
        "enabled": "enabled",
        "result": "success",
        "restarts": 3,
        "failure": None,
    }
    assert services["missing.service"]["load"] == "not-found"


def test_services_without_systemd() -> None:
    services = _services.read(
        ["a.service"], lambda *_a, **_o: (1, "", "System has not been booted with systemd\n")
    )
    assert services["a.service"]["failure"] == "System has not been booted with systemd"

    def not_found(*_arguments: Any, **_options: Any) -> tuple[int, str, str]:
        raise FileNotFoundError(2, os.strerror(2))

    assert "No such file" in _services.read(["a.service"], not_found)["a.service"]["failure"]
    assert "0 units" not in _services.parse(["a", "b"], "Id=a\n")["a"]["failure"]


@pytest.mark.parametrize("offset", [-3600.0, -0.5, 0.0, 2.0, 86400.0])
@pytest.mark.parametrize(("there", "back"), [(0.3, 0.3), (1.2, 0.3), (0.0, 0.6)])
def test_the_true_offset_lies_within_the_uncertainty(offset: float, there: float, back: float) -> None:
    sent, busy = 1000.0, 5.0
    received = sent + there + offset
    got = sent + there + busy + back
    told, uncertainty = action.clock_offset(sent, received, received + busy, got)
    assert uncertainty == pytest.approx((there + back) / 2)
    assert abs(told - offset) <= uncertainty + 1e-9


def test_what_only_the_first_look_missed_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without it nothing can be said of growth, as little as without the second one."""
    collector = {"name": "collector", "code": "COLLECTOR", "error": "no answer", "cause": "see its journal"}
    press = {**collector, "name": "press"}
    looks = iter([({}, [collector, press]), ({"buses": {"hall": {"crc_errors": 4}}}, [press])])
    monkeypatch.setattr(_gateway._counters, "read", lambda *_: next(looks))
    found = _gateway.look(
        [],
        run_command=lambda *_a, **_o: (1, "", "no systemd here"),
        socket_path=str(tmp_path / "control.sock"),
        certificate=str(tmp_path / "gateway.crt"),
        services=[],
        interfaces=[],
        speed_min=None,
        duplex=None,
        interval=0,
        limit=0,
    )
    assert found["counter_failures"] == [press, collector]
    assert found["exceeded"] == []
