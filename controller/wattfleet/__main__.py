# SPDX-License-Identifier: Apache-2.0
"""`python -m wattfleet`."""

import sys

from wattfleet.cli import main

sys.exit(main())
