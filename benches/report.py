"""Makes one document of what the scripts of one run found, in Markdown: run by `make bench` at its end.

Usage: report.py DIRECTORY OUTPUT

DIRECTORY holds what the scripts wrote by --json, SCRIPT.json each.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import capture
import counts
import scale
from harness import Document, about, prose

import ingest
import python
import query
import render

#: Scripts, in the order of the document.
SECTIONS: dict[str, tuple[str, Any]] = {
    "ingest": ("Ingest and read-back", ingest),
    "scale": ("Size and threads", scale),
    "counts": ("Many videos", counts),
    "query": ("Questions", query),
    "python": ("Python", python),
    "render": ("Films", render),
    "capture": ("Capture", capture),
}


def main(directory: str, output: str) -> None:
    documents = {
        name: json.loads(path.read_text()) for name in SECTIONS if (path := Path(directory) / f"{name}.json").exists()
    }
    if not documents:
        sys.exit(f"benches/report.py: no results in {directory}")
    # Written beside and renamed: whoever looks has the old one or the new one.
    partial = Path(f"{output}.partial")
    partial.write_text(report(documents))
    partial.replace(output)
    print(f"benches/report.py: wrote {output}", file=sys.stderr)


def report(documents: dict[str, Document]) -> str:
    absent = [title for name, (title, _) in SECTIONS.items() if name not in documents]
    parts = [
        "# One run of the benchmarks",
        prose(
            "Written by `make bench` (`benches/report.py`): do not edit. [benches/README.md](../benches/README.md) says"
            " what is measured and how, [benchmarks.md](benchmarks.md) what follows from it, [limits.md](limits.md)"
            " how far it goes.",
            f"Not measured in this run: {', '.join(absent)}." if absent else "",
        ),
        about(whole(documents)),
    ]
    for name, document in documents.items():
        title, script = SECTIONS[name]
        parts += [f"## {title}", script.markdown(document)]
    return "\n\n".join(parts) + "\n"


def whole(documents: dict[str, Document]) -> Document:
    """Machine, dates and versions of all scripts. Two of them may run in other environments."""
    first, *others = documents.values()
    if any(other["machine"] != first["machine"] for other in others):
        sys.exit("benches/report.py: the results are of several machines, not of one run")
    dates = sorted({document["date"] for document in documents.values()})
    versions: dict[str, list[str]] = {}
    for document in documents.values():
        for package, version in document["versions"].items():
            if version not in versions.setdefault(package, []):
                versions[package].append(version)
    return {
        "date": " to ".join(dict.fromkeys((dates[0], dates[-1]))),
        "machine": first["machine"],
        "versions": {package: " and ".join(found) for package, found in versions.items()},
    }


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
