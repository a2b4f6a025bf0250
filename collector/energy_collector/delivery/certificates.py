# SPDX-License-Identifier: Apache-2.0
"""Notices that the files of the connection's identity were replaced."""

from __future__ import annotations

from pathlib import Path

from energy_collector.config import HubConfig

# How often the files are looked at, in s.
LOOK_INTERVAL = 2.0

Look = tuple[tuple[int, int, int] | None, ...]


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


class CertificateFiles:
    """The CA's, the certificate's and the key's file, by inode, time of change and size."""

    def __init__(self, hub: HubConfig) -> None:
        self._paths = (hub.ca, hub.certificate, hub.key)
        self._used: Look = ()
        self._before: Look = ()

    def look(self) -> Look:
        """What the files are now."""
        return tuple(map(_stat, self._paths))

    def use(self) -> None:
        """A connection is made with the files as they are now."""
        self._used = self._before = self.look()

    def have_changed(self) -> bool:
        """Whether they are others than those used, and the same as at the last look: a certificate and its
        key are two files, and the second comes a moment after the first."""
        now = self.look()
        settled = now == self._before
        self._before = now
        return settled and now != self._used
