# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: `python tests/bench/run.py [NAME …]` runs tests/bench/bench_NAME.py. `make bench` calls it.

Each prints a table and writes build/bench/NAME.json, a list of {name, value, unit, against, ratio}.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    names = sorted(file.stem.removeprefix("bench_") for file in HERE.glob("bench_*.py"))
    parser = argparse.ArgumentParser(
        description="Run benchmarks; each compares us with something in the same run."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(names)} (default: all)")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in names]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r}; there are {', '.join(names)}")
    failed = 0
    for name in options.names or names:
        print(f"==> {name}", flush=True)
        failed += (
            subprocess.run([sys.executable, str(HERE / f"bench_{name}.py")], check=False).returncode != 0
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
