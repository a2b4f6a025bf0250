# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What verify makes of the state of a gateway: a verdict a site, with every failure's likely cause, and the
table of them.
"""

from __future__ import annotations

import datetime as dt
import typing as t

Site = t.Mapping[str, t.Any]
Verdict = t.Dict[str, t.Any]

_DAY = 86400.0
_LINE_NOISE = (
    "line noise or bad cabling: use shielded twisted pair away from power lines, a 120 ohm resistor at the "
    "end of the line, and check baud rate and parity"
)
_CAUSES_OF_COUNTERS = {
    "crc_errors": _LINE_NOISE,
    "frame_errors": "a second master on the bus, two devices with one unit id, or line noise",
    "overruns": "the line is faster than the device can read it: lower the baud rate",
    "carrier_down": "the link went down and up again: check cable, plug, and the port of the switch",
    "collisions": "the two ends do not agree on the duplex: let both negotiate",
}
_FINDING = ("check", "subject", "error", "cause")
_MOST_NAMED = 5
_BAD_CABLE = "bad cable or plug, or interference: try another cable and another port"


def probe_targets(site: Site) -> list[dict[str, t.Any]]:
    """The meters of a site file as gateway_info takes them: meter, bus, unit, and host, port, framing,
    timeout of TCP buses. Those that report by radio cannot be asked.
    """
    buses = {bus["name"]: bus for bus in site.get("buses", [])}
    targets = []
    for meter in site.get("meters", []):
        if "radio" in meter:
            continue
        bus = buses[meter["bus"]]
        target = {"meter": meter["name"], "bus": bus["name"], "unit": meter["unit"]}
        if bus["type"] != "rtu":
            target.update(host=bus["host"], port=bus.get("port", 502), framing=bus["type"])
            target["timeout"] = bus.get("timeout", 1.0)
        targets.append(target)
    return targets


def judge(info: Site, site: Site, committed: t.Any, limits: Site, now: float) -> Verdict:
    """The verdict on one site.

    `info` is the registered result of gateway_info, `site` the site file, `committed` the hub's answer for
    all sites (`{"sites": {site: {"readings": n}}}`) or a text that says why there is none, `limits` what
    verify's variables set, and `now` the controller's time in seconds since 1970. The verdict has `site`,
    `ok`, `findings` (check, subject, error, cause) and the figures of the table; a figure that could not be
    had is None.
    """
    verdict: Verdict = {
        "site": site["site"],
        "reachable": not info.get("unreachable", False),
        "clock_offset": None,
        "certificate_days": None,
        "meters": len(site.get("meters", [])),
        "meters_answering": None,
        "error_growth": None,
        "links": None,
        "services": None,
        "buffer": None,
        "committed": None,
    }
    findings: list[dict[str, str]] = []
    if not verdict["reachable"]:
        address = site.get("gateway", {}).get("address", "its address")
        cause = f"no way to {address}: check the site's link and power, the gateway's sshd and its firewall"
        findings.append(_finding("reachable", "gateway", _one_line(info.get("msg")), cause))
    elif "clock" not in info:
        error = _one_line(info.get("msg") or info.get("module_stderr"))
        cause = "the gateway was reached but could not be examined: check its Python, sudo and disk"
        findings.append(_finding("reachable", "gateway", error, cause))
    else:
        for check in (_clock, _certificate, _services, _meters, _counters, _links, _buffer):
            findings += check(info, site, limits, now, verdict)
    findings += _committed(committed, site, limits, verdict)
    return {**verdict, "ok": not findings, "findings": findings}


def _finding(check: str, subject: str, error: str, cause: str) -> dict[str, str]:
    return {"check": check, "subject": subject, "error": error, "cause": cause}


def _one_line(text: t.Any) -> str:
    return " ".join(str(text or "no reason given").split())


def _clock(info: Site, _site: Site, limits: Site, _now: float, verdict: Verdict) -> list[dict[str, str]]:
    offset, uncertainty = info["clock"].get("offset"), info["clock"].get("uncertainty", 0.0)
    verdict["clock_offset"] = offset
    # Only what the travel time cannot explain counts.
    if offset is None or abs(offset) - uncertainty <= limits["clock_offset_max"]:
        return []
    error = f"{offset:+.1f} s off (at most {limits['clock_offset_max']:g} s)"
    return [_finding("clock", "gateway", error, "chrony does not reach its time source: see chronyc sources")]


def _certificate(info: Site, site: Site, limits: Site, now: float, verdict: Verdict) -> list[dict[str, str]]:
    certificate = info["certificate"]
    if certificate["failure"]:
        cause = "the identity role has not finished here: run the site playbook"
        return [_finding("certificate", "gateway", certificate["failure"], cause)]
    days = (certificate["not_after"] - now) / _DAY
    verdict["certificate_days"] = round(days, 1)
    findings = []
    if certificate["common_name"] != site["site"]:
        error = f"it is for {certificate['common_name']}, not for {site['site']}"
        findings.append(
            _finding("certificate", "gateway", error, "a certificate of another site was installed")
        )
    if days < limits["certificate_days_min"]:
        error = f"expired {-days:.1f} days ago" if days < 0 else f"{days:.1f} days left"
        error += f" (at least {limits['certificate_days_min']:g})"
        findings.append(
            _finding("certificate", "gateway", error, "it was not renewed: run the site playbook")
        )
    return findings


def _services(info: Site, _site: Site, _limits: Site, _now: float, verdict: Verdict) -> list[dict[str, str]]:
    findings = []
    for unit, state in info["services"].items():
        cause = f"see journalctl -u {unit}"
        if state["failure"]:
            findings.append(_finding("service", unit, state["failure"], "systemd could not be asked"))
        elif state["load"] == "not-found":
            findings.append(_finding("service", unit, "not installed", "run the site playbook"))
        elif state["active"] != "active":
            error = f"{state['active']} ({state['sub']}, {state['result']})"
            findings.append(_finding("service", unit, error, cause))
        elif state["enabled"] != "enabled":
            error = f"{state['enabled']}: it will not start after a power failure"
            findings.append(_finding("service", unit, error, "run the site playbook"))
    if not info["collector"]["running"] and not findings:
        failure = info["collector"]["failure"]
        findings.append(_finding("service", "collector", failure["error"], failure["cause"]))
    verdict["services"] = not findings
    return findings


def _meters(info: Site, site: Site, _limits: Site, _now: float, verdict: Verdict) -> list[dict[str, str]]:
    findings = []
    answered = 0
    buses = {meter["name"]: meter["bus"] for meter in site.get("meters", []) if "bus" in meter}
    for meter in info["meters"]:
        answered += bool(meter["reachable"])
        if meter["failure"]:
            subject = f"{meter['name']} (bus {buses.get(meter['name'], '?')}, unit {meter['unit']})"
            findings.append(_finding("meter", subject, meter["failure"]["error"], meter["failure"]["cause"]))
    heard = {meter["name"]: meter for meter in info["collector"].get("heard", ())}
    for meter in site.get("meters", []):
        state = heard.get(meter["name"])
        if "radio" not in meter or state is None:
            continue
        well = state["last_success"] is not None and not state["consecutive_failures"]
        answered += well
        # One that has not been silent for long enough is neither well nor a finding.
        if not well and state["last_error"]:
            subject = f"{meter['name']} (radio {meter['radio']}, {meter['device']})"
            cause = "battery, distance to the radio gateway, or the server: see the journal of energy-gateway"
            findings.append(_finding("meter", subject, state["last_error"], cause))
    verdict["meters_answering"] = answered
    return findings


def _counters(info: Site, _site: Site, _limits: Site, _now: float, verdict: Verdict) -> list[dict[str, str]]:
    findings = []
    # Many a meter does not answer to function 08, and has no counters of its own. The collector always has.
    away = [one for one in info["counter_failures"] if one["name"] == "collector"]
    if not away:
        # A bus counts what its meters count; both are told, but the figure has each error once.
        verdict["error_growth"] = sum(one["growth"] for one in info["exceeded"] if one["kind"] != "meters")
    elif info["collector"]["running"]:
        error = f"the counters of the buses could not be read: {away[0]['error']}"
        findings.append(_finding("counters", "collector", error, away[0]["cause"]))
    singular = {"buses": "bus", "meters": "meter", "devices": "device", "links": "link"}
    for entry in info["exceeded"]:
        subject = f"{singular.get(entry['kind'], entry['kind'])} {entry['name']}"
        error = f"{entry['counter']} grew by {entry['growth']} (at most {entry['limit']})"
        cause = _CAUSES_OF_COUNTERS.get(entry["counter"], _BAD_CABLE)
        findings.append(_finding("counters", subject, error, cause))
    return findings


def _links(info: Site, _site: Site, _limits: Site, _now: float, verdict: Verdict) -> list[dict[str, str]]:
    verdict["links"] = not info["link_findings"]
    findings = []
    for found in info["link_findings"]:
        error, _colon, cause = found["message"].partition(": ")
        findings.append(_finding("link", found["interface"], error, cause))
    return findings


def _buffer(info: Site, _site: Site, limits: Site, now: float, verdict: Verdict) -> list[dict[str, str]]:
    buffer = info["buffer"]
    if not isinstance(buffer, dict):
        # A collector that does not answer is told by _services.
        return []
    verdict["buffer"] = buffer.get("readings")
    oldest = _moment(buffer.get("oldest"))
    if oldest is None or now - oldest <= limits["buffer_age_max"]:
        return []
    error = f"{buffer.get('readings')} readings wait, the oldest for {now - oldest:.0f} s"
    error += f" (at most {limits['buffer_age_max']:g} s)"
    cause = "the hub does not acknowledge: see journalctl -u energy-persistence.service, and the hub's ingest"
    return [_finding("buffer", "gateway", error, cause)]


def _moment(value: t.Any) -> float | None:
    """Seconds since 1970 of an RFC 3339 time, None when there is none."""
    if not isinstance(value, str):
        return None
    return dt.datetime.fromisoformat(value).timestamp()


def _committed(committed: t.Any, site: Site, limits: Site, verdict: Verdict) -> list[dict[str, str]]:
    if not isinstance(committed, dict):
        cause = "the hub could not be asked: check its database and the ingest"
        return [_finding("committed", "hub", _one_line(committed), cause)]
    readings = committed.get("sites", {}).get(site["site"], {}).get("readings", 0)
    verdict["committed"] = readings
    if readings:
        return []
    error = f"no reading committed in the last {limits['minutes']:g} minutes"
    cause = (
        "nothing arrives from this site: see its energy-persistence.service, and the hub's broker and ingest"
    )
    return [_finding("committed", "hub", error, cause)]


_COLUMNS: tuple[tuple[str, t.Callable[[Verdict], str]], ...] = (
    ("site", lambda v: str(v["site"])),
    ("reachable", lambda v: "yes" if v["reachable"] else "NO"),
    ("clock", lambda v: "-" if v["clock_offset"] is None else f"{v['clock_offset']:+.2f} s"),
    ("certificate", lambda v: "-" if v["certificate_days"] is None else f"{v['certificate_days']:.0f} d"),
    ("meters", lambda v: f"{'-' if v['meters_answering'] is None else v['meters_answering']}/{v['meters']}"),
    ("new errors", lambda v: "-" if v["error_growth"] is None else str(v["error_growth"])),
    ("links", lambda v: _word(v["links"])),
    ("services", lambda v: _word(v["services"])),
    ("buffer", lambda v: "-" if v["buffer"] is None else str(v["buffer"])),
    ("committed", lambda v: "-" if v["committed"] is None else str(v["committed"])),
    ("verdict", lambda v: "ok" if v["ok"] else "FAILED"),
)


def _word(value: bool | None) -> str:
    return "-" if value is None else "ok" if value else "BAD"


def text(verdicts: t.Iterable[Verdict]) -> str:
    """The verdicts for people: a line a site, then each failure with its likely cause."""
    verdicts = sorted(verdicts, key=lambda verdict: str(verdict["site"]))
    rows = [[title for title, _cell in _COLUMNS]]
    rows += [[cell(verdict) for _title, cell in _COLUMNS] for verdict in verdicts]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    sites_of: dict[tuple[str, ...], list[str]] = {}
    for verdict in verdicts:
        for finding in verdict["findings"]:
            # What several sites have in common (a hub that is down, for instance) is told once.
            sites_of.setdefault(tuple(finding[key] for key in _FINDING), []).append(verdict["site"])
    if sites_of:
        lines.append("")
    for (check, subject, error, cause), sites in sites_of.items():
        named = ", ".join(sites[:_MOST_NAMED])
        named += f" and {len(sites) - _MOST_NAMED} more" if len(sites) > _MOST_NAMED else ""
        lines.append(f"{named}: {check} {subject}: {error}")
        lines.append(f"    likely cause: {cause}")
    lines.append("")
    lines.append(f"{sum(verdict['ok'] for verdict in verdicts)} of {len(verdicts)} sites are in order.")
    return "\n".join(lines)
