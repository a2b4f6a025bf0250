# SPDX-License-Identifier: Apache-2.0
"""The configuration file, and the one line that each fault of it gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from energy_hub import cli, config
from energy_hub.commands import tools


def test_defaults(tmp_path: Path) -> None:
    file = tmp_path / "ingest.yaml"
    file.write_text("broker: {host: hub.example}\n")
    found = config.load(file)
    (broker,) = found.brokers
    assert (broker.host, broker.port, broker.client_id) == ("hub.example", 8883, "ingest")
    assert broker.server_name == "hub.example"
    assert found.authorities == broker.ca == Path("/etc/ssl/energy/ca.crt")
    assert found.database == "dbname=energy user=energy_ingest"
    assert found.quota == config.Quota(batches=20, bytes=1_048_576, readings=10_000, burst=10)


def test_several_brokers(tmp_path: Path) -> None:
    file = tmp_path / "ingest.yaml"
    file.write_text(
        "brokers:\n"
        "  - {host: 10.0.0.2, server_name: broker-1.brokers.example}\n"
        "  - {host: 10.0.0.2, port: 8884, server_name: broker-2.brokers.example}\n"
    )
    found = config.load(file)
    assert [(one.where, one.server_name) for one in found.brokers] == [
        ("10.0.0.2:8883", "broker-1.brokers.example"),
        ("10.0.0.2:8884", "broker-2.brokers.example"),
    ]


def test_a_further_worker_has_what_is_its_own(tmp_path: Path) -> None:
    file = tmp_path / "ingest.yaml"
    file.write_text("brokers: [{host: a}, {host: b, client_id: x}]\nmetrics: {port: 9106}\n")
    found = config.load(file)
    assert config.of_worker(found, 1) == found
    third = config.of_worker(found, 3)
    assert [(one.client_id, one.certificate.name, one.key.name) for one in third.brokers] == [
        ("ingest-3", "ingest-3.crt", "ingest-3.key"),
        ("x-3", "ingest-3.crt", "ingest-3.key"),
    ]
    assert third.metrics_port == 9108
    assert (third.authorities, third.log, third.database) == (found.authorities, found.log, found.database)


def test_a_further_worker_takes_its_own_certificate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "ingest.yaml"
    file.write_text(f"broker: {{host: h}}\nauthorities: {tmp_path}/ca.crt\nmetrics: {{port: 65534}}\n")
    arguments = ["ingest", "--check", "--config", str(file), "--worker"]
    assert cli.main([*arguments, "3"]) == tools.FAILED
    assert "found 65534, expected room for 3 workers" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main([*arguments, "0"])


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
        ("broker: {host: h}\nbrokers: [{host: h}]\n", "found broker and brokers, expected one of the two"),
        ("brokers: []\n", r"brokers: found \[\], expected a list of at least one"),
        ("brokers: [{host: h}, {host: h}]\n", "brokers: h:8883 is there twice, expected every broker once"),
        ("brokers: [{host: h}, {prot: 1}]\n", r"brokers\[1\]: host is missing"),
        ("broker: {host: h}\nquota: {bytes: x}\n", "quota: bytes: found 'x', expected a number from 0"),
        ("broker: {host: h}\nquota: {readings: -1}\n", "quota: readings: found -1, expected a number from 0"),
    ],
)
def test_fault(tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ingest.yaml"
    file.write_text(text)
    with pytest.raises(config.ConfigError, match=message):
        config.load(file)
    assert cli.main(["ingest", "--config", str(file)]) == tools.FAILED
    assert capsys.readouterr().err.count("\n") == 1


def test_missing_file_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ingest", "--config", "/nonexistent.yaml"]) == tools.FAILED
    assert capsys.readouterr().err == "energy-hub: ERR /nonexistent.yaml: No such file or directory\n"
