# SPDX-License-Identifier: Apache-2.0
"""What the collector's benchmarks share: simulated meters, the contenders, and how their cost is measured."""
