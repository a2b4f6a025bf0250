# SPDX-License-Identifier: Apache-2.0
"""Properties are tried without a clock: how long an example takes on a busy machine says nothing of the code."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("without-a-clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("without-a-clock")
