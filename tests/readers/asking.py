"""Loads what `attnkit query` answers; and answers the same from the dump itself, with pandas and numpy alone."""

import json
from functools import cache

import numpy as np
import pandas as pd
from pyarrow import feather
from source_dump import step_arrays, step_files

# What tells maps apart, in the order in which answers are sorted.
KEYS = ["video_id", "token", "token_index", "step", "block", "head"]
LATENT = {"frames": 4, "height": 12, "width": 12}
GRID = tuple(LATENT.values())

LOADERS = {
    "parquet": pd.read_parquet,
    "arrow": lambda path: feather.read_table(path).to_pandas(),
    "npy": np.load,
    "csv": lambda path: pd.read_csv(path),
    "json": lambda path: pd.DataFrame(json.loads(path.read_bytes())),
    "jsonl": lambda path: pd.read_json(path, lines=True, precise_float=True),
}


def load(path):
    """The answer in a file, by its extension: a DataFrame, for .npy an array, for .zarr the path itself."""
    return LOADERS.get(path.suffix[1:], lambda path: path)(path)


def values_of(answer):
    """The column `values` as an array `[map, spatial]`."""
    return np.stack(answer["values"])


@cache
def source_maps(dump):
    """Every map of a dump: a DataFrame of what is known of it, and its float64 values `[map, spatial]`."""
    files, steps, places, values = step_files(dump), [], [], []
    for (video, word, step), array in step_arrays(dump).items():
        metadata = json.loads(files[video, word, step][0][3].read_bytes())
        token, *weight = word.split(":")
        steps.append(
            {
                "video_id": video,
                "prompt": video.rpartition("_")[0],
                "seed": metadata["seed"],
                "token": token,
                "weight": float(weight[0]) if weight else None,
                "step": step,
                "timestep": metadata["timestep"],
            }
        )
        blocks, heads, spatial, tokens = array.shape
        index, block, head = np.indices((tokens, blocks, heads)).reshape(3, -1)
        places.append([index, block if blocks > 1 else block - 1, head if heads > 1 else head - 1])
        values.append(array.astype(np.float64).transpose(3, 0, 1, 2).reshape(-1, spatial))
    known = (
        pd.DataFrame(steps).loc[np.repeat(np.arange(len(steps)), [len(maps) for maps in values])].reset_index(drop=True)
    )
    for axis, of_maps in zip(("token_index", "block", "head"), np.concatenate(places, axis=1)):
        known[axis] = pd.array(of_maps, dtype="Int32")
        known[axis] = known[axis].mask(known[axis] < 0)
    return known, np.concatenate(values)


def grouped(maps, keys):
    """A row of keys and `n` for each group in their order, and the values `[n, spatial]` of each."""
    known, values = maps
    if not keys:
        return pd.DataFrame({"n": [len(known)]}), [values]
    by_key = known.reset_index(drop=True).groupby(keys, dropna=False)
    number = by_key.ngroup().to_numpy()
    return by_key.size().rename("n").reset_index(), [values[number == group] for group in range(by_key.ngroups)]


def means(maps, keys):
    """The mean of each group as attnkit keeps it, float32: a dictionary from its keys (one alone, or a tuple) to
    float64 `[spatial]`."""
    rows, groups = grouped(maps, keys)
    names = rows[keys[0]] if len(keys) == 1 else rows[keys].itertuples(index=False, name=None)
    return {name: group.mean(axis=0).astype(np.float32).astype(np.float64) for name, group in zip(names, groups)}


def chosen(maps, condition):
    """The maps of which a pandas query is true."""
    known, values = maps
    kept = known.query(condition).index
    return known.loc[kept].reset_index(drop=True), values[kept]
