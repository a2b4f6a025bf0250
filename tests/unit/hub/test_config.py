# SPDX-License-Identifier: Apache-2.0
"""The configuration file, and the one line that each fault of it gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from energy_hub import cli, config


def test_defaults(tmp_path: Path) -> None:
    file = tmp_path / "ingest.yaml"
    file.write_text("broker: {host: hub.example}\n")
    found = config.load(file)
    assert (found.broker.host, found.broker.port, found.broker.client_id) == ("hub.example", 8883, "ingest")
    assert found.authorities == found.broker.ca == Path("/etc/ssl/energy/ca.crt")
    assert found.database == "dbname=energy user=energy_ingest"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "broker: host is missing"),
        ("- a\n", r"found \['a'\], expected keys and values"),
        ("broker: {host: h, prot: 1}\n", "unknown key 'prot', expected one of ca, certificate,"),
        ("broker: {host: h, port: '1'}\n", "port: found '1', expected an integer from 1 to 65535"),
        ("broker: {host: h}\ngroup: {wait: -1}\n", "group: wait: found -1, expected a number from 0 to 10"),
        ("broker: {host: h, client_id: 'a b'}\n", "client_id 'a b': expected letters"),
        ("broker: [\n", "not YAML"),
    ],
)
def test_fault(tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ingest.yaml"
    file.write_text(text)
    with pytest.raises(config.ConfigError, match=message):
        config.load(file)
    assert cli.main(["ingest", "--config", str(file)]) == cli.FAILED
    assert capsys.readouterr().err.count("\n") == 1


def test_missing_file_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ingest", "--config", "/nonexistent.yaml"]) == cli.FAILED
    assert capsys.readouterr().err == "energy-hub: ERR /nonexistent.yaml: No such file or directory\n"
