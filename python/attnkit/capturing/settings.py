"""The generator's documented `attention_analysis_settings`, as options of a capture."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from .. import _check
from ..ingest import Path

#: A YAML file, or what one holds; the block itself, or a document that has it.
Settings = Path | Mapping[str, Any]

_BLOCK = "attention_analysis_settings"
_MOST = 1_000_000


def read_settings(settings: Settings) -> dict[str, Any]:
    """Options of `attnkit.capture` that settings stand for: those of the keys that are there and not null.

    `storage_interval` is `every`, `storage_dtype` is `dtype`, `spatial_downsample_factor` is `downsample`, and
    `store_per_block: false` and `store_per_head: false` are `average`. `storage_format` and `compress_attention` are
    options of dumps, of the same names.

    Parameters
    ----------
    settings : path or mapping
        A YAML file or its contents: the block `attention_analysis_settings`, or a document that has it.

    Raises
    ------
    ValueError
        If there is no such block, a known key has a value that it cannot have, or `store_attention` is false.
    OSError
        If the file cannot be read.

    Warns
    -----
    UserWarning
        Of keys that are not known.
    """
    if isinstance(settings, Mapping):
        return _options(settings, "settings")
    if not isinstance(settings, (str, os.PathLike)):
        raise TypeError(f"settings: {settings!r} is neither the path of a YAML file nor a mapping")
    path = _check.path(settings)
    return _options(_read_yaml(path), f"settings: {path}")


def _options(document: Any, place: str) -> dict[str, Any]:
    block = _block(document, place)
    unknown = [key for key in block if key not in _READ]
    if unknown:
        warnings.warn(
            f"{place}: unknown keys in `{_BLOCK}`: {', '.join(map(str, unknown))}; known are {', '.join(_READ)}",
            stacklevel=4,
        )
    found: dict[str, Any] = {}
    for key, read in _READ.items():
        if block.get(key) is not None:
            try:
                found[key] = read(block[key])
            except ValueError as error:
                raise ValueError(f"{place}: `{key}` is {block[key]!r}; {error}") from None
    stored = {axis: found[key] for axis, key in _STORED.items() if key in found}
    options = {option: found[key] for key, option in _OPTIONS.items() if key in found}
    return options | ({"average": [axis for axis, kept in stored.items() if not kept]} if stored else {})


def _block(document: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(document, Mapping):
        raise ValueError(f"{place}: expected the block `{_BLOCK}:`, found {document!r:.80}")
    if _BLOCK not in document:
        if any(key in document for key in _READ):
            return document
        raise ValueError(f"{place}: no block `{_BLOCK}`; found {', '.join(map(str, document)) or 'nothing'}")
    block = document[_BLOCK]
    if not isinstance(block, Mapping):
        raise ValueError(f"{place}: `{_BLOCK}` holds no keys, but {block!r:.80}")
    return block


def _read_yaml(path: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """A key that is there twice is an error: the first would be lost."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            names = [key.value for key, _ in node.value]
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise yaml.constructor.ConstructorError(None, None, f"`{twice}` is there twice", node.start_mark)
            return super().construct_mapping(node, deep)

    with open(path, "rb") as file:
        try:
            return yaml.load(file, Loader)
        except yaml.YAMLError as error:
            raise ValueError(f"settings: {path}: not valid YAML: {error}") from error


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def _wanted(value: Any) -> bool:
    if not _flag(value):
        raise ValueError("nothing is to be stored; leave attnkit.capture out")
    return True


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST:
        raise ValueError(f"expected a whole number from 1 to {_MOST}")
    return value


def _one_of(*names: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in names:
            raise ValueError(f"expected {' or '.join(names)}")
        return str(value)

    return read


def _dtype(value: Any) -> str:
    return _one_of("float16", "float32")(value.removeprefix("torch.") if isinstance(value, str) else value)


#: The documented keys, and how each is read.
_READ: dict[str, Callable[[Any], Any]] = {
    "store_attention": _wanted,
    "storage_format": _one_of("numpy", "torch"),
    "compress_attention": _flag,
    "storage_interval": _count,
    "storage_dtype": _dtype,
    "spatial_downsample_factor": _count,
    "store_per_head": _flag,
    "store_per_block": _flag,
}
_OPTIONS = {
    "storage_format": "storage_format",
    "compress_attention": "compress_attention",
    "storage_interval": "every",
    "storage_dtype": "dtype",
    "spatial_downsample_factor": "downsample",
}
_STORED = {"blocks": "store_per_block", "heads": "store_per_head"}
