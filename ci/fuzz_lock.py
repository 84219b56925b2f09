#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Looks whether fuzz/Cargo.lock is in step, without building anything.

    ci/fuzz_lock.py

`fuzz/` is a package of its own, so no build of the workspace touches its lock file. It has to hold whatever the crates
that are fuzzed depend on now, in the versions that the workspace is built and tested with.
"""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CARGO = os.environ.get("CARGO", "cargo")
MEND = "run `cp Cargo.lock fuzz/Cargo.lock && cargo metadata --manifest-path fuzz/Cargo.toml >/dev/null` and commit it"


def versions(lock: Path) -> dict[str, set[str]]:
    """Versions of each package that comes from a registry."""
    found: dict[str, set[str]] = {}
    for package in tomllib.loads(lock.read_text())["package"]:
        if "source" in package:
            found.setdefault(package["name"], set()).add(package["version"])
    return found


def main() -> int:
    locked = [CARGO, "metadata", "--locked", "--format-version", "1", "--manifest-path", "fuzz/Cargo.toml"]
    done = subprocess.run(locked, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.stderr.write(done.stderr)
        sys.exit(f"fuzz/Cargo.lock is not in step with the crates that it builds; {MEND}")
    ours, theirs = versions(ROOT / "Cargo.lock"), versions(ROOT / "fuzz" / "Cargo.lock")
    apart = {name: those - ours[name] for name, those in theirs.items() if name in ours and those - ours[name]}
    if apart:
        shown = ", ".join(f"{name} {' '.join(sorted(those))}" for name, those in sorted(apart.items()))
        sys.exit(f"fuzz/Cargo.lock has versions that the workspace is not built with: {shown}; {MEND}")
    print(f"fuzz-lock: in step, {len(theirs)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
