# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Everything that verify needs to know of a gateway, read in one go."""

from __future__ import annotations

import time
import typing as t

from ansible_collections.wattfleet.energy.plugins.module_utils import (
    _certificate,
    _control,
    _counters,
    _faults,
    _growth,
    _links,
    _probe,
    _services,
)


def look(
    meters: list[dict[str, t.Any]],
    *,
    run_command: _services.RunCommand,
    socket_path: str,
    certificate: str,
    services: list[str],
    interfaces: list[str] | None,
    speed_min: int | None,
    duplex: str | None,
    interval: float,
    limit: int,
) -> dict[str, t.Any]:
    """The state of this gateway. `meters` are checked; `interval` (s) lies between the two looks at the
    counters.

    Nothing that is missing or broken raises: each part tells its own failure beside what could be read.
    """
    started = time.monotonic()
    links_before = _links.counters_of(_links.read(_links.DEFAULT_PATH, interfaces))
    counters_before, failures_before = _counters.read(meters, socket_path)

    result: dict[str, t.Any] = {
        "collector": _collector(socket_path),
        "certificate": _read_certificate(certificate),
        "services": _services.read(services, run_command),
        "meters": _probe.probe_all(meters, socket_path) if meters else [],
    }
    result["buffer"] = result["collector"].pop("buffer")

    time.sleep(max(0.0, interval - (time.monotonic() - started)))
    links = _links.read(_links.DEFAULT_PATH, interfaces)
    counters, failures = _counters.read(meters, socket_path)
    result["links"] = links
    result["link_findings"] = _links.judge(links, speed_min, duplex)
    result["counters"] = counters
    result["counter_failures"] = _counters.of_both(failures_before, failures)
    result["growth"] = {
        **_growth.growth(counters_before, counters),
        **_growth.growth(links_before, _links.counters_of(links)),
    }
    watched = dict.fromkeys((*_counters.WATCHED, *_links.WATCHED))
    result["exceeded"] = _growth.exceeded(result["growth"], watched, limit)
    return result


def _collector(socket_path: str) -> dict[str, t.Any]:
    """What the running collector tells of itself; `failure` and no more when none answers."""
    try:
        control = _control.Control(socket_path)
        try:
            status = control.request("status")
        finally:
            control.close()
    except _control.NotRunningError as error:
        fault = _faults.FaultError("COLLECTOR_STOPPED", f"no collector listens: {error}")
        return {"running": False, "failure": fault.as_dict(), "buffer": None}
    except _faults.FaultError as fault:
        return {"running": False, "failure": fault.as_dict(), "buffer": None}
    told = {key: status.get(key) for key in ("site", "version", "started", "buses", "buffer")}
    by_radio = {radio["name"] for radio in status.get("radios", ())}
    heard = [meter for meter in status.get("meters", ()) if meter.get("bus") in by_radio]
    return {"running": True, "failure": None, "heard": heard, **told}


def _read_certificate(path: str) -> dict[str, t.Any]:
    try:
        told = _certificate.read(path)
    except _certificate.UnreadableError as error:
        return {"path": path, "failure": str(error)}
    return {
        "path": path,
        "failure": None,
        **told,
        "days_left": _certificate.days_left(told["not_after"], time.time()),
    }
