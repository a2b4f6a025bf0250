from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.wattfleet.energy.plugins.plugin_utils import _verdict

NOW = 1_795_000_000.0
SITE = {
    "site": "plant-a",
    "gateway": {"address": "198.18.0.11"},
    "buses": [
        {"name": "hall", "type": "rtu-over-tcp", "host": "192.168.10.20", "port": 4001, "timeout": 3.0},
        {"name": "roof", "type": "modbus-tcp", "host": "192.168.10.30"},
        {"name": "cellar", "type": "rtu", "device": "/dev/ttyS0"},
    ],
    "meters": [
        {"name": "main", "bus": "hall", "unit": 1},
        {"name": "solar", "bus": "roof", "unit": 126},
        {"name": "press", "bus": "cellar", "unit": 5},
    ],
}
LIMITS = {"clock_offset_max": 2.0, "certificate_days_min": 30, "buffer_age_max": 600, "minutes": 5}
COMMITTED = {"minutes": 5, "sites": {"plant-a": {"readings": 1830, "batches": 12}}}
UNIT = {
    "load": "loaded",
    "active": "active",
    "sub": "running",
    "enabled": "enabled",
    "result": "success",
    "restarts": 0,
    "failure": None,
}
INFO = {
    "clock": {"received": NOW, "answered": NOW, "offset": 0.02, "uncertainty": 0.3},
    "certificate": {"failure": None, "common_name": "plant-a", "not_after": NOW + 100 * 86400},
    "services": {"energy-gateway.service": UNIT, "energy-persistence.service": UNIT},
    "collector": {"running": True, "failure": None},
    "buffer": {"readings": 12, "dropped": 0, "oldest": "2026-11-18T11:06:30.000Z"},
    "meters": [
        {"name": name, "unit": 1, "reachable": True, "failure": None} for name in ("main", "solar", "press")
    ],
    "counter_failures": [],
    "exceeded": [],
    "link_findings": [],
}


def verdict_of(committed: Any = COMMITTED, **changes: Any) -> dict[str, Any]:
    info = copy.deepcopy(INFO)
    for key, value in changes.items():
        info[key] = {**info[key], **value} if isinstance(value, dict) else value  # type: ignore[dict-item]  # the values are of several types
    return _verdict.judge(info, SITE, committed, LIMITS, NOW)


def only_finding(verdict: dict[str, Any]) -> dict[str, str]:
    assert not verdict["ok"]
    (finding,) = verdict["findings"]
    assert finding["cause"]
    return finding  # type: ignore[no-any-return]  # the verdict is plain JSON


def test_targets() -> None:
    assert _verdict.probe_targets(SITE) == [
        {
            "meter": "main",
            "bus": "hall",
            "unit": 1,
            "host": "192.168.10.20",
            "port": 4001,
            "framing": "rtu-over-tcp",
            "timeout": 3.0,
        },
        {
            "meter": "solar",
            "bus": "roof",
            "unit": 126,
            "host": "192.168.10.30",
            "port": 502,
            "framing": "modbus-tcp",
            "timeout": 1.0,
        },
        {"meter": "press", "bus": "cellar", "unit": 5},
    ]


def test_meters_that_report_by_radio() -> None:
    """They are in the count, and nobody asks them: what the collector has heard is what there is."""
    plug = {"name": "plug", "radio": "air", "device": "hall/plug", "interval": 60}
    site = {**SITE, "meters": [*SITE["meters"], plug]}
    assert len(_verdict.probe_targets(site)) == 3
    well = {"name": "plug", "last_success": "2026-11-18T11:06:30.000Z", "last_error": None}
    for state, answering, found in (
        ({**well, "consecutive_failures": 0}, 4, []),
        ({**well, "last_success": None, "consecutive_failures": 0}, 3, []),
        (
            {**well, "consecutive_failures": 2, "last_error": "does not report"},
            3,
            [("plug (radio air, hall/plug)", "does not report")],
        ),
    ):
        info = {**INFO, "collector": {"running": True, "failure": None, "heard": [state]}}
        verdict = _verdict.judge(info, site, COMMITTED, LIMITS, NOW)
        assert (verdict["meters"], verdict["meters_answering"]) == (4, answering)
        assert [(one["subject"], one["error"]) for one in verdict["findings"]] == found


