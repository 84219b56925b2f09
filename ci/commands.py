#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Runs every command that README and docs show, so that none of them lies.

Every line of a fenced block marked `sh` is a command. Each must stand in ci/commands.toml, which says how it is run:

    run = true             as it stands
    run = "SHORTER"        a short form of a long command, or one with a profile of its own
    covered = "WHY"        a check of its own runs it (make test, make verify, make demo)
    session = "NAME"       it goes on while others run: started, awaited (`ready`), ended with Ctrl-C

A command that no page shows, or a page's command that is not in the table, fails; so does a block whose commands run as
they stand, but in another order than the page shows: what a reader does first must not depend on what comes later.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.M | re.S)
READY_WITHIN_S = 600


def blocks() -> list[tuple[str, list[str]]]:
    """The commands of every block, with the page that shows it."""
    found = []
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")),
                 *sorted((ROOT / "examples").glob("*/README.md"))]:
        if page.exists():
            for block in BLOCK.findall(page.read_text()):
                lines = [line.strip() for line in block.splitlines()]
                found.append((str(page.relative_to(ROOT)), [c for c in lines if c and not c.startswith("#")]))
    return found


def out_of_order(rules: dict[str, dict], all_blocks: list[tuple[str, list[str]]]) -> list[str]:
    """What stands in another order in the table than on its page."""
    place = {shown: at for at, shown in enumerate(rules)}
    problems = []
    for page, commands in all_blocks:
        run = [c for c in commands if rules.get(c, {}).get("run") is True]
        swapped = [(a, b) for a, b in zip(run, run[1:]) if place[a] > place[b]]
        problems += [f"`{b}` runs before `{a}`, which {page} shows first" for a, b in swapped]
    return problems


class Session:
    """A command that goes on while others run."""

    def __init__(self, command: str, ready: str, environment: dict[str, str]) -> None:
        self.command = command
        self.output = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            ["bash", "-c", command], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=self.output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )
        deadline = time.monotonic() + READY_WITHIN_S
        while ready not in self.text():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"`{command}` never said `{ready}`:\n{self.text()}")
            time.sleep(0.1)

    def text(self) -> str:
        self.output.seek(0)
        return self.output.read()

    def end(self) -> bool:
        os.killpg(self.process.pid, signal.SIGINT)
        try:
            return self.process.wait(timeout=30) in (0, -signal.SIGINT, 130)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            return False


def run(command: str, rule: dict, environment: dict[str, str]) -> bool:
    """Runs one command to its end; prints its output where it fails."""
    text = rule["run"] if isinstance(rule.get("run"), str) else command
    done = subprocess.run(
        ["bash", "-c", text], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", timeout=rule.get("timeout_s", 900),
    )
    expected = done.returncode == rule.get("exit", 0) and rule.get("prints", "") in done.stdout
    if not expected:
        print(f"--- `{text}` ended with {done.returncode}:\n{done.stdout[-8000:]}")
    return expected


def main() -> int:
    table = tomllib.loads((ROOT / "ci" / "commands.toml").read_text())["command"]
    rules = {rule["shown"]: rule for rule in table}
    all_blocks = blocks()
    pages: dict[str, str] = {}
    for page, commands in all_blocks:
        for command in commands:
            pages.setdefault(command, page)
    failed = [f"`{c}` of {page} is not in ci/commands.toml" for c, page in pages.items() if c not in rules]
    failed += [f"`{c}` of ci/commands.toml is shown on no page" for c in rules if c not in pages]
    failed += out_of_order(rules, all_blocks)
    sessions: list[Session] = []
    ran = 0
    with tempfile.TemporaryDirectory(prefix="pli-commands-") as home:
        # Data, profiles and ports of their own: the commands run beside whatever else runs here.
        environment = {
            **os.environ, "XDG_DATA_HOME": f"{home}/share", "PLI_DATA": f"{home}/data", "PLI_SERVER__PORT": "0",
            "PLI_SERVER__ADMIN_PORT": "0", "NO_COLOR": "1",
        }
        try:
            for rule in table if not failed else []:
                if "session" in rule:
                    sessions.append(Session(rule["shown"], rule["ready"], environment))
                elif "covered" not in rule:
                    if not run(rule["shown"], rule, environment):
                        failed.append(f"`{rule['shown']}` of {pages[rule['shown']]}")
                else:
                    continue
                ran += 1
                print(f"  ran {rule['shown']}", flush=True)
        finally:
            for session in reversed(sessions):
                if not session.end():
                    failed.append(f"`{session.command}` did not end cleanly on Ctrl-C:\n{session.text()[-4000:]}")
    for problem in failed:
        print(problem)
    print(f"commands: {ran} of {len(pages)} shown commands run, {len(failed)} problems")
    return 0 if not failed else 1


if __name__ == "__main__":
    sys.exit(main())
