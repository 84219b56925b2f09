#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Writes the configuration and metrics pages from the code, so that they cannot drift.

    ci/reference.py PLI-BINARY          compares; exits 1 and says what differs
    ci/reference.py PLI-BINARY --write  writes docs/configuration.md and docs/metrics.md

A setting's text is the documentation of its field, its default what `pli config print` prints. A metric's text is the
description that the instrument is made with, or the documentation of its counter.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STRUCT = re.compile(r"^pub struct (\w+) \{\n(.*?)^\}", re.M | re.S)
# A field that no file can set (`#[serde(skip)]`) is no setting.
FIELD = re.compile(r"((?:^ *///.*\n)+)(?:^ *#\[(?!serde\(skip\)).*\]\n)*^ *pub (\w+): ([^,\n]+),", re.M)
INSTRUMENT = re.compile(r'"(pli_[a-z0-9_]+)",\s*"([^"]+)"')
HISTOGRAM = re.compile(r'histogram\(\s*"(pli_[a-z0-9_]+)"\s*\)\s*\.with_description\(\s*"([^"]+)"')
COUNTER = re.compile(r"((?:^ *///.*\n)+)^ {4}(\w+),$", re.M)
CRATES = {
    "pli_edge": "services/edge", "pli_delivery": "services/delivery", "pli_conversations": "services/conversations",
    "pli_directory": "services/directory", "pli_links": "services/links", "pli_media": "services/media",
    "pli_engine_embedded": "crates/engine-embedded",
}

CONFIGURATION = """# Configuration

Every setting with its default. Settings come from, each over the one before: defaults, a TOML file (`--config FILE`), the
environment (`PLI_` and the path in capitals joined by `__`, for example `PLI_DELIVERY__SPILL_AFTER_MS=0`; lists with
commas, `PLI_NATS__SERVERS=nats://a:4222,nats://b:4222`), flags. Unknown keys are refused; other variables that begin with
`PLI_` and are read by nothing are warned of. `pli config print` shows what is in force, `pli config check` checks it.

This page is written from the code by `ci/reference.py`.
"""

METRICS = """# Metrics

The admin port serves them at `/metrics` in the Prometheus text format. Counters get
`_total` at their end there. No label names an account, device or conversation.

This page is written from the code by `ci/reference.py`.

| metric | what it says |
| --- | --- |
"""


def doc(comment: str) -> str:
    text = " ".join(line.strip().removeprefix("///").strip() for line in comment.splitlines())
    return re.sub(r"\[`?(?:\w+::)*(\w+)`?\]", r"`\1`", text).replace("|", "\\|")


def structs(folder: Path) -> dict[str, list[tuple[str, str, str]]]:
    """Name -> (field, type, text), over all files of a crate."""
    found = {}
    for file in sorted(folder.rglob("*.rs")):
        for name, body in STRUCT.findall(file.read_text()):
            fields = [(field, kind.strip(), doc(text)) for text, field, kind in FIELD.findall(body)]
            found.setdefault(name, fields)
    return found


def of_crate(crate: str) -> dict[str, list[tuple[str, str, str]]]:
    """The same of a service, with what it takes from the runtime."""
    return {**structs(ROOT / "crates/runtime/src"), **structs(ROOT / CRATES[crate] / "src")}


def default_text(value: object) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def rows(section: str, values: dict, fields: list, known: dict, about: str = "") -> list[str]:
    """Table rows of one struct; a field whose default is a table is a section of its own."""
    lines = []
    for field, kind, text in fields:
        value = values.get(field)
        if isinstance(value, dict):
            crate, _, name = kind.rpartition("::")
            inner = of_crate(crate) if crate in CRATES else known
            # A rate's rows say nothing without what it limits.
            lines += rows(f"{section}{field}.", value, inner.get(name, []), inner, f"{text} " if name == "Rate" else "")
        else:
            lines.append(f"| `{section}{field}` | {'unset' if value is None else default_text(value)} | {about}{text} |")
    return lines


def configuration(binary: str) -> str:
    printed = subprocess.run([binary, "config", "print"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    values = tomllib.loads(printed)
    known = {**structs(ROOT / "crates/runtime/src"), **structs(ROOT / "services/pli/src")}
    page = CONFIGURATION
    for field, kind, text in known["Config"]:
        crate, _, name = kind.rpartition("::")
        inner = of_crate(crate) if crate in CRATES else known
        table = rows(f"{field}.", values[field], inner[name], inner)
        page += f"\n## `[{field}]`\n\n{text}\n\n| setting | default | meaning |\n| --- | --- | --- |\n" + "\n".join(table) + "\n"
    missing = [path for path in leaves(values) if f"| `{path}` |" not in page]
    if missing:
        raise SystemExit(f"settings without documentation on the page: {missing}")
    return page


def leaves(values: dict, prefix: str = "") -> list[str]:
    """Every setting's path."""
    found = []
    for key, value in values.items():
        found += leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]
    return found


def metrics() -> str:
    found: dict[str, str] = {}
    for file in sorted([*(ROOT / "services").rglob("*.rs"), *(ROOT / "crates").rglob("*.rs")]):
        text = file.read_text()
        if "tests" in file.parts:
            continue
        for name, about in INSTRUMENT.findall(text) + HISTOGRAM.findall(text):
            found[name] = about
        if match := re.search(r"^counters! \{\n(.*?)^\}", text, re.M | re.S):
            prefix = re.search(r'concat!\("(pli_\w+_)", stringify', text)
            assert prefix, f"{file} has counters without a prefix"
            for comment, name in COUNTER.findall(match[1]):
                found[f"{prefix[1]}{name}"] = doc(comment)
    return METRICS + "".join(f"| `{name}` | {found[name]} |\n" for name in sorted(found))


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    pages = {"docs/configuration.md": configuration(sys.argv[1]), "docs/metrics.md": metrics()}
    stale = [name for name, text in pages.items() if not (ROOT / name).exists() or (ROOT / name).read_text() != text]
    if "--write" in sys.argv:
        for name in stale:
            (ROOT / name).write_text(pages[name])
        print(f"written: {stale or 'nothing to write'}")
        return 0
    for name in stale:
        print(f"{name} is not what the code says; run `make reference-write`")
    if not stale:
        print("reference: configuration and metrics pages are what the code says")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
