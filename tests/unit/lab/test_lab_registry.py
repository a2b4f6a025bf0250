# SPDX-License-Identifier: Apache-2.0
import threading
from pathlib import Path

import pytest
from wattfleet_lab import paths, registry
from wattfleet_lab.errors import LabError
from wattfleet_lab.registry import Registry


@pytest.fixture(autouse=True)
def _own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "MACHINE", tmp_path / "run")


def test_reserved_names_have_their_index_and_new_names_a_free_one() -> None:
    labs = Registry()
    assert labs.claim("default", Path("/a/default")) == 0
    assert labs.claim("molecule", Path("/a/molecule")) == 1
    assert labs.claim("mine", Path("/a/mine")) == 2
    assert labs.claim("other", Path("/a/other")) == 3
    assert labs.claim("mine", Path("/a/mine")) == 2


def test_a_name_keeps_the_index_it_had_while_that_is_free() -> None:
    labs = Registry()
    assert labs.claim("mine", Path("/a/mine"), remembered=9) == 9
    assert labs.claim("other", Path("/a/other"), remembered=9) == 2


def test_a_name_that_another_checkout_uses_is_refused_with_the_way_out() -> None:
    labs = Registry({"default": (0, Path("/a/.lab/default"))})
    with pytest.raises(LabError, match=r"WATTFLEET_STATE=/a/\.lab wattfleet lab --lab default down"):
        labs.claim("default", Path("/b/.lab/default"))


def test_there_are_fourteen_indexes_for_free_names() -> None:
    labs = Registry()
    assert [labs.claim(f"lab{i}", Path(f"/a/{i}")) for i in range(14)] == list(range(2, 16))
    with pytest.raises(LabError, match="no free lab index"):
        labs.claim("one-more", Path("/a/x"))


def test_what_is_written_is_read_again_and_the_last_one_takes_the_files_along() -> None:
    with registry.changing() as machine:
        machine.claim("mine", Path("/a/mine"))
        machine.restore["fs.inotify.max_user_instances"] = "128"
        machine.netns_folder = True
    assert registry.read() == Registry(
        {"mine": (2, Path("/a/mine"))}, {"fs.inotify.max_user_instances": "128"}, True
    )
    with registry.changing() as machine:
        machine.labs.clear()
        machine.restore.clear()
        machine.netns_folder = False
    assert not list(paths.MACHINE.iterdir())


def test_a_failed_change_is_not_written() -> None:
    def fail() -> None:
        with registry.changing() as machine:
            machine.claim("mine", Path("/a/mine"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert registry.read() == Registry()


def test_concurrent_changes_all_count() -> None:
    def claim(number: int) -> None:
        with registry.changing() as machine:
            machine.claim(f"lab{number}", Path(f"/a/{number}"))

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(index for index, _ in registry.read().labs.values()) == list(range(2, 10))


def test_whoever_waited_for_a_lock_file_that_its_holder_deleted_locks_a_new_one(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    order: list[str] = []

    def second() -> None:
        with registry.locked(lock):
            order.append("second")
            assert lock.exists()

    with registry.locked(lock):
        thread = threading.Thread(target=second)
        thread.start()
        order.append("first")
        lock.unlink()
    thread.join()
    assert order == ["first", "second"]
