# SPDX-License-Identifier: Apache-2.0
"""The configuration file, as docs/reference/gateway-configuration.md describes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from energy_collector.meters.profile import Profile
    from energy_collector.radio.payload import Payload

DEFAULT_PATH = Path("/etc/energy/config.yaml")
SOURCES = ("hwmon", "host", "buses")
ROLES = ("main", "consumption", "generation", "storage", "process")
# NAMUR NE 43 (2003): up to 3.6 mA the transmitter or its wire is faulty.
BROKEN_WIRE_MA = 3.6


class ConfigError(ValueError):
    """A configuration with at least one fault; `faults` has a line for each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults

    def __reduce__(self) -> tuple[type[ConfigError], tuple[list[str]]]:
        # As it was made; an exception is copied by its text otherwise.
        return ConfigError, (self.faults,)


@dataclass(frozen=True)
class BusConfig:
    """A physical endpoint: one host and port, or one serial device."""

    name: str
    type: str
    host: str = ""
    port: int = 502
    device: str = ""
    baudrate: int = 9600
    parity: str = "N"
    stopbits: int = 1
    timeout: float = 1.0
    request_gap: float = 0.0
    connect_delay: float = 0.0
    keepalive: int = 30
    user_timeout: float = 5.0
    pipeline: int = 1

    @property
    def endpoint(self) -> str:
        """What no two buses may share."""
        return self.device if self.type == "rtu" else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class ChannelConfig:
    """An analogue input and the engineering value that its signal stands for."""

    name: str
    input: int
    signal: str
    low: float
    high: float
    unit: str
    # mA; below it a 4-20 mA wire is broken.
    broken_below: float = BROKEN_WIRE_MA


@dataclass(frozen=True)
class MeterConfig:
    """A meter on a bus. Ratios are factors, 1.0 where the meter itself knows its transformers.

    `report` (s) is the interval of its statistics, None where each sample is stored; `raw` are the short names
    of points that are stored at full rate all the same.
    """

    name: str
    bus: str
    unit: int
    profile: str
    interval: float
    role: str = "consumption"
    ct_ratio: float = 1.0
    pt_ratio: float = 1.0
    reverse: bool = False
    channels: tuple[ChannelConfig, ...] = ()
    # Names of the points to read, all of them when empty.
    points: tuple[str, ...] = ()
    report: float | None = None
    raw: tuple[str, ...] = ()
    max_power: float | None = None
    nominal_voltage: float | None = None
    nominal_frequency: float = 50.0
    # The profile itself, as far as it exists: a configuration whose profile changes is another one.
    known_profile: Profile | None = None

    @property
    def register_map(self) -> Profile:
        """The profile that the meter is read by."""
        if self.known_profile is not None:
            return self.known_profile
        # Imported here: a configuration that was read brings its profiles along.
        from energy_collector import profiles

        return profiles.load(self.profile)


@dataclass(frozen=True)
class RadioMeterConfig:
    """A meter that reports by radio. `interval` (s) is how often at least, `silence` (s) how long without a reading
    makes its points null."""

    name: str
    radio: str
    device: str
    profile: str
    interval: float
    silence: float
    mapping: Payload
    role: str = "consumption"
    reverse: bool = False
    # Names of the points to take, all of them when empty.
    points: tuple[str, ...] = ()
    max_power: float | None = None


@dataclass(frozen=True)
class RadioConfig:
    """A Zigbee or LoRaWAN server, and the MQTT broker that it publishes on. `topic` is zigbee2mqtt's base topic,
    `application` ChirpStack's application id, all of them when empty."""

    name: str
    type: str
    host: str
    port: int = 1883
    topic: str = "zigbee2mqtt"
    application: str = ""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    meters: tuple[RadioMeterConfig, ...] = ()


@dataclass(frozen=True)
class SourceConfig:
    """Readings that do not come from a bus, every `interval` s."""

    name: str
    interval: float = 60.0
    enabled: bool = True


