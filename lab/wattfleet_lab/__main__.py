# SPDX-License-Identifier: Apache-2.0
"""``python -m wattfleet_lab``."""

import sys

from wattfleet_lab.cli import main

sys.exit(main())