def test_a_site_in_order() -> None:
    assert verdict_of() == {
        "site": "plant-a",
        "ok": True,
        "findings": [],
        "reachable": True,
        "clock_offset": 0.02,
        "certificate_days": 100.0,
        "meters": 3,
        "meters_answering": 3,
        "error_growth": 0,
        "links": True,
        "services": True,
        "buffer": 12,
        "committed": 1830,
    }


def test_unreachable_sites_are_told_with_what_the_hub_knows() -> None:
    info = {
        "unreachable": True,
        "changed": False,
        "msg": "ssh: connect to host\n198.18.0.11 port 22: No route",
    }
    verdict = _verdict.judge(info, SITE, COMMITTED, LIMITS, NOW)
    finding = only_finding(verdict)
    assert finding["error"] == "ssh: connect to host 198.18.0.11 port 22: No route"
    assert (verdict["reachable"], verdict["committed"], verdict["meters_answering"]) == (False, 1830, None)


def test_a_gateway_that_could_not_be_examined() -> None:
    verdict = _verdict.judge({"failed": False, "msg": "no Python"}, SITE, COMMITTED, LIMITS, NOW)
    assert only_finding(verdict)["error"] == "no Python"


@pytest.mark.parametrize(
    ("offset", "uncertainty", "ok"), [(2.2, 0.3, True), (-2.4, 0.3, False), (3600, 0.3, False)]
)
def test_clock(offset: float, uncertainty: float, ok: bool) -> None:
    verdict = verdict_of(clock={"offset": offset, "uncertainty": uncertainty})
    assert verdict["ok"] is ok
    assert ok or only_finding(verdict)["check"] == "clock"


@pytest.mark.parametrize(
    ("certificate", "error"),
    [
        ({"failure": "/etc/ssl/energy/gateway.crt: No such file or directory"}, "No such file"),
        ({"not_after": NOW + 10 * 86400}, "10.0 days left (at least 30)"),
        ({"not_after": NOW - 86400}, "expired 1.0 days ago (at least 30)"),
        ({"common_name": "plant-b"}, "it is for plant-b, not for plant-a"),
    ],
)
def test_certificate(certificate: dict[str, Any], error: str) -> None:
    assert error in only_finding(verdict_of(certificate=certificate))["error"]


@pytest.mark.parametrize(
    ("state", "error"),
    [
        ({"load": "not-found"}, "not installed"),
        ({"active": "failed", "sub": "failed", "result": "exit-code"}, "failed (failed, exit-code)"),
        ({"enabled": "disabled"}, "disabled: it will not start after a power failure"),
        ({"failure": "systemctl: No such file or directory"}, "systemctl"),
    ],
)
def test_services(state: dict[str, Any], error: str) -> None:
    verdict = verdict_of(services={"energy-gateway.service": {**UNIT, **state}})
    finding = only_finding(verdict)
    assert (finding["check"], finding["subject"]) == ("service", "energy-gateway.service")
    assert error in finding["error"]
    assert verdict["services"] is False


def test_an_active_collector_that_does_not_answer() -> None:
    collector = {"running": False, "failure": {"error": "no answer", "cause": "it hangs"}}
    verdict = verdict_of(collector=collector, buffer=None)
    assert only_finding(verdict)["subject"] == "collector"
    assert verdict["buffer"] is None


def test_meters_are_named_with_bus_and_unit() -> None:
    meters = copy.deepcopy(INFO["meters"])
    failure = {"code": "MODBUS_EXCEPTION", "error": "Modbus Error 0x0B: …", "cause": "raise the time-out"}
    meters[1] = {"name": "solar", "unit": 126, "reachable": False, "failure": failure}  # type: ignore[index]  # the value is the list of meters
    verdict = verdict_of(meters=meters)
    finding = only_finding(verdict)
    assert finding["subject"] == "solar (bus roof, unit 126)"
    assert (verdict["meters_answering"], verdict["meters"]) == (2, 3)


