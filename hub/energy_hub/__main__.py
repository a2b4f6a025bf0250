# SPDX-License-Identifier: Apache-2.0
"""Entry of the zipapp and of `python -m energy_hub`."""

import sys

from energy_hub.cli import main

if __name__ == "__main__":
    sys.exit(main())
