# SPDX-License-Identifier: Apache-2.0
"""Where the lab keeps its files."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
REPOSITORY = PACKAGE.parents[1]

# Facts about this machine, shared by the labs of every checkout on it. Gone after a restart of the machine,
# as are the bridges and sysctls that they describe.
MACHINE = Path("/run/wattfleet")


def state_root() -> Path:
    """The folder that holds one folder a lab: ``.lab`` in the repository, or ``$WATTFLEET_STATE``."""
    override = os.environ.get("WATTFLEET_STATE")
    return Path(override).resolve() if override else REPOSITORY / ".lab"


def cache_root() -> Path:
    """The folder that holds one folder an image, named by the digest of its recipe."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "wattfleet" / "image"
