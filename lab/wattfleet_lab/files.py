# SPDX-License-Identifier: Apache-2.0
"""State files that are read while they are written, or after a crash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_json(path: Path, content: Any) -> None:
    """Replaces a file at once: readers see the old or the new content, never a part."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)
