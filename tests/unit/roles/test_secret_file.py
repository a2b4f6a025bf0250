# SPDX-License-Identifier: Apache-2.0
"""A secret in its file. That it lies nowhere else on its way is tests/fleet/test_secrets.py's to show."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wattfleet.energy.plugins.modules import secret_file as module

ME = pwd.getpwuid(os.geteuid()).pw_name
OURS = grp.getgrgid(os.getegid()).gr_name
SECRET = "correct horse battery staple"


def bring(path: Path, content: str = SECRET, *, check: bool = False, **more: str) -> dict[str, Any]:
    options = {"path": str(path), "content": content, "owner": ME, "group": OURS, "mode": "0600", **more}
    return module.bring(options, check=check)


def test_it_is_written_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "password"
    first = bring(path)
    assert (first["changed"], first["differs"]) == (True, ["content", "owner", "group", "mode"])
    assert path.read_text() == SECRET
    assert path.stat().st_mode & 0o7777 == 0o600
    assert bring(path) | {"diff": None} == {"changed": False, "differs": [], "diff": None}
    assert list(tmp_path.iterdir()) == [path]


def test_check_mode_says_it_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "password"
    assert bring(path, check=True)["changed"]
    assert not path.exists()
    path.write_text("another one")
    path.chmod(0o644)
    assert bring(path, check=True)["differs"] == ["content", "mode"]
    assert path.read_text() == "another one"


def test_the_difference_shows_no_content(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("what was before")
    path.chmod(0o640)
    told = bring(path)["diff"]
    assert told["before"] == f"owner: {ME}\ngroup: {OURS}\nmode: 0640\ncontent: another one\n"
    assert told["after"] == f"owner: {ME}\ngroup: {OURS}\nmode: 0600\ncontent: the one that is wanted\n"


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    path, other = tmp_path / "password", tmp_path / "other"
    other.write_text("of somebody else")
    path.symlink_to(other)
    assert bring(path)["changed"]
    assert not path.is_symlink()
    assert other.read_text() == "of somebody else"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "0644"}, "found mode '0644', expected one that leaves others nothing, as '0600'"),
        ({"mode": "rw"}, "found mode 'rw', expected one that leaves others nothing, as '0600'"),
        ({"owner": "nobody-of-that-name"}, "there is no user 'nobody-of-that-name' on this host"),
        ({"group": "none-of-that-name"}, "there is no group 'none-of-that-name' on this host"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_written(
    tmp_path: Path, options: dict[str, str], words: str
) -> None:
    path = tmp_path / "password"
    with pytest.raises(module.SecretFileError) as caught:
        bring(path, **options)
    assert str(caught.value) == words
    assert not path.exists()


def test_a_folder_in_its_place_and_a_missing_one_are_told(tmp_path: Path) -> None:
    with pytest.raises(module.SecretFileError, match="found a folder, expected a file or nothing"):
        bring(tmp_path)
    with pytest.raises(module.SecretFileError, match=f"its folder {tmp_path}/none is not there"):
        bring(tmp_path / "none" / "password")


def test_check_mode_takes_what_an_earlier_task_would_have_made_for_made(tmp_path: Path) -> None:
    path = tmp_path / "none" / "password"
    assert bring(path, check=True, owner="nobody-of-that-name", group="none-of-that-name")["changed"]
    assert list(tmp_path.iterdir()) == []
