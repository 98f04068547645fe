"""Names of steps: what is a step's, what is like one, and what is there twice or in part."""

import gzip
import shutil

from additions import add_files, add_pairs
from arrays import NOT_IT, npy
from changes import Copy, both, renamed
from mutation import M, several
from outcomes import LEFT_OUT, NAMED, OTHERS_LEFT_OUT, REFUSED, SAME, WORD_LEFT_OUT, row

# Stems that are no step's, by a part of the reason.
NOT_STEPS = {
    "2147483647": ("step_2147483648", "step_4294967297", "step_18446744073709551617", f"step_{10**40}"),
    "numbered from 0": ("step_-1", "step_-001", "step_-2.5"),
    "whole number": ("step_999.5", "step_1.0", "step_1e0", "step_nan", "step_+1"),
    "no number": (
        *(
            "step_0x1",
            "step_1_000",
            "step_",
            "step_\uff10\uff11",
            "step_\u0660\u0661",
            "step_ 1",
            "step_001 ",
            "step__001",
        ),
        *("step_1_final", "step_001_block_", "step_001_block_x", "step_001_head_-1", "step_001_block_0_head"),
    ),
    "step_": (
        *("step-001", "Step_001", "STEP_001", "step001", "step 001", " step_001", "my_step_001", "steps_001", "001"),
        *("step", "s", "Copy of step_001"),
    ),
    "": (
        *("step_001_block_99999", "step_001_block_00_head_18446744073709551616", "step_001.1", "step_001 (1)"),
        *(
            "step_001 - Copy",
            "step_001 (conflicted copy 2025-11-26)",
            "step_001.sync-conflict-20251126",
            "step_001_old",
        ),
    ),
}
EXTENSIONS = (
    *("", ".Npy", ".npy.GZ", ".npy.bz2", ".npy.zip", ".npy.zst", ".npy.tmp", ".npy.part", ".npy.crdownload", ".npy~"),
    *(".npy.bak", ".npy.orig", ".numpy", ".PT", ".pth", ".bin", ".safetensors", ".npy.", ".npy ", ".npy.1", ".npy.swp"),
    *(".npy.npy", ".txt", "_preview.png"),
)
FORMATS = ("step_001.npy.gz", "step_001.npz", "step_001.pt", "step_001.pt.gz")


def all_renamed(old, new):
    """Everything that begins so begins otherwise."""
    new_name = lambda path: path.parent / path.name.replace(old, new)
    return lambda dump: [path.rename(new_name(path)) for path in [*dump.root.rglob(f"{old}*")]]


STEP_NAMES = [
    *[M(f"{stem} is step 1", renamed(stem), SAME) for stem in ("step_1", "step_0001", "step_" + "0" * 60 + "1")],
    *[M(f"{stem} is another step", renamed(stem), row(step=int(stem[5:])), warns="step 1")
      for stem in ("step_1000", "step_2147483647")],
    *[M(f"files called {several(stems)}", add_pairs(*[f"{stem}.npy" for stem in stems]), OTHERS_LEFT_OUT, says=why)
      for why, stems in NOT_STEPS.items()],
    M("further extensions", add_files(*[f"step_001{extension}" for extension in EXTENSIONS]), OTHERS_LEFT_OUT),
    M("backups of an editor", add_files("#step_001.npy#", "~step_001.npy", "backup.step_001"), NAMED),
    M("two files of a step, padded and not", add_pairs("step_1.npy"), OTHERS_LEFT_OUT, says="step 1"),
    M("two files of a step, one without metadata", add_files("step_1.npy", content=npy(NOT_IT)), OTHERS_LEFT_OUT),
    M("two files of a step, one gzipped", add_pairs("step_1.npy.gz", content=gzip.compress(npy(NOT_IT))),
      OTHERS_LEFT_OUT),
    M("files of a step in all formats", add_files(*FORMATS), SAME, warns=["step_001.npy"] * len(FORMATS)),
    M("a step whole and in parts", add_pairs("step_001_block_00.npy", "step_001_head_01.npy"), SAME,
      warns=["whole"] * 2),
    *[M(f"metadata called {name}", lambda dump, name=name: [
        dump.metadata().rename(dump.word() / name), dump.tensor()], LEFT_OUT)
      for name in ("step_001_METADATA.json", "step_1_metadata.json")],
    M("metadata without a tensor", lambda dump: [dump.tensor().unlink() or dump.metadata()], LEFT_OUT, says="tensor"),
    M("a tensor without metadata", lambda dump: [dump.metadata().unlink() or dump.tensor()], LEFT_OUT,
      says="no metadata"),
    M("no steps: all are called step-", all_renamed("step_", "step-"), REFUSED, says="step-"),
    M("no words: all are called token-", all_renamed("token_", "token-"), REFUSED, says="token"),
    M("a word's directory is called Token_cat", lambda dump: [dump.word().rename(dump.video() / "Token_cat")],
      WORD_LEFT_OUT),
    M("step files beside the words", both(add_files("step_000.npy", "step_7.npz", places=[Copy.video]),
                                          lambda dump: [dump.video()]), OTHERS_LEFT_OUT),
    M("a step file in the root", add_files("step_000.npy", places=[lambda dump: dump.root]), OTHERS_LEFT_OUT),
    M("an older run in the word", lambda dump: [shutil.copytree(dump.word(), dump.word() / "old")], NAMED),
    M("means over all steps", add_files("aggregate.npy.gz", "aggregate.numpy.npy", "aggregate.torch",
                                        "aggregate_metadata.json"), SAME),
]  # fmt: skip
