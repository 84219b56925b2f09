#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Runs every check that a change must pass, in order, and sums them up.

    ci/verify.py            all of them
    ci/verify.py lints ...  only the named ones

Each check is a make target. It passes by exiting 0, unless its last line is `skipped: WHY` (it cannot run on this
machine); everything else fails. The last line is `N passed, N failed, N skipped`.
"""

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECKS = [
    "format", "proto-lint", "licences", "advisories", "ring", "fuzz-lock", "lints", "test", "wasm", "reference", "commands", "demo",
    "shipped",
]


def run(check: str) -> tuple[int, str]:
    """Exit code and last line of one make target; its output goes through as it comes."""
    process = subprocess.Popen(
        ["make", "--no-print-directory", check], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace",
    )
    assert process.stdout is not None
    last = ""
    for line in process.stdout:
        sys.stdout.write(line)
        # make's own last word about a failed recipe is not the check's.
        if line.strip() and not line.startswith("make"):
            last = line.strip()
    sys.stdout.flush()
    return process.wait(), last


def main() -> int:
    checks = sys.argv[1:] or CHECKS
    outcomes = []
    for check in checks:
        print(f"== {check}", flush=True)
        started = time.monotonic()
        code, last = run(check)
        outcome = "passed" if code == 0 else "failed"
        if code == 0 and last.startswith("skipped: "):
            outcome = "skipped"
        outcomes.append((check, outcome, time.monotonic() - started, last))
    print("== summary")
    for check, outcome, seconds, last in outcomes:
        print(f"  {outcome:8} {seconds:6.0f} s  {check:12} {last[:110]}")
    count = {word: sum(o[1] == word for o in outcomes) for word in ("passed", "failed", "skipped")}
    for check, outcome, _, last in outcomes:
        if outcome == "skipped":
            print(f"skipped check: {check}: {last.removeprefix('skipped: ')}")
    print(f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped")
    return 0 if count["failed"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
