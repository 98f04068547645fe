"""Summaries of videos, whose steps are there whatever these say."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

from additions import add_video
from changes import Copy, always, instead, recoded, replaced
from mutation import M
from outcomes import ANYTHING, SAME, filmed

TOTAL = b'"total_stored": 3'
ODD_SUMMARIES = {
    lambda text: b"\xef\xbb\xbf" + text: "byte order mark",
    replaced(TOTAL, b'"total_stored": NaN'): "NaN",
    replaced(TOTAL, TOTAL + b', "total_stored": 3'): "total_stored",
    replaced(b'"interval"', rb'"\ud83d"'): "config",
    replaced(b"    2", b"    1, 3, 10000000000000000000"): "3, 10000000000000000000",
}
NO_SUMMARIES = {
    **{recoded("utf-16"): "UTF-16", always(b""): "empty", always(b"[]"): "object", always(b"NaN"): "object"},
    **{lambda text: text[:40]: "JSON", lambda text: text + bytes(9): "JSON"},
}
OTHER_SUMMARIES = [
    lambda text: text.replace(b"{", b'{"storage_dir": "C:\\\\runs", ', 1),
    lambda text: b'{"stored_steps": [1], "target_tokens": {"cat": [7]}}',
    lambda text: b"{}",
]


def summaries(name, edits, code=0, **said):
    """Summaries of further videos of one step: what is odd about them changes no step."""

    def change(dump):
        for place, edit in enumerate(edits):
            add_video(f"v{place}")(dump)
            (dump.video(f"v{place}") / "summary.json").write_bytes(edit(dump.summary().read_bytes()))
        return [dump.video(f"v{place}") / "summary.json" for place in range(len(edits))]

    outcome = filmed({f"v{place}": None for place in range(len(edits))})
    return M(name, change, replace(outcome, code=code), **said)


SUMMARIES = [
    summaries("odd summaries", ODD_SUMMARIES, warns=[*ODD_SUMMARIES.values()]),
    summaries("summaries that are none", NO_SUMMARIES, 3, says=[*NO_SUMMARIES.values()]),
    summaries("summaries with other keys", OTHER_SUMMARIES, warns=ANYTHING),
    M("no summary", lambda dump: dump.summary().unlink(), SAME),
    *[M(f"a summary that is {name}", instead(Copy.summary, make), SAME, warns=ANYTHING) for name, make in [
        ("a directory", Path.mkdir), ("a pipe", os.mkfifo), ("a link to nowhere", lambda path: path.symlink_to("x"))]],
    M("a summary alone", lambda dump: shutil.copytree(
        dump.video(), dump.maps() / "v3", ignore=shutil.ignore_patterns("token_*")), SAME),
]  # fmt: skip
