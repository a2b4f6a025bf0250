# SPDX-License-Identifier: Apache-2.0
"""Simulated meters: models of real products on real sockets, whose every reading is known in advance."""
