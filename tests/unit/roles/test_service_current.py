"""When a service counts as older than its files, on real files and on what systemd tells."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from ansible_collections.wattfleet.energy.plugins.modules import service_current as module

MINUTE = 60_000_000  # µs
BOOTED = 1_795_000_000_000_000  # 2026-11-18 11:06:40 UTC
SHOWN = """\
LoadState=loaded
ActiveState=active
UnitFileState=enabled
NeedDaemonReload=no
InactiveExitTimestamp=Wed 2026-11-18 11:07:40.000000 UTC
InactiveExitTimestampMonotonic=60000000
ActiveEnterTimestampMonotonic=61000000
StateChangeTimestamp=Wed 2026-11-18 11:07:41.000000 UTC
StateChangeTimestampMonotonic=61000000
"""


def unit(**changes: object) -> module.Unit:
    values = {
        "name": "a.service",
        "load": "loaded",
        "active": "active",
        "enabled": "enabled",
        "outdated": False,
        "started": 100,
        "loaded": 200,
    }
    return module.Unit(**{**values, **changes})


def test_a_start_is_when_it_began_and_no_reload() -> None:
    found = module.parse("a.service", SHOWN, BOOTED)
    assert (found.active, found.enabled, found.outdated) == ("active", "enabled", False)
    assert found.started == found.loaded == BOOTED + MINUTE


def test_a_reload_renews_what_a_reload_reads_and_nothing_else() -> None:
    text = SHOWN.replace("StateChangeTimestampMonotonic=61000000", "StateChangeTimestampMonotonic=120000000")
    text = text.replace("11:07:41", "11:08:40")
    found = module.parse("a.service", text, BOOTED)
    assert (found.started, found.loaded) == (BOOTED + MINUTE, BOOTED + 2 * MINUTE)


def test_a_unit_that_never_ran_has_no_start() -> None:
    text = (
        "LoadState=loaded\nActiveState=inactive\nInactiveExitTimestamp=\nInactiveExitTimestampMonotonic=0\n"
    )
    assert module.parse("a.service", text, BOOTED).started == 0


@pytest.mark.parametrize("step", [3600 * 1_000_000, -3600 * 1_000_000])
def test_of_a_clock_that_was_set_the_earlier_reading_counts(step: int) -> None:
    # The clock was moved by `step` after the start, so the boot seems to have been that much later.
    assert module.parse("a.service", SHOWN, BOOTED + step).started == BOOTED + MINUTE + min(step, 0)


def test_a_file_is_as_old_as_its_last_change_whatever_its_content_says(tmp_path: Path) -> None:
    path = tmp_path / "config"
    before = time.time_ns() // 1000 - 10_000  # the kernel's own clock for files has steps of up to 10 ms
    path.write_text("a", encoding="utf-8")
    os.utime(path, (0, 0))  # an archive that was unpacked
    assert module.changed_at(path) >= before


def test_a_link_that_was_switched_is_a_change(tmp_path: Path) -> None:
    old, current = tmp_path / "old", tmp_path / "current"
    old.mkdir()
    time.sleep(0.02)
    current.symlink_to(old)
    assert module.changed_at(current) == current.lstat().st_ctime_ns // 1000 > module.changed_at(old)


def test_what_a_chain_of_links_leads_to_is_a_change(tmp_path: Path) -> None:
    target, middle, link = (tmp_path / name for name in ("target", "middle", "link"))
    target.write_text("a", encoding="utf-8")
    middle.symlink_to("target")
    link.symlink_to(middle)
    assert module.way(link) == [link, middle, target]
    time.sleep(0.02)
    target.write_text("b", encoding="utf-8")
    assert module.changed_at(link) == target.stat().st_ctime_ns // 1000


def test_a_link_in_a_circle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(OSError, match="symbolic links"):
        module.changed_at(tmp_path / "a")


def test_a_file_from_the_future_gets_the_present_and_keeps_its_content_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config"
    path.write_text("a", encoding="utf-8")
    os.utime(path, (7, 7))
    stamped = module.changed_at(path)
    module.leave_future(path)
    assert module.changed_at(path) == stamped  # it is not from the future
    time.sleep(0.02)
    monkeypatch.setattr(module.time, "time_ns", lambda: (stamped - MINUTE) * 1000)
    module.leave_future(path)
    assert module.changed_at(path) > stamped
    assert path.stat().st_mtime == 7


@pytest.mark.parametrize(
    ("found", "files", "reload_for", "action", "reasons"),
    [
        (unit(), {"/a": 100}, {"/b": 200}, "none", []),
        (unit(), {"/a": 101}, {"/b": 200}, "restart", ["/a is newer"]),
        (unit(), {"/a": 100}, {"/b": 201}, "reload", ["/b is newer"]),
        (
            unit(),
            {"/c": 300, "/a": 101},
            {"/b": 201},
            "restart",
            ["/a is newer", "/c is newer", "/b is newer"],
        ),
        (unit(active="reloading"), {"/a": 101}, {}, "restart", ["/a is newer"]),
        (unit(active="inactive", started=0), {"/a": 101}, {}, "start", ["it was inactive"]),
        (unit(active="failed"), {}, {}, "start", ["it was failed"]),
        (unit(active="activating"), {"/a": 100}, {}, "start", ["it was activating"]),
        (unit(active="activating"), {"/a": 101}, {}, "restart", ["it was activating", "/a is newer"]),
        (unit(enabled="disabled"), {}, {}, "none", ["it did not start at boot"]),
        (unit(enabled="enabled-runtime"), {}, {}, "none", []),
        (unit(outdated=True), {}, {}, "none", ["systemd had not read its files since they changed"]),
    ],
)
def test_what_a_unit_needs(
    found: module.Unit, files: dict[str, int], reload_for: dict[str, int], action: str, reasons: list[str]
) -> None:
    step = module.judge(found, files, reload_for)
    assert (step.action, step.reasons) == (action, reasons)
    assert step.enable == (found.enabled == "disabled")


def test_the_difference_names_what_was_found_and_what_was_done() -> None:
    step = module.judge(unit(), {"/a": 101}, {})
    assert module.text_of([step], False) == "a.service: active, enabled\n"
    assert module.text_of([step], True) == "a.service: restart: /a is newer\n"
