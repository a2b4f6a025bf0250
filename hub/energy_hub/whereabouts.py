# SPDX-License-Identifier: Apache-2.0
"""At which broker each site is, where there are several."""

from __future__ import annotations

from energy_hub.link import BrokerLink


class Whereabouts:
    """A site that has gone to another broker leaves something behind at the one before: the status that is retained
    there, and its last will, which comes as late as the broker notices."""

    def __init__(self) -> None:
        # Where a site was online last, and whether it said so just now: what was retained may be old.
        self._homes: dict[str, tuple[BrokerLink, bool]] = {}

    def is_left_behind(self, site: str, state: str, link: BrokerLink, *, retained: bool) -> bool:
        """Whether a status tells of a time at which the site was at another broker than now."""
        home, is_certain = self._homes.get(site, (link, False))
        if state == "offline":
            # What is retained of both tells nothing of the order; online wins, since a gateway that has left in order
            # is the rarer one. Who really is away is known by the time at which it was last seen.
            return home is not link and (retained or is_certain)
        if home is not link and retained and is_certain:
            return True
        self._homes[site] = (link, not retained or (home is link and is_certain))
        return False
