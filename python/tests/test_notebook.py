"""The notebook docs/tour.ipynb, run in a fresh kernel of this Python; what is stored in it is what it shows.

After a change of the notebook, or of what it shows, `python python/tests/test_notebook.py` runs it and stores the
outputs.
"""

from __future__ import annotations

import base64
import html
import io
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

for needed in ("ipykernel", "nbclient", "pandas", "PIL", "polars", "pyarrow", "xarray"):
    pytest.importorskip(needed)

import nbformat  # noqa: E402
from jupyter_client.kernelspec import KernelSpecManager  # noqa: E402
from jupyter_client.manager import AsyncKernelManager  # noqa: E402
from nbclient import NotebookClient  # noqa: E402
from nbformat import NotebookNode  # noqa: E402
from PIL import Image  # noqa: E402
from traitlets import default  # noqa: E402
from traitlets.config import Config  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
TOUR = ROOT / "docs/tour.ipynb"
RENEW = "python python/tests/test_notebook.py stores what the notebook shows now"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
KINDS = ("image/png", "image/jpeg")
#: A picture in HTML.
EMBEDDED = re.compile(r'<img [^>]*src="data:image/png;base64,([^"]+)"')
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.])")


@pytest.fixture(scope="module")
def stored() -> NotebookNode:
    """The notebook as it is committed."""
    return nbformat.read(TOUR, as_version=4)


@pytest.fixture(scope="module")
def fresh() -> NotebookNode:
    """The notebook as it comes out of a run."""
    return run()


def test_the_tour_runs_from_start_to_end(fresh: NotebookNode) -> None:
    code = [cell for cell in fresh.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    warnings = [output.text for cell in code for output in cell.outputs if output.get("name") == "stderr"]
    assert not warnings


def test_the_tour_shows_pictures_of_maps(fresh: NotebookNode) -> None:
    shown = [pictures(output) for cell in fresh.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum(1 for found in shown if found) >= 6, "outputs with pictures"
    assert sum(map(len, shown)) >= 18, "pictures"
    for picture in (picture for found in shown for picture in found):
        assert picture.width >= 360 and picture.height >= 90
        assert np.asarray(picture).std() > 10, "a picture of nothing"


def test_readers_see_what_they_would_get(stored: NotebookNode, fresh: NotebookNode) -> None:
    assert [cell.id for cell in stored.cells] == [cell.id for cell in fresh.cells]
    for old, new in zip(stored.cells, fresh.cells):
        if old.cell_type != "code":
            continue
        kinds = [[(output.output_type, {*output.get("data", ())}) for output in cell.outputs] for cell in (old, new)]
        assert kinds[0] == kinds[1], f"cell {old.id}: {RENEW}"
        for before, now in zip(old.outputs, new.outputs):
            difference = differ(text(before), text(now)) or differ_in_pictures(pictures(before), pictures(now))
            assert difference is None, f"cell {old.id}: {difference}; {RENEW}"


def test_the_tour_starts_anywhere_in_the_checkout(stored: NotebookNode) -> None:
    """And again after it has changed the working directory, as people do who run a cell twice."""
    first = next(cell.source for cell in stored.cells if cell.cell_type == "code")
    script = f"{first}\n{first}\nprint(*os.listdir('fixtures/dataset/frames'))"
    for folder in (ROOT, ROOT / "fixtures/dataset"):
        told = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True)
        assert "prompt_001_vid001" in told.stdout, told.stderr


def test_the_committed_tour_is_small_and_of_no_machine(stored: NotebookNode) -> None:
    written = TOUR.read_text(encoding="utf-8")
    assert len(written) < 450_000
    assert written == as_stored(stored), f"not as a run writes it: {RENEW}"
    nbformat.validate(stored)
    assert (stored.nbformat, stored.nbformat_minor) == (4, 5)
    plain = re.sub(r"base64,[^\"\\]+|\"image/jpeg\": \"[^\"]+\"", "", written)
    assert not re.findall(r"(?<![\w.:/])/(?:home|root|tmp|usr|opt|work|var|private|Users|mnt)\b[^\"\\ ]*", plain)
    assert len({cell.id for cell in stored.cells}) == len(stored.cells)


def test_links_of_the_tour_lead_somewhere(stored: NotebookNode) -> None:
    prose = "\n".join(cell.source for cell in stored.cells if cell.cell_type == "markdown")
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", prose)
    assert targets
    assert [target for target in targets if not (TOUR.parent / target).exists()] == []


class ThisPython(AsyncKernelManager):
    """Starts the kernel of the Python that runs, whatever else is installed under its name."""

    @default("kernel_spec_manager")
    def _nothing_installed(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])


