"""Ids of captured videos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Union

from ..errors import NotAStoreError
from ..prompts import Prompt
from ..store import open as open_store

#: An id, ids in the order of the videos, or a function of (prompt, number of the video in the capture).
VideoId = Union[str, Sequence[str], "Callable[[str, int], str]", None]


def ids_of(prompt_id: str, prompt: str, known: Iterable[tuple[str, str | None]]) -> Callable[[str, int], str]:
    """Ids of the videos of a prompt that has an id: `prompt_007_vid001`, … behind those of (id, prompt) known.

    Raises
    ------
    ValueError
        If there are videos of another prompt by that id.
    """
    first = 1
    for video_id, other in known:
        prefix, _, rest = video_id.partition("_vid")
        if prefix != prompt_id or not rest.isdecimal():
            continue
        if other != prompt:
            raise ValueError(
                f"variation: {video_id}, which is there, is of {other!r}, and {prompt_id} of {prompt!r}: name the "
                "videos with video_id=, or expand all templates at once, which numbers their prompts through"
            )
        first = max(first, int(rest) + 1)
    return lambda _, number: f"{prompt_id}_vid{first + number:03}"


def videos_of_store(path: str) -> list[tuple[str, str | None]]:
    """Ids and prompts of a store, if there is one."""
    try:
        store = open_store(path)
    except (NotAStoreError, FileNotFoundError):
        return []
    videos = store.sql("SELECT DISTINCT video_id, prompt FROM steps ORDER BY video_id")
    return list(zip(videos["video_id"], videos["prompt"]))


class VideoIds:
    """Gives out ids: those that were asked for, or as generators number them, behind those of (id, prompt) known.

    What is known is looked at when the first id is wanted.
    """

    def __init__(
        self, asked: VideoId, variation: Prompt | None, known: Callable[[], Iterable[tuple[str, str | None]]]
    ) -> None:
        if not (asked is None or isinstance(asked, Sequence) or callable(asked)):
            raise TypeError(f"video_id: {asked!r} is neither an id, nor several, nor a function of (prompt, number)")
        self._asked, self._variation, self._known = asked, variation, known
        self._given: list[str] = []
        #: Of each prompt: its number, and how many videos it has.
        self._prompts: dict[str, list[int]] = {}
        self._next = 0
        if asked is None and variation is not None:
            # Refused here where it is another prompt's.
            ids_of(variation.prompt_id, variation.prompt, known())

    def _look(self) -> None:
        """Takes note of what is known."""
        if self._variation is not None:
            self._asked = ids_of(self._variation.prompt_id, self._variation.prompt, self._known())
        else:
            for video_id, prompt in self._known():
                self._note(video_id, prompt or "")

    def give(self, prompt: str) -> str:
        """The id of the next video."""
        number = len(self._given)
        if number == 0 and self._asked is None:
            self._look()
        if self._asked is None:
            known = self._prompts.setdefault(prompt, [self._next, 0])
            self._next = max(self._next, known[0] + 1)
            known[1] += 1
            video_id = f"prompt_{known[0]:03}_vid{known[1]:03}"
        elif isinstance(self._asked, str):
            video_id = self._asked
        elif callable(self._asked):
            video_id = self._asked(prompt, number)
        elif number < len(self._asked):
            video_id = self._asked[number]
        else:
            raise ValueError(f"video_id: {len(self._asked)} ids, and there is a further video")
        if video_id in self._given:
            raise ValueError(
                f"video_id: {video_id!r} is given to two videos; give a list, or a function of (prompt, number)"
            )
        self._given.append(video_id)
        return video_id

    def _note(self, video_id: str, prompt: str) -> None:
        prefix, _, rest = video_id.partition("_vid")
        digits = prefix.removeprefix("prompt_")
        if prefix == digits or not digits.isdecimal() or not rest.isdecimal():
            return
        self._next = max(self._next, int(digits) + 1)
        known = self._prompts.setdefault(prompt, [int(digits), 0])
        if known[0] == int(digits):
            known[1] = max(known[1], int(rest))
