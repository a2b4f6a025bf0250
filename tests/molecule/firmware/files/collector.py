#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What stands in for the collector: one file that tells its version, takes any configuration, and runs."""

import sys
import time

VERSION = "0.3.0"
if sys.argv[1] == "--version":
    print(f"energy-collector {VERSION}")
elif sys.argv[1] != "check":
    print(f"{sys.argv[1]} of {VERSION} runs", flush=True)
    while True:
        time.sleep(3600)
