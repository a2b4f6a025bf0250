# SPDX-License-Identifier: Apache-2.0
"""Updates of a gateway: a good one, every bad one, what is refused, and the ways back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware import engine, program, settings
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware.host import FirmwareError
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware.incoming import Incoming
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware.manifest import Refused
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware.store import Store

from .gateway import ADAPTER, ATTEMPT, NEW, OLD, WITHIN, FakeGateway, envelope, image_of


@pytest.fixture
def host(place: Path) -> FakeGateway:
    return FakeGateway.make(place / "root")


def update(
    host: FakeGateway, behaviour: str = "good", attempt: str = ATTEMPT, **changes: Any
) -> engine.Answer:
    """Send, begin, and let the gateway do what it does by itself."""
    image = image_of(changes.get("version", NEW), behaviour)
    release = envelope(image, **changes)
    host.send(image, release)
    assert host.begin(release, attempt).kind == "begun"
    host.work()
    return host.look(attempt)


def test_a_good_update_is_kept_once_it_is_confirmed(host: FakeGateway) -> None:
    assert update(host) == engine.Answer("running", f"runs {NEW}")
    _answer, data = engine.look(host, ATTEMPT, "firmware")
    assert data["version"] == NEW
    assert 290 <= data["left"] <= WITHIN
    assert engine.confirm(host, ATTEMPT) == engine.Answer("confirmed", f"runs {NEW}", changed=True)
    assert host.device()["kept"] == 1
    assert host.device()["timer"] is None
    host.pass_by(10 * WITHIN)
    host.boot()
    assert (host.version, host.device()["flashed"]) == (NEW, [NEW])
    # Asked again, by whoever did not hear the answer.
    assert engine.confirm(host, ATTEMPT) == engine.Answer("confirmed", "")
    assert host.look().kind == "confirmed"
    # The image is gone, from both places.
    assert not [*host.at("/tmp").iterdir(), *Store(host).base.glob("incoming/*.image")]


def test_an_attempt_is_installed_once_however_often_it_is_asked_for(host: FakeGateway) -> None:
    image = image_of()
    release = envelope(image)
    host.send(image, release)
    for _time in range(3):
        assert host.begin(release).kind == "begun"
    host.work()
    assert host.begin(release) == engine.Answer("running", f"runs {NEW}")
    host.work()
    engine.confirm(host, ATTEMPT)
    assert host.begin(release).kind == "confirmed"
    host.work()
    assert host.device()["flashed"] == [NEW]


def test_it_goes_back_when_nobody_confirms_it(host: FakeGateway) -> None:
    update(host)
    host.pass_by(WITHIN - 1)
    assert host.version == NEW
    host.pass_by(2)
    assert host.version == OLD
    assert host.look() == engine.Answer("failed", f"nobody has confirmed it within {WITHIN:g} s")
    assert engine.confirm(host, ATTEMPT).kind == "failed"


def test_a_restart_begins_the_wait_again_and_the_fourth_ends_it(host: FakeGateway) -> None:
    update(host)
    for _time in range(engine.BOOTS - 1):
        host.pass_by(WITHIN - 10)
        host.boot()
        assert host.phase == "running"
        assert host.device()["timer"] is not None
    host.boot()
    host.work()
    assert host.version == OLD
    assert host.look().why == "it was restarted 3 times and nobody has confirmed it"


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("fails", "firmware-update install"),
        ("fails", "block 40: write error"),
        ("hangs", "no answer within 900 s"),
        ("lies", f"reported success, and the device runs {OLD} instead of {NEW}"),
    ],
)
def test_a_bad_image_leaves_the_old_version(host: FakeGateway, behaviour: str, said: str) -> None:
    told = update(host, behaviour)
    assert told.kind == "failed"
    assert said in told.why
    assert host.version == OLD
    host.boot()
    assert host.version == OLD
    assert host.look() == told
    # And the next attempt, with the same release, is begun.
    release = envelope(image_of(NEW, behaviour))
    assert host.begin(release, "2026-11/plant-a/2").kind == "begun"


def test_a_device_that_boots_something_else_goes_back(host: FakeGateway) -> None:
    told = update(host)
    assert told.kind == "running"
    host.pass_by(WITHIN + 1)
    image = image_of("9.9.9")
    release = envelope(image, version="2.4.3", number=18)
    host.send(image, release)
    host.begin(release, "x/2")
    host.work()
    assert host.version == OLD
    assert "runs 9.9.9 instead of 2.4.3" in engine.look(host, "x/2", "firmware")[0].why


def test_a_device_that_restarts_while_it_is_updated_is_asked(host: FakeGateway) -> None:
    image = image_of()
    release = envelope(image)
    host.send(image, release)
    host.begin(release)
    state = host.device()
    # The tool has written the other slot, and the power went before it was marked.
    record = Store(host).attempt()
    assert record is not None
    Store(host).note(record, phase="installing")
    host.keep({**state, "flashed": [NEW]})
    host.boot()
    assert (
        host.look().why
        == f"the device went down while it was installed, and the device runs {OLD} instead of {NEW}"
    )
    assert host.device()["flashed"] == [NEW]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"keys": ()}, "the manifest is not signed"),
        ({"keys": (0,)}, "good signatures by 1 of the keys that this gateway trusts, and needs 2"),
        ({"models": ["moxa-uc-3100"]}, "the release is for moxa-uc-3100, and this gateway is a moxa-uc-8220"),
        ({"expires": "2026-01-01T00:00:00Z"}, "the release expired on 2026-01-01"),
        ({"version": "2.2.0"}, "2.2.0 is older than 2.3.0, which runs"),
        ({"kind": "collector"}, "the release is one of collector, and firmware was asked for"),
    ],
)
def test_what_is_refused_changes_nothing(host: FakeGateway, changes: dict[str, Any], said: str) -> None:
    image = image_of()
    release = envelope(image, **changes)
    host.send(image, release)
    with pytest.raises(Refused, match=said):
        host.begin(release)
    assert host.device()["flashed"] == []
    assert host.phase is None
    assert host.look().kind == "unknown"


def test_a_replayed_release_is_refused(host: FakeGateway) -> None:
    update(host)
    engine.confirm(host, ATTEMPT)
    image = image_of("2.4.0")
    release = envelope(image, version="2.4.2", number=16)
    host.send(image, release)
    with pytest.raises(Refused, match="release number 16 is a replay: this gateway has taken number 17"):
        host.begin(release, "x/2")


def test_an_image_that_changed_on_the_disk_is_refused(host: FakeGateway) -> None:
    image = image_of()
    release = envelope(image)
    host.send(image, release)
    path = next(Store(host).base.glob("incoming/*.image"))
    content = bytearray(path.read_bytes())
    content[500] ^= 4
    path.write_bytes(content)
    with pytest.raises(Refused, match="is not what was signed"):
        host.begin(release)
    path.write_bytes(image[:-1])
    with pytest.raises(Refused, match="it is not whole"):
        host.begin(release)
    assert host.device()["flashed"] == []


def test_a_device_of_another_model_than_its_site_file_says_is_not_updated(host: FakeGateway) -> None:
    host.change(model="moxa-uc-3100")
    image = image_of()
    release = envelope(image)
    host.send(image, release)
    with pytest.raises(
        FirmwareError, match="says that it is a moxa-uc-3100, and its site file says moxa-uc-8220"
    ):
        host.begin(release)


def test_a_second_attempt_waits_for_the_end_of_the_first(host: FakeGateway) -> None:
    update(host)
    with pytest.raises(Refused, match=f"{ATTEMPT} is running here: it has to end first"):
        host.begin(envelope(image_of("2.4.2"), version="2.4.2", number=18), "x/2")


def test_a_version_that_runs_already_is_not_installed_again(host: FakeGateway) -> None:
    image = image_of(OLD)
    release = envelope(image, version=OLD)
    host.send(image, release)
    assert host.begin(release) == engine.Answer("running", changed=True)
    host.work()
    host.pass_by(10 * WITHIN)
    host.boot()
    assert engine.confirm(host, ATTEMPT).kind == "confirmed"
    assert host.device()["flashed"] == []


def test_what_nobody_confirms_and_cannot_go_back_is_in_nobodys_way(host: FakeGateway) -> None:
    image = image_of(OLD)
    release = envelope(image, version=OLD)
    host.send(image, release)
    host.begin(release)
    update(host, version=NEW, number=18, attempt="x/2")
    assert host.version == NEW
    assert host.look("x/2").kind == "running"
    assert host.look().kind == "confirmed"


def test_taken_back_by_request(host: FakeGateway) -> None:
    update(host)
    engine.confirm(host, ATTEMPT)
    assert engine.back(host, "x/back", "firmware").kind == "begun"
    host.work()
    assert host.version == OLD
    assert engine.look(host, "x/back", "firmware")[0] == engine.Answer("running", f"runs {OLD}")
    # Nobody turns it round again.
    host.pass_by(10 * WITHIN)
    assert host.version == OLD
    assert engine.confirm(host, "x/back").kind == "confirmed"
    assert engine.back(host, "x/back", "firmware").kind == "confirmed"
    with pytest.raises(Refused, match="no earlier version of the firmware is known here"):
        engine.back(host, "x/back2", "firmware")


def test_taken_back_before_it_was_confirmed(host: FakeGateway) -> None:
    update(host)
    assert engine.back(host, ATTEMPT, "firmware").kind == "begun"
    host.work()
    assert host.version == OLD
    assert host.look().kind == "running"
    assert engine.confirm(host, ATTEMPT).kind == "confirmed"


def test_a_way_back_that_is_blocked_ends(host: FakeGateway) -> None:
    update(host)
    host.change(refuse={"firmware-update rollback": [1, "", "slot a is damaged"]})
    host.pass_by(WITHIN + 1)
    told = host.look()
    assert told.kind == "failed"
    assert f"and it could not go back: it runs {NEW}" in told.why


def test_a_device_that_cannot_be_told_to_keep_it_goes_back(host: FakeGateway) -> None:
    update(host)
    host.change(refuse={"firmware-update confirm": [1, "", "no"]})
    with pytest.raises(FirmwareError, match="could not be told to keep it"):
        engine.confirm(host, ATTEMPT)
    host.settle()
    host.work()
    assert host.version == OLD
    assert "the device cannot be told to keep it" in host.look().why


def test_a_way_back_that_cannot_be_armed_is_taken_at_once(host: FakeGateway) -> None:
    host.change(refuse={"systemd-run --quiet": [1, "", "no"]})
    told = update(host)
    assert told.kind == "failed"
    assert "could not be armed" in told.why
    assert host.version == OLD


def test_a_device_that_needs_no_restart(place: Path) -> None:
    host = FakeGateway.make(place / "root", {**ADAPTER, "reboot": "none"})
    told = update(host)
    # This one does need it, so the old version still runs.
    assert told == engine.Answer(
        "failed",
        f"the installation has reported success, and the device runs {OLD} instead of {NEW}",
    )


# ---- The limits of our units


def test_nothing_is_begun_where_the_units_limits_cannot_be_set_up(host: FakeGateway) -> None:
    host.change(unstartable=226)
    image = image_of()
    release = envelope(image)
    host.send(image, release)
    with pytest.raises(
        FirmwareError,
        match=r"install\.service: its limits cannot be set up \(status 226, .* nothing is installed",
    ):
        host.begin(release)
    host.work()
    assert (host.phase, host.device()["flashed"]) == (None, [])
    # And once it can be started the same attempt is begun.
    host.change(unstartable=0)
    assert host.begin(release).kind == "begun"


def test_nothing_is_begun_where_the_tool_does_not_work_within_them(host: FakeGateway) -> None:
    host.change(limits={"firmware-update version": [1, "", "/dev/mtd0: Operation not permitted"]})
    image = image_of()
    release = envelope(image)
    host.send(image, release)
    with pytest.raises(
        FirmwareError, match="does not tell the version within its limits: the adapter's needs lack"
    ):
        host.begin(release)
    assert "rehearsed: firmware-update version: /dev/mtd0: Operation not permitted" in host.said
    assert (host.phase, host.device()["flashed"]) == (None, [])
    # The collector's releases have nothing to do with the tool.
    image, release = collector("0.4.0")
    host.send(image, release)
    assert host.begin(release, kind="collector").kind == "begun"


def test_no_way_back_is_begun_that_could_not_be_gone(host: FakeGateway) -> None:
    update(host)
    engine.confirm(host, ATTEMPT)
    host.change(limits={"firmware-update version": [1, "", "no"]})
    with pytest.raises(FirmwareError, match="the adapter's needs lack something; nothing is installed"):
        engine.back(host, "x/back", "firmware")
    assert host.version == NEW


def test_the_way_back_is_gone_whatever_the_needs_lack(host: FakeGateway) -> None:
    update(host)
    host.change(limits={"firmware-update rollback": [1, "", "no"]})
    host.pass_by(WITHIN + 1)
    assert host.version == OLD
    assert host.look() == engine.Answer("failed", f"nobody has confirmed it within {WITHIN:g} s")
    assert [one for one in host.said if "needs" in one] == [
        "firmware-update rollback: no; once more without the limits that the adapter's needs leave",
        "firmware-update rollback goes through without them: its adapter's needs lack something",
    ]


def test_what_was_confirmed_stays_whatever_the_needs_lack(host: FakeGateway) -> None:
    update(host)
    record = Store(host).attempt()
    assert record is not None
    # The power went between the note and the device's own.
    Store(host).note(record, phase="confirming")
    host.change(limits={"firmware-update confirm": [1, "", "no"]})
    host.boot()
    assert (host.version, host.look().kind, host.device()["kept"]) == (NEW, "confirmed", 1)


def test_what_failed_is_not_booted_whatever_the_needs_lack(host: FakeGateway) -> None:
    host.change(limits={"firmware-update cancel": [1, "", "no"]}, next="b")
    assert update(host, "fails").kind == "failed"
    assert host.device()["next"] is None


def test_a_tool_that_hangs_is_not_run_once_more(host: FakeGateway) -> None:
    update(host)
    host.change(limits={"firmware-update rollback": [124, "", "no answer within 900 s"]})
    host.pass_by(WITHIN + 1)
    assert host.version == NEW
    assert "and it could not go back" in host.look().why


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        ({"write": ["/boot"]}, "/boot, which the adapter's needs have under write, is not there"),
        ({"devices": ["/dev/mtd0"]}, "/dev/mtd0, which the adapter's needs have under devices, is not there"),
        ({"devices": ["/dev/null"]}, "/dev/null, which the adapter's needs have under devices, is no device"),
    ],
)
def test_what_the_tool_needs_has_to_be_there_before_anything_is_begun(
    place: Path, needs: dict[str, Any], said: str
) -> None:
    host = FakeGateway.make(place / "root", {**ADAPTER, "needs": needs})
    host.at("/dev").mkdir()
    host.at("/dev/null").touch()
    image = image_of()
    release = envelope(image)
    host.send(image, release)
    with pytest.raises(FirmwareError, match=said):
        host.begin(release)
    assert host.phase is None


def test_an_adapter_of_an_earlier_release_still_works(host: FakeGateway) -> None:
    path = host.at(settings.ADAPTER)
    path.write_text(
        json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "needs"})
    )
    assert update(host).kind == "running"
    assert engine.confirm(host, ATTEMPT).kind == "confirmed"


def test_an_update_that_nothing_settles_is_told(
    host: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    update(host)
    host.change(status={engine.SETTLE: 226})
    assert "energy-firmware-settle.service cannot begin (status 226" in host.look().why
    assert program.main(["status"], host) == 0
    assert "energy-firmware-settle.service cannot begin (status 226" in capsys.readouterr().out
    # One that ends with an error of its own is at work.
    host.change(status={engine.SETTLE: 1})
    assert host.look() == engine.Answer("running", f"runs {NEW}")


def test_a_gateway_that_was_never_updated_needs_no_folder(host: FakeGateway) -> None:
    # Within their limits the units could not make it.
    assert engine.settle(host) == 0
    engine.rehearse(host, "firmware")
    assert not Store(host).base.exists()


def test_forget_removes_what_was_sent(host: FakeGateway) -> None:
    image = image_of()
    host.send(image, envelope(image))
    assert engine.forget(host, ATTEMPT).changed
    assert not [*Store(host).base.glob("incoming/*.image")]
    assert not engine.forget(host, ATTEMPT).changed


def collector(version: str, content: str = "collector 0.4.0") -> tuple[bytes, bytes]:
    image = content.encode()
    return image, envelope(image, kind="collector", version=version)


def test_the_collector_is_switched_and_kept(host: FakeGateway) -> None:
    image, release = collector("0.4.0")
    host.send(image, release)
    assert host.begin(release, kind="collector").kind == "begun"
    host.work()
    assert host.look(kind="collector") == engine.Answer("running", "runs 0.4.0")
    assert host.release == "0.4.0"
    assert engine.confirm(host, ATTEMPT).kind == "confirmed"
    host.pass_by(10 * WITHIN)
    assert host.release == "0.4.0"
    # A release of firmware has numbers of its own.
    assert Store(host).taken("firmware") == (0, "")
    assert engine.back(host, "x/back", "collector").kind == "begun"
    host.work()
    assert host.release == "0.3.0"


def test_the_collector_goes_back_when_nobody_confirms_it(host: FakeGateway) -> None:
    image, release = collector("0.4.0")
    host.send(image, release)
    host.begin(release, kind="collector")
    host.work()
    host.pass_by(WITHIN + 1)
    assert host.release == "0.3.0"
    assert host.look(kind="collector").why == f"nobody has confirmed it within {WITHIN:g} s"


def test_a_collector_that_refuses_the_configuration_replaces_nothing(host: FakeGateway) -> None:
    image, release = collector("0.4.0", "collector 0.4.0 broken")
    host.send(image, release)
    host.begin(release, kind="collector")
    host.work()
    assert host.release == "0.3.0"
    assert "the configuration is refused" in host.look(kind="collector").why


def test_a_collector_that_tells_another_version_goes_back(host: FakeGateway) -> None:
    image, release = collector("0.4.0", "collector 0.3.9")
    host.send(image, release)
    host.begin(release, kind="collector")
    host.work()
    assert host.release == "0.3.0"
    assert "runs 0.3.9 instead of 0.4.0" in host.look(kind="collector").why


def test_the_journal_of_another_image_counts_for_nothing(host: FakeGateway) -> None:
    image = image_of()
    host.send(image, envelope(image))
    other = image_of("2.4.2")
    host.send(other, envelope(other))
    assert Incoming(host, "0" * 64).offset() == 0
    assert len([*Store(host).base.glob("incoming/*.image")]) == 1
