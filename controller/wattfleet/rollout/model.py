# SPDX-License-Identifier: Apache-2.0
"""What a rollout is about: the release, the sites, and the limits that the operator sets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from wattfleet.rollout.windows import Always, Window

# Bytes a second that a link is taken to carry until it was measured, by its type.
USUAL_RATES = {"lan": 1_000_000, "cellular": 60_000, "satellite": 15_000}


@dataclass(frozen=True)
class Release:
    """What is rolled out. `size` is in bytes, `digest` the SHA-256 of its manifest in hex.

    An empty `models` fits every model. `install` is how long a gateway takes for it, reboot included, in s.
    """

    kind: str  # firmware or collector
    version: str
    size: int
    digest: str
    models: tuple[str, ...] = ()
    install: float = 300.0


@dataclass(frozen=True)
class Site:
    """A site as its file and the last contact describe it.

    `rate` is what its link carries in bytes/s, `price` money a megabyte. A transfer takes at most `transfer_rate`
    bytes/s and `transfer_budget` bytes a day; None is no limit. `poll_rate` is how many polls of its meters a second
    reach the hub; None where that is not known.
    """

    name: str
    ring: str
    model: str
    critical: bool = False
    pair: str | None = None
    link: str = "lan"
    window: Window | Always = field(default_factory=Always)
    rate: float | None = None
    price: float = 0.0
    version: str | None = None
    transfer_rate: int | None = None
    transfer_budget: int | None = None
    poll_rate: float | None = None

    @property
    def expected_rate(self) -> float:
        """Bytes a second: what was measured or is written down, or else what is usual for the link."""
        rate = self.rate or float(USUAL_RATES[self.link])
        return min(rate, self.transfer_rate or rate)

    def terms(self) -> dict[str, Any]:
        """What a rollout has to know of the site later on; what is not set is left out."""
        found = {
            "was": self.version,
            "pair": self.pair,
            "window": self.window.data(),
            "link": self.link,
            "expected_rate": self.expected_rate,
            "transfer_rate": self.transfer_rate,
            "transfer_budget": self.transfer_budget,
        }
        return {key: value for key, value in found.items() if value is not None}


@dataclass(frozen=True)
class Settings:
    """The limits. Times are in s.

    `max_offline` sites at most are at risk at the same time, those that failed or fell silent included. More than
    `max_failed` of those halt the rollout. `growth` is how much larger a wave is than the one before.
    """

    max_offline: int = 10
    max_failed: int = 0
    growth: float = 3.0
    soak: float = 900.0
    transfer_deadline: float = 7 * 86400.0
    install_deadline: float = 1800.0
    reboot_deadline: float = 900.0
    # How long after its soak a site's gate may stay inconclusive before the rollout holds.
    patience: float = 0.0
