# SPDX-License-Identifier: Apache-2.0
"""Batches as they travel: columns, encoding, envelope."""