@dataclass(frozen=True)
class HubConfig:
    """Where batches go, and who we are there."""

    host: str
    port: int = 8883
    ca: Path = Path("/etc/ssl/energy/ca.crt")
    certificate: Path = Path("/etc/ssl/energy/gateway.crt")
    key: Path = Path("/etc/ssl/energy/gateway.key")
    keepalive: int = 60
    connect_timeout: float = 10.0
    tcp_nodelay: bool = True


@dataclass(frozen=True)
class BufferConfig:
    """The buffer's file and its bounds, how often it is written, and where readings wait in memory until then.

    What the hub has is kept for `keep_age` s while the buffer is smaller than `keep_bytes`.
    """

    path: Path = Path("/var/lib/energy/buffer.db")
    max_bytes: int = 536870912
    max_age: float = 7776000.0
    keep_age: float = 604800.0
    keep_bytes: int = 134217728
    commit_interval: float = 1.0
    pending: Path = Path("/run/energy/pending")


@dataclass(frozen=True)
class ClockConfig:
    """When the clock counts as wrong, and how long (s) readings wait for it to be right."""

    require_sync: bool = False
    hold: float = 3600.0


@dataclass(frozen=True)
class BatchConfig:
    """When a batch is sealed, and when it is sent again. Times in s."""

    interval: float = 10.0
    max_readings: int = 100_000
    resend: float = 30.0


@dataclass(frozen=True)
class DeliveryConfig:
    """How fast what an outage has left is delivered, in readings and s."""

    backlog_rate: float = 2000.0
    backlog_burst: int = 5000
    backlog_start: float = 30.0


@dataclass(frozen=True)
class Config:
    """The whole file."""

    site: str
    interval: float
    buses: tuple[BusConfig, ...]
    meters: tuple[MeterConfig, ...]
    hub: HubConfig
    signing_key: Path = Path("/var/lib/energy/signing.key")
    buffer: BufferConfig = field(default_factory=BufferConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    delivery: DeliveryConfig = field(default_factory=DeliveryConfig)
    clock: ClockConfig = field(default_factory=ClockConfig)
    telemetry_log: Path = Path("/var/log/energy/telemetry.log")
    control_socket: Path = Path("/run/energy/control.sock")
    device_mapping: Path = Path("/etc/energy/device_mapping.json")
    learned: Path = Path("/var/lib/energy/learned.json")
    # Port of the metrics on loopback; None where nobody has asked for them.
    metrics_port: int | None = None
    sources: tuple[SourceConfig, ...] = tuple(map(SourceConfig, SOURCES))
    radios: tuple[RadioConfig, ...] = ()
    # What was heard by radio, so that what comes twice is known after a restart.
    heard: Path = Path("/var/lib/energy/heard.json")

    @property
    def radio_meters(self) -> tuple[RadioMeterConfig, ...]:
        """The meters of all radios."""
        return tuple(meter for radio in self.radios for meter in radio.meters)

    @property
    def all_meters(self) -> tuple[MeterConfig | RadioMeterConfig, ...]:
        """Those on buses, then those of radios."""
        return (*self.meters, *self.radio_meters)

    @property
    def by_radio(self) -> str:
        """How many they are, in words that follow those about the others; nothing where there are none."""
        return f" and {len(self.radio_meters)} by radio" if self.radio_meters else ""


def load(path: Path) -> Config:
    """Read and check the file. Raises ConfigError with every fault, also for a file that cannot be read."""
    # Imported here: who gets a configuration from elsewhere does without the reader and the checks.
    import yaml

    from energy_collector.config_file import parse
    from energy_collector.section import show

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: is not UTF-8 text"]) from error
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise ConfigError([f"{path}: {where}not YAML: {getattr(error, 'problem', error)}"]) from error
    if not isinstance(data, dict):
        raise ConfigError([f"{path}: {show(data)} is not a mapping of keys such as site, buses and meters"])
    return parse(data)
