"""A mutated copy, ingested: what comes of it, and what is said."""

import json
import os

from contents import assert_holds
from good_dump import GOOD
from outcomes import ANYTHING, REFUSED


def ingest(run, copy, mutation):
    """Ingests a mutated copy: what must be named of it, and how that ended."""
    named = mutation.change(copy)
    before = snapshot(copy.root)
    options = ("--store", copy.store, "--report", copy.report, *mutation.options)
    ran = run("ingest", *copy.arguments, *options, cwd=copy.cwd)
    assert snapshot(copy.root) == before, "the dump was modified"
    items = [item if isinstance(item, tuple) else (item,) for item in (named if isinstance(named, list) else [])]
    return [[os.fsencode(path).decode("utf-8", "replace") for path in item] for item in items], ran


def snapshot(directory):
    """What is in a directory, and since when."""
    entries = [entry for top, _, _ in os.walk(directory) for entry in os.scandir(top)]
    found = {entry.path: entry.stat(follow_symlinks=False) for entry in entries}
    return {path: (status.st_mode, status.st_size, status.st_mtime_ns) for path, status in found.items()}


def assert_comes(run, answered, copy, good, mutation, outcome, named, ran):
    if outcome is REFUSED:
        assert ran.code == 1 and mutation.says.lower() in ran.err.lower(), ran.said
        assert not list(copy.store.glob("index/*/*.parquet"))
        return
    assert ran.code in (0, 3), ran.said
    report = json.loads(copy.report.read_bytes())
    assert_said(mutation, outcome, named, report, ran)
    steps = outcome.holds(GOOD)
    assert_holds(answered, copy.store, steps, good)
    assert report["ingested"] == len(steps), ran.said
    if report["quarantined"]:
        verified = run("verify", copy.store, *[f"--against={argument}" for argument in copy.arguments], cwd=copy.cwd)
        assert verified.code == 3, verified.said


def assert_said(mutation, outcome, named, report, ran):
    """The report names what was changed, with what is wrong, and nothing else."""
    left_out = [(entry["path"], entry["error"]) for entry in report["quarantined"]]
    odd = [(entry["path"], entry["message"]) for entry in report["warnings"]]
    said = f"{ran.said}\nleft out: {left_out}\nwarnings: {odd}\nto be named: {named}"
    assert ran.code == (outcome.code if outcome.code is not None else 3 if left_out else 0), said
    if outcome.code != 0:
        silent = not_told(left_out if outcome.code else left_out + odd, named, mutation.says)
        assert named and not silent, f"{said}\nnot named: {silent}"
    elif mutation.warns not in (None, ANYTHING):
        silent = not_told(odd, named, mutation.warns)
        assert len(silent) < (1 if isinstance(mutation.warns, list) else len(named)), f"{said}\nnot named: {silent}"
    elif mutation.warns is None:
        assert not odd, said
    near = {path for item in named for one in item for path in (one, os.path.dirname(one))}
    named_beside = left_out + (odd if mutation.warns != ANYTHING else [])
    assert all(is_in(path, near) for path, _ in named_beside), said


def not_told(entries, named, parts):
    """The items to be named that no entry is about, or none with its part of the text."""
    parts = parts if isinstance(parts, list) else [parts] * len(named)
    squeezed = lambda text: text.lower().replace(" ", "")
    is_told = lambda item, part: any(is_in(path, item) and squeezed(part) in squeezed(text) for path, text in entries)
    return [(item, part) for item, part in zip(named, parts, strict=True) if not is_told(item, part)]


def is_in(path, places):
    return any(path == place or path.startswith(f"{place}/") for place in places)
