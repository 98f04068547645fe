"""`attnkit export` writes back the dump that was ingested."""

import json
import re

import numpy as np
import pytest
from source_dump import DATASET, VARIANTS, same_bits, step_arrays, step_files

VARIANT = {path.name: path for path in VARIANTS}

every_form = pytest.mark.parametrize(
    "layout, format", [("flat", "npy"), ("flat", "npy.gz"), ("nested", "npy"), ("nested", "npy.gz")]
)


def export(attnkit, store, out, layout="flat", format="npy"):
    attnkit("export", store, "--out", out, "--layout", layout, "--format", format)
    return out


def metadata(dump):
    return {key: [json.loads(files[3].read_bytes()) for files in parts] for key, parts in step_files(dump).items()}


def summaries(dump):
    return {
        found["video_id"]: found for found in (json.loads(path.read_bytes()) for path in dump.rglob("summary.json"))
    }


@every_form
def test_export_is_the_dump_again(attnkit, dataset_store, tmp_path, layout, format):
    exported = export(attnkit, dataset_store, tmp_path / "out", layout, format)

    arrays, expected = step_arrays(exported), step_arrays(DATASET)
    assert arrays.keys() == expected.keys()
    for key, array in arrays.items():
        assert same_bits(array, expected[key]), key
    assert metadata(exported) == metadata(DATASET)
    assert summaries(exported) == summaries(DATASET)


@every_form
def test_export_has_the_layout_and_format_asked_for(attnkit, store_of, tmp_path, layout, format):
    exported = export(attnkit, store_of(VARIANT["nested"]), tmp_path / "out", layout, format)
    video = {"flat": "prompt_000_vid001", "nested": "prompt_000/vid001"}[layout]
    for (_, token, step), [(_, _, tensor, described)] in step_files(exported).items():
        assert tensor.as_posix().endswith(f"/{video}/token_{token}/step_{step:03}.{format}")
        assert described.parent == tensor.parent


@pytest.mark.parametrize("variant", sorted(VARIANT))
def test_every_variant_is_exported_with_the_values_it_came_with(attnkit, store_of, tmp_path, variant):
    exported = step_arrays(export(attnkit, store_of(VARIANT[variant]), tmp_path / "out"))
    expected = step_arrays(VARIANT[variant])
    assert exported.keys() == expected.keys()
    for key, array in exported.items():
        assert same_bits(array, expected[key]), key


def test_numpy_loads_exported_files_in_c_order(attnkit, store_of, tmp_path):
    exported = export(attnkit, store_of(VARIANT["fortran_big_endian"]), tmp_path / "out")
    for tensor in exported.rglob("*.npy"):
        array = np.load(tensor)
        assert array.flags.c_contiguous and array.dtype == np.float16 and re.fullmatch(r"step_\d{3}\.npy", tensor.name)
