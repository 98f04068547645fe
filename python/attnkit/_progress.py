"""Progress of long work, shown by tqdm or told to a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: `True` for a tqdm bar, a tqdm class, or a function of (done, all).
Progress = bool | Callable[..., Any]
Report = Callable[[int, int], None]


@contextmanager
def following(progress: Progress, what: str, unit: str = "B") -> Iterator[Report | None]:
    """The function that native code reports to, or `None`."""
    if progress is False or progress is None:
        yield None
        return
    make = _tqdm() if progress is True else progress
    if not hasattr(make, "update"):
        yield make
        return
    bar = make(total=None, desc=what, unit=unit, unit_scale=True)

    def report(done: int, all: int) -> None:
        if bar.total != all:
            bar.total = all
            bar.refresh()
        bar.update(done - bar.n)

    try:
        yield report
    finally:
        bar.close()


def _tqdm() -> Callable[..., Any]:
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("progress=True shows a bar of tqdm, which is not installed: pip install tqdm") from error
    return tqdm  # type: ignore[no-any-return]
