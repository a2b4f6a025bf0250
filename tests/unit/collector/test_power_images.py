# SPDX-License-Identifier: Apache-2.0
"""A few power cuts by imaging; `python -m tests.fault.power_images` makes 200."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.fault import power_images

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems of its own, which needs root"),
    pytest.mark.skipif(not shutil.which("mkfs.btrfs"), reason="needs btrfs-progs"),
]


def test_what_was_reported_durable_is_there_after_a_power_cut() -> None:
    report = power_images.run(5)
    assert (report.faults, report.findings) == (5, [])
    assert report.passed
    assert report.figures["due"] > 0, "no reading had to be there"


def test_without_syncs_a_power_cut_is_seen_to_lose_readings() -> None:
    report = power_images.run(2, synchronous=False)
    assert report.lost > 0
    assert not report.passed
