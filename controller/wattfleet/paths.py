# SPDX-License-Identifier: Apache-2.0
"""Where the project's own files are: the command runs from a checkout, whatever the current directory."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOKS = ROOT / "playbooks"
BUILD = ROOT / "build"
