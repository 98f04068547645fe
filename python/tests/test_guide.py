"""Every example of docs/python.md, run in order; what the page shows below an example is what it prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_guide_runs_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("polars")
    pytest.importorskip("matplotlib").use("Agg")
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    blocks = BLOCK.findall((ROOT / "docs/python.md").read_text())
    names: dict[str, object] = {"__name__": "guide"}
    printed = ""
    examples = 0
    for language, text in blocks:
        if language == "python":
            exec(compile(text, f"docs/python.md, example {examples}", "exec"), names)
            printed = capsys.readouterr().out
            examples += 1
        elif language == "text":
            assert [line.rstrip() for line in printed.splitlines()] == [line.rstrip() for line in text.splitlines()]
    assert examples >= 10