def run() -> NotebookNode:
    """The notebook, executed where nothing but it and the fixtures is."""
    notebook = nbformat.read(TOUR, as_version=4)
    # A short path: sockets lie below it.
    with tempfile.TemporaryDirectory(prefix="tour") as name:
        layout = Path(name)
        (layout / "docs").mkdir()
        (layout / "fixtures").symlink_to(ROOT / "fixtures")
        client = NotebookClient(
            notebook,
            kernel_manager_class=ThisPython,
            kernel_name="python3",
            config=Config(KernelManager={"transport": "ipc", "connection_file": f"{name}/kernel.json"}),
            timeout=300,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": f"{name}/docs"}},
        )
        client.execute(env={**os.environ, "IPYTHONDIR": f"{name}/ipython", "TMPDIR": name, "COLUMNS": "120"})
    return notebook


def as_stored(notebook: NotebookNode) -> str:
    """The notebook as text, without what depends on when and where it ran."""
    kept = nbformat.from_dict(notebook)
    kept.metadata = nbformat.from_dict(METADATA)
    for cell in kept.cells:
        cell.metadata = NotebookNode()
    return nbformat.writes(kept).rstrip("\n") + "\n"


def pictures(output: NotebookNode) -> list[Image.Image]:
    """The pictures of an output."""
    parts = output.get("data", {})
    found = [parts[kind] for kind in KINDS if kind in parts] or EMBEDDED.findall(parts.get("text/html", ""))
    return [Image.open(io.BytesIO(base64.b64decode(file))).convert("RGB") for file in found]


def text(output: NotebookNode) -> str:
    """What one reads of an output: of a table the cells, without tags and rules."""
    parts = output.get("data", {})
    if "text/html" in parts:
        return html.unescape(re.sub(r"<style.*?</style>|<[^>]*>", " ", parts["text/html"], flags=re.DOTALL))
    return "" if any(kind in parts for kind in KINDS) else output.get("text", parts.get("text/plain", ""))


def differ(before: str, now: str) -> str | None:
    """Where two texts differ: in words and counts, or in numbers by more than other processors and libraries round."""
    if NUMBER.sub("#", before).split() != NUMBER.sub("#", now).split():
        return f"was\n{before}\nis\n{now}"
    for old, new in zip(NUMBER.findall(before), NUMBER.findall(now)):
        measured = any(mark in old + new for mark in ".,")
        values = (float(number.replace(",", "")) for number in (old, new))
        if old != new and not (measured and math.isclose(*values, rel_tol=2e-3, abs_tol=2e-6)):
            return f"{old} is {new} now"
    return None


def differ_in_pictures(before: list[Image.Image], now: list[Image.Image]) -> str | None:
    """Which picture is another one. Compared at a quarter of the size, where encoders agree and cells are seen."""
    if [picture.size for picture in before] != [picture.size for picture in now]:
        return "there are other pictures"
    for number, (old, new) in enumerate(zip(before, now), 1):
        pixels = [np.asarray(picture.reduce(4), np.int16) for picture in (old, new)]
        if np.abs(pixels[0] - pixels[1]).max() > 4:
            return f"picture {number} is another one"
    return None


if __name__ == "__main__":
    executed = as_stored(run())
    TOUR.write_text(executed, encoding="utf-8")
    print(f"{TOUR}: {len(executed):,} bytes")
