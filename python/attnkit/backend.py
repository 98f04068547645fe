"""Stores for `xarray.open_dataset(path, engine="attnkit")`, which finds this module by its entry point."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import xarray
from xarray.backends import BackendEntrypoint

from . import _check, _native
from .errors import NotFoundError, QueryError
from .lazy import PREFERRED_CHUNKS, Word, dataset_of
from .store import Store

#: Names that an error lists.
_LISTED = 20


class AttnkitBackend(BackendEntrypoint):
    """Opens a word of a store as lazy, labelled arrays: what `Store.xarray` gives, with xarray's own arguments."""

    description = "Open a word of an attnkit store as lazy, labelled arrays of attention"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "video", "token", "dtype")

    def open_dataset(  # type: ignore[override]
        self,
        filename_or_obj: str | os.PathLike[str] | Store | Word,
        *,
        drop_variables: str | Iterable[str] | None = None,
        video: str | None = None,
        token: str | None = None,
        dtype: str | None = None,
    ) -> xarray.Dataset:
        """Open a word.

        Parameters
        ----------
        filename_or_obj : path, Store or word
            The store, or what `Store.word` gives.
        drop_variables : str or iterable of str, optional
            Arrays and coordinates to leave out.
        video, token : str, optional
            The video's id and the word, where the store has several.
        dtype : str, optional
            As for `Store.xarray`.

        Raises
        ------
        QueryError
            If there are several videos or words, and none is named.
        NotFoundError
            If there are none, or not that one.
        """
        if isinstance(filename_or_obj, Word):
            word = filename_or_obj
            store = Store(word.store)
            video, token = _same("video", word.video, video), _same("token", word.token, token)
        else:
            store = filename_or_obj if isinstance(filename_or_obj, Store) else Store(filename_or_obj)
            video, token = _only(store, video, token)
        dataset = dataset_of(store, video, token, dtype)
        for variable in dataset.data_vars.values():
            variable.encoding["preferred_chunks"] = {**PREFERRED_CHUNKS}
        return dataset.drop_vars(
            [] if drop_variables is None else _check.names("drop_variables", drop_variables), errors="ignore"
        )

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether it is a store."""
        if isinstance(filename_or_obj, (Store, Word)):
            return True
        if not isinstance(filename_or_obj, (str, os.PathLike)):
            return False
        path = _check.path(filename_or_obj)
        return isinstance(path, str) and "\0" not in path and _native.Store.is_at(path)


def _only(store: Store, video: str | None, token: str | None) -> tuple[str, str]:
    """The video and the word that are meant, where one of them is not named."""
    if video is not None and token is not None:
        return video, token
    rows = store.sql("SELECT DISTINCT video_id, token FROM steps ORDER BY video_id, token")
    words = list(zip(rows["video_id"].tolist(), rows["token"].tolist()))
    if not words:
        raise NotFoundError(f"there is no word in {store.path}: the store is empty")
    chosen = [word for word in words if video in (None, word[0]) and token in (None, word[1])]
    videos, tokens = sorted({one for one, _ in chosen}), sorted({one for _, one in chosen})
    if not chosen:
        name, place = ("video", 0) if token is None else ("token", 1)
        known = _few(sorted({word[place] for word in words}))
        asked = video if token is None else token
        raise NotFoundError(f"there is no {name} `{asked}` in {store.path}; there are {known}")
    for name, several in (("video", videos), ("token", tokens)):
        if len(several) > 1:
            found = f"{store.path} has {len(several)} {name}s: {_few(several)}"
            raise QueryError(found, f"name one of them: {name}=…")
    return videos[0], tokens[0]


def _same(name: str, of_word: str, given: str | None) -> str:
    if given not in (None, of_word):
        raise ValueError(f"{name}: {given!r} contradicts {of_word!r} of the word")
    return of_word


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
