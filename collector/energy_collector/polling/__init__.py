# SPDX-License-Identifier: Apache-2.0
"""When which meter is asked."""
