# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest
from wattfleet_lab import image, kernel, paths, recipe
from wattfleet_lab.errors import LabError
from wattfleet_lab.progress import Progress
from wattfleet_lab.sources import debian_sources


def test_the_digest_depends_on_packages_pool_and_script(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    digests = {recipe.digest()}
    assert recipe.digest() in digests
    script = tmp_path / "image.sh"
    script.write_text(recipe.SCRIPT.read_text() + "# changed\n")
    for name, value in (
        ("PACKAGES", (*recipe.PACKAGES, "htop")),
        ("POOL", (*recipe.POOL, "htop")),
        ("SUITE", "trixie"),
        ("SCRIPT", script),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(recipe, name, value)
            digests.add(recipe.digest())
    assert len(digests) == 5


def test_package_lists_are_sorted_and_without_repetition() -> None:
    assert list(recipe.PACKAGES) == sorted(set(recipe.PACKAGES))
    assert list(recipe.POOL) == sorted(set(recipe.POOL))
    assert not set(recipe.PACKAGES) & set(recipe.POOL)


def test_both_formats_of_package_sources_are_understood(tmp_path: Path) -> None:
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    (tmp_path / "sources.list").write_text("# deb http://old.example bookworm main\n")
    (folder / "debian.sources").write_text(
        "# a comment\nTypes: deb deb-src\nURIs: http://mirror.example/debian\n"
        "Suites: bookworm bookworm-updates\n"
        "Components: main contrib\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        "\nEnabled: no\nTypes: deb\nURIs: http://off.example\nSuites: bookworm\nComponents: main\n"
        "\nTypes: deb\nURIs: http://other.example\nSuites: nodistro\nComponents: main\n"
    )
    (folder / "security.list").write_text(
        "deb [arch=amd64] http://mirror.example/security bookworm-security main # fixes\n"
        "deb http://cloud.example cloud-bookworm main\n"
    )
    (folder / "notes.txt").write_text("deb http://not.example bookworm main\n")
    key = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
    assert debian_sources("bookworm", tmp_path) == [
        f"deb {key}http://mirror.example/debian bookworm main",
        f"deb {key}http://mirror.example/debian bookworm-updates main",
        "deb [arch=amd64] http://mirror.example/security bookworm-security main",
    ]


def test_sources_of_another_release_are_no_sources(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb http://mirror.example/debian trixie main\n")
    assert debian_sources("bookworm", tmp_path) == []
    assert debian_sources("bookworm", tmp_path / "none") == []


def test_what_is_missing_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(LabError, match="needs root"):
        image.ensure(Progress())
    with pytest.raises(LabError, match=r"no-such-program not found: run tools/bootstrap\.sh"):
        kernel.require_programs("sh", "no-such-program")
    with pytest.raises(LabError, match=r"MiB free, 999999999 needed; make room or set XDG_CACHE_HOME"):
        kernel.require_space(tmp_path, 999_999_999, "XDG_CACHE_HOME")


def test_a_failed_build_leaves_no_image_and_names_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    programs = tmp_path / "bin"
    programs.mkdir()
    failing = programs / "mmdebstrap"
    failing.write_text(
        "#!/bin/sh\necho 'I: running apt-get update...'\necho 'E: mirror is down' >&2\nexit 25\n"
    )
    failing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin")
    monkeypatch.setattr(kernel, "require_programs", lambda *programs: None)
    (paths.cache_root() / ".building-killed" / "root").mkdir(parents=True)
    with pytest.raises(LabError, match=r"E: mirror is down \(all of it: .*build\.log\)"):
        image.ensure(Progress())
    assert sorted(path.name for path in paths.cache_root().iterdir()) == ["build.log", "lock"]


def test_prune_keeps_the_present_image_and_those_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    for name in (recipe.digest(), "0123", "4567"):
        (paths.cache_root() / name / "root").mkdir(parents=True)
    monkeypatch.setattr(kernel, "overlay_lower_folders", lambda: {str(paths.cache_root() / "4567" / "root")})
    assert image.prune() == ["0123"]
    assert (paths.cache_root() / "4567").exists()
