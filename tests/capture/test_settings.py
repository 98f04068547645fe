"""The generator's settings, from YAML or a mapping, as options of a capture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attnkit
import pytest
import torch
from attnkit.capturing.dumping import DumpOfVideos
from attnkit.capturing.settings import read_settings
from steps import step

#: As the documentation of dumps has them.
DOCUMENTED = """
attention_analysis_settings:
  store_attention: true
  storage_format: "numpy"           # "numpy" or "torch"
  compress_attention: false         # Enable gzip compression
  storage_interval: 1               # Store every N steps
  storage_dtype: "float16"          # "float16" or "float32"
  spatial_downsample_factor: 1      # Spatial downsampling

  # Aggregation control (affects memory usage)
  store_per_head: false             # false = average across heads (memory efficient)
  store_per_block: false            # false = average across blocks (memory efficient)
"""
READ = {
    "storage_format": "numpy",
    "compress_attention": False,
    "every": 1,
    "dtype": "float16",
    "downsample": 1,
    "average": ["blocks", "heads"],
}


def test_the_documented_yaml_is_understood(tmp_path: Path) -> None:
    import yaml

    path = tmp_path / "settings.yaml"
    path.write_text(f"model: wan\n{DOCUMENTED}")
    assert read_settings(path) == READ
    document = yaml.safe_load(DOCUMENTED)
    assert read_settings(document) == READ
    assert read_settings(document["attention_analysis_settings"]) == READ


@pytest.mark.parametrize("block, options", [
    # Of keys that are not there nothing is said, as in an ingest.
    ({"store_attention": True}, {}),
    ({"storage_interval": 5}, {"every": 5}),
    ({"storage_interval": None, "store_per_head": None, "store_per_block": True}, {"average": []}),
    ({"store_per_head": False}, {"average": ["heads"]}),
    ({"store_per_head": True, "store_per_block": False}, {"average": ["blocks"]}),
    ({"storage_dtype": "torch.float32"}, {"dtype": "float32"}),
    ({"spatial_downsample_factor": 4}, {"downsample": 4}),
    (
        {"storage_format": "torch", "compress_attention": True},
        {"storage_format": "torch", "compress_attention": True},
    ),
])  # fmt: skip
def test_each_key_is_an_option(block: dict[str, Any], options: dict[str, Any]) -> None:
    assert read_settings({"attention_analysis_settings": block}) == options


@pytest.mark.parametrize("key, value, expected", [
    ("store_attention", False, "nothing is to be stored"),
    ("store_attention", "yes", "expected true or false"),
    ("storage_format", "npz", "expected numpy or torch"),
    ("compress_attention", 1, "expected true or false"),
    ("storage_interval", 0, "expected a whole number from 1"),
    ("storage_interval", True, "expected a whole number from 1"),
    ("storage_interval", 2.0, "expected a whole number from 1"),
    ("storage_interval", "2", "expected a whole number from 1"),
    ("storage_dtype", "bfloat16", "expected float16 or float32"),
    ("storage_dtype", "float64", "expected float16 or float32"),
    ("storage_dtype", 16, "expected float16 or float32"),
    ("spatial_downsample_factor", -2, "expected a whole number from 1"),
    ("spatial_downsample_factor", 1_000_001, "expected a whole number from 1 to 1000000"),
    ("store_per_head", "false", "expected true or false"),
    ("store_per_block", [False], "expected true or false"),
])  # fmt: skip
def test_what_a_key_cannot_be_is_refused_by_its_name(key: str, value: Any, expected: str) -> None:
    with pytest.raises(ValueError) as refused:
        read_settings({key: value})
    assert f"`{key}` is {value!r}; {expected}" in str(refused.value)


@pytest.mark.parametrize("text, said", [
    ("a: 1\nb: 2", "no block `attention_analysis_settings`; found a, b"),
    ("- 1", "expected the block"),
    ("", "expected the block"),
    ("attention_analysis_settings: 3", "holds no keys, but 3"),
    ("attention_analysis_settings:", "holds no keys, but None"),
    ("storage_interval: [1", "not valid YAML"),
    ("storage_interval: 1\nstorage_interval: 2", "`storage_interval` is there twice"),
    ("storage_interval: !!python/object/apply:os.getcwd []", "not valid YAML"),
])  # fmt: skip
def test_what_is_no_settings_is_refused_by_its_file(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as refused:
        read_settings(path)
    assert str(path) in str(refused.value) and said in str(refused.value)


def test_unknown_keys_are_a_warning() -> None:
    with pytest.warns(UserWarning, match="unknown keys in .*: attention_threshold, 3; known are store_attention"):
        assert read_settings({"storage_interval": 2, "attention_threshold": 0.1, 3: 4}) == {"every": 2}
    with pytest.raises(TypeError, match="settings: 3 is neither"):
        read_settings(3)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        read_settings("nowhere.yaml")


@pytest.mark.parametrize("block", [
    {"storage_interval": 2, "storage_dtype": "float16", "store_per_head": False, "spatial_downsample_factor": 2},
    {"store_per_head": True, "store_per_block": False},
    {"store_attention": True},
])  # fmt: skip
def test_an_ingest_does_the_same_by_the_same_settings(tmp_path: Path, block: dict[str, Any]) -> None:
    import yaml

    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump({"attention_analysis_settings": block}))
    dump = DumpOfVideos(str(tmp_path / "dump"))
    for number in range(3):
        one = step(number, ("flower",))
        dump.write(step(number, ("flower",), maps={word: maps.float() for word, maps in one.maps.items()}))
    dump.close()
    attnkit.ingest(tmp_path / "dump", tmp_path / "by_settings", settings=path)
    options = {
        name: value for name, value in read_settings(path).items() if not name.startswith(("storage", "compress"))
    }
    attnkit.ingest(tmp_path / "dump", tmp_path / "by_options", **options)
    found, expected = (attnkit.open(tmp_path / name) for name in ("by_settings", "by_options"))
    assert found.info().videos == expected.info().videos
    maps, others = (store.xarray("v", "flower")["attention"].to_numpy() for store in (found, expected))
    assert torch.equal(torch.from_numpy(maps), torch.from_numpy(others))
