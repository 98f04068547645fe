"""The notebook docs/capture.ipynb, run cell by cell, and the first examples of README.md and docs/capture.md.

What is stored in the notebook is what it shows. After a change of it, or of what it shows,
`python tests/capture/test_notebook.py` runs it and stores the outputs. Jupyter is not needed: what a cell shows is told
as IPython tells it.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import html
import io
import json
import math
import os
import re
import sys
from pathlib import Path
from typing import Any

import attnkit
import diffusers
import numpy as np
import pytest
import tiny
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs/capture.ipynb"
RENEW = "python tests/capture/test_notebook.py stores what the notebook shows now"
#: A picture in HTML.
EMBEDDED = re.compile(r'<img [^>]*src="data:image/png;base64,([^"]+)"')
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.])")

Cell = dict[str, Any]


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    """The notebook as it is committed."""
    return read()


@pytest.fixture(scope="module")
def ran() -> tuple[dict[str, Any], dict[str, Any]]:
    """The notebook as it comes out of a run, and the names that it leaves."""
    notebook = read()
    return notebook, run(notebook)


def test_readers_see_what_they_would_get(stored: dict[str, Any], ran: tuple[dict[str, Any], Any]) -> None:
    for old, new in zip(code_cells(stored), code_cells(ran[0]), strict=True):
        assert old["execution_count"] == new["execution_count"], RENEW
        kinds = [
            [(output["output_type"], {*output.get("data", ())}) for output in one["outputs"]] for one in (old, new)
        ]
        assert kinds[0] == kinds[1], f"cell {old['id']}: {RENEW}"
        for before, now in zip(old["outputs"], new["outputs"]):
            assert is_alike(text(before), text(now)), f"cell {old['id']}: was\n{text(before)}\nis\n{text(now)}\n{RENEW}"
            for picture, other in zip(pictures(before), pictures(now), strict=True):
                assert picture.shape == other.shape and np.abs(picture - other).mean() < 1, f"cell {old['id']}: {RENEW}"


def test_the_notebook_shows_pictures_and_what_it_says_of_them(ran: tuple[dict[str, Any], dict[str, Any]]) -> None:
    notebook, names = ran
    shown = [picture for cell in code_cells(notebook) for output in cell["outputs"] for picture in pictures(output)]
    assert len(shown) == 3 and all(picture.std() > 10 for picture in shown), "a picture of nothing"
    store, disc = names["store"], names["disc"][:, ::2, ::2].numpy()
    maps = {word: store.map(names["video"], word, step=5).to_numpy() for word in ("flower", "tree")}
    assert maps["flower"][disc].mean() > 3 * maps["flower"][~disc].mean()
    assert maps["tree"][~disc].mean() > 3 * maps["tree"][disc].mean()
    shares = store.sql("SELECT token, avg(mean) AS share FROM heads WHERE step = 5 GROUP BY token")["share"]
    assert len(shares) == 5 and math.isclose(shares.sum(), 1, abs_tol=1e-3)


def test_the_committed_notebook_is_small_and_of_no_machine(stored: dict[str, Any]) -> None:
    written = NOTEBOOK.read_text(encoding="utf-8")
    assert len(written) < 100_000 and written == as_stored(stored)
    plain = re.sub(r"base64,[^\"\\]+", "", written)
    assert not re.findall(r"(?<![\w.:/])/(?:home|root|tmp|usr|opt|work|var|private|Users|mnt)\b[^\"\\ ]*", plain)
    assert len({cell["id"] for cell in stored["cells"]}) == len(stored["cells"])
    prose = "".join("".join(cell["source"]) for cell in stored["cells"] if cell["cell_type"] == "markdown")
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", prose)
    assert targets and all((NOTEBOOK.parent / target).exists() for target in targets)


@pytest.mark.parametrize("document", ["README.md", "docs/capture.md"])
def test_the_first_example_runs(document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call = diffusers.WanPipeline.__call__
    size = {**tiny.CALL, "num_inference_steps": 10}
    monkeypatch.setattr(diffusers.WanPipeline, "__call__", lambda pipe, **given: call(pipe, **given, **size))
    example = re.findall(r"^```python\n(.*?)^```$", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)[0]
    names: dict[str, Any] = {"attnkit": attnkit, "pipe": tiny.wan()}
    exec(compile(example, document, "exec"), names)
    store = attnkit.open("maps.store")
    assert store.evolution(token="flower")["step"].tolist() == list(range(10))
    assert store.map("prompt_000_vid001", "tree", step=9).to_numpy().std() > 0


def read() -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return notebook


def code_cells(notebook: dict[str, Any]) -> list[Cell]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run(notebook: dict[str, Any]) -> dict[str, Any]:
    """Runs all cells, which get their outputs."""
    names: dict[str, Any] = {}
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "120")
        try:
            for number, cell in enumerate(code_cells(notebook), 1):
                cell["execution_count"], cell["outputs"] = number, outputs(cell, names, number)
        finally:
            # The notebook goes into a directory of its own.
            os.chdir(before)
    return names


def outputs(cell: Cell, names: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """What a cell prints, and what its last line is."""
    tree = ast.parse("".join(cell["source"]))
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    value = None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, cell["id"], "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), cell["id"], "eval"), names)
    shown: list[dict[str, Any]] = []
    if printed.getvalue():
        shown.append({"name": "stdout", "output_type": "stream", "text": lines(printed.getvalue())})
    if value is not None:
        told = {"text/plain": lines(repr(value))}
        if hasattr(value, "_repr_html_"):
            told["text/html"] = lines(value._repr_html_())
        shown.append({"data": told, "execution_count": number, "metadata": {}, "output_type": "execute_result"})
    return shown


def lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def as_stored(notebook: dict[str, Any]) -> str:
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def pictures(output: dict[str, Any]) -> list[np.ndarray]:
    found = EMBEDDED.findall("".join(output.get("data", {}).get("text/html", [])))
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(file))).convert("RGB"), np.int16) for file in found]


def text(output: dict[str, Any]) -> str:
    """What one reads of an output: of a table the cells, without tags and rules."""
    parts = output.get("data", {})
    if "text/html" in parts:
        return html.unescape(re.sub(r"<style.*?</style>|<[^>]*>", " ", "".join(parts["text/html"]), flags=re.DOTALL))
    return "".join(output.get("text", parts.get("text/plain", [])))


def is_alike(before: str, now: str) -> bool:
    """Whether two texts are one but for what other processors and libraries round."""
    numbers = [[float(number.replace(",", "")) for number in NUMBER.findall(text)] for text in (before, now)]
    return NUMBER.sub("#", before).split() == NUMBER.sub("#", now).split() and np.allclose(
        *numbers, rtol=1e-2, atol=1e-4
    )


if __name__ == "__main__":
    executed = read()
    run(executed)
    NOTEBOOK.write_text(as_stored(executed), encoding="utf-8")
    print(f"{NOTEBOOK.name}: {NOTEBOOK.stat().st_size:,} bytes", file=sys.stderr)
