#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Runs every test suite of the workspace, and those of examples/typescript, and counts.

    ci/suites.py [CARGO-TEST-ARGUMENT ...]

Prints one line a suite, the end of what each failed test printed, what failed and what was skipped by name, and last
`N passed, N failed, N skipped`, followed by the first names of what failed.
A test that cannot run on this machine prints a line `skipped: NAME: REASON` and returns; nothing else counts as
skipped. The whole output lies in target/test.log. With arguments only what cargo selects is run.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import typescript

ROOT = Path(__file__).resolve().parent.parent
RESULT = re.compile(r"^test result: (?:ok|FAILED)\. (\d+) passed; (\d+) failed; (\d+) ignored;")
SUITE = re.compile(r"^\s+(?:Running|Doc-tests) (.+)$")
PRINTED = re.compile(r"^---- (.*) stdout ----$")
# Lines of one failed test that are printed here; the log has all of them.
FAILURE_LINES = 300
LINE_CHARS = 4_000


def suite_name(line: str) -> str:
    """`unittests src/lib.rs (target/debug/deps/pli_domain-1f2e)` becomes `pli_domain (unit)`."""
    match = re.match(r"(\S+)(?: (\S+))? \(.*/([^/]+)-[0-9a-f]+\)$", line)
    if not match:
        return f"{line} (documentation)"
    kind = "unit" if match[1] == "unittests" else match[1]
    return f"{match[3]} ({kind})"


class Count:
    """What the suites said so far."""

    def __init__(self) -> None:
        self.passed = self.failed = 0
        self.skipped: list[str] = []
        self.suite = "?"
        self.suites = 0
        # Within what a test printed: a test that runs tests of its own prints counts that are not the suite's.
        self.printed = False
        # What each failed test printed, by its name.
        self.failures: dict[str, list[str]] = {}
        self.in_failures = False
        self.failure: list[str] | None = None

    def line(self, line: str) -> None:
        self.told(line)
        if PRINTED.match(line):
            self.printed = True
        elif line in ("successes:", "failures:"):
            self.printed = False
        elif match := SUITE.match(line):
            self.suite, self.printed = suite_name(match[1]), False
        elif (match := RESULT.match(line)) and not self.printed:
            passed, failed, ignored = map(int, match.groups())
            if ignored:
                print(f"{self.suite}: {ignored} ignored tests; a test is run or says why it is skipped")
                failed += ignored
            self.passed, self.failed, self.suites = self.passed + passed, self.failed + failed, self.suites + 1
            if passed + failed:
                print(f"  {passed:5} passed {failed:3} failed  {self.suite}", flush=True)
        elif line.startswith("skipped: "):
            self.skipped.append(line.removeprefix("skipped: ").strip())

    def told(self, line: str) -> None:
        """Keeps what a failed test printed: its block stands under `failures:`."""
        if line in ("successes:", "failures:"):
            self.in_failures, self.failure = line == "failures:", None
        elif self.in_failures and (match := PRINTED.match(line)):
            self.failure = self.failures.setdefault(f"{self.suite}: {match[1]}", [])
        elif RESULT.match(line):
            self.failure = None
        elif self.failure is not None:
            self.failure.append(line)

    def tell(self) -> None:
        """Prints the failures, each by its end, and after all of them their names."""
        for name, printed in self.failures.items():
            lines = (line if len(line) <= LINE_CHARS else f"{line[:LINE_CHARS]} […]" for line in printed[-FAILURE_LINES:])
            print(f"---- {name} ----", *lines, sep="\n")
        for name in self.failures:
            print(f"  failed  {name}")


def main() -> int:
    log_path = ROOT / "target" / "test.log"
    log_path.parent.mkdir(exist_ok=True)
    command = ["cargo", "test", "--workspace", "--no-fail-fast", *sys.argv[1:], "--", "--show-output"]
    count, started = Count(), time.monotonic()
    with log_path.open("w") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            env={**os.environ, "CARGO_TERM_COLOR": "never"},
        )
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            count.line(line.rstrip("\n"))
        code = process.wait()
    if code != 0 and not count.failures:
        print(log_path.read_text()[-60_000:])
    # With the binary that the suites before it have built.
    other = typescript.run() if not sys.argv[1:] else typescript.Outcome()
    count.tell()
    typescript.tell(other)
    # One skipped test may print its line more than once (a case list run on several engines): names are unique.
    skipped = sorted(set(count.skipped))
    for name in other.failures:
        print(f"  failed  {name}")
    for name in skipped + other.skipped:
        print(f"  skipped {name}")
    # cargo may fail without a failed test: a suite that does not build or dies.
    failed = (count.failed if count.failed or code == 0 else 1) + len(other.failures)
    print(f"{count.suites + other.suites} suites in {time.monotonic() - started:.0f} s, log in target/test.log")
    # A test that skips returns and is counted by cargo as passed; it is not.
    names = "".join(f", {name.split()[-1]}" for name in [*count.failures, *other.failures][:2])
    passed = count.passed - len(skipped) + other.passed
    print(f"{passed} passed, {failed} failed, {len(skipped) + len(other.skipped)} skipped{names}")
    return 0 if failed == 0 and count.passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
