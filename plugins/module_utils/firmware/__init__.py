# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What a gateway does with a release: judge its manifest and its image, before anything is installed."""
