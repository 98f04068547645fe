"""What was done, or would be: attributes to read, `to_dict()` for what goes on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, cast


class Report:
    """What all reports can."""

    def to_dict(self) -> dict[str, Any]:
        """All of it: what the command line writes as JSON."""
        return asdict(cast(Any, self))


@dataclass(frozen=True)
class IngestReport(Report):
    """What an ingest did.

    Attributes
    ----------
    ingested, skipped : int
        Steps that are new in the store, and those that were there already.
    quarantined : list of dict
        Files left out: `path`, `error`.
    warnings : list of dict
        Oddities of files that were used: `path`, `message`.
    prompts : dict, optional
        Videos whose prompt was found among those of their batch, and those whose was not: `matched`, `unmatched`. None
        if there were no prompts to look in.
    contents : dict, optional
        What the store holds of the dump now: `videos`, different `words`, `prompts` and `seeds`, and videos
        `without_seed`, and `weighted`: videos of a generator with other weights than 1. None of a watch.
    packed : dict, optional
        How the tables were packed at the end, as a CompactReport has it. None if they were not.
    bytes_in, bytes_out : int
        Bytes of the ingested steps' files, and bytes written.
    seconds : float
        Wall time.
    """

    ingested: int
    skipped: int
    quarantined: list[dict[str, str]] = field(default_factory=list)
    warnings: list[dict[str, str]] = field(default_factory=list)
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: float = 0.0
    prompts: dict[str, int] | None = None
    contents: dict[str, int] | None = None
    packed: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return (
            f"<attnkit.IngestReport: {self.ingested} steps ingested, {self.skipped} already there, "
            f"{len(self.quarantined)} left out, {len(self.warnings)} warnings; "
            f"{self.bytes_in:,} bytes in, {self.bytes_out:,} out, {self.seconds:.1f} s>"
        )


@dataclass(frozen=True)
class DryRun(Report):
    """What an ingest would do. Nothing was written.

    Attributes
    ----------
    ingest, skip : int
        Steps that would be new in the store, and those that are there already.
    videos : int
        Videos that would be committed.
    quarantined, warnings, prompts
        As of `IngestReport`, as far as the heads of files tell.
    bytes_in, bytes_raw : int
        Bytes of the step files to read, and of their values uncompressed.
    bytes_out_estimate : int
        Bytes in the store, estimated by compressing a few of the steps.
    files_out : int
        Files to write.
    """

    ingest: int
    skip: int
    videos: int
    quarantined: list[dict[str, str]] = field(default_factory=list)
    warnings: list[dict[str, str]] = field(default_factory=list)
    bytes_in: int = 0
    bytes_raw: int = 0
    bytes_out_estimate: int = 0
    files_out: int = 0
    prompts: dict[str, int] | None = None

    def __repr__(self) -> str:
        return (
            f"<attnkit.DryRun: {self.ingest} steps of {self.videos} videos to ingest, {self.skip} already there, "
            f"{len(self.quarantined)} to leave out, {len(self.warnings)} warnings; {self.bytes_in:,} bytes to read, "
            f"about {self.bytes_out_estimate:,} to write>"
        )


@dataclass(frozen=True)
class VerifyReport(Report):
    """What a verification looked at and found. It is true where all is well: `assert store.verify()`.

    Attributes
    ----------
    ok : bool
        Whether nothing is wrong, and nothing of the dump is lacking.
    faults : list of dict
        What is not as it was written: `video_id`, `token` and `step` where it is of one, `path`, `error`, and whether
        it is the dump that is not as it was ingested (`in_dump`).
    lacking : list of dict
        Files of the dump that the store lacks: `path`, `reason`.
    videos, steps, bytes : int
        Videos and steps looked at, bytes of values decoded.
    compared, not_in_dump, not_in_store : int
        Steps compared with the dump, steps of the store that are not there, and steps that are there alone.
    lossy : int
        Words that were ingested with a loss, and compared after the same was done to the dump.
    seconds : float
        Wall time.
    """

    faults: list[dict[str, Any]]
    lacking: list[dict[str, str]]
    videos: int
    steps: int
    bytes: int
    compared: int
    not_in_dump: int
    not_in_store: int
    lossy: int
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong, and nothing of the dump is lacking."""
        return not self.faults and not self.lacking

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        compared = f"{self.compared} compared with the dump, {len(self.lacking)} of its files lacking; "
        return (
            f"<attnkit.VerifyReport: {len(self.faults)} faults in {self.steps} steps of {self.videos} videos; "
            f"{compared if self.compared or self.lacking else ''}{self.bytes:,} bytes, {self.seconds:.1f} s>"
        )


@dataclass(frozen=True)
class ExportReport(Report):
    """What an export wrote.

    Attributes
    ----------
    videos, steps, bytes : int
        Videos and steps that are in the dump now, and bytes of the step files.
    resumed : int
        Steps that an export that was interrupted had written already.
    """

    videos: int
    steps: int
    bytes: int
    resumed: int

    def __repr__(self) -> str:
        resumed = f", {self.resumed} of them before" if self.resumed else ""
        return f"<attnkit.ExportReport: {self.steps} steps of {self.videos} videos{resumed}; {self.bytes:,} bytes>"


@dataclass(frozen=True)
class RollupReport(Report):
    """What became of the rollups of a store.

    Attributes
    ----------
    words, steps : int
        Words, each of one video, whose arrays were written anew, and their steps.
    unchanged : int
        Words that had these rollups already.
    bytes : tuple of int
        Bytes of the rollups of all these words, before and after.
    quarantined : list of dict
        What could not be read and stays as it is: `path`, `error`.
    seconds : float
        Wall time.
    """

    words: int
    steps: int
    unchanged: int
    bytes: tuple[int, int]
    quarantined: list[dict[str, str]] = field(default_factory=list)
    seconds: float = 0.0

    def __repr__(self) -> str:
        return (
            f"<attnkit.RollupReport: {self.words} words of {self.steps} steps written anew, "
            f"{self.unchanged} unchanged; rollups took {self.bytes[0]:,} bytes, and take {self.bytes[1]:,}>"
        )


@dataclass(frozen=True)
class CompactReport(Report):
    """How the tables of a store were packed.

    Attributes
    ----------
    videos, packs : int
        Videos that are in new packs, and these.
    files, bytes : tuple of int
        Files and bytes of the tables, before and after.
    """

    videos: int
    packs: int
    files: tuple[int, int]
    bytes: tuple[int, int]

    def __repr__(self) -> str:
        return (
            f"<attnkit.CompactReport: {self.videos} videos in {self.packs} packs; "
            f"{self.files[0]} files of tables before, {self.files[1]} now>"
        )


@dataclass(frozen=True)
class GcReport(Report):
    """What was removed from a store, or would be.

    Attributes
    ----------
    removed : list of dict
        Files and directories that no commit names: `path`, `bytes`.
    dry_run : bool
        Whether they are still there.
    bytes : int
        Bytes in all.
    """

    removed: list[dict[str, Any]]
    dry_run: bool

    @property
    def bytes(self) -> int:
        """Bytes in all."""
        return sum(one["bytes"] for one in self.removed)

    def __repr__(self) -> str:
        verb = "to remove" if self.dry_run else "removed"
        return f"<attnkit.GcReport: {self.bytes:,} bytes in {len(self.removed)} places {verb}>"
