"""What can go wrong. Every exception is an `AttnkitError`, and also the built-in one that its kind of mistake usually
raises."""

from __future__ import annotations


class AttnkitError(Exception):
    """Something went wrong; the message names the file or key, what was found and what was expected.

    Attributes
    ----------
    hint : str or None
        What to try next, if that can be told.
    kind : str or None
        What kind of mistake it is, finer than the class: `"busy"` of a store that something else writes into, …
    """

    kind: str | None = None

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def remedy(self) -> str | None:
        """What to try next, as `hint`."""
        return self.hint

    def __str__(self) -> str:
        message = str(self.args[0])
        return f"{message}\nhint: {self.hint}" if self.hint else message


class StoreError(AttnkitError, OSError):
    """A store cannot be read or written: it is damaged, the disk is full, …"""


class NotAStoreError(StoreError, FileNotFoundError):
    """There is no store at this path."""


class DamageWarning(UserWarning):
    """A file of the store is damaged; the answer is of the rest. `attnkit repair` mends it from the dump."""


class DumpError(AttnkitError, ValueError):
    """A file of a dump cannot be used."""


class NotFoundError(AttnkitError, LookupError, FileNotFoundError):
    """There is no such dump, video, word or step."""


class PromptError(AttnkitError, ValueError):
    """A prompt template does not parse."""


class ExportError(AttnkitError, OSError):
    """A dump cannot be written where it should be: the directory is not empty, the disk is full, …"""


class QueryError(AttnkitError, ValueError):
    """A question that cannot be answered as it is put: an unknown column, SQL that does not parse, …"""


class NothingSelectedError(QueryError, LookupError):
    """No map matches the conditions."""


class WriteError(AttnkitError, ValueError):
    """A step does not fit behind those that are in the store."""
