#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Runs the tests of examples/typescript and counts; ci/suites.py adds them to its sum.

    ci/typescript.py          with the pli of the target folder (PLI_BIN names another one)

Prints one line a suite, the end of what each failed test said, and last `N passed, N failed, N skipped`. Without node
20.19 or newer, or without npm, everything is skipped by name. The whole output lies in target/typescript.log.
"""

import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as Xml
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "examples" / "typescript"
LOG = ROOT / "target" / "typescript.log"
REPORT = ROOT / "target" / "typescript.xml"
NODE_MIN = (20, 19)
NAME = "examples/typescript"
# Ends tests that hang; each test has a deadline of its own.
WITHIN_S = 1_800
FAILURE_LINES = 60


@dataclass
class Outcome:
    """What the tests said."""

    passed: int = 0
    suites: int = 0
    # What each failed test said, by its name.
    failures: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


def missing() -> str | None:
    """Why the tests cannot run on this machine."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "node (>= 20.19) or npm is not installed"
    version = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.strip()
    found = re.match(r"v(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < NODE_MIN:
        return f"node is {version}, at least 20.19 is needed"
    return None


def binary() -> Path:
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return Path(os.environ.get("PLI_BIN", target / "debug" / "pli"))


def logged(command: list[str], environment: dict[str, str], log) -> int:
    """Runs one command in the folder; its output goes to the log."""
    print("$", *command, file=log, flush=True)
    return subprocess.run(
        command, cwd=FOLDER, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, timeout=WITHIN_S,
    ).returncode


def read(report: Path, outcome: Outcome) -> None:
    """Counts a report in JUnit's format as node:test writes it."""
    root = Xml.parse(report).getroot()
    for suite in root:
        name = suite.get("name", "?")
        cases = list(suite.iter("testcase"))
        before = outcome.passed, len(outcome.failures)
        for case in cases:
            title = case.get("name", "?") if case is suite else f"{name}: {case.get('name', '?')}"
            skipped, failure = case.find("skipped"), case.find("failure")
            if failure is not None:
                outcome.failures[f"{NAME}: {title}"] = failure.text or failure.get("message") or ""
            elif skipped is not None:
                outcome.skipped.append(f"{NAME}: {title}: {skipped.get('message', 'no reason')}")
            else:
                outcome.passed += 1
        outcome.suites += 1
        print(f"  {outcome.passed - before[0]:5} passed {len(outcome.failures) - before[1]:3} failed  typescript: {name}", flush=True)


def run() -> Outcome:
    outcome = Outcome()
    if why := missing():
        outcome.skipped.append(f"{NAME}: {why}")
        return outcome
    print(f"  {NAME}: built, then tested for about 4 minutes; its log grows in {LOG.relative_to(ROOT)}", flush=True)
    LOG.parent.mkdir(exist_ok=True)
    REPORT.unlink(missing_ok=True)
    environment = {**os.environ, "PLI_BIN": str(binary())}
    tests = sorted(str(test.relative_to(FOLDER)).replace("test/", "dist/test/").replace(".ts", ".js") for test in FOLDER.glob("test/*.test.ts"))
    reporters = ["--test-reporter=junit", f"--test-reporter-destination={REPORT}", "--test-reporter=spec", "--test-reporter-destination=stdout"]
    steps = [
        ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"],
        ["npm", "run", "--silent", "format"],
        ["npm", "run", "--silent", "build"],
        ["node", "--test", *reporters, *tests],
    ]
    with LOG.open("w") as log:
        for step in steps:
            try:
                code = logged(step, environment, log)
            except subprocess.TimeoutExpired:
                code = -1
                print(f"{' '.join(step[:3])} did not end within {WITHIN_S} s", file=log)
            if code != 0:
                break
    if REPORT.exists():
        try:
            read(REPORT, outcome)
        except Xml.ParseError as error:
            outcome.failures[f"{NAME}: its report"] = f"{REPORT} cannot be read: {error}"
    if code != 0 and not outcome.failures:
        outcome.failures[f"{NAME}: {' '.join(step[:3])}"] = LOG.read_text(errors="replace")
    if code == 0 and outcome.suites == 0:
        outcome.failures[f"{NAME}: no test ran"] = LOG.read_text(errors="replace")
    return outcome


def tell(outcome: Outcome) -> None:
    for name, said in outcome.failures.items():
        print(f"---- {name} ----", *said.strip().splitlines()[-FAILURE_LINES:], sep="\n")


def main() -> int:
    outcome = run()
    tell(outcome)
    for name in outcome.failures:
        print(f"  failed  {name}")
    for name in outcome.skipped:
        print(f"  skipped {name}")
    if not outcome.passed and not outcome.failures:
        print(f"skipped: {outcome.skipped[0]}")
        return 0
    print(f"{outcome.passed} passed, {len(outcome.failures)} failed, {len(outcome.skipped)} skipped")
    return 0 if not outcome.failures else 1


if __name__ == "__main__":
    sys.exit(main())
