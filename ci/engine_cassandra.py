#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Fetches the CQL server that tests start (Apache Cassandra) into target/engines/cassandra.

    ci/engine_cassandra.py

ci/engine-cassandra/pom.xml names the version, ci/engine-cassandra/jars.sha256 every jar with its checksum; a jar that
is missing from that list, or is not what it says, fails. Does nothing where all are there; two at once take turns.
Where the server cannot be had (no java, no mvn, no network) the last line is `skipped: WHY`, and so are the tests.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "ci" / "engine-cassandra"
ENGINES = ROOT / "target" / "engines"
JARS = ENGINES / "cassandra"
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
FETCH_WITHIN_S = 600


def pinned() -> dict[str, str]:
    """Jar -> SHA-256."""
    lines = (PINS / "jars.sha256").read_text().split("\n")
    return {name: digest for digest, name in (line.split() for line in lines if line.strip())}


def found(folder: Path) -> dict[str, str]:
    return {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in folder.glob("*.jar")}


def differences(folder: Path) -> list[str]:
    """Jars of `folder` that are not the pinned ones."""
    want, have = pinned(), found(folder)
    return sorted(name for name in want.keys() | have.keys() if want.get(name) != have.get(name))


def fetch() -> str:
    """Why it cannot be had, or nothing."""
    for tool in ("java", "mvn"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    with tempfile.TemporaryDirectory(prefix="cassandra-", dir=ENGINES) as folder:
        command = ["mvn", "-q", "-B", "-f", str(PINS / "pom.xml"), COPY, f"-DoutputDirectory={folder}"]
        try:
            done = subprocess.run(command, cwd=ENGINES, capture_output=True, text=True, timeout=FETCH_WITHIN_S)
        except subprocess.TimeoutExpired:
            return f"mvn did not end within {FETCH_WITHIN_S} s"
        if done.returncode != 0:
            print(done.stdout[-4000:])
            return "mvn could not fetch the jars"
        if wrong := differences(Path(folder)):
            raise SystemExit(f"engine-cassandra: not what ci/engine-cassandra/jars.sha256 says: {wrong}")
        shutil.rmtree(JARS, ignore_errors=True)
        JARS.mkdir()
        for jar in Path(folder).glob("*.jar"):
            jar.rename(JARS / jar.name)
    return ""


def main() -> int:
    ENGINES.mkdir(parents=True, exist_ok=True)
    with (ENGINES / "cassandra.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if differences(JARS):
            print("engine-cassandra: fetching", flush=True)
            if why := fetch():
                print(f"skipped: {why}")
                return 0
    print(f"engine-cassandra: {len(pinned())} jars, as pinned")
    return 0


if __name__ == "__main__":
    sys.exit(main())
