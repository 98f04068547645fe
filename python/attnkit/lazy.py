"""Arrays of a store as lazy xarray variables: `spatial` unflattened, chunks decoded by attnkit when they are needed."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray
from xarray.backends import BackendArray
from xarray.core import indexing

from .errors import NotFoundError

if TYPE_CHECKING:
    from .store import Store

Array = np.ndarray[Any, Any]

#: How arrays are best read: steps are stored one behind the other.
PREFERRED_CHUNKS = {"step": 1}
#: Axes of each array between `step` and the positions.
LEADING = {"attention": ("block", "head"), "mean_head": ("block",), "mean_block": ("head",), "mean": ()}


@dataclass(frozen=True)
class Word:
    """A word of a video in a store, by its names: see `Store.word`."""

    store: str
    video: str
    token: str


def open_dataset(store: Store, video: str, token: str, chunks: Any, dtype: str | None) -> xarray.Dataset:
    """See `Store.xarray`."""
    dataset = dataset_of(store, video, token, dtype)
    if chunks == "auto":
        chunks = PREFERRED_CHUNKS if importlib.util.find_spec("dask") else None
    if chunks is None:
        return dataset
    # Coordinates are in memory already, and stay there.
    coordinates = dataset.coords
    return dataset.drop_vars(list(coordinates)).chunk(chunks).assign_coords(coordinates)


def dataset_of(store: Store, video: str, token: str, dtype: str | None) -> xarray.Dataset:
    """The arrays of a word as variables that read what is asked of them, without dask."""
    rows = store.list("steps", video=video, token=token, sort="step")
    if len(rows) == 0:
        raise NotFoundError(
            f"there is no word `{token}` of a video `{video}` in {store.path}; `store.info()` lists what there is"
        )
    first = {name: rows[name][0] for name in rows.columns}
    # As the store spells them.
    video, token = first["video_id"], first["token"]
    sizes = {"block": int(first["num_blocks"]), "head": int(first["num_heads"])}
    if np.isnan(first["frames"]):
        positions = {"spatial": int(first["spatial"])}
    else:
        positions = {"frame": int(first["frames"]), "height": int(first["height"]), "width": int(first["width"])}
    positions["token"] = int(first["tokens"])
    variables = {}
    for kind in store._native.kinds(video, token):
        leading = LEADING[kind]
        dims = ("step", *leading, *positions)
        shape = (len(rows), *(sizes[axis] for axis in leading), *positions.values())
        stored = np.dtype(first["dtype"] if kind == "attention" else np.float32)
        array = StoredArray(
            store, (video, token, kind), rows["step"].tolist(), shape, _wanted(dtype, stored), len(leading)
        )
        variables[kind] = xarray.Variable(dims, indexing.LazilyIndexedArray(array))
    coordinates: dict[str, Any] = {name: np.arange(size) for name, size in {**sizes, **positions}.items()}
    for name in sizes:
        numbers = first[f"{name}_numbers"]
        if numbers is not None:
            coordinates[name] = np.asarray(numbers)
    coordinates["step"] = rows["step"].astype(np.int64)
    coordinates["timestep"] = ("step", rows["timestep"])
    told = ("prompt", "prompt_id", "seed", "cfg_scale", "weight", "token_ids", "token_texts", "total_steps")
    attributes = {name: _plain(first[name]) for name in told}
    attributes = {
        "video_id": video,
        "token": token,
        **{name: value for name, value in attributes.items() if value is not None},
    }
    return xarray.Dataset(variables, coordinates, attributes)


def _wanted(dtype: str | None, stored: np.dtype[Any]) -> np.dtype[Any]:
    """The type of a variable whose array is stored as `stored`: float16 is too narrow for what is computed with it."""
    if dtype == "stored":
        return stored
    if dtype is None:
        return np.promote_types(stored, np.float32)
    if dtype not in ("float16", "float32", "float64"):
        raise ValueError(f"dtype: {dtype!r} is not float16, float32, float64 or 'stored'")
    return np.dtype(dtype)


def _plain(value: Any) -> Any:
    """A value for attributes: None where it is not known."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


class StoredArray(BackendArray):
    """One array of a word. A slice decodes the steps, and of each the chunks between the first and the last map that it
    needs.

    Where the array is, is looked up at each read: what a writer replaces meanwhile is found in its new place.
    """

    def __init__(
        self,
        store: Store,
        name: tuple[str, str, str],
        steps: list[int],
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        leading: int,
    ) -> None:
        self._store = store
        self._video, self._token, self._kind = name
        self._steps = steps
        self._leading = leading
        self.shape = shape
        self.dtype = dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        chosen = [np.atleast_1d(np.arange(size)[index]) for size, index in zip(self.shape, key)]
        gone = tuple(axis for axis, index in enumerate(key) if isinstance(index, (int, np.integer)))
        if any(len(index) == 0 for index in chosen):
            values = np.empty([len(index) for index in chosen], self.dtype)
        else:
            values = self._read_outer(chosen)
        return values.squeeze(gone)

    def _read_outer(self, chosen: list[Array]) -> Array:
        """The elements at all combinations of the indices chosen on each axis."""
        leading = self.shape[1 : 1 + self._leading]
        behind = self.shape[1 + self._leading :]
        # Maps are read from the first to the last that is wanted; what lies between is dropped.
        bounds = [(int(index.min()), int(index.max())) for index in chosen[1 : 1 + self._leading]]
        first = int(np.ravel_multi_index([low for low, _ in bounds], leading)) if leading else 0
        last = int(np.ravel_multi_index([high for _, high in bounds], leading)) if leading else 0
        size = math.prod(behind)
        steps = [self._steps[place] for place in chosen[0].tolist()]
        name = (self._video, self._token, self._kind)
        flat = self._store._native.read(*name, steps, first * size, (last + 1) * size)
        maps = flat.reshape(len(steps), last + 1 - first, *behind)
        wanted = np.zeros(1, np.intp)
        for index, length in zip(chosen[1 : 1 + self._leading], leading):
            wanted = (wanted[:, None] * length + index).ravel()
        if len(wanted) != maps.shape[1] or not np.array_equal(wanted - first, np.arange(len(wanted))):
            maps = maps[:, wanted - first]
        values = maps.reshape(len(steps), *(len(index) for index in chosen[1 : 1 + self._leading]), *behind)
        for axis in range(1 + self._leading, values.ndim):
            if len(chosen[axis]) != values.shape[axis] or not np.array_equal(
                chosen[axis], np.arange(values.shape[axis])
            ):
                values = values.take(chosen[axis], axis=axis)
        return values.astype(self.dtype, copy=False)
