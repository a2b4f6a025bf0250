# SPDX-License-Identifier: Apache-2.0
"""Register maps of real models, one YAML file a model, its source cited in it. A site can keep maps of its own beside
them, in a folder."""

from __future__ import annotations

from energy_collector.library import Library
from energy_collector.meters.profile_file import parse

_LIBRARY = Library(__name__, parse)
names = _LIBRARY.names
load = _LIBRARY.load
own = _LIBRARY.own