def test_line_noise_names_the_bus() -> None:
    exceeded = [{"kind": "buses", "name": "hall", "counter": "crc_errors", "growth": 3, "limit": 0}]
    verdict = verdict_of(exceeded=exceeded)
    again = verdict_of(exceeded=[*exceeded, {**exceeded[0], "kind": "meters", "name": "press"}])
    assert again["error_growth"] == 3
    assert [found["subject"] for found in again["findings"]] == ["bus hall", "meter press"]
    finding = only_finding(verdict)
    assert (finding["subject"], finding["error"]) == ("bus hall", "crc_errors grew by 3 (at most 0)")
    assert "line noise" in finding["cause"]
    assert verdict["error_growth"] == 3


def test_counters_that_could_not_be_read_are_not_none_at_all() -> None:
    failure = {
        "name": "collector",
        "code": "COLLECTOR",
        "error": "no answer within 5 s",
        "cause": "see its journal",
    }
    verdict = verdict_of(counter_failures=[failure])
    finding = only_finding(verdict)
    assert (finding["check"], finding["subject"], finding["cause"]) == (
        "counters",
        "collector",
        "see its journal",
    )
    assert finding["error"] == "the counters of the buses could not be read: no answer within 5 s"
    assert verdict["error_growth"] is None
    # One that is silent when it is asked for counters of its own, as many are.
    assert verdict_of(counter_failures=[{**failure, "name": "solar"}])["ok"]
    # A collector that does not run is told as such, once.
    collector = {"running": False, "failure": {"error": "no collector listens", "cause": "start it"}}
    verdict = verdict_of(counter_failures=[failure], collector=collector, buffer=None)
    assert (only_finding(verdict)["check"], verdict["error_growth"]) == ("service", None)


def test_links() -> None:
    found = [{"interface": "eth1", "finding": "no_carrier", "message": "no link: check cable, plug"}]
    verdict = verdict_of(link_findings=found)
    finding = only_finding(verdict)
    assert (finding["subject"], finding["error"], finding["cause"]) == (
        "eth1",
        "no link",
        "check cable, plug",
    )
    assert verdict["links"] is False


@pytest.mark.parametrize(
    ("oldest", "ok"), [(None, True), ("2026-11-18T10:57:00.000Z", True), ("2026-11-18T00:00:00Z", False)]
)
def test_buffer(oldest: str | None, ok: bool) -> None:
    verdict = verdict_of(buffer={"readings": 9, "oldest": oldest})
    assert verdict["ok"] is ok
    assert verdict["buffer"] == 9


@pytest.mark.parametrize("committed", [{"sites": {}}, {"sites": {"plant-a": {"readings": 0}}}])
def test_nothing_committed(committed: dict[str, Any]) -> None:
    assert only_finding(verdict_of(committed))["error"] == "no reading committed in the last 5 minutes"


def test_hub_that_cannot_be_asked() -> None:
    finding = only_finding(verdict_of("could not connect:\nno such file"))
    assert finding["error"] == "could not connect: no such file"


def test_text_has_a_line_a_site_and_each_failure_once() -> None:
    verdicts = []
    for number in range(7, 0, -1):
        verdict = verdict_of("hub is down")
        verdicts.append({**verdict, "site": f"plant-{number}"})
    verdicts.append({**verdict_of(), "site": "plant-0"})
    lines = _verdict.text(verdicts).splitlines()
    assert [line.split()[0] for line in lines[:9]] == ["site", *(f"plant-{number}" for number in range(8))]
    assert lines[1].endswith("ok")
    assert lines[2].endswith("FAILED")
    assert lines[10:12] == [
        "plant-1, plant-2, plant-3, plant-4, plant-5 and 2 more: committed hub: hub is down",
        "    likely cause: the hub could not be asked: check its database and the ingest",
    ]
    assert lines[-1] == "1 of 8 sites are in order."


def test_text_of_no_site() -> None:
    assert _verdict.text([]).endswith("0 of 0 sites are in order.")
