"""What a role takes for different, on files as host_state describes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.wattfleet.energy.plugins.filter.file_differences import file_differences
from ansible_collections.wattfleet.energy.plugins.module_utils import _state_files


@pytest.mark.parametrize(
    ("name", "want", "reason"),
    [
        ("a", {"content": "a", "mode": "0640"}, None),
        ("a", {"content": "b"}, "its content differs"),
        ("a", {"content": "a", "mode": "0600"}, "mode is 0640 in place of 0600"),
        ("a", {"type": "absent"}, "type is file in place of absent"),
        ("a", {"target": "b"}, "type is file in place of link"),
        ("link", {"target": "a"}, None),
        ("link", {"target": "b"}, "target is a in place of b"),
        ("link", {"content": "a"}, "type is link in place of file"),
        ("folder", {"type": "directory"}, None),
        ("folder", {"type": "directory", "owner": "somebody"}, " in place of somebody"),
        ("none", {"content": ""}, "it is not there"),
        ("none", {"type": "absent"}, None),
        ("never/asked", {"content": ""}, "it is not there"),
        ("never/asked", {"type": "absent"}, None),
    ],
)
def test_a_difference_has_its_reason(
    tmp_path: Path, name: str, want: dict[str, Any], reason: str | None
) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "a").chmod(0o640)
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "folder").mkdir()
    files = _state_files.describe([f"{tmp_path}/{one}" for one in ("a", "link", "folder", "none")])
    found = file_differences(files, {f"{tmp_path}/{name}": want})
    assert set(found) == ({f"{tmp_path}/{name}"} if reason else set())
    if reason:
        assert found[f"{tmp_path}/{name}"].endswith(reason)


def test_a_file_on_the_controller_is_compared_by_its_bytes(tmp_path: Path) -> None:
    for name, data in (("here", b"\x00\xff"), ("there", b"\x00\xff")):
        (tmp_path / name).write_bytes(data)
    files = _state_files.describe([f"{tmp_path}/there"])
    wanted = {f"{tmp_path}/there": {"source": f"{tmp_path}/here"}}
    assert file_differences(files, wanted) == {}
    (tmp_path / "here").write_bytes(b"\x00\xfe\xff")
    assert file_differences(files, wanted) == {f"{tmp_path}/there": "its content differs"}
    with pytest.raises(AnsibleFilterError, match="none on the controller: No such file"):
        file_differences(files, {f"{tmp_path}/there": {"source": f"{tmp_path}/none"}})


def test_a_word_that_is_none_of_ours_is_no_silent_agreement() -> None:
    with pytest.raises(AnsibleFilterError, match="/a: sha1 is not among type, mode"):
        file_differences({}, {"/a": {"sha1": "x"}})
