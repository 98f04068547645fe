"""The "Usage Examples" of the attention maps' documentation, as they are printed there."""

from __future__ import annotations

from pathlib import Path

import attnkit
import numpy as np
import pytest
from conftest import write_dump

LOAD_STEP = """
from attention_analyzer import AttentionAnalyzer

analyzer = AttentionAnalyzer("outputs/batch_name/attention_maps")

# Load single step: [blocks, heads, spatial, tokens]
step_0 = analyzer.load_step("prompt_000_vid001", "flower", 0)
print(f"Shape: {step_0.shape}")  # [30, 12, 1170, 1]
"""

LOAD_ALL_STEPS = """
# Load all steps: [steps, blocks, heads, spatial, tokens]
all_steps = analyzer.load_all_steps("prompt_000_vid001", "flower")
print(f"Shape: {all_steps.shape}")  # [3, 30, 12, 1170, 1]
"""

AGGREGATE = """
# Average across transformer blocks: [steps, heads, spatial, tokens]
block_averaged = analyzer.aggregate_blocks(all_steps)

# Average across attention heads: [steps, spatial, tokens]
head_averaged = analyzer.aggregate_heads(block_averaged)

# Get temporal evolution: [steps, spatial, tokens]
temporal = analyzer.get_temporal_evolution("prompt_000_vid001", "flower")

# Reshape to video dimensions: [steps, frames, height, width]
spatial_map = analyzer.get_spatial_attention_map(
    "prompt_000_vid001", "flower", step=0,
    height=240, width=416, frames=3
)
"""


@pytest.fixture(params=["dump", "store"])
def here(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A directory with `outputs/batch_name/attention_maps`: the dump of the documentation, or a store of it."""
    path = tmp_path / "outputs/batch_name/attention_maps"
    values = write_dump(tmp_path / "dump" if request.param == "store" else path, 3, (30, 12, 1170, 1))
    if request.param == "store":
        attnkit.ingest(tmp_path / "dump", path)
    monkeypatch.chdir(tmp_path)
    return values


def test_the_examples_run_as_printed(here: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    exec(LOAD_STEP, names)
    assert capsys.readouterr().out == "Shape: (30, 12, 1170, 1)\n"
    exec(LOAD_ALL_STEPS, names)
    assert capsys.readouterr().out == "Shape: (3, 30, 12, 1170, 1)\n"
    exec(AGGREGATE, names)
    shapes = {name: names[name].shape for name in ("block_averaged", "head_averaged", "temporal", "spatial_map")}
    assert shapes == {
        "block_averaged": (3, 12, 1170, 1),
        "head_averaged": (3, 1170, 1),
        "temporal": (3, 1170, 1),
        "spatial_map": (1, 3, 15, 26),
    }
    np.testing.assert_array_equal(names["step_0"], here[0])
    np.testing.assert_array_equal(names["all_steps"], here)
    mean = here.mean(axis=(1, 2), dtype=np.float64)
    np.testing.assert_allclose(names["head_averaged"], mean, rtol=3e-7)
    np.testing.assert_allclose(names["temporal"], mean, rtol=3e-7)
    np.testing.assert_allclose(names["spatial_map"], mean[:1].reshape(1, 3, 15, 26), rtol=3e-7)


def test_the_examples_run_with_torch(here: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    names: dict[str, object] = {}
    exec(LOAD_STEP.replace('maps")', 'maps", framework="torch")') + LOAD_ALL_STEPS + AGGREGATE, names)
    assert capsys.readouterr().out == "Shape: torch.Size([30, 12, 1170, 1])\nShape: torch.Size([3, 30, 12, 1170, 1])\n"
    assert names["step_0"].dtype is torch.float16
    mean = torch.from_numpy(here).double().mean(dim=(1, 2))
    for name in ("head_averaged", "temporal"):
        assert names[name].dtype is torch.float32
        torch.testing.assert_close(names[name].double(), mean, rtol=3e-7, atol=0)
    assert names["spatial_map"].shape == (1, 3, 15, 26)
