#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Proves that a binary has no planted faults.

    ci/shipped.py BINARY [BINARY-WITH-FAULTS]

A build with the feature `mutants` reads the environment variable PLI_MUTANT, so its name stands in that binary and in
no other. Given the second binary, the check is proved able to fail: the name must stand there.
"""

import sys
from pathlib import Path

MARK = b"PLI_MUTANT"


def main() -> int:
    binaries = [Path(name) for name in sys.argv[1:]]
    if not binaries:
        print(__doc__)
        return 2
    if MARK in binaries[0].read_bytes():
        print(f"{binaries[0]} has planted faults: it was built with the feature mutants")
        return 1
    if len(binaries) > 1 and MARK not in binaries[1].read_bytes():
        print(f"{binaries[1]} was expected to have planted faults; this check proves nothing")
        return 1
    print(f"shipped: {binaries[0].name} has no planted faults")
    return 0


if __name__ == "__main__":
    sys.exit(main())
