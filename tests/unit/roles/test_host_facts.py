"""Facts of the host that preflight judges."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.wattfleet.energy.plugins.module_utils.durable_file import replace_file
from ansible_collections.wattfleet.energy.plugins.module_utils.tls_facts import tls_facts
from ansible_collections.wattfleet.energy.plugins.modules import host_facts as module


def test_os_release_is_read_with_its_quotes_and_comments() -> None:
    text = (
        '# a comment\nID="rocky"\nID_LIKE="rhel centos fedora"\n'
        'VERSION_ID="9.4"\nPRETTY_NAME="Rocky Linux 9.4"\n\n'
    )
    assert module.os_facts(text) == {
        "id": "rocky",
        "id_like": ["rhel", "centos", "fedora"],
        "version": "9.4",
        "name": "Rocky Linux 9.4",
    }


def test_a_host_without_os_release_is_an_unknown_one() -> None:
    assert module.os_facts("") == {"id": "linux", "id_like": [], "version": "", "name": "unknown"}


def test_of_a_missing_directory_the_nearest_parent_is_measured(tmp_path: Path) -> None:
    facts = module.disk_facts(str(tmp_path / "not" / "there"))
    assert facts["measured"] == str(tmp_path)
    assert 0 < facts["free"] <= facts["total"]


def test_tls_facts_name_cipher_suites() -> None:
    facts = tls_facts()
    assert facts["tls13"] is True
    assert "TLS_AES_256_GCM_SHA384" in facts["ciphers"]  # type: ignore[operator]


def test_a_replaced_file_has_the_new_mode_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    file.chmod(0o644)
    replace_file(file, "new", 0o600)
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]
