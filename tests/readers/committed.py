"""What a store holds, by its `index/steps` table: the list that the array tests walk."""

import json
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def table(store, name):
    """All parts of `index/<name>` as one Arrow table, in the order of their names."""
    return pa.concat_tables(pq.ParquetFile(part).read() for part in parts(store, name))


def parts(store, name):
    found = sorted((Path(store) / "index" / name).glob("*.parquet"))
    assert found, f"no parts in {store}/index/{name}"
    return found


def words(store):
    """(video_id, token, group directory, its rows in row order) of every committed word."""
    rows = sorted(table(store, "steps").to_pylist(), key=lambda row: (row["array"], row["row"]))
    for array, of_array in groupby(rows, key=lambda row: row["array"]):
        of_array = list(of_array)
        yield of_array[0]["video_id"], of_array[0]["token"], (Path(store) / array).parent, of_array


def has_step_arrays(steps):
    """Whether a word of these steps has arrays of them."""
    return len(steps) >= 4 or steps != list(range(len(steps)))


def coordinates(group):
    """The names of the coordinates of a word."""
    attributes = json.loads((group / "zarr.json").read_text())["attributes"]["attnkit"]
    named = [name for name in ("step", "timestep", "block", "head") if (group / name).exists()]
    assert ("step" in named) == ("timestep" in named) == ("coordinates" not in attributes)
    return [*named, *attributes.get("coordinates", ())]


def coordinate(group, name, read):
    """The values of a coordinate of a word: an array that is read, or what its attributes have of a few steps."""
    if (group / name).exists():
        return read(group / name).tolist()
    attributes = json.loads((group / "zarr.json").read_text())["attributes"]["attnkit"]
    return attributes["coordinates"][name]
