#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Builds the fuzz targets with cargo-fuzz and runs each for a while.

    ci/fuzz.py SECONDS [TARGET ...]
    ci/fuzz.py --check SECONDS [TARGET ...]    only looks whether it could

FUZZ names the cargo-fuzz to build with; `make fuzz` installs it.

Prints one line a target: runs, runs a second, how much code was reached and how much of that is new, the largest
memory, and the time. The last line is `N targets, N runs, N found`. A finding ends with 1 and says how to run it again.
What is worth keeping of the inputs lies in target/fuzz/TARGET and is where the next run begins, findings in
target/fuzz/found.

SANITIZER=address builds with the address sanitizer: about half as fast, and dependencies are built once more.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGETS = ["decoders", "client", "sessions"]
TRIPLE = "x86_64-unknown-linux-gnu"
SANITIZER = os.environ.get("SANITIZER", "none")
WORK = ROOT / "target" / "fuzz"
BUILT = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute()
# Longest input in bytes: a decoder takes more than a frame, a session is steps of a few bytes each.
LENGTH_MAX = {"decoders": 100_000, "client": 4_096, "sessions": 4_096}
# A process is ended above so many MiB, and an input that runs longer than so many seconds is a finding.
MEMORY_MAX_MIB, INPUT_SECONDS_MAX = 2_048, 30
STATUS = re.compile(r"^#(\d+)\s+(\w+)\s+cov: (\d+) ft: (\d+)")
STATISTIC = re.compile(r"^stat::(\w+):\s+(\d+)")


def asked(words: list[str]) -> tuple[int, list[str]]:
    """Seconds and targets; ends with what is wrong about them, before anything is installed or built."""
    seconds, targets = words[0] if words else "", words[1:] or TARGETS
    if not seconds.isdecimal() or int(seconds) == 0:
        sys.exit(f"SECONDS={seconds}: for how long each target runs has to be a whole number of seconds, 1 at least")
    if unknown := [target for target in targets if target not in TARGETS]:
        sys.exit(f"TARGET={unknown[0]}: there is no such target; take {', '.join(TARGETS)}")
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler.split()[0] if compiler.split() else "") is None:
        sys.exit(f"libFuzzer is built with a C++ compiler, and there is no `{compiler}`: install one, or name it in CXX")
    return int(seconds), targets


def build() -> None:
    tool = ROOT / os.environ.get("FUZZ", "target/tools/bin/cargo-fuzz")
    if not tool.exists():
        sys.exit(f"{tool} is missing; `make fuzz` installs it")
    command = [
        str(tool), "fuzz", "build", "--fuzz-dir", "fuzz", "--sanitizer", SANITIZER, "--no-cfg-fuzzing",
        "--codegen-units", "16", "--target", TRIPLE, "--target-dir", str(BUILT),
    ]
    # The instrumentation is a flag that stable compilers have and keep to themselves.
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "RUSTC_BOOTSTRAP": "1"}, check=False)
    if done.returncode != 0:
        sys.exit("the fuzz targets do not build")


def binary(target: str) -> Path:
    return BUILT / TRIPLE / "release" / target


def corpus(target: str) -> Path:
    """The folder of inputs to begin with: seeds, what earlier runs kept, and what was ever found."""
    folder = WORK / target
    folder.mkdir(parents=True, exist_ok=True)
    seeds = {**os.environ, "PLI_FUZZ_SEEDS": str(folder)}
    done = subprocess.run([binary(target)], env=seeds, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    if done.returncode != 0:
        sys.exit(f"{done.stderr}{target}: the seeds cannot be made")
    for found in sorted((ROOT / "crates" / "fuzzing" / "found" / target).glob("*")):
        shutil.copy(found, folder / f"found-{found.name}")
    return folder


class Run:
    """What one target has done."""

    def __init__(self) -> None:
        self.coverage: list[tuple[int, int]] = []
        self.statistics: dict[str, int] = {}
        self.tail: list[str] = []

    def line(self, line: str) -> None:
        if match := STATUS.match(line):
            if match[2] in ("INITED", "NEW", "REDUCE", "pulse", "DONE"):
                self.coverage.append((int(match[3]), int(match[4])))
        elif match := STATISTIC.match(line):
            self.statistics[match[1]] = int(match[2])
        else:
            self.tail = [*self.tail, line][-60:]

    def told(self, target: str, seconds: float) -> str:
        first, last = (self.coverage[0], self.coverage[-1]) if self.coverage else ((0, 0), (0, 0))
        runs = self.statistics.get("number_of_executed_units", 0)
        return (
            f"  {target:9} {runs:9} runs {self.statistics.get('average_exec_per_sec', 0):7} a second"
            f"  edges {last[0]} (+{last[0] - first[0]})  features {last[1]} (+{last[1] - first[1]})"
            f"  memory {self.statistics.get('peak_rss_mb', 0)} MiB  {seconds:.0f} s"
        )


def fuzz(target: str, seconds: int) -> tuple[int, bool]:
    folder, artifacts = corpus(target), WORK / "found"
    artifacts.mkdir(exist_ok=True)
    command = [
        str(binary(target)), str(folder), f"-max_total_time={seconds}", f"-max_len={LENGTH_MAX[target]}",
        f"-rss_limit_mb={MEMORY_MAX_MIB}", f"-timeout={INPUT_SECONDS_MAX}", f"-artifact_prefix={artifacts}/{target}-",
        "-print_final_stats=1", "-len_control=20",
    ]
    run, started = Run(), time.monotonic()
    log = WORK / f"{target}.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )
        assert process.stdout is not None
        for line in process.stdout:
            out.write(line)
            run.line(line.rstrip("\n"))
        code = process.wait()
    print(run.told(target, time.monotonic() - started), flush=True)
    if code == 0:
        return run.statistics.get("number_of_executed_units", 0), False
    print(*run.tail, sep="\n")
    kept = [line.split("written to ")[1] for line in run.tail if "Test unit written to " in line]
    print(f"found: {target} ended with {code}; the whole output lies in {log.relative_to(ROOT)}")
    for path in kept:
        print(f"run it again: {binary(target)} {path}")
        kept_in = f"crates/fuzzing/found/{target}"
        print(f"keep it: mkdir -p {kept_in} && cp {path} {kept_in}/; `make test` runs it from then on")
    return run.statistics.get("number_of_executed_units", 0), True


def main() -> int:
    only_looks = sys.argv[1:2] == ["--check"]
    seconds, targets = asked(sys.argv[1 + only_looks :])
    if only_looks:
        return 0
    build()
    outcomes = [fuzz(target, seconds) for target in targets]
    found = sum(is_found for _, is_found in outcomes)
    print(f"{len(targets)} targets, {sum(runs for runs, _ in outcomes)} runs, {found} found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
