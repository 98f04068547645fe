"""One good dump, and hundreds of small mutations of it: names, JSON, arrays, archives, links, clocks, paths, numbers.

Of each comes one of three things: the answers of the good dump; a report that names the file and what is wrong with it,
while all other steps are ingested as they were; or a stated other value. A mutation is one line of a table: its name,
what is done to a fresh copy, what must come of it, what must be said. Mutations that are alike share a line, each with
a further step, word or video of its own. What is expected is numpy's, or follows from the mutation; what is found is
read by other projects.
"""

import csv
import gzip
import io
import json
import lzma
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import unicodedata
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from itertools import combinations, groupby, product
from pathlib import Path
from types import SimpleNamespace

import duckdb
import numpy as np
import pyarrow.dataset
import pyarrow.parquet
import pytest
import zarr

from source_dump import REPOSITORY, same_bits, write_dump

# ----------------------------------------------------------------------------------- the good dump

SEEDS = {"prompt_000_vid001": 11, "prompt_000_vid002": 22}
IDS = {"cat": 7, "dog": 8}
STEPS = (0, 1, 2)
PROMPT = "a cat and a dog"
# The step that is changed where nothing else is said; its neighbours are there to stay as they are.
VIDEO, OTHER = SEEDS
WORD, STEP = "cat", 1
# The number of the first further step.
FURTHER = 10


def maps(number, shape=(2, 3, 32, 1), dtype=np.float16):
    """Maps like attention: positive, each of sum 1."""
    values = np.exp(1.5 * np.random.default_rng(number).normal(size=shape))
    return (values / values.sum(axis=2, keepdims=True)).astype(dtype)


@dataclass(frozen=True, eq=False)
class Step:
    """A step that a store must hold: its array, and its row of `steps` as far as the array does not tell it."""

    array: np.ndarray
    row: dict
    # The step of the good dump that has its statistics and answers; None where only numpy knows them.
    like: tuple | None
    # Numbers along the axes; None where they count from 0, or the axis has one place.
    blocks: list | None = None
    heads: list | None = None

    @property
    def key(self):
        return self.row["video_id"], self.row["token"], self.row["step"]

    def number(self, axis, place):
        numbers, size = (self.blocks, self.heads)[axis], self.array.shape[axis]
        return numbers[place] if numbers else place if size > 1 else None

    def changed(self, array=None, blocks=None, heads=None, **columns):
        """The same but for its array, its numbers, or columns of its row."""
        step = replace(self, row=self.row | columns)
        if array:
            step = replace(step, array=array(self.array), like=None)
        numbers = {"block_numbers": blocks, "head_numbers": heads}
        return replace(step, blocks=blocks, heads=heads, row=step.row | numbers)


def good_step(video, word, step):
    row = {
        **{"video_id": video, "prompt_id": "prompt_000", "prompt": PROMPT, "template": None, "variation": None},
        **{"seed": Decimal(SEEDS[video]), "cfg_scale": 4.5, "token": word, "token_ids": [IDS[word]]},
        **{"token_texts": [word], "weight": None, "step": step, "timestep": 1000.0 - 300 * step, "total_steps": 3},
        **{"aggregation_method": "per_step_full", "block_numbers": None, "head_numbers": None,
           "threshold_applied": None},
        **{"frames": 2, "height": 4, "width": 4, "video_width": 64, "video_height": 64, "video_frames": 5},
    }
    return Step(maps(100 * SEEDS[video] + 10 * IDS[word] + step), row, (video, word, step))


GOOD = [good_step(*key) for key in product(SEEDS, IDS, STEPS)]
ARRAYS = {step.key: step.array for step in GOOD}
ARRAY = ARRAYS[VIDEO, WORD, STEP]


def described(video=VIDEO, word=WORD, step=STEP):
    """A step's metadata, with every key that is documented."""
    return {
        **{"video_id": video, "step": step, "timestep": 1000.0 - 300 * step, "total_steps": 3, "token_word": word},
        **{"token_ids": [IDS[word]], "token_texts": [word], "aggregation_method": "per_step_full"},
        **{"attention_shape": [2, 3, 32, 1], "spatial_resolution": [32, 1], "num_blocks": 2, "num_heads": 3},
        **{"threshold_applied": None, "block_idx": None, "head_idx": None, "dtype": "torch.float16", "prompt": PROMPT},
        **{"seed": SEEDS[video], "cfg_scale": 4.5, "video_width": 64, "video_height": 64, "video_frames": 5},
    }


def write_good_dump(root):
    directory = root / "attention_maps"
    for (video, word, step), array in ARRAYS.items():
        stem = directory / video / f"token_{word}" / f"step_{step:03}"
        stem.parent.mkdir(parents=True, exist_ok=True)
        np.save(f"{stem}.npy", array)
        Path(f"{stem}_metadata.json").write_text(json.dumps(described(video, word, step), indent=2))
    targets = {word: {"token_ids": [number], "positions": [1]} for word, number in IDS.items()}
    for video in SEEDS:
        stored = {"stored_steps": [*STEPS], "total_stored": 3, "target_tokens": targets}
        summary = {"video_id": video, **stored, "config": {"interval": 1}}
        (directory / video / "summary.json").write_text(json.dumps(summary, indent=2))
    return root


# ----------------------------------------------------------------------------- what may come of it


@dataclass(frozen=True)
class Outcome:
    """What the store must hold, made of what the good dump holds; how ingest ends (None: with 3 if it must)."""

    holds: Callable = lambda steps: steps
    code: int | None = 0


def of(video=None, word=None, step=None):
    """Which steps are meant."""
    return lambda known: all(part in (None, own) for part, own in zip((video, word, step), known.key))


TOUCHED, WHOLE_WORD, WHOLE_VIDEO = of(VIDEO, WORD, STEP), of(VIDEO, WORD), of(VIDEO)


def changed(chosen=TOUCHED, code=0, **change):
    """These steps are otherwise: their arrays, numbers or columns."""
    return Outcome(lambda steps: [step.changed(**change) if chosen(step) else step for step in steps], code)


def row(**columns):
    return changed(**columns)


def without(chosen, code=3):
    return Outcome(lambda steps: [step for step in steps if not chosen(step)], code)


def further(*changes, like=TOUCHED, code=0):
    """Steps like the touched one (then from number 10 on) or like all of a word or video but for these changes."""

    def holds(steps):
        models = [step for step in steps if like(step)]
        numbers = [{"step": FURTHER + place} if like is TOUCHED else {} for place in range(len(changes))]
        added = [{**number, **change} for number, change in zip(numbers, changes)]
        return [*steps, *(model.changed(**change) for change in added for model in models)]

    return Outcome(holds, code)


SAME = Outcome()
LEFT_OUT, WORD_LEFT_OUT = without(TOUCHED), without(WHOLE_WORD)
# All steps of the good dump are there, and further files are left out; or are named there or in a warning.
OTHERS_LEFT_OUT, NAMED = Outcome(code=3), Outcome(code=None)
REFUSED = Outcome(code=1)


class Among:
    """One of these values."""

    def __init__(self, *values):
        self.values = values

    def __eq__(self, other):
        return other in self.values

    def __repr__(self):
        return " or ".join(map(repr, self.values))


ANYTHING = "*"


@dataclass(frozen=True)
class M:
    """A mutation: done to a copy of the good dump by `change`, which returns a list of what is to be named, or nothing.

    Items of that list are files, or several of which one is to be named. `outcome` may be several, of which one must
    come. `says` is a part of why each of them was left out (or of why all is refused), `warns` of the warning for one
    of them; lists have a part for each. Without `warns` there is no warning, with ANYTHING there may be.
    """

    name: str
    change: Callable
    outcome: Outcome | tuple
    says: str | list = ""
    warns: str | list | None = None
    options: tuple = ()


# --------------------------------------------------------------------------------- what is changed


class Copy:
    """A copy of the good dump; which path of it is ingested, and from where."""

    def __init__(self, place):
        self.place, self.root, self.store, self.report = place, place / "dump", place / "store", place / "report.json"
        self.arguments, self.cwd = [self.root], None

    def maps(self):
        return self.root / "attention_maps"

    def video(self, name=VIDEO):
        return self.maps() / name

    def word(self, name=WORD, video=VIDEO):
        return self.maps() / video / f"token_{name}"

    def tensor(self, step=STEP):
        return self.word() / f"step_{step:03}.npy"

    def metadata(self, step=STEP):
        return self.word() / f"step_{step:03}_metadata.json"

    def summary(self):
        return self.video() / "summary.json"


def both(*changes):
    """One after the other; what is to be named is what the last one says."""
    return lambda dump: [change(dump) for change in changes][-1]


class Literal(str):
    """A JSON value as it is written."""


MISSING = object()


def dumped(document, keys):
    """A JSON document with other values of these keys."""
    members = {key: value for key, value in {**document, **keys}.items() if value is not MISSING}
    written = {key: value if isinstance(value, Literal) else json.dumps(value) for key, value in members.items()}
    return ("{" + ",\n".join(f"{json.dumps(key)}: {value}" for key, value in written.items()) + "}").encode()


def npy(array, version=None):
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.lib.format.write_array(file, np.asanyarray(array), version, allow_pickle=True)
    return file.getvalue()


# What is somebody else's array: never to be found in a store.
NOT_IT = maps(5)


# Changes of the step's own files.


def metadata(steps=(STEP,), **keys):
    """Other values of keys of the metadata: of one step, or several."""

    def change(dump):
        for step in steps:
            dump.metadata(step).write_bytes(dumped(json.loads(dump.metadata(step).read_bytes()), keys))
        return [tuple(map(dump.metadata, steps))]

    return change


def content(edit, which=Copy.metadata):
    """The bytes of a file are others."""

    def change(dump):
        which(dump).write_bytes(edit(which(dump).read_bytes()))
        return [which(dump)]

    return change


def replaced(old, new):
    def edit(text):
        assert old in text
        return text.replace(old, new)

    return edit


def always(content):
    return lambda _: content


def renamed(stem, extension=".npy"):
    def change(dump):
        described = dump.metadata().rename(dump.word() / f"{stem}_metadata.json")
        return [(dump.tensor().rename(dump.word() / (stem + extension)), described)]

    return change


def tensor(pack, extension=".npy", steps=(STEP,), **keys):
    """The tensor's file has other bytes, made of the array; keys of the metadata have other values."""

    def change(dump):
        metadata(steps, **keys)(dump)
        for step in steps:
            dump.tensor(step).unlink()
            (dump.word() / f"step_{step:03}{extension}").write_bytes(pack(ARRAYS[VIDEO, WORD, step]))
        return [(dump.word() / f"step_{step:03}{extension}", dump.metadata(step)) for step in steps]

    return change


def instead(which, make):
    """Something else stands where a file was; `make` gets its path."""

    def change(dump):
        which(dump).unlink(missing_ok=True)
        make(which(dump))
        return [which(dump)]

    return change


def of_step(change):
    """The report names the step's tensor or its metadata."""
    return lambda dump: [change(dump) and (dump.tensor(), dump.metadata())]


# Further steps, words, videos and files.


def add_step(directory, number, pack=npy, extension=".npy", edit=bytes, **keys):
    """Writes a step like the touched one into a word's directory."""
    directory.mkdir(parents=True, exist_ok=True)
    files = directory / f"step_{number:03}{extension}", directory / f"step_{number:03}_metadata.json"
    files[0].write_bytes(pack(ARRAY))
    files[1].write_bytes(edit(dumped({**described(), "step": number}, keys)))
    return files


def add_steps(*steps):
    """Further steps of the word, from 10 on: what is other in each, as `add_step` takes it."""
    return lambda dump: [add_step(dump.word(), FURTHER + place, **other) for place, other in enumerate(steps)]


def add_word(word, directory=None, video=VIDEO, **other):
    """A further word of one step; `word` is what the metadata says."""

    def change(dump):
        path = dump.maps() / video / os.fsdecode(b"token_" + os.fsencode(word if directory is None else directory))
        claimed = MISSING if word is None else word
        own = {"video_id": video, "token_word": claimed, "seed": SEEDS.get(video, SEEDS[VIDEO])}
        add_step(path, STEP, **{**own, **other})
        return [path]

    return change


def add_video(video, directory=None):
    """A further video of one word of one step."""
    return add_word(WORD, video=video if directory is None else directory, video_id=video)


def add_files(*names, places=(Copy.word,), content=b"text\n"):
    """Files in these directories; those in the last are to be named."""

    def change(dump):
        for place, name in product(places, names):
            path = place(dump) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return [places[-1](dump) / Path(name).parts[0] for name in names]

    return change


def add_pairs(*names, content=npy(NOT_IT)):
    """Beside the step's files there are others: a tensor of each name, with metadata of its stem."""

    def change(dump):
        named = []
        for name in names:
            path, described = dump.word() / name, dump.word() / f"{name.partition('.np')[0]}_metadata.json"
            path.write_bytes(content)
            if not described.exists():
                shutil.copyfile(dump.metadata(), described)
            named.append((path, described))
        return named

    return change


# Mutations that are alike, in one line.


def several(names):
    text = ", ".join(name if isinstance(name, Literal) else repr(name) for name in names)
    return text if len(text) < 80 else text[:77] + "..."


def words(*names):
    """Words that are spelled so in their directories and metadata."""
    columns = [{"token": name, "step": STEP} for name in names]
    return M(f"words {several(names)}", both(*map(add_word, names)), further(*columns))


def weighted(*cases):
    """Directories, what metadata says, and the words and weights that they mean."""
    changes, columns = [], []
    for place, (directory, claimed, word, weight) in enumerate(cases):
        changes.append(add_word(claimed, directory, f"v{place}"))
        columns.append({"video_id": f"v{place}", "prompt_id": None, "token": word, "weight": weight, "step": STEP})
    names = [f"{directory} as {claimed}" for directory, claimed, *_ in cases]
    return M(f"weights of {several(names)}", both(*changes), further(*columns))


def videos(*names):
    """Videos that are called so in their directories and metadata."""
    columns = [{"video_id": name, "prompt_id": None, "step": STEP} for name in names]
    return M(f"videos {several(names)}", both(*map(add_video, names)), further(*columns))


def unknown(**keys):
    """Values of keys, as they are written, that are none: each is named, and unknown in its row."""
    cases = [(key, text) for key, texts in keys.items() for text in texts]
    name = f"{', '.join(keys)} that are {several(Literal(text) for _, text in cases)}"
    steps = [{key: Literal(text)} for key, text in cases]
    return M(name, add_steps(*steps), further(*[KEYS[key] for key, _ in cases]), warns=[text for _, text in cases])


def reads(**keys):
    """Values of keys, as they are written, and as they are read."""
    cases = [(key, text, value) for key, texts in keys.items() for text, value in texts.items()]
    name = f"{', '.join(keys)} that are {several(Literal(text) for _, text, _ in cases)}"
    steps = [{key: Literal(text)} for key, text, _ in cases]
    return M(name, add_steps(*steps), further(*[{key: value} for key, _, value in cases]))


def prompts(name, texts, warns=None):
    """Prompts as their bytes are written, and as they may be read."""
    steps = [{"edit": replaced(json.dumps(PROMPT).encode(), text)} for text in texts]
    return M(name, add_steps(*steps), further(*[{"prompt": prompt} for prompt in texts.values()]), warns=warns)


def forms(name, *packs, extension=".npy", warns=None, **keys):
    """Files that hold the array in other forms."""
    steps = [{"pack": pack, "extension": extension, **keys} for pack in packs]
    return M(name, add_steps(*steps), further(*[{}] * len(packs)), warns=warns)


def values(name, *changes):
    """Other values: they are stored bit for bit, and numpy knows their statistics."""
    steps = [{"pack": npy_of(change)} for change in changes]
    return M(name, add_steps(*steps), further(*[{"array": change} for change in changes]), warns=ANYTHING)


def shapes(name, *changes):
    """Words of other shapes or types."""
    unsaid = dict.fromkeys(("attention_shape", "num_blocks", "num_heads", "dtype"))
    added = [add_word(f"word{place}", pack=npy_of(change), **unsaid) for place, change in enumerate(changes)]
    native = [lambda a, change=change: change(a).astype(change(a).dtype.newbyteorder("=")) for change in changes]
    columns = [{"array": change, "token": f"word{place}", "step": STEP} for place, change in enumerate(native)]
    return M(name, both(*added), further(*columns))


def damaged(name, packs, extension=".npy"):
    """Files that are left out, each for its reason."""
    steps = [{"pack": pack, "extension": extension} for pack in packs]
    return M(name, add_steps(*steps), OTHERS_LEFT_OUT, says=[*packs.values()])


def no_json(name, edits):
    """Metadata that is left out, each for its reason."""
    return M(name, add_steps(*[{"edit": edit} for edit in edits]), OTHERS_LEFT_OUT, says=[*edits.values()])


# ---------------------------------------------------------------------------------- names of steps

# Stems that are no step's, by a part of the reason.
NOT_STEPS = {
    "2147483647": ("step_2147483648", "step_4294967297", "step_18446744073709551617", f"step_{10**40}"),
    "numbered from 0": ("step_-1", "step_-001", "step_-2.5"),
    "whole number": ("step_999.5", "step_1.0", "step_1e0", "step_nan", "step_+1"),
    "no number": (
        *("step_0x1", "step_1_000", "step_", "step_\uff10\uff11", "step_\u0660\u0661", "step_ 1", "step_001 ",
          "step__001"),
        *("step_1_final", "step_001_block_", "step_001_block_x", "step_001_head_-1", "step_001_block_0_head"),
    ),
    "step_": (
        *("step-001", "Step_001", "STEP_001", "step001", "step 001", " step_001", "my_step_001", "steps_001", "001"),
        *("step", "s", "Copy of step_001"),
    ),
    "": (
        *("step_001_block_99999", "step_001_block_00_head_18446744073709551616", "step_001.1", "step_001 (1)"),
        *("step_001 - Copy", "step_001 (conflicted copy 2025-11-26)", "step_001.sync-conflict-20251126",
          "step_001_old"),
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

# ----------------------------------------------------------------------- names of words and videos

COMPOSED, DECOMPOSED = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")
FAMILY, CAT, ARABIC = "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f408", "\u0642\u0637\u0629"
CLEANED = {"a/b": "a_b", "c\\d": "c_d", "e:f": "e_f", "/": "_"}
PROMPT_IDS = {
    **{"prompt_012_vid001": "prompt_012", "prompt_1_vid1": "prompt_1", "prompt_000_vid1000": "prompt_000"},
    **{"p007_b001_s000": "prompt_007", "p7_b1_s2": "prompt_7"},
}
NESTED = {
    **{"prompt_007/vid001": "prompt_007_vid001", "prompt_007/vid_002": "prompt_007_vid002"},
    **{"prompt_007/p007_b001_s001": "p007_b001_s001"},
}


def spelled(*words):
    return further(*[{"token": word, "step": STEP, "video_id": video, "seed": SEEDS[video]} for word, video in words])


def filmed(prompts):
    return further(*[{"video_id": name, "prompt_id": prompt, "step": STEP} for name, prompt in prompts.items()])


WORDS = [
    words("two people", " cat", "cat ", "  ", "cat.", ".cat", "..", "...", "", "tab\tbed", "new\nline",
          "carriage\rreturn"),
    words("_cat", "__cat", "-cat", "--store", "~cat", "~", "~~", "cat~", "~63at", "@cat", "cat@0123456789abcdef", "!",
          "=1+1"),
    words("Cat", "CAT", "DOG", "con", "CON", "nul.txt", "aux", "com1", "LPT9", "clock$", "c:cat", "cat::$DATA"),
    words("gr\u00f6\u00dfe", "GR\u00d6SSE", COMPOSED, "\u732b", ARABIC, CAT, FAMILY, "\u202ecat", "\ufeffcat",
          "\u05d0"),
    words(DECOMPOSED, "d\u043eg", "d\u200bog", "a\u2028b", "a\u00a0b", "\ufb01", "fi", "\u0130", "i\u0307", "\ufffd",
          "\x7f"),
    words("it's", '"cat"', "`id`", "$HOME", "a;b&c|d", "a\\b", "a,b", "(cat)", "<cat>", "'; DROP TABLE steps", "\\",
          "'"),
    words("%20", "50% off", "#1", "[a]", "[!a]", "*", "**", "?", "a*b?", "{x,y}", "{}", "a?b=c&d", "file:cat", "http:"),
    words("step=50", "seed=99", "token=dog", "block=7", "height=480", "video_id=x", "=", "a=",
          "__HIVE_DEFAULT_PARTITION__"),
    words("null", "NULL", "None", "NaN", "nan", "inf", "true", "1", "007", "1.5", "-1", "1e5", "0x10", "2024-01-01",
          "00:00"),
    words("token_cat", "cat_metadata", "aggregate", "step_000", "summary.json", "zarr.json", "c", "x.parquet",
          "attention"),
    words("__MACOSX", "@eaDir", "Thumbs.db", ".DS_Store", "#recycle", "lost+found", "cat:", ":cat", ":", "a:b",
          "cat:2,5"),
    words("x" * 240, "x" * 239 + "y", "\u00e9" * 120, CAT * 60, "x" * 122 + "\u00e9" * 59, "." * 200, "~" * 240,
          "X" * 240),
    M("words cleaned of what file systems refuse", both(*[add_word(word, name) for word, name in CLEANED.items()]),
      spelled(*[(word, VIDEO) for word in CLEANED])),
    M("a word composed in metadata, decomposed in its directory", add_word(COMPOSED, DECOMPOSED),
      (spelled((COMPOSED, VIDEO)), spelled((DECOMPOSED, VIDEO)))),
    M("a word decomposed in metadata, composed in its directory", add_word(DECOMPOSED, COMPOSED),
      (spelled((COMPOSED, VIDEO)), spelled((DECOMPOSED, VIDEO)))),
    M("a word composed here, decomposed there", both(add_word(COMPOSED), add_word(DECOMPOSED, video=OTHER)),
      spelled((COMPOSED, VIDEO), (COMPOSED, OTHER)), warns="one word"),
    M("a word decomposed here, composed there", both(add_word(DECOMPOSED), add_word(COMPOSED, video=OTHER)),
      spelled((DECOMPOSED, VIDEO), (DECOMPOSED, OTHER)), warns="one word"),
    M("a word decomposed and composed in one video", both(add_word(DECOMPOSED), add_word(COMPOSED)),
      replace(spelled((DECOMPOSED, VIDEO)), code=3), says="already found"),
    M("another word in metadata", metadata(token_word="tree"), SAME, warns="tree"),
    M("the other word in metadata", metadata(STEPS, token_word="dog"), SAME, warns="dog"),
    M("a copy of a word", lambda dump: [shutil.copytree(dump.word(), dump.word("cat (copy)"))],
      further({"token": "cat (copy)"}, like=WHOLE_WORD), warns="token_word"),
    weighted(("cat:2.5", "cat:2.5", "cat", 2.5), ("cat:2.5", "cat", "cat", 2.5), ("cat_2.5", "cat:2.5", "cat", 2.5),
             ("cat_2.5", "cat", "cat", 2.5), ("cat", "cat:2.5", "cat", 2.5), ("cat:2.5", None, "cat", 2.5)),
    weighted(("cat:0.5", "cat:0.5", "cat", 0.5), ("cat:3", "cat", "cat", 3.0), ("cat:1.10", "cat:1.10", "cat", 1.1),
             ("cat_0.8", "cat:0.8", "cat", 0.8), ("cat:1", "cat", "cat", 1.0), ("cat:1e-1", "cat:1e-1", "cat", 0.1)),
    weighted(("two cats:0.8", "two cats:0.8", "two cats", 0.8), ("a:b:2", "a:b:2", "a:b", 2.0),
             ("a_b_2", "a:b:2", "a:b", 2.0), ("[a]:2", "[a]:2", "[a]", 2.0), ("a_c_2", "a/c:2", "a/c", 2.0),
             ("_cat:2", "_cat:2", "_cat", 2.0)),
    weighted(("16:9", "16:9", "16:9", None), ("9_16", "9:16", "9:16", None), ("16:9", None, "16:9", None),
             ("10:30", "10:30", "10:30", None), ("10_30", "10:30", "10:30", None), ("4:3", "4:3", "4:3", None)),
    weighted(("route_66", "route_66", "route_66", None), ("cat_2", "cat_2", "cat_2", None),
             ("cat2", "cat2", "cat2", None), ("catch_22", None, "catch_22", None), ("cat_2.5", None, "cat_2.5", None),
             ("cat-2", "cat-2", "cat-2", None)),
    M("a number that the prompt has behind the word", add_word("model t:4", prompt="a model t:4 car"),
      further({"token": "model t:4", "step": STEP, "prompt": "a model t:4 car"})),
    M("a ratio that the prompt weighs", add_word("16:9", prompt="a (16:9) screen"),
      further({"token": "16", "weight": 9.0, "step": STEP, "prompt": "a (16:9) screen"})),
]  # fmt: skip

VIDEOS = [
    videos("a b", " x", "x ", "x.", "_x", "__x", "-x", "--store", "~x", "~", "tab\tbed", "new\nline", "\r",
           "it's \"q\"", "a\\b"),
    videos("gr\u00f6\u00dfe", DECOMPOSED, CAT, FAMILY, ARABIC, "\u00e9" * 120, "x" * 250, "x" * 249 + "y", CAT * 60),
    videos("%20", "50% #x", "[a]", "*", "a*b?", "{x,y}", "a@b", "a;b&c", "$HOME", "'; DROP TABLE steps", "a:b", "x|y",
           "a,b"),
    videos("step=50", "seed=99", "block=7", "height=480", "token=dog", "con", "NUL", "com1.txt", "null", "1", "007",
           "1e5"),
    videos("steps", "heads", "x.parquet", "X", "x", "c", "0", "tokens", "maps", "index", "attention_maps",
           "attention_maps2"),
    videos("zarr.json", "zarr.json.x"),
    videos("prompt_x", "prompt", "p007", "prompt_", "p_b_s", "vid001", "vid", "step_000", "summary", "p007_b001",
           "x_prompt_0"),
    M("videos of prompts", both(*map(add_video, PROMPT_IDS)), filmed(PROMPT_IDS)),
    M("nested videos", both(*[add_video(name, directory) for directory, name in NESTED.items()]),
      filmed(dict.fromkeys(NESTED.values(), "prompt_007"))),
    M("videos below each other", both(add_video("a"), add_video("b", "a/b"), add_video("c", "a/b/c")),
      filmed(dict.fromkeys("abc"))),
    M("videos cleaned of what file systems refuse", both(add_video("a:b", "a_b"), add_video("c/d", "c_d")),
      filmed(dict.fromkeys(("a_b", "c_d")))),
    M("another video's id in metadata", metadata(video_id=OTHER), SAME, warns=OTHER),
    M("a copy of a video", lambda dump: [shutil.copytree(dump.video(), dump.maps() / "copy")],
      further({"video_id": "copy", "prompt_id": None}, like=WHOLE_VIDEO), warns=VIDEO),
    M("a hidden video", lambda dump: dump.video().rename(dump.maps() / ".hidden"), without(WHOLE_VIDEO, code=0)),
]  # fmt: skip

# ----------------------------------------------------------------------------------- foreign files

JUNK = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(60)
EVERYWHERE = lambda dump: dump.root, Copy.maps, Copy.video, Copy.word
OUTSIDE = EVERYWHERE[:3]
NOTES = (
    *("notes.txt", "README.md", "preview.png", "~$notes.docx", "nohup.out", "core", "x", "events.json", "step"),
    *("events.out.tfevents.1", "summary.json", "metadata.json", "notes/today.txt", "token_cat", "new\nline"),
)
BESIDE_WORDS = (
    *("notes.txt", "batch_metadata.json", "configs/run.yaml", "videos/a.mp4", "logs/x.log", "token.txt", "video.mp4"),
    *("empty/.keep", "token_x.txt", "a/b/c/d/e/f.txt"),
)


def left(*names):
    """What systems and tools leave in any directory is no part of a dump."""
    return M(f"{several(names)} in every directory", add_files(*names, places=EVERYWHERE, content=JUNK), SAME)


def mirrored(top, name="{}", content=None, where=Copy.maps):
    """A second tree beside the maps, with a file for each of theirs."""

    def change(dump):
        for path in [path for path in dump.root.rglob("*") if path.is_file()]:
            copy = where(dump) / top / path.relative_to(dump.root).parent / name.format(path.name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes() if content is None else content)

    return change


def empty_directories(dump):
    for name in ("v3", "x", f"{VIDEO}/token_bird"):
        (dump.maps() / name).mkdir()


FOREIGN = [
    left(".DS_Store", "._step_001.npy", "._step_001_metadata.json", "._summary.json", "._token_cat", ".directory",
         "__MACOSX/._step_001.npy", ".AppleDouble/step_001.npy", ".Trash-1000/step_001.npy", "Icon\r", "Thumbs.db",
         "ehthumbs.db", "desktop.ini"),
    left(".nfs000000000042", ".fuse_hidden0001", ".step_001.npy.swp", ".step_001.npy.Xa1b2c", ".~lock.notes#",
         ".gitkeep", ".git/objects/00", ".hidden/token_cat/step_000.npy", ".ipynb_checkpoints/step_001-checkpoint.npy"),
    left("@eaDir/step_001.npy/THUMB.jpg", "@Recycle/step_001.npy", "#recycle/step_001.npy", "#snapshot/step_001.npy",
         "@tmp/step_001.npy", "~snapshot/step_001.npy", "THUMBS.DB", "__macosx/._step_001.npy", "Desktop.ini",
         "$RECYCLE.BIN/step_001.npy", "System Volume Information/x", "lost+found/step_001.npy", "__pycache__/x.pyc"),
    M("files that are no steps, in a word", add_files(*NOTES), NAMED),
    M("files that are like steps, in a word", add_files("step", "\u00e9.npy", "new\nline.npy", "x.pt", "x.safetensors"),
      NAMED),
    M("files beside the words", add_files(*BESIDE_WORDS, places=OUTSIDE), SAME, warns=ANYTHING),
    M("a tree of what the Finder adds", mirrored("__MACOSX", "._{}", JUNK, lambda dump: dump.root), SAME),
    M("a tree of what the Finder adds, beside the videos", mirrored("__MACOSX", "._{}", JUNK), SAME),
    M("a whole copy below #snapshot", mirrored("#snapshot/daily"), SAME),
    M("empty directories", empty_directories, SAME, warns=ANYTHING),
    M("names that are not UTF-8", add_files(os.fsdecode(b"step_\xff.npy"), os.fsdecode(b"caf\xe9")), NAMED),
    M("a word whose directory is not UTF-8", add_word("caf\u00e9", os.fsdecode(b"caf\xe9")),
      (spelled(("caf\u00e9", VIDEO)), spelled(("caf\ufffd", VIDEO)), OTHERS_LEFT_OUT), warns=ANYTHING),
]  # fmt: skip

# ---------------------------------------------------------------------------------------- metadata

# The keys of a step's metadata, and what is unknown in its row where one of them is.
KEYS = {
    **{key: {} for key in ("video_id", "step", "token_word", "block_idx", "head_idx", "dtype")},
    **{key: {} for key in ("attention_shape", "spatial_resolution", "num_blocks", "num_heads")},
    **{key: {key: []} for key in ("token_ids", "token_texts")},
    **{key: {key: None} for key in ("timestep", "total_steps", "aggregation_method", "threshold_applied", "prompt")},
    **{key: {key: None} for key in ("seed", "cfg_scale", "video_width", "video_height", "video_frames")},
}
UNKNOWN = {column: value for columns in KEYS.values() for column, value in columns.items()}
GRIDLESS = {"frames": None, "height": None, "width": None}
NOT_FLOATS = ('"4.5"', "true", "[4.5]", "{}", "NaN", "Infinity", "-Infinity", "1e400", "-1e999")
NOT_TEXTS = ("7", '["a cat"]', "{}", "false", "NaN")
NOT_SEEDS = ('"11"', "11.5", "true", "[11]", "{}", "18446744073709551616", "-9223372036854775809", "1" + "0" * 30,
             "1e300")
NOT_INT_32 = ('"3"', "3.5", "2147483648", "-2147483649", "true", "NaN", "[3]", "1e10")
NOT_IDS = ('"7"', "7.5", '["7"]', "[7.5]", "[9223372036854775808]", "[[7]]", "true", "{}", '{"token_ids": "7"}')
FLOATS = (
    *("699", "0.1", "699." + "9" * 30, "5e-324", "1e-400", "-0.0", "7e2", "-1", "1.7976931348623157e308", "0"),
    *("12345678901234567890", "0.30000000000000004", "4.000000000000000000001", "1e-5", "123456789.123456789123456789"),
)


def nested(depth, opening="[", closing="]"):
    return replaced(b'"cfg_scale"', f'"extra": {opening * depth}1{closing * depth}, "cfg_scale"'.encode())


def recoded(name, mark=b""):
    return lambda text: mark + text.decode().encode(name)


def as_written(key, text):
    """The value of a key has these bytes."""
    return replaced(f'"{key}": {json.dumps(described()[key])}'.encode(), f'"{key}": '.encode() + text)


def again(*seeds):
    """A key that is there several times."""
    return metadata(seed=Literal(', "seed": '.join(seeds)))


REFORMATTED = [
    lambda text: json.dumps(json.loads(text), separators=(",", ":")).encode(),
    lambda text: json.dumps(dict(reversed(json.loads(text).items())), indent=4).encode(),
    lambda text: text.replace(b"\n", b"\r\n"),
    lambda text: text.replace(b"\n", b"\r"),
    lambda text: text.replace(b"\n", b"\t"),
    lambda text: b" \n\t\r" + text + b"\n\n  ",
    lambda text: text.replace(b":", b" \n : \t"),
]
BY_HAND = [
    lambda text: text[:-1] + b",\n}",
    lambda text: b"# seed\n" + text,
    lambda text: str(json.loads(text)).encode(),
    as_written("token_ids", b"[7,]"),
    replaced(b',\n"seed"', b'\n"seed"'),
    replaced(b'"seed"', b'// seed\n"seed"'),
    replaced(b'"seed"', b'/* seed */ "seed"'),
    replaced(b'"seed"', b"seed"),
    replaced(b'"seed":', b'"seed"'),
    replaced(b'"seed": ', b'"seed" = '),
    replaced(b'"seed": ', b'"seed":\xc2\xa0'),
    replaced(b'"seed"', b'\xef\xbb\xbf"seed"'),
    replaced(PROMPT.encode(), rb"C:\dumps"),
    replaced(PROMPT.encode(), rb"\u12g4"),
]
NO_VALUES = (
    *("nan", "inf", "None", "True", "undefined", "+1", "01", ".5", "1.", "0x10", "'x'", "1_000", "1e", "", "-", "--1"),
    "1,5",
)
NO_OBJECTS = (b"[]", b"null", b"7", b'"text"', b"true", b"NaN", b"[{}]")
OTHER_FILES = (
    *(b"seed: 11\n", b"<!DOCTYPE html><title>404</title>", b"version https://git-lfs.github.com/spec/v1\nsize 9\n"),
    *(b"\x80\x04}\x94.", gzip.compress(b"{}"), npy(NOT_IT), b"PK\3\4", b"(7)", b"{'a': 1}", b"{1: 2}"),
)
WIDE = {
    **{recoded(name): "UTF-16" for name in ("utf-16", "utf-16-le", "utf-16-be")},
    **{recoded("utf-16-be", b"\xfe\xff"): "UTF-16", recoded("utf-32"): "UTF-32",
       recoded("utf-32-be", b"\0\0\xfe\xff"): "UTF-32"},
}
NOT_UTF_8 = {
    b'"a caf\xe9"': Among(None, "a caf\ufffd"),
    b'"a \xff\xfe\xc0\x80"': Among(None, "a " + 4 * "\ufffd"),
    b'"a \xed\xa0\xbd"': Among(None, "a " + 3 * "\ufffd", "a \ufffd"),
}
HALVES = {
    rb'"a \ud83d cat"': Among(None, "a \ufffd cat"),
    rb'"a \udc08 cat"': Among(None, "a \ufffd cat"),
    rb'"a \udc08\ud83d"': Among(None, "a \ufffd\ufffd"),
    rb'"a \ud83d\ud83d\udc08"': Among(None, "a \ufffd\U0001f408"),
    rb'"a cat \ud83d"': Among(None, "a cat \ufffd"),
    rb'"a \ud83d\u0041"': Among(None, "a \ufffdA"),
}
ANY_TEXT = {
    '"ein K\u00e4tzchen \U0001f408, \u2028"'.encode(): "ein K\u00e4tzchen \U0001f408, \u2028",
    rb'"a \ud83d\udc08"': "a \U0001f408",
    rb'"\"\\\/\b\f\n\r\t\u00E9"': '"\\/\b\f\n\r\t\u00e9',
    b'"' + b"".join(rb"\u%04x" % ord(letter) for letter in PROMPT) + b'"': PROMPT,
    b'"' + 20_000 * b"cat, " + b'"': 20_000 * "cat, ",
}

JSON = [
    M("keys that are missing, one by one", add_steps(*[{key: MISSING} for key in KEYS]), further(*KEYS.values())),
    M("keys that are null, one by one", add_steps(*[{key: None} for key in KEYS]), further(*KEYS.values())),
    M("all keys are missing", content(always(b"{}")), row(**UNKNOWN)),
    unknown(video_id=["7", "true", "[]", "NaN"], token_word=["7", '["cat"]', "NaN", "{}"], dtype=["16", "[]", "true"]),
    unknown(step=['"one"', "1.5", "[1]", "true", "NaN", "1e400"]),
    unknown(timestep=['"tensor(700.)"', *NOT_FLOATS]),
    unknown(cfg_scale=NOT_FLOATS, threshold_applied=NOT_FLOATS),
    unknown(seed=NOT_SEEDS),
    unknown(seed=["NaN", "Infinity", "-Infinity", "0.1", "1e400", '"0x10"']),
    unknown(prompt=NOT_TEXTS, aggregation_method=NOT_TEXTS),
    unknown(total_steps=NOT_INT_32),
    unknown(video_width=NOT_INT_32, video_height=NOT_INT_32, video_frames=NOT_INT_32),
    unknown(token_ids=NOT_IDS, token_texts=['"cat"', "[7]", "[null]", "{}", "7"]),
    unknown(attention_shape=['"[2, 3, 32, 1]"', "[-2, 3, 32, 1]", "2", "[2.5]", "{}", "[null]"]),
    M("a key that is not read", add_steps({"spatial_resolution": "32"}, {"spatial_resolution": {}}), further({}, {})),
    unknown(num_blocks=['"two"', "[2]", "2.5", "true"], num_heads=['"three"', "[3]", "NaN"]),
    unknown(block_idx=['"6"', "-1", "1.5", "[-1, 0]", '["a", "b"]', "true", "{}"],
            head_idx=['"6"', "-1", "NaN", "[1.5, 2, 3]"]),
    M("NaN that is not read", add_steps({"extra": Literal("NaN")}, {"extra": Literal('[1, {"deep": Infinity}]')}),
      further({}, {}), warns=["NaN", "Infinity"]),
    M("NaN in lists", add_steps({"attention_shape": Literal("[2, NaN, 32, 1]")}, {"token_ids": Literal("[NaN]")}),
      further({}, {"token_ids": []}), warns=["NaN", "NaN"]),
    reads(seed={str(seed): Decimal(seed) for seed in (0, -1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63))}),
    reads(seed={"11.0": Decimal(11), "-0": Decimal(0), "1.1e1": Decimal(11), "42.000": Decimal(42), "-7": Decimal(-7)}),
    reads(timestep={text: float(text) for text in FLOATS}, cfg_scale={text: float(text) for text in FLOATS}),
    reads(total_steps={"3.0": 3, "2147483647": 2**31 - 1, "-2147483648": -(2**31), "0": 0, "5e1": 50},
          video_width={"64.0": 64, "2147483647": 2**31 - 1, "0": 0, "-64": -64}),
    reads(token_ids={"[7.0]": [7], "[]": [], "[9223372036854775807, -1]": [2**63 - 1, -1], '{"token_ids": [7]}': [7]},
          token_texts={'["\\u2581cat", ""]': ["\u2581cat", ""], "[]": []}),
    M("seed of 1e19", metadata(seed=Literal("1e19")), (row(seed=None), row(seed=Decimal(10**19))), warns=ANYTHING),
    M("a byte order mark", content(lambda text: b"\xef\xbb\xbf" + text), SAME, warns="byte order mark"),
    no_json("UTF-16 and UTF-32", WIDE),
    no_json("UTF-32 without its mark", {recoded("utf-32-le"): "UTF-", recoded("utf-32-be"): "UTF-"}),
    prompts("prompts in bytes that are not UTF-8", NOT_UTF_8, warns="UTF-8"),
    prompts("prompts with half a character", HALVES, warns="prompt"),
    prompts("prompts with any other character", ANY_TEXT),
    prompts("prompts of nothing", {b'""': Among(None, ""), rb'"a\u0000cat"': Among(None, "a\0cat"), b'" "': " "},
            ANYTHING),
    M("half a character in texts, keys and words",
      add_steps({"token_texts": Literal(r'["\ud83d"]')}, {"extra": Literal(r'{"\ud83d": 1}')},
                {"token_word": Literal(r'"\ud83dt"')}),
      further({"token_texts": Among([], ["\ufffd"])}, {}, {}), warns=["token_texts", "extra", "token_word"]),
    M("a key twice, of one value", again("11", "11"), SAME, warns="seed"),
    M("a key twice, the last null", again("1", "null"), row(seed=None), warns="seed"),
    M("a key three times", again("1", "2", "3"), row(seed=Decimal(3)), warns="seed"),
    M("a key twice, once escaped", content(as_written("seed", rb'1, "s\u0065ed": 12')), row(seed=Decimal(12)),
      warns="seed"),
    M("a key twice, further down", metadata(extra=Literal('[{"a": 1, "a": 2}]')), SAME, warns="extra"),
    M("a key in another case", content(replaced(b'"seed"', b'"Seed"')), row(seed=None)),
    M("keys that are not known", metadata(extra={"a": [1, None, "x"]}, attnkit={"x": 1}, **{"": 1, "\u00e9": 2}), SAME),
    M("written otherwise", add_steps(*[{"edit": edit} for edit in REFORMATTED]), further(*[{}] * len(REFORMATTED))),
    no_json("as people write it", dict.fromkeys(BY_HAND, "JSON")),
    no_json("values that are none", {as_written("cfg_scale", text.encode()): "JSON" for text in NO_VALUES}),
    no_json("more than one document", {
        (lambda text, more=more: text + more): "JSON" for more in (b"\n{}", bytes(512), b"done", b"}", b"\xff", b",")}),
    no_json("less than a document", {
        always(b""): "empty", always(b" \n"): "JSON", always(b"\xef\xbb\xbf"): "JSON", always(bytes(900)): "JSON",
        lambda text: text[:1]: "JSON", lambda text: text[:30]: "JSON", lambda text: text[:-1]: "JSON",
        lambda text: text[:300] + bytes(300): "JSON"}),
    no_json("other than an object", {always(text): "object" for text in NO_OBJECTS}),
    no_json("other than JSON", {always(text): "JSON" for text in OTHER_FILES}),
    no_json("too deep", {nested(100_000): "nested", nested(100_000, '{"a":', "}"): "nested", nested(5000): "nested"}),
    M("a line break in a text", content(replaced(PROMPT.encode(), b"a\ncat")), (row(prompt="a\ncat"), LEFT_OUT),
      says="JSON", warns=ANYTHING),
    M("another step in metadata", metadata(step=2), SAME, warns="step 2"),
    M("another shape in metadata", metadata(attention_shape=[30, 12, 32, 1]), SAME, warns="shape"),
    M("other numbers of blocks and heads in metadata", metadata(num_blocks=30, num_heads=12), SAME, warns="num_blocks"),
    M("another type in metadata", metadata(dtype="torch.bfloat16"), SAME, warns="bfloat16"),
    M("an average in metadata that is none", metadata(aggregation_method="blocks_averaged"),
      row(aggregation_method="blocks_averaged"), warns="blocks_averaged"),
    M("one step of another seed and prompt", metadata(seed=12, prompt="a dog"), row(seed=Decimal(12), prompt="a dog"),
      warns=ANYTHING),
    *[M(f"a video width of {width}", metadata(STEPS, video_width=width), changed(
        WHOLE_WORD, array=np.copy, video_width=width, **GRIDLESS), warns=ANYTHING) for width in (None, 640, 0)],
]  # fmt: skip

TOTAL = b'"total_stored": 3'
ODD_SUMMARIES = {
    lambda text: b"\xef\xbb\xbf" + text: "byte order mark",
    replaced(TOTAL, b'"total_stored": NaN'): "NaN",
    replaced(TOTAL, TOTAL + b', "total_stored": 3'): "total_stored",
    replaced(b'"interval"', rb'"\ud83d"'): "config",
    replaced(b"    2", b"    1, 3, 10000000000000000000"): "3, 10000000000000000000",
}
NO_SUMMARIES = {
    **{recoded("utf-16"): "UTF-16", always(b""): "empty", always(b"[]"): "object", always(b"NaN"): "object"},
    **{lambda text: text[:40]: "JSON", lambda text: text + bytes(9): "JSON"},
}
OTHER_SUMMARIES = [
    lambda text: text.replace(b"{", b'{"storage_dir": "C:\\\\runs", ', 1),
    lambda text: b'{"stored_steps": [1], "target_tokens": {"cat": [7]}}',
    lambda text: b"{}",
]


def summaries(name, edits, code=0, **said):
    """Summaries of further videos of one step: what is odd about them changes no step."""

    def change(dump):
        for place, edit in enumerate(edits):
            add_video(f"v{place}")(dump)
            (dump.video(f"v{place}") / "summary.json").write_bytes(edit(dump.summary().read_bytes()))
        return [dump.video(f"v{place}") / "summary.json" for place in range(len(edits))]

    outcome = filmed({f"v{place}": None for place in range(len(edits))})
    return M(name, change, replace(outcome, code=code), **said)


SUMMARIES = [
    summaries("odd summaries", ODD_SUMMARIES, warns=[*ODD_SUMMARIES.values()]),
    summaries("summaries that are none", NO_SUMMARIES, 3, says=[*NO_SUMMARIES.values()]),
    summaries("summaries with other keys", OTHER_SUMMARIES, warns=ANYTHING),
    M("no summary", lambda dump: dump.summary().unlink(), SAME),
    *[M(f"a summary that is {name}", instead(Copy.summary, make), SAME, warns=ANYTHING) for name, make in [
        ("a directory", Path.mkdir), ("a pipe", os.mkfifo), ("a link to nowhere", lambda path: path.symlink_to("x"))]],
    M("a summary alone", lambda dump: shutil.copytree(
        dump.video(), dump.maps() / "v3", ignore=shutil.ignore_patterns("token_*")), SAME),
]  # fmt: skip

# ----------------------------------------------------------------------------- arrays and archives

PLAIN = "{'descr': '<f2', 'fortran_order': False, 'shape': (2, 3, 32, 1), }\n"
ODD_BITS = (0x7E01, 0xFE00, 0x7D55, 0x7C00, 0xFC00, 0x8000, 0x0001, 0x83FF, 0x7BFF, 0xFBFF)


def npy_of(change, version=None):
    return lambda array: npy(change(array), version)


def cast(to):
    return npy_of(lambda array: array.astype(to))


def cut(count):
    return lambda array: npy(array)[:count]


def headed(text, version=b"\1\0"):
    """An npy file with this header."""

    def pack(array):
        size = struct.pack("<H" if version == b"\1\0" else "<I", len(text))
        return b"\x93NUMPY" + version + size + text.encode() + array.tobytes()

    return pack


def plain(old="", new=""):
    return headed(PLAIN.replace(old, new))


def of_shape(shape):
    return plain("(2, 3, 32, 1)", shape)


def with_odd_values(array):
    """NaN of several payloads, infinities, -0, subnormals, the largest."""
    array = array.copy()
    array.ravel()[: len(ODD_BITS)] = np.array(ODD_BITS, np.uint16).view(np.float16)
    return array


def four_blocks(array):
    return np.concatenate([array, array[::-1, ::-1]])


def two_tokens(array):
    return np.concatenate([array, array[::-1]], axis=3)


def batch_of_2(array):
    return np.stack([array[::-1], array], axis=1)


def mean_of_batch(array):
    return ((array[::-1].astype(np.float64) + array) / 2).astype(np.float16)


ONE_BLOCK, ONE_HEAD, ONE_OF_BOTH = lambda a: a[:1], lambda a: a[:, :1], lambda a: a[:1, :1]
NO_HEADERS = {
    **{headed(PLAIN, b"\4\0"): "npy", headed(PLAIN, b"\0\0"): "npy", headed("[1, 2]\n"): "npy", headed("\n"): "npy"},
    **{plain("\n", " " * 20_000 + "\n"): "header", plain("'shape'", "'form'"): "npy", plain("False", "None"): "npy"},
    **{of_shape("__import__('os').abort()"): "npy", of_shape("2"): "", of_shape("(-2, 3, 32, 1)"): "",
       of_shape("(2.0,)"): "npy"},
    **{plain("<f2", "<f3"): "f3", plain("<f2", ""): "", plain("<f2", "<f2x"): "f2x"},
}
OTHER_SIZES = {
    **{of_shape(f"(2, 3, {size}, 1)"): "bytes" for size in (31, 33, 2**40, 2**62)},
    **{of_shape(f"({2**32}, {2**32}, 1, 1)"): "", of_shape(f"({2**33}, {2**33}, {2**33}, 1)"): "",
       of_shape(f"({2**64},)"): ""},
}
OTHER_TYPES = {
    **{cast("f4"): "float32", cast("f8"): "float64", cast("g"): "longdouble", cast("G"): "complex",
       cast("c8"): "complex64"},
    **{cast("i1"): "int8", cast("u1"): "uint8", cast(">i4"): "int32", cast("i8"): "int64", cast("u8"): "uint64"},
    **{cast(bool): "bool", cast(object): "object", cast("U4"): "U4", cast("S4"): "S4",
       npy_of(lambda a: a.view("V2")): "V2"},
    **{npy_of(lambda a: a.astype("i8").astype("M8[s]")): "M8", npy_of(lambda a: a.view([("x", "<f2")])): "type"},
    **{npy_of(lambda a: a.view([(("a title", "x"), "<f2")])): "type"},
    **{npy_of(lambda a: np.zeros(3, [("x", "<f2", (2, 3, 32, 1))])): "type"},
}
OTHER_AXES = (
    *(np.ravel, lambda a: np.float16(1), lambda a: a[0, 0], lambda a: a[..., 0], lambda a: a[None, None],
      lambda a: a[:0]),
    *(lambda a: a[:, :0], lambda a: a[:, :, :0], lambda a: a[..., :0]),
)
OTHER_SHAPES = (ONE_BLOCK, lambda a: a[:, :2], lambda a: a[:, :, :16], two_tokens, four_blocks,
                lambda a: a.swapaxes(0, 1))
NOT_NPY = (
    *(bytes(512), NOT_IT.tobytes(), b"0.1 0.2\n", b"<!DOCTYPE html>", b"[[0.1]]",
      b"version https://git-lfs.github.com/spec/v1\n"),
    *(b"\x80\x04]\x94.", b"PK\3\4" + bytes(99), gzip.compress(npy(NOT_IT)), b"\x89HDF\r\n\x1a\n",
      struct.pack("<Q", 2) + b"{}"),
    *(b"\xef\xbb\xbf" + npy(NOT_IT), npy(NOT_IT).replace(b"\n", b"\r\n"), npy(NOT_IT).replace(b"\x93", b"\xc2\x93")),
)
NOT_PT = (
    *(b"", npy(NOT_IT), b"text", b"PK\3\4", b"\x80\x02}q\0.", gzip.compress(b"x")),
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
)

NPY = [
    forms("npy of versions 1, 2 and 3", *[npy_of(np.asarray, (version, 0)) for version in (1, 2, 3)]),
    forms("npy of other orders", npy_of(np.asfortranarray), cast(">f2"),
          npy_of(lambda a: np.asfortranarray(a.astype(">f2")), (3, 0)),
          npy_of(lambda a: np.repeat(a, 2, axis=2)[:, :, ::2])),
    forms("npy with other headers", plain(), plain("\n", " " * 3000 + "\n"), plain(" ", ""), plain("'", '"'),
          headed(PLAIN, b"\2\0"), headed(PLAIN, b"\3\0"),
          headed("{'shape': (2, 3, 32, 1), 'descr': '<f2', 'fortran_order': False}\n")),
    M("npy with a header of Python 2", tensor(of_shape("(2L, 3L, 32L, 1L)")), (SAME, LEFT_OUT), says="npy"),
    damaged("npy with damaged headers", NO_HEADERS),
    damaged("npy with headers of other sizes", OTHER_SIZES),
    shapes("words of other types", *[lambda a, to=to: a.astype(to) for to in ("f4", "f8", ">f4", ">f8")],
           lambda a: a * np.float64(1e300)),
    shapes("words of other shapes", ONE_BLOCK, ONE_HEAD, ONE_OF_BOTH, four_blocks, two_tokens),
    M("float32 that metadata calls float16", tensor(cast("f4"), steps=STEPS), changed(
        WHOLE_WORD, array=lambda a: a.astype("f4")), warns="float32"),
    damaged("steps of other types", OTHER_TYPES),
    M("a word of longdouble", tensor(cast("g"), steps=STEPS), WORD_LEFT_OUT, says="longdouble"),
    damaged("steps of other axes", {npy_of(change): "shape" for change in OTHER_AXES}),
    damaged("steps of other shapes", {npy_of(change): "most steps" for change in OTHER_SHAPES}),
    forms("a batch of 1", npy_of(lambda a: a[:, None]), attention_shape=[2, 1, 3, 32, 1]),
    damaged("a batch of 2", {npy_of(batch_of_2): "--batch"}),
    M("a batch of 2, of which one is chosen", tensor(npy_of(batch_of_2), attention_shape=None), SAME,
      options=("--batch", "1")),
    M("a batch of 2, of which none is chosen", tensor(npy_of(batch_of_2)), LEFT_OUT, "--batch 2",
      options=("--batch", "2")),
    M("a batch of 2, averaged", tensor(npy_of(batch_of_2), attention_shape=None), changed(array=mean_of_batch),
      options=("--batch", "mean"), warns=ANYTHING),
    M("a shape that metadata does not have", tensor(npy_of(four_blocks), steps=STEPS),
      changed(WHOLE_WORD, array=four_blocks), warns="shape"),
    values("values that are not finite", with_odd_values, lambda a: a * np.float16(np.nan),
           lambda a: a + np.float16(np.inf)),
    values("values that are no probabilities", np.negative, lambda a: a * 1000, lambda a: a * np.float16(1e-5),
           np.ones_like),
    values("values that are 0", np.zeros_like, lambda a: -np.zeros_like(a),
           lambda a: a * (np.arange(32)[:, None] == 31)),
    M("values that are not finite, big-endian", tensor(npy_of(lambda a: with_odd_values(a).astype(">f2"))),
      changed(array=with_odd_values), warns=ANYTHING),
    damaged("npy that is cut off", {
        cut(0): "empty", cut(1): "npy", cut(6): "npy", cut(9): "npy", cut(60): "header", cut(128): "bytes",
        cut(-1): "bytes"}),
    damaged("npy with more behind", {
        (lambda a, more=more: npy(a) + more): "bytes" for more in (b"\0", b"\n", bytes(4096), npy(NOT_IT))}),
    damaged("npy that is another file", {always(content): "npy" for content in NOT_NPY}),
    damaged("pt that is another file", {always(content): "" for content in NOT_PT}, ".pt"),
]  # fmt: skip


def npz(*positional, compressed=False, **arrays):
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, *positional, **arrays)
    return file.getvalue()


def zipped(*members):
    """A zip archive of these files; names may be there twice."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def beside(name, *others, options=()):
    """An npz with the array as `it`, beside another one: what is taken is told."""
    steps = [{"pack": lambda a, other=other: npz(**other, it=a), "extension": ".npz"} for other in others]
    return M(name, add_steps(*steps), further(*[{}] * len(others)), warns=["`it`"] * len(others), options=options)


def twice(name):
    """An npz with two arrays of one name, which numpy reads as the last."""
    pack = lambda a: zipped((f"{name}.npy", npy(NOT_IT)), (f"{name}.npy", npy(a)))
    return M(f"npz with {name} twice", tensor(pack, ".npz"), (SAME, LEFT_OUT), says=name, warns=ANYTHING)


IT = ("--array", "it")
NO_STEPS = ({"timestep": np.array(700)}, {"prompt": np.array("a cat")}, {"counts": np.ones((2, 3, 32, 1), int)},
            {"mask": np.ones((2, 3, 32))}, {"objects": np.array([{}], object)},
            {"empty": np.ones((0, 3, 32, 1))})  # fmt: skip
NONE_MEANT = {
    **{lambda a: npz(uncond=NOT_IT, cond=a): "--array", lambda a: npz(a, maps=a): "--array",
       lambda a: npz(NOT_IT, a): "arr_0, arr_1"},
    **{lambda a: npz(a=a, b=a, c=a): "a, b, c", lambda a: npz(attention=a[0], maps=a): "shape",
       lambda a: npz(): "no array"},
    **{lambda a: npz(step=np.array(1), seed=np.array(11)): "seed", lambda a: zipped(("x", b"text")): "npz"},
    **{lambda a: npz(a.astype("f4")): "float32", lambda a: npz(a.astype("g")): "longdouble",
       lambda a: npz(a.astype(object)): "object"},
}
NOT_NPZ = {
    **{always(b""): "empty", npy: "npz", lambda a: npz(a)[:-30]: "npz", lambda a: npz(a)[30:]: "npz"},
    **{lambda a: npz(a).replace(a.tobytes()[:8], bytes(8), 1): "npz",
       lambda a: zipped(("attention.npy", b"")): "empty"},
    **{lambda a: zipped(("attention.npy", npy(a)[:-9])): "bytes",
       lambda a: zipped(("attention.npy", npy(a) + b"more")): "bytes"},
}

NPZ = [
    forms("npz of one array", npz, lambda a: npz(attention=a), lambda a: npz(maps=a),
          lambda a: npz(attention=a, compressed=True), lambda a: npz(attention=a[:, None]),
          lambda a: npz(np.asfortranarray(a.astype(">f2"))),
          lambda a: zipped(("maps/attention.npy", npy(a))), lambda a: zipped(("attention", npy(a))),
          lambda a: zipped(("readme.txt", b"text"), ("attention.npy", npy(a))), extension=".npz"),
    forms("npz with attention beside others", lambda a: npz(a=NOT_IT, attention=a),
          lambda a: npz(attention=a, z=NOT_IT),
          lambda a: npz(NOT_IT, NOT_IT, attention=a, Attention=NOT_IT), extension=".npz", warns=["attention"] * 3),
    beside("npz with others that are no steps", *NO_STEPS),
    beside("npz with others, and one chosen", {"uncond": NOT_IT}, {"attention": NOT_IT}, {"arr_0": NOT_IT},
           {"IT": NOT_IT}, options=IT),
    damaged("npz of which none is meant", NONE_MEANT, ".npz"),
    M("npz without the chosen one", tensor(lambda a: npz(attention=a), ".npz"), LEFT_OUT, says="`it`", options=IT),
    M("npz of which the chosen one is no step", tensor(lambda a: npz(a, it=a[0]), ".npz"), LEFT_OUT, says="shape",
      options=IT),
    twice("attention"), twice("arr_0"),
    M("npz with bytes before it", tensor(lambda a: b"#!/bin/sh\n" + npz(a), ".npz"), (SAME, LEFT_OUT), "npz", ANYTHING),
    damaged("npz that is damaged", NOT_NPZ, ".npz"),
]  # fmt: skip


def members(content):
    return [gzip.compress(content[:300]), gzip.compress(content[300:])]


def gzip_with_header(content):
    """A gzip stream with every optional field: extra, name, comment, checksum of the header."""
    header = b"\x1f\x8b\x08\x1e" + struct.pack("<I", 1_700_000_000) + b"\0\x03\4\0abcdstep_001.npy\0of a cat\0"
    packed = zlib.compressobj(wbits=-15)
    body = packed.compress(content) + packed.flush()
    end = struct.pack("<II", zlib.crc32(content), len(content))
    return header + struct.pack("<H", zlib.crc32(header) & 0xFFFF) + body + end


def with_wrong_end(checksum=0, size=0):
    def pack(content):
        packed = gzip.compress(content)
        found = struct.unpack("<II", packed[-8:])
        return packed[:-8] + struct.pack("<II", found[0] ^ checksum, found[1] ^ size)

    return pack


def with_wrong_middle(content):
    return gzip.compress(content)[:150] + b"\xff" * 20 + gzip.compress(content)[170:]


def level(number):
    return lambda content: gzip.compress(content, number)


def behind(tail):
    return lambda content: gzip.compress(content) + tail


def gzip_cut(count):
    return lambda content: gzip.compress(content)[:count]


def gzipped(name, *packs):
    """Gzipped in other ways; `packs` get the bytes of the npy file."""
    return forms(name, *[lambda a, pack=pack: pack(npy(a)) for pack in packs], extension=".npy.gz")


def damaged_gzip(name, packs):
    return damaged(name, {(lambda a, pack=pack: pack(npy(a))): says for pack, says in packs.items()}, ".npy.gz")


TAILS = (b"trailing words", bytes(9) + b"words", b"\x1f", npy(NOT_IT), b"\n", bytes(9) + b"\x8b")
NOT_GZIP = {
    **{bytes: "not gzip", always(b"text\n"): "not gzip", zlib.compress: "not gzip", lzma.compress: "not gzip",
       always(b""): "empty"},
    **{always(bytes(99)): "not gzip", always(npz(NOT_IT)): "not gzip",
       always(b"\x28\xb5\x2f\xfd" + bytes(9)): "not gzip"},
    **{always(gzip.compress(b"")): "empty", always(gzip.compress(npz(NOT_IT))): "npy"},
    **{lambda content: gzip.compress(gzip.compress(content)): "npy"},
}

GZIP = [
    gzipped("gzip of all levels", gzip_with_header, level(0), level(1), level(6), level(9)),
    gzipped("gzip of several members", lambda content: b"".join(members(content)), behind(gzip.compress(b"")),
            lambda content: gzip.compress(content[:128]) + gzip.compress(content[128:]),
            lambda content: b"".join(gzip.compress(bytes([byte])) for byte in content)),
    gzipped("gzip with an empty member before", lambda content: gzip.compress(b"") + gzip.compress(content)),
    gzipped("gzip with zeros behind", *[behind(bytes(count)) for count in (1, 2, 9, 10, 512, 70_000)],
            lambda content: b"".join(members(content)) + bytes(512)),
    gzipped("gzip with zeros between members", lambda content: bytes(512).join(members(content))),
    damaged_gzip("gzip with other bytes behind", {behind(tail): "behind" for tail in TAILS}),
    damaged_gzip("gzip of more than the array", {
        lambda content: gzip.compress(content + b"more"): "bytes", behind(gzip.compress(b"more")): "bytes",
        behind(gzip.compress(b"more")[:-3]): "", behind(b"\x1f\x8b"): ""}),
    damaged_gzip("gzip that is another file", NOT_GZIP),
    damaged_gzip("gzip that is cut off", {gzip_cut(count): "" for count in (1, 2, 9, 10, 40, 200, -8, -4, -1)}),
    damaged_gzip("gzip that is damaged", {
        with_wrong_end(checksum=1): "gzip", with_wrong_end(size=1): "gzip", with_wrong_middle: "",
        lambda content: b"".join(members(content))[:-20]: "gzip",
        lambda content: b"\x1f\x8b\x07" + gzip.compress(content)[3:]: ""}),
    M("gzip of an npz, called so", renamed("step_001", ".npz.gz"), LEFT_OUT),
]  # fmt: skip

# ----------------------------------------------------------------------- parts, and chosen blocks


def write_parts(directory, array, step, blocks, heads, missing=(), **keys):
    """A step as a file for each of these blocks and heads; those called as in `missing` are not there."""
    for (b, block), (h, head) in product(enumerate(blocks or [None]), enumerate(heads or [None])):
        part = array[b : b + 1 if blocks else None, h : h + 1 if heads else None]
        name = f"step_{step:03}" + (f"_block_{block:02}" if blocks else "") + (f"_head_{head:02}" if heads else "")
        sizes = {"num_blocks": part.shape[0], "num_heads": part.shape[1], "attention_shape": list(part.shape)}
        if name not in missing:
            np.save(directory / f"{name}.npy", part)
            known = {**described(step=step), **sizes, "block_idx": block, "head_idx": head}
            (directory / f"{name}_metadata.json").write_bytes(dumped(known, keys))


def parts(blocks=None, heads=None, **other):
    """The word's steps are in parts."""

    def change(dump):
        for step in STEPS:
            dump.tensor(step).unlink()
            dump.metadata(step).unlink()
            write_parts(dump.word(), ARRAYS[VIDEO, WORD, step], step, blocks, heads, **other)
        return [dump.word()]

    return change


def in_parts(name, *cases):
    """Words of a step in parts: of an array, for blocks and heads of these numbers."""

    def change(dump):
        for place, (array, blocks, heads) in enumerate(cases):
            dump.word(f"word{place}").mkdir()
            write_parts(dump.word(f"word{place}"), array(ARRAY), STEP, blocks, heads, token_word=f"word{place}")

    rows = []
    for place, (array, blocks, heads) in enumerate(cases):
        told = {"blocks": blocks if blocks != [0, 1] else None, "heads": heads if heads != [0, 1, 2] else None}
        rows.append({"token": f"word{place}", "step": STEP, **told, **({} if array is WHOLE else {"array": array})})
    return M(name, change, further(*rows))


def one_part(make, name="step_001_block_01.npy"):
    """A step in parts for its blocks, of which one is otherwise."""
    return both(parts([0, 1]), instead(lambda dump: dump.word() / name, make))


def numbered(blocks=None, heads=None):
    """Blocks and heads of whole arrays are numbered by metadata."""
    change = metadata(STEPS, block_idx=blocks, head_idx=heads)
    return M(f"blocks {blocks} and heads {heads} by metadata", change, changed(WHOLE_WORD, blocks=blocks, heads=heads))


def part_of_block_7(dump):
    write_parts(dump.word(), ARRAY[1:], STEP, [7], None)
    return [dump.word()]


WHOLE = np.copy
SIX_AND_EIGHT = changed(WHOLE_WORD, blocks=[6, 8])

PARTS = [
    in_parts("a file for each block or head", (WHOLE, [0, 1], None), (WHOLE, None, [0, 1, 2]),
             (WHOLE, [0, 1], [0, 1, 2])),
    in_parts("files for chosen blocks", (four_blocks, [6, 8, 10, 12], None), (WHOLE, [0, 29], None),
             (WHOLE, [99, 100], None), (ONE_BLOCK, [6], None), (ONE_BLOCK, [0], None), (ONE_HEAD, [6, 8], None)),
    in_parts("files for chosen heads", (WHOLE, None, [3, 5, 7]), (ONE_HEAD, None, [11]), (ONE_HEAD, None, [0]),
             (WHOLE, [6, 8], [3, 5, 7]), (WHOLE, [6, 8], [0, 1, 2]), (ONE_OF_BOTH, [6], [11])),
    M("chosen blocks of more", parts([6, 8], num_blocks=30), SIX_AND_EIGHT, warns="30"),
    M("a block is missing of one step", parts([6, 8], missing=["step_001_block_08"]),
      Outcome(lambda steps: LEFT_OUT.holds(SIX_AND_EIGHT.holds(steps)), 3), says="block_08"),
    M("a head is missing of one step", parts(None, [0, 1, 2], missing=["step_001_head_01"]), LEFT_OUT, says="head_01"),
    M("a part is missing of one step", parts([0, 1], [0, 1, 2], missing=["step_001_block_01_head_02"]), LEFT_OUT,
      says="block_01_head_02"),
    M("a part of one step that the others lack", both(parts([0, 1]), part_of_block_7), LEFT_OUT, says="block"),
    M("a part of another shape", one_part(lambda path: np.save(path, NOT_IT[:1, :2])), LEFT_OUT, says="part"),
    M("a part of another type", one_part(lambda path: np.save(path, NOT_IT[:1].astype("f4"))), LEFT_OUT,
      says="float32"),
    M("a part of two blocks", one_part(lambda path: np.save(path, NOT_IT)), LEFT_OUT, says="part"),
    M("the first part cut off", one_part(lambda path: path.write_bytes(npy(NOT_IT)[:200]), "step_001_block_00.npy"),
      LEFT_OUT, says="bytes"),
    M("a part without metadata", both(parts([0, 1]), lambda dump: [
        (dump.word() / "step_001_block_01_metadata.json").unlink() or dump.word()]), LEFT_OUT, says="metadata"),
    M("parts in two formats",
      one_part(lambda path: path.with_suffix(".npy.gz").write_bytes(gzip.compress(npy(ARRAY[1:])))), SAME),
    M("a part twice, padded and not", one_part(lambda path: np.save(path, NOT_IT[:1]), "step_001_block_1.npy"),
      OTHERS_LEFT_OUT, says="block 1"),
    M("parts that are others by their metadata", parts([6, 8], block_idx=7), SIX_AND_EIGHT, warns="block_idx"),
    M("parts that metadata does not number", parts([6, 8], block_idx=None), SIX_AND_EIGHT),
    numbered([6, 8]), numbered([6, 8], [3, 5, 7]),
    M("blocks from 0 by metadata", metadata(STEPS, block_idx=[0, 1]), SAME),
    M("one block by metadata", add_word("bird", pack=npy_of(ONE_BLOCK), attention_shape=None, num_blocks=1,
                                        block_idx=6),
      further({"token": "bird", "step": STEP, "array": ONE_BLOCK, "blocks": [6]})),
    *[M(f"two blocks that are {numbers} by metadata", metadata(STEPS, block_idx=numbers), SAME, warns="block_idx")
      for numbers in (6, [6, 8, 10], [8, 6], [2**31, 2**31 + 1])],
    M("blocks of one step by metadata", both(metadata(block_idx=[6, 8]), lambda dump: [dump.tensor()]), LEFT_OUT,
      says="block"),
]  # fmt: skip

# ------------------------------------------------------------------- links, kinds of files, clocks


def linked(which, relative=False):
    """Something of the dump lies elsewhere, and a link leads there."""

    def change(dump):
        path, target = which(dump), dump.place / "elsewhere" / "job 8817" / "out"
        target.parent.mkdir(parents=True)
        path.rename(target)
        path.symlink_to(os.path.relpath(target, path.parent) if relative else target)

    return change


def link(where, to):
    """A further link."""
    return lambda dump: [where(dump).symlink_to(to) or where(dump)]


def linking(to):
    return lambda path: path.symlink_to(to)


def blobs(dump):
    """Every file is a link to one without a name."""
    for number, path in enumerate([*dump.root.rglob("*.*")]):
        path.symlink_to(path.rename(dump.place / f"{number}.blob"))


def circles(dump):
    for name, to in {"a": "b", "b": "a", "here": ".", f"{VIDEO}/up": "..", f"{VIDEO}/token_cat/.up": "../.."}.items():
        (dump.maps() / name).symlink_to(to)


def bind_socket(path):
    """A socket, bound from its directory: the path of one has a limit."""
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(path.parent)
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.fchdir(here)
        os.close(here)


def terabyte(which):
    """A file is that long, and its bytes are not written."""
    return lambda dump: [os.truncate(which(dump), 1 << 40) or which(dump)]


PLACES = {"a video": Copy.video, "a word": Copy.word, "a tensor": Copy.tensor, "metadata": Copy.metadata,
          "a summary": Copy.summary}
AGAIN = lambda dump: dump.maps() / "prompt_000_vid003"
ANOTHER_STEP = lambda dump: dump.tensor(7)

LINKS = [
    *[M(f"{name} is a link", linked(which), SAME) for name, which in PLACES.items()],
    *[M(f"{name} is a relative link", linked(PLACES[name], relative=True), SAME) for name in ("a video", "a tensor")],
    M("attention_maps is a link", linked(Copy.maps), SAME),
    M("a link to a link",
      both(linked(Copy.video), lambda dump: dump.video().symlink_to(dump.video().rename(dump.place / "x"))), SAME),
    M("every file is a link to a blob", blobs, SAME),
    M("a word that links to nowhere", link(lambda dump: dump.word("bird"), "gone"), OTHERS_LEFT_OUT, says="gone"),
    M("a video that links to nowhere", link(AGAIN, "/gone/video"), OTHERS_LEFT_OUT, says="/gone/video"),
    M("a step that links to nowhere", link(ANOTHER_STEP, "gone.npy"), OTHERS_LEFT_OUT),
    M("a tensor that links to nowhere", instead(Copy.tensor, linking("gone.npy")), LEFT_OUT),
    M("metadata that links to nowhere", of_step(instead(Copy.metadata, linking("gone.json"))), LEFT_OUT),
    M("a tensor that links to itself", instead(Copy.tensor, linking("step_001.npy")), LEFT_OUT),
    M("a word that links to itself", link(lambda dump: dump.word("self"), "token_self"), OTHERS_LEFT_OUT),
    M("links in circles", circles, SAME, warns=ANYTHING),
    M("a link to all in a word", link(lambda dump: dump.word() / "up", "../../.."), NAMED),
    M("a link to a video beside it", link(AGAIN, VIDEO), SAME, warns="same directory"),
    M("a link to a video beside it, that sorts before", link(lambda dump: dump.maps() / "a", VIDEO), SAME,
      warns="same directory"),
    M("two links to a video elsewhere", both(linked(Copy.video), lambda dump: [
        AGAIN(dump).symlink_to(dump.video().readlink()) or AGAIN(dump)]), SAME, warns="same directory"),
    M("a link to a word beside it", link(lambda dump: dump.word("kitten"), "token_cat"),
      (further({"token": "kitten"}, like=WHOLE_WORD), NAMED), warns=ANYTHING),
    M("a step that links to another", instead(Copy.tensor, linking("step_000.npy")),
      changed(array=lambda _: ARRAYS[VIDEO, WORD, 0])),
]  # fmt: skip

KINDS_OF_FILE = [
    M("a directory instead of a tensor", instead(Copy.tensor, Path.mkdir), LEFT_OUT, says="directory"),
    M("a pipe instead of a tensor", instead(Copy.tensor, os.mkfifo), LEFT_OUT, says="regular"),
    M("a pipe instead of metadata", of_step(instead(Copy.metadata, os.mkfifo)), LEFT_OUT, says="metadata"),
    M("a socket instead of a tensor", instead(Copy.tensor, bind_socket), LEFT_OUT, says="regular"),
    M("a device instead of a tensor", instead(Copy.tensor, linking("/dev/zero")), LEFT_OUT, says="regular"),
    M("a pipe beside the steps", instead(ANOTHER_STEP, os.mkfifo), OTHERS_LEFT_OUT, says="regular"),
    M("a tensor of a terabyte, not written", terabyte(Copy.tensor), LEFT_OUT, says="bytes"),
    M("metadata of a terabyte, not written", terabyte(Copy.metadata), LEFT_OUT, says="bytes"),
]  # fmt: skip

SECOND, DAY = 10**9, 86_400 * 10**9
BEFORE_1970 = (-SECOND // 2, -1, -999, -1000, -1001, -100 * DAY, -20 * 365 * DAY + 1, -60 * 365 * DAY - 1)
FROM_1970 = (0, 1, 999, 1000, SECOND - 1, 1_700_000_000_123_456_789, 2**31 * SECOND - 1, 2**31 * SECOND)
FAR_FROM_NOW = (2**32 * SECOND, 4_102_444_800 * SECOND + 999, 9_200_000_000 * SECOND + 1999, 10_413_792_000 * SECOND)


def modified(name, *clocks):
    """Steps whose tensor and metadata were modified at these nanoseconds since 1970: the later counts.

    It is rounded down to microseconds.
    """

    def change(dump):
        for files, of_files in zip(add_steps(*[{}] * len(clocks))(dump), clocks):
            for path, nanoseconds in zip(files, of_files):
                os.utime(path, ns=(nanoseconds, nanoseconds))

    since = lambda nanoseconds: datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=nanoseconds // 1000)
    return M(name, change, further(*[{"source_modified": since(max(of_files))} for of_files in clocks]))


CLOCKS = [
    modified("modified before 1970", *[(clock, clock - SECOND) for clock in BEFORE_1970]),
    modified("modified from 1970 on", *[(clock, clock - SECOND) for clock in FROM_1970]),
    modified("modified far from now", *[(clock, 0) for clock in FAR_FROM_NOW]),
    modified("modified before their metadata", (SECOND, 2 * SECOND), (-1, 1), (-2001, -1001), (0, 0)),
    M("all modified at once", lambda dump: [os.utime(path, (10**9, 10**9)) for path in dump.root.rglob("*")] and None,
      SAME),
]  # fmt: skip

# --------------------------------------------------------------------------- how the dump is given


def given(*arguments, cwd=None):
    """The dump is given otherwise: by paths below the place of the copy, or relative to `cwd` below it."""

    def change(dump):
        dump.arguments = [f"{dump.place}/{argument}" if cwd is None else argument for argument in arguments]
        dump.cwd = None if cwd is None else dump.place / cwd

    return change


def called(name, which=lambda dump: dump.root):
    """The directory of the dump, or of its maps, has another name, and is given."""

    def change(dump):
        (dump.place / name).parent.mkdir(parents=True, exist_ok=True)
        dump.arguments = [which(dump).rename(dump.place / name)]

    return M(f"the {'maps' if which is Copy.maps else 'dump'} called {several([name])}", change, SAME)


def moved(name):
    """The maps lie in another directory of the dump."""

    def change(dump):
        (dump.root / name).parent.mkdir(parents=True, exist_ok=True)
        dump.maps().rename(dump.root / name)

    return M(f"the maps in {name}", change, SAME)


def add_link(dump):
    (dump.place / "link").symlink_to("dump")


FLAT = "dump/attention_maps"
WORDS_GIVEN = [f"{FLAT}/{video}/token_{word}" for video, word in product(SEEDS, IDS)]

GIVEN = [
    M("attention_maps is given", given(FLAT), SAME),
    M("the parent is given", given(""), SAME),
    M("the dump and parts of it are given", given("dump", "dump", FLAT, f"{FLAT}/{VIDEO}", WORDS_GIVEN[2]), SAME),
    M("the dump is given with detours", given("dump//attention_maps/../attention_maps/./"), SAME),
    M("the dump is given relatively", given("dump", cwd=""), SAME),
    M("the dump is given as .", given(".", cwd="dump"), SAME),
    M("a video is given as . and the other beside", given(".", f"../{OTHER}", cwd=f"{FLAT}/{VIDEO}"), SAME),
    M("the dump is given by a link", both(add_link, given("link")), SAME),
    M("the dump is given by itself and by a link", both(add_link, given("dump", "link")), SAME, warns=ANYTHING),
    M("a video is given by a link", both(lambda dump: (dump.place / VIDEO).symlink_to(
        dump.video().rename(dump.place / "out")), given(VIDEO, "dump")), SAME),
    *map(called, ("prompt_007/vid001/x", "token_runs", ".hidden", "__MACOSX/-x", "x" * 250)),
    *[called(name, Copy.maps) for name in ("prompt_007", "token_runs", "@eaDir/step_000")],
    *map(moved, ("prompt_007/attention_maps", "prompt_007", "vid001", "/".join("abcdefghijkl"))),
    M("a store is given", both(lambda dump: shutil.copytree(
        dump.place.parent / "good/store", dump.place / "other"), given("other")), REFUSED, says="store"),
    M("a file is given", given(f"{WORDS_GIVEN[0]}/step_001.npy"), REFUSED, says="step_001.npy"),
    M("what is not there is given", given("gone"), REFUSED, says="gone"),
    M("an empty directory is given", both(lambda dump: (dump.place / "x").mkdir(), given("x")), REFUSED, says="/x"),
]  # fmt: skip

NAMES = [*WORDS, *VIDEOS]
MUTATIONS = [
    *(*STEP_NAMES, *NAMES, *FOREIGN, *JSON, *SUMMARIES, *NPY, *NPZ, *GZIP, *PARTS),
    *(*LINKS, *KINDS_OF_FILE, *CLOCKS, *GIVEN),
]

# ---------------------------------------------------------------------------- what is made of them


@pytest.fixture(scope="module")
def place():
    """Where copies are made: in memory where there is such a place, since stores are flushed to disk."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="attnkit-", dir=memory) as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def run(finished):
    """Runs `attnkit ARGS…`; unlike `finished` it keeps every byte of what was printed, and gives up on what hangs."""

    def run(*arguments, cwd=None):
        command = [os.environ["ATTNKIT_BIN"], *map(str, arguments)]
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, cwd=cwd)
        out, err = (text.decode("utf-8", "surrogateescape") for text in (ended.stdout, ended.stderr))
        said = f"attnkit {' '.join(command[1:])}\nexit code {ended.returncode}\n{out[-3000:]}{err[-3000:]}"
        assert ended.returncode in (0, 1, 2, 3) and "panicked" not in err, said
        return SimpleNamespace(code=ended.returncode, out=out, err=err, said=said)

    return run


@pytest.fixture(scope="module")
def answered(run):
    """Runs `attnkit ARGS…`, which must succeed: what it printed."""

    def answered(*arguments, **how):
        ran = run(*arguments, **how)
        assert ran.code == 0, ran.said
        return ran.out

    return answered


@pytest.fixture(scope="module")
def good_dump(place):
    return write_good_dump(place / "good" / "dump")


@pytest.fixture(scope="module")
def good(answered, good_dump):
    """What the store of the good dump answers, by step."""
    store = good_dump.parent / "store"
    answered("ingest", good_dump, "--store", store)
    return SimpleNamespace(heads=by_step(table(store, "heads")), asked=asked(answered, store), store=store)


@pytest.fixture
def directory(place):
    """A new directory there."""
    with tempfile.TemporaryDirectory(dir=place) as directory:
        yield Path(directory)


@pytest.fixture
def copy(directory, good_dump):
    shutil.copytree(good_dump, directory / "dump")
    return Copy(directory)


def each(mutations):
    """A test for each, under its name."""
    names = [mutation.name for mutation in mutations]
    assert len(set(names)) == len(names), [name for name in set(names) if names.count(name) > 1]
    return pytest.mark.parametrize("mutation", [pytest.param(mutation, id=mutation.name) for mutation in mutations])


def outcomes(mutation):
    return mutation.outcome if isinstance(mutation.outcome, tuple) else (mutation.outcome,)


def test_the_good_dump_is_in_its_store_as_numpy_has_it(answered, good):
    """What the others are held against."""
    assert_holds(answered, good.store, [replace(step, like=None) for step in GOOD], good)
    for key, [answer] in good.asked["average"].items():
        mean = ARRAYS[key].astype(np.float64).mean(axis=(0, 1, 3))
        assert float(answer["sum"]) == pytest.approx(mean.sum(), rel=1e-6)
        assert float(answer["max"]) == pytest.approx(mean.max(), rel=1e-6)


@each(MUTATIONS)
def test_a_mutation_gives_the_same_answers_or_is_named_or_gives_what_it_says(run, answered, good, copy, mutation):
    named, ran = ingest(run, copy, mutation)
    *others, last = outcomes(mutation)
    for outcome in others:
        try:
            return assert_comes(run, answered, copy, good, mutation, outcome, named, ran)
        except AssertionError:
            continue
    assert_comes(run, answered, copy, good, mutation, last, named, ran)


@each([mutation for mutation in [*NAMES, *PARTS] if not mutation.warns and not mutation.says])
def test_names_weights_and_numbers_survive_export_and_ingest(run, answered, copy, mutation):
    ingest(run, copy, mutation)
    exported, again = copy.place / "exported", copy.place / "again"
    answered("export", copy.store, "--out", exported)
    answered("ingest", exported, "--store", again)
    held, found = [outcome.holds(GOOD) for outcome in outcomes(mutation)], {*by_step(table(again, "steps"))}
    steps = next((steps for steps in held if {step.key for step in steps} == found), held[0])
    assert_arrays(again, steps, assert_rows(again, steps))


def test_blocks_and_heads_are_asked_for_by_their_numbers(run, answered, copy):
    parts([6, 8], [3, 5, 7])(copy)
    answered("ingest", copy.root, "--store", copy.store)
    place = ("--video", VIDEO, "--token", WORD)
    chosen, asked_for = "step = 1 AND block = 8 AND head = 5", ("--step", 1, "--block", 8, "--head", 5)
    answered("query", "average", copy.store, *place, "--over", "block,head", "--where", chosen, "-o",
             copy.place / "a.npy")
    answered("query", "map", copy.store, *place, *asked_for, "-o", copy.place / "b.npy")
    for name in ("a.npy", "b.npy"):
        assert np.array_equal(np.load(copy.place / name).ravel(), ARRAY[1, 1, :, 0].astype(np.float32)), name
    sides = rows_of(answered("query", "compare", copy.store, *place, "--across", "block", "--align", "mean", "--metric",
                             "l2"))
    assert [(row["a"], row["b"]) for row in sides] == [("6", "8")]
    ran = run("query", "map", copy.store, *place, "--step", 1, "--block", 1, "-o", copy.place / "c.npy")
    assert ran.code != 0 and "block" in ran.err, ran.said


def ingest(run, copy, mutation):
    """Ingests a mutated copy: what must be named of it, and how that ended."""
    named = mutation.change(copy)
    before = snapshot(copy.root)
    options = ("--store", copy.store, "--report", copy.report, *mutation.options)
    ran = run("ingest", *copy.arguments, *options, cwd=copy.cwd)
    assert snapshot(copy.root) == before, "the dump was modified"
    items = [item if isinstance(item, tuple) else (item,) for item in (named if isinstance(named, list) else [])]
    return [[os.fsencode(path).decode("utf-8", "replace") for path in item] for item in items], ran


def snapshot(directory):
    """What is in a directory, and since when."""
    entries = [entry for top, _, _ in os.walk(directory) for entry in os.scandir(top)]
    found = {entry.path: entry.stat(follow_symlinks=False) for entry in entries}
    return {path: (status.st_mode, status.st_size, status.st_mtime_ns) for path, status in found.items()}


def assert_comes(run, answered, copy, good, mutation, outcome, named, ran):
    if outcome is REFUSED:
        assert ran.code == 1 and mutation.says.lower() in ran.err.lower(), ran.said
        assert not list(copy.store.glob("index/*/*.parquet"))
        return
    assert ran.code in (0, 3), ran.said
    report = json.loads(copy.report.read_bytes())
    assert_said(mutation, outcome, named, report, ran)
    steps = outcome.holds(GOOD)
    assert_holds(answered, copy.store, steps, good)
    assert report["ingested"] == len(steps), ran.said
    if report["quarantined"]:
        verified = run("verify", copy.store, *[f"--against={argument}" for argument in copy.arguments], cwd=copy.cwd)
        assert verified.code == 3, verified.said


def assert_said(mutation, outcome, named, report, ran):
    """The report names what was changed, with what is wrong, and nothing else."""
    left_out = [(entry["path"], entry["error"]) for entry in report["quarantined"]]
    odd = [(entry["path"], entry["message"]) for entry in report["warnings"]]
    said = f"{ran.said}\nleft out: {left_out}\nwarnings: {odd}\nto be named: {named}"
    assert ran.code == (outcome.code if outcome.code is not None else 3 if left_out else 0), said
    if outcome.code != 0:
        silent = not_told(left_out if outcome.code else left_out + odd, named, mutation.says)
        assert named and not silent, f"{said}\nnot named: {silent}"
    elif mutation.warns not in (None, ANYTHING):
        silent = not_told(odd, named, mutation.warns)
        assert len(silent) < (1 if isinstance(mutation.warns, list) else len(named)), f"{said}\nnot named: {silent}"
    elif mutation.warns is None:
        assert not odd, said
    near = {path for item in named for one in item for path in (one, os.path.dirname(one))}
    named_beside = left_out + (odd if mutation.warns != ANYTHING else [])
    assert all(is_in(path, near) for path, _ in named_beside), said


def not_told(entries, named, parts):
    """The items to be named that no entry is about, or none with its part of the text."""
    parts = parts if isinstance(parts, list) else [parts] * len(named)
    squeezed = lambda text: text.lower().replace(" ", "")
    is_told = lambda item, part: any(is_in(path, item) and squeezed(part) in squeezed(text) for path, text in entries)
    return [(item, part) for item, part in zip(named, parts, strict=True) if not is_told(item, part)]


def is_in(path, places):
    return any(path == place or path.startswith(f"{place}/") for place in places)


# ------------------------------------------------------------------------------ what a store holds


def assert_holds(answered, store, steps, good):
    """The store holds these steps, for other readers and for those who ask it."""
    assert_arrays(store, steps, assert_rows(store, steps))
    assert_heads(store, steps, good)
    assert_answers(answered, store, steps, good)


def table(store, name):
    """A table, as readers find it that are given its directory."""
    return pyarrow.dataset.dataset(store / "index" / name, format="parquet", partitioning=None).to_table().to_pylist()


def by_step(rows):
    found = {}
    for row in rows:
        found.setdefault((row.pop("video_id"), row.pop("token"), int(row.pop("step"))), []).append(row)
    return found


def full_rows(steps):
    """The rows of `steps`, by step: with what the arrays tell."""
    rows = {}
    for _, of_word in groupby(sorted(steps, key=lambda step: step.key), lambda step: step.key[:2]):
        for place, step in enumerate(of_word):
            shape = dict(zip(("num_blocks", "num_heads", "spatial", "tokens"), step.array.shape))
            rows[step.key] = {"dtype": step.array.dtype.name, "row": place, **shape, **step.row}
    return rows


def wrong_ones(found, expected):
    """(found, expected) of all columns that are not as expected, by their rows."""
    wrong = {
        key: {name: (found[key].get(name), value) for name, value in row.items() if not found[key].get(name) == value}
        for key, row in expected.items()
    }
    return {key: of_row for key, of_row in wrong.items() if of_row}


def assert_rows(store, steps):
    """The rows of `steps` are these; returns them."""
    found, expected = by_step(table(store, "steps")), full_rows(steps)
    assert {key: len(rows) for key, rows in found.items()} == dict.fromkeys(expected, 1)
    found = {key: {**dict(zip(("video_id", "token", "step"), key)), **row} for key, [row] in found.items()}
    assert wrong_ones(found, expected) == {}
    return found


def assert_arrays(store, steps, rows):
    """The arrays that the rows name have the bits of the steps, and their coordinates."""
    by_array = {}
    for step in sorted(steps, key=lambda step: step.key):
        by_array.setdefault(rows[step.key]["array"], []).append(step)
    for path, of_array in by_array.items():
        group = (store / path).parent
        read = lambda name: zarr.open_array(group / name, mode="r")[...]
        attention = read("attention")
        assert len(attention) == len(of_array)
        assert [step.key for step, found in zip(of_array, attention) if not same_bits(found, step.array)] == []
        if all(step in GOOD for step in of_array):
            continue  # its coordinates are looked at once, in the good store
        assert read("step").tolist() == [step.row["step"] for step in of_array]
        timesteps = [np.nan if step.row["timestep"] is None else step.row["timestep"] for step in of_array]
        assert np.array_equal(read("timestep"), timesteps, equal_nan=True)
        for axis, numbers in (("block", of_array[0].blocks), ("head", of_array[0].heads)):
            assert (group / axis).exists() == (numbers is not None), axis
            assert numbers is None or read(axis).tolist() == numbers


def assert_heads(store, steps, good):
    found = by_step(table(store, "heads"))
    assert found.keys() == {step.key for step in steps}
    for step in steps:
        expected = map_rows(step, good)
        assert len(found[step.key]) == len(expected), step.key
        assert wrong_ones(dict(enumerate(found[step.key])), dict(enumerate(expected))) == {}, step.key


def map_rows(step, good):
    """The rows of `heads`: those of the good dump under their numbers, or as far as numpy knows them."""
    blocks, heads, _, tokens = step.array.shape
    places = [*product(range(tokens), range(blocks), range(heads))]
    if step.like:
        known = good.heads[step.like]
    else:
        known = [measured(step.array[block, head, :, token]) for token, block, head in places]
    return [
        {**row, "token_index": token, "block": step.number(0, block), "head": step.number(1, head)}
        for row, (token, block, head) in zip(known, places, strict=True)
    ]


def measured(values):
    finite = values[np.isfinite(values)].astype(np.float64)
    if not len(finite):
        return {"nonfinite": len(values)}
    total = pytest.approx(finite.sum(), rel=1e-12, abs=1e-300)
    return {"nonfinite": len(values) - len(finite), "min": finite.min(), "max": finite.max(), "sum": total}


LISTED = [
    *("prompt_id", "prompt", "seed", "weight", "timestep", "frames", "height", "width", "dtype"),
    *("num_blocks", "num_heads", "spatial", "row"),
]
QUESTIONS = {
    "list": ("--columns", ",".join(["video_id", "token", "step", *LISTED])),
    "average": (),
    "sql": (
        "SELECT video_id, token, step, COUNT(*) AS maps, SUM(nonfinite) AS odd, MAX(max) AS highest, MIN(gini) AS gini "
        "FROM heads GROUP BY video_id, token, step",
    ),
}


def rows_of(printed):
    return csv.DictReader(io.StringIO(printed, newline=""))


def asked(answered, store):
    """What the questions print, by step."""
    printed = {question: answered("query", question, store, *options) for question, options in QUESTIONS.items()}
    return {question: by_step(rows_of(text)) for question, text in printed.items()}


def reads_as(text, value):
    """Whether a field of CSV is this value."""
    match value:
        case Among():
            return any(reads_as(text, one) for one in value.values)
        case float():
            return text != "" and float(text) == value
        case None:
            return text == ""
    return text == str(value)


def assert_answers(answered, store, steps, good):
    answers, rows = asked(answered, store), full_rows(steps)
    for question, found in answers.items():
        assert found.keys() == rows.keys(), question
    listed = {(*key, name): (answers["list"][key][0][name], row[name]) for key, row in rows.items() for name in LISTED}
    assert {place: fields for place, fields in listed.items() if not reads_as(*fields)} == {}
    for question in ("average", "sql"):
        expected = {step.key: good.asked[question][step.like] for step in steps if step.like}
        assert {key: answers[question][key] for key in expected} == expected, question


# ----------------------------------------------------------------------------- numbers, and export

NUMBERS = (
    *("0", "-0", "-0.0", "0.10", "3.0", "1E2", "1e+02", "1e-05", "1e400", "-1e400", "1e-400", "5e-324",
      "0.1000000000000000055"),
    *("9007199254740993", "9223372036854775808", "18446744073709551616", "-9223372036854775809", "1" + "0" * 40,
      "0." + "1" * 40),
    *("12345678901234567890.12345678901234567890", "2147483648", "4294967296", "-1", "100000000000000000000000.0",
      "1.0e0"),
)


def with_digits(text):
    """JSON with every number as it is written."""
    return json.loads(text, parse_int=str, parse_float=str)


NUMBERED = ("seed", "timestep", "cfg_scale", "total_steps", "video_width", "num_blocks", "step", "extra")


@pytest.mark.parametrize("key", NUMBERED)
def test_export_gives_every_number_back_digit_for_digit(answered, copy, key):
    described = [files[1] for files in add_steps(*[{key: Literal(text)} for text in NUMBERS])(copy)]
    answered("ingest", copy.root, "--store", copy.store, "--quiet")
    answered("export", copy.store, "--out", copy.place / "exported")
    exported = copy.place / "exported" / "attention_maps" / VIDEO / "token_cat"
    found = {path.name: with_digits((exported / path.name).read_bytes()) for path in described}
    assert found == {path.name: with_digits(path.read_bytes()) for path in described}


def test_export_gives_numbers_in_lists_and_summaries_back_digit_for_digit(answered, copy):
    numbers = Literal(f"[{', '.join(NUMBERS)}]")
    metadata(token_ids=numbers, attention_shape=numbers, extra=Literal(f'{{"a": [{numbers}]}}'))(copy)
    content(lambda text: dumped(json.loads(text), {"config": Literal(f'{{"a": {numbers}}}')}), Copy.summary)(copy)
    answered("ingest", copy.root, "--store", copy.store, "--quiet")
    answered("export", copy.store, "--out", copy.place / "exported")
    for path in (copy.metadata(), copy.summary()):
        exported = copy.place / "exported" / path.relative_to(copy.root)
        assert with_digits(exported.read_bytes()) == with_digits(path.read_bytes())


# ------------------------------------------------------------------------------------------- paths

PATHS = (
    *("seed=99", "step=50/block=7/row=5", "height=480/token=dog/video_id=x", "a=b=c", "[wan 2.1]", "[!x]/[a]", "a*b?",
      "**", "{x,y}"),
    *("50% %20 #x", "~tilde", "~", "it's \"q\"", "\U0001f600 \u00fc", "u\u0308", "--store/-o", "new\nline",
      "a;b&c|d/$HOME"),
    *(" x ", "back\\slash", "s.parquet/x.zarr", ".hidden/_hidden", "file:x", "http:"),
)
OUTPUTS = {
    "csv": Path.read_bytes,
    "json": Path.read_bytes,
    "parquet": lambda path: pyarrow.parquet.ParquetFile(path).read().to_pylist(),
    "npy": lambda path: np.load(path).tolist(),
    "zarr": lambda path: zarr.open_array(zarr.storage.LocalStore(path / "attention"), mode="r")[...].tolist(),
}
MAPS = "seed = 11 AND step = 1 AND block = 0 AND height = 4 AND row = 1 AND gini > 0"
MAP_COLUMNS = "video_id,token,step,seed,block,head,height,row,prompt"
JOINED = """
    SELECT step, seed, COUNT(*) AS maps FROM heads JOIN steps USING (video_id, token, step)
    GROUP BY step, seed ORDER BY seed, step
"""


def everything(answered, good_dump, directory, relative=False):
    """What comes of a dump, a store and answers in a directory: nothing of which depends on its name."""
    dump, store = directory / "dump", directory / directory.name
    shutil.copytree(good_dump, dump)
    cwd = directory.parent if relative else None
    path = lambda argument: f"./{argument.relative_to(cwd)}" if relative and isinstance(argument, Path) else argument
    ask = lambda *arguments: answered(*map(path, arguments), cwd=cwd)

    ask("ingest", dump, "--store", store, "--report", directory / "report.json")
    found = {
        "ingested": json.loads((directory / "report.json").read_bytes())["ingested"],
        "steps": ask("query", "list", store, "--where", "seed < 99 AND step < 50", "--columns",
                     "video_id,token,step,seed,row"),
        "maps": ask("query", "list", store, "--table", "heads", "--where", MAPS, "--columns", MAP_COLUMNS),
        "sql": ask("query", "sql", store, JOINED),
    }
    for format, read in OUTPUTS.items():
        answer = directory / f"{format} answer.{format}"
        ask("query", "average", store, "--where", "seed = 22 AND token = 'cat'", "-o", answer)
        found[format] = read(answer)
    ask("verify", store, "--against", dump)
    ask("export", store, "--out", directory / "exported")
    exported = directory / "exported" / "attention_maps"
    found["export"] = {path.relative_to(exported): path.read_bytes() for path in exported.rglob("*.*")}
    return found


@pytest.fixture(scope="module")
def in_a_plain_place(place, answered, good_dump):
    found = everything(answered, good_dump, place / "plain")
    assert len([*rows_of(found["steps"])]) == len(GOOD) and len([*rows_of(found["maps"])]) == 2 * 3
    mean = [ARRAYS[OTHER, "cat", step].astype(np.float64).mean(axis=(0, 1)).reshape(2, 4, 4) for step in STEPS]
    np.testing.assert_allclose(found["npy"], mean, rtol=1e-6)
    return found


@pytest.mark.parametrize("name, relative", [*product(PATHS, [False]), *product(PATHS[::4], [True])])
def test_a_path_is_never_data_nor_a_pattern(answered, good_dump, in_a_plain_place, directory, name, relative):
    (directory / name).mkdir(parents=True)
    found = everything(answered, good_dump, directory / name, relative)
    assert {key: value for key, value in found.items() if value != in_a_plain_place[key]} == {}


# ----------------------------------------------------------------------------- unknown is no value


def store_of_videos(answered, place, videos):
    """A store of videos of one word; each is given by its timesteps, its word and other keys of its metadata."""
    arrays = {}
    for number, video in enumerate(videos):
        known = {"prompt": "a cat", "seed": number, "video_width": 64, "video_height": 64, "video_frames": 5, **video}
        timesteps, word = known.pop("timesteps", (1000.0, 700.0, 400.0)), known.pop("word", "cat")
        for step, timestep in enumerate(timesteps):
            array = maps(10 * number + step, dtype=np.float32)
            arrays[f"v{number}", word, step] = array, {**known, "timestep": timestep}
    answered("ingest", write_dump(place / "dump", arrays), "--store", place / "store", "--quiet")
    return place / "store"


def mean_map(*places):
    """The mean of all maps of these (number of the video, step)."""
    arrays = [maps(10 * number + step, dtype=np.float32).astype(np.float64) for number, step in places]
    return np.mean(arrays, axis=(0, 1, 2)).ravel()


def cosine(a, b):
    return pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-6)


# What tells sides apart: by the name of each side, what a video of it has.
GROUPS = {
    "seed": {"11": {"seed": 11}, "22": {"seed": 22}, f"{2**63}": {"seed": 2**63}, f"{2**63 + 1}": {"seed": 2**63 + 1}},
    "prompt": {prompt: {"prompt": prompt} for prompt in ("a cat", "b cat", "a cat ", 'c, "cat"')},
    "weight": {f"{weight}": {"word": f"cat:{weight}"} for weight in (1.0, 2.0, 0.5, 1.25)},
}
UNKNOWN_SIDE = {"seed": {"seed": None}, "prompt": {"prompt": None}, "weight": {"word": "cat"}}
# Of the sides of a group by their places; U is unknown.
U = None
SIDES = [(U, U), (0, U), (U, 0), (0, 0), (0, 1, U), (2, 3), (0, 1, 2, 3), (U, 0, 0, U, 1)]


@pytest.mark.parametrize("sides", SIDES, ids=str)
@pytest.mark.parametrize("across", GROUPS)
def test_what_is_unknown_is_no_side_of_a_comparison(run, answered, directory, across, sides):
    names = [*GROUPS[across]]
    videos = [UNKNOWN_SIDE[across] if side is U else GROUPS[across][names[side]] for side in sides]
    store = store_of_videos(answered, directory, videos)
    ran = run("query", "compare", store, "--across", across, "--align", "mean", "--metric", "cosine", "--no-rollups")

    places = {}
    for number, side in enumerate(sides):
        if side is not U:
            places.setdefault(names[side], []).extend((number, step) for step in STEPS)
    pairs = [*combinations(places, 2)]
    if across == "weight" and pairs:
        nearest = min(places, key=lambda weight: abs(float(weight) - 1))
        pairs = [pair for pair in pairs if nearest in pair]
    expected = {}
    for a, b in pairs:
        value = cosine(mean_map(*places[a]), mean_map(*places[b]))
        expected[frozenset((a, b))] = value, 6 * len(places[a] + places[b])
    rows = [row for row in rows_of(ran.out) if row["a"] != row["b"]]
    assert {frozenset((row["a"], row["b"])): (float(row["value"]), int(row["n"])) for row in rows} == expected, ran.said
    assert (ran.code == 0) == bool(pairs), ran.said
    count = f"{3 * sides.count(U)} steps" if places else ""
    assert U not in sides or (across in ran.err and count in ran.err), ran.said


X = None
# The timesteps of two videos; for each row of the answer the pairs of steps it may be of; whether timesteps are named.
TIMESTEPS = {
    "equal": ((1000, 700, 400), (1000, 700, 400), [[(0, 0)], [(1, 1)], [(2, 2)]], False),
    "shifted": ((1000, 700, 400), (990, 420), [[(0, 0)], [(2, 1)]], False),
    "rising": ((0, 300, 900), (0, 300, 900), [[(0, 0)], [(1, 1)], [(2, 2)]], False),
    "visited twice": ((999, 999, 666, 666, 333), (999, 666, 333), [[(0, 0), (1, 0)], [(2, 1), (3, 1)], [(4, 2)]], None),
    "unknown on both sides": ((X, X, X), (X, X, X), [], True),
    "unknown on the left": ((X, X, X), (1000, 700, 400), [], True),
    "unknown on the right": ((1000, 700, 400), (X, X, X), [], True),
    "NaN on the right": ((1000, 700, 400), (np.nan, np.nan, np.nan), [], True),
    "texts on the right": ((1000, 700, 400), ("1000", "700", "400"), [], True),
    "unknown for one step": ((1000, X, 400), (1000, 700, 400), [[(0, 0)], [(2, 2)]], True),
    "unknown but for one step": ((X, X, 400), (1000, 700, 400), [[(2, 2)]], True),
    "one and the same on both sides": ((999, 999, 999), (999, 999, 999), [], True),
    "one and the same on the left": ((999, 999, 999), (1000, 700, 400), [], True),
    "one and the same on the right": ((1000, 700, 400), (-1, -1, -1), [], True),
    "neither falling nor rising": ((1000, 400, 700), (1000, 700, 400), [], True),
    "neither falling nor rising on the right": ((1000, 700, 400), (1000, 400, 700), [], True),
}  # fmt: skip


@pytest.mark.parametrize("a, b, rows, is_said", TIMESTEPS.values(), ids=TIMESTEPS)
def test_steps_are_paired_by_known_timesteps_alone(run, answered, directory, a, b, rows, is_said):
    store = store_of_videos(answered, directory, [{"timesteps": a}, {"timesteps": b}])
    options = ("--align", "timestep", "--metric", "cosine", "--no-rollups")
    ran = run("query", "compare", store, "--across", "video", *options)
    found = [float(row["value"]) for row in rows_of(ran.out)]
    allowed = [[cosine(mean_map((0, of_a)), mean_map((1, of_b))) for of_a, of_b in pairs] for pairs in rows]
    is_all = len(found) == len(allowed) and all(value in values for value, values in zip(found, allowed))
    assert is_all or (is_said and not found), ran.said
    assert (ran.code == 0) == bool(found), ran.said
    assert is_said is None or ("timestep" in ran.err) == is_said, ran.said


UNSIZED, OTHERWISE = {"video_width": None}, {"video_width": 128, "video_height": 32}
OF_BOTH = [
    ("average", "--over", "video,block,head"),
    ("average", "--over", "video", "--with", "max"),
    ("compare", "--across", "video", "--metric", "centroid"),
]


@pytest.mark.parametrize("other", [UNSIZED, OTHERWISE], ids=["unknown", "another"])
@pytest.mark.parametrize("question", OF_BOTH, ids=" ".join)
def test_maps_of_several_grids_are_not_taken_together(run, answered, directory, question, other):
    store = store_of_videos(answered, directory, [{}, other])
    ran = run("query", question[0], store, *question[1:])
    assert ran.code != 0 and not ran.out and "grid" in ran.err, ran.said


# ---------------------------------------------------------------------------------------- integers



def integer_columns(name):
    columns = json.loads((REPOSITORY / "schemas" / f"{name}.columns.json").read_text())
    return [column["name"] for column in columns if column["type"].startswith(("int", "decimal"))]


INTEGERS = {name: integer_columns(name) for name in ("steps", "heads")}
COLUMNS = [(name, column) for name in INTEGERS for column in INTEGERS[name]]
ORDER = {"steps": "video_id, step", "heads": "video_id, step, block, head"}
LARGE, LAST_STEP = (2**64 - 1, 2**63), 2**31 - 1
SIZES = [
    {"video_width": 2**31 - 1, "video_height": 46341, "video_frames": 2**30, "prompt": "a cat"},
    {"video_width": 64, "video_height": 64, "video_frames": 5, "prompt": "a dog"},
]


@pytest.fixture(scope="module")
def integers(place, answered):
    """A store of integers as large as their columns hold."""
    arrays, place = {}, place / "integers"
    for number, step in product((0, 1), (0, 5, LAST_STEP)):
        array = maps(number + step % 7, dtype=np.float32)
        array[0, 0, : number + 1] = np.nan
        arrays[f"v{number}", "cat", step] = array, {"seed": LARGE[number], **SIZES[number]}
    alike = {"total_steps": 2**31 - 1, "token_ids": [2**63 - 1], "block_idx": [4000, 4095], "head_idx": [7, 2000, 4000]}
    dump = write_dump(place / "dump", arrays, **alike)
    for path in dump.rglob("step_*"):
        os.utime(path, (1_711_843_200, 1_711_843_200))  # 2024-03-31
    (place / "prompts.txt").write_text("a [cat|dog]\n")
    answered("ingest", dump, "--store", place / "store", "--prompts", place / "prompts.txt", "--quiet")
    return place / "store"


def exactly(store, name, expressions):
    """What DuckDB makes of expressions over a table with every integer of 128 bits; None where these are too few."""
    widened = ", ".join(f"CAST({column} AS HUGEINT) AS {column}" for column in INTEGERS[name])
    parts = f"read_parquet('{store}/index/{name}/*.parquet', hive_partitioning = false)"
    table, columns = f"(SELECT * REPLACE ({widened}) FROM {parts} ORDER BY {ORDER[name]})", []
    for expression in expressions:
        try:
            columns.append([value for [value] in duckdb.sql(f"SELECT {expression} FROM {table}").fetchall()])
        except duckdb.Error:
            columns.append(None)
    return columns


def in_64_bits(value):
    return isinstance(value, int) and -(2**63) <= value < 2**63


def number(text):
    return None if text == "" else float(text) if set(text) & set(".eE") else int(text)


OF_ROWS = (
    *("{0}", "-{0}", "ABS(-{0})", "{0} + 2147483647", "{0} - 4294967296", "2147483647 - {0}", "{0} * 65536",
      "{0} * {0}"),
    *("{0} // 7", "{0} % 7", "3000000000 * {0}"),
)
OF_ALL = (
    *("SUM({0})", "MIN({0})", "MAX({0})", "SUM(-{0})", "SUM({0} * 65536)", "SUM({0} * {0})", "SUM({0}) * 1000"),
    *("COUNT({0}) - 100", "COUNT({0}) * 3000000000", "COUNT(DISTINCT {0}) - 100", "MAX({0}) - MIN({0}) - 4294967296"),
    "AVG({0} * 65536)",
)


@pytest.mark.parametrize("operations", [OF_ROWS, OF_ALL], ids=["rows", "aggregates"])
@pytest.mark.parametrize("name, column", COLUMNS, ids=str)
def test_integers_do_not_wrap(run, integers, name, column, operations):
    """What 64 bits hold is exact; what they do not is exact or an error."""
    expressions = [operation.format(column) for operation in operations]
    expected = dict(zip(expressions, exactly(integers, name, expressions)))

    def is_held(expression):
        if column == "seed":  # whose sums and products are beyond 64 bits on the way
            return expression in (column, f"MIN({column})", f"MAX({column})", f"COUNT(DISTINCT {column}) - 100")
        values = expected[expression]
        return values and all(value is None or isinstance(value, float) or in_64_bits(value) for value in values)

    held = [expression for expression in expressions if is_held(expression)]
    order, wrong = f" ORDER BY {ORDER[name]}" if operations is OF_ROWS else "", {}
    for together in [held, *[[expression] for expression in expressions if expression not in held]]:
        select = ", ".join(f"{expression} AS c{place}" for place, expression in enumerate(together))
        ran = run("query", "sql", integers, f"SELECT {select} FROM {name}{order}")
        assert ran.code == 0 or together is not held, ran.said
        rows = [*rows_of(ran.out)]
        for place, expression in enumerate(together if ran.code == 0 else []):
            found = [number(row[f"c{place}"]) for row in rows]
            exact = [value if in_64_bits(value) else pytest.approx(value) for value in expected[expression] or []]
            wrong.update({} if found == exact else {expression: (found[:6], exact[:6])})
    assert wrong == {}


@pytest.mark.parametrize("name, column", COLUMNS, ids=str)
def test_integers_do_not_wrap_in_conditions(answered, integers, name, column):
    """The rows that have the last one's value have it after every operation."""
    expressions = [operation.format(column) for operation in OF_ROWS]
    known = dict(zip(expressions, exactly(integers, name, expressions)))
    last = {expression: values[-1] for expression, values in known.items() if values and in_64_bits(values[-1])}
    conditions = [f"{expression} = {value} AND {expression} < {value + 1}" for expression, value in last.items()]
    condition = " AND ".join(conditions) or f"{column} IS NULL"
    printed = answered("query", "list", integers, "--table", name, f"--where={condition}", "--columns", "step")
    assert len([*rows_of(printed)]) == known[column].count(known[column][-1]), condition


# What is selected from `steps`, and the number that comes of it.
EXPRESSIONS = {
    **{"COUNT(*) - 100": -94, "COUNT(*) * 3000000000": 18 * 10**9, "-COUNT(*)": -6, "COUNT(DISTINCT step) - 100": -97},
    **{"MIN(LENGTH(token)) - 10": -7, "MIN(LENGTH(token)) * 3000000000": 9 * 10**9, "MIN(STRPOS(token, 't')) - 10": -7},
    **{"MIN(ARRAY_LENGTH(token_ids)) - 10": -9, "MAX(EXTRACT(YEAR FROM source_modified)) * 10000000": 20_240_000_000},
    **{"MAX(EXTRACT(MONTH FROM source_modified)) * 100": 300, "MAX(EXTRACT(DAY FROM source_modified)) * 100": 3100},
    **{"MAX(EXTRACT(DOY FROM source_modified)) * 1000": 91_000, "MAX(step) + 1": 2**31, "MAX(step) * 2": 2**32 - 2},
    **{"MAX(step + 1)": 2**31, "MAX(step * 2)": 2**32 - 2, "MIN(-step - 2)": -(2**31) - 1,
       "MIN(0 - step * 3)": -3 * LAST_STEP},
    **{"MAX(2147483647 + 1)": 2**31, "MAX(2147483647 * 2147483647)": LAST_STEP**2,
       "MIN(-2147483648 - 1)": -(2**31) - 1},
    **{"SUM(1)": 6, "SUM(1) - 100": -94, "SUM(2147483647)": 6 * LAST_STEP, "AVG(3)": 3, "COUNT(1)": 6,
       "SUM(step * 0 + 1)": 6},
    **{"SUM(CASE WHEN step > 5 THEN 2147483647 ELSE 0 END)": 2 * LAST_STEP,
       "MAX(GREATEST(step, 3000000000))": 3 * 10**9},
    **{"SUM(CASE WHEN step * 2 > 3000000000 THEN 1 ELSE 0 END)": 2, "MAX(COALESCE(frames, 3000000000))": 3 * 10**9},
    **{"MAX(CAST(step AS BIGINT) * 4)": 4 * LAST_STEP, "MAX(CAST(step AS INTEGER) * 4)": 4 * LAST_STEP,
       "MAX(MOD(step, 7))": 5},
    **{"SUM(step * num_blocks * num_heads)": 12 * (LAST_STEP + 5)},
}
# Whole statements, and the number that comes of them.
STATEMENTS = {
    "SELECT SUM(2 * a) FROM (SELECT step * 2 AS a FROM steps) AS doubled": 8 * (LAST_STEP + 5),
    "SELECT SUM(steps.step) FROM steps JOIN heads USING (video_id, token, step)": 12 * (LAST_STEP + 5),
    "SELECT COUNT(*) FROM steps WHERE step * 2 > 3000000000": 2,
    "SELECT COUNT(*) FROM steps WHERE step + 1 > 2147483647": 2,
    "SELECT COUNT(*) FROM heads WHERE block * 1000000 = 4000000000": 18,
    "SELECT COUNT(*) FROM heads WHERE step * block > 4294967296": 12,
    "SELECT step FROM steps ORDER BY step * 2 DESC LIMIT 1": LAST_STEP,
    "SELECT SUM(1) AS a FROM steps GROUP BY video_id LIMIT 1": 3,
    "SELECT SUM(step) AS a FROM steps GROUP BY token HAVING SUM(step) > 3000000000": 2 * (LAST_STEP + 5),
    "SELECT SUM(step) OVER () AS a FROM steps LIMIT 1": 2 * (LAST_STEP + 5),
    "SELECT ROW_NUMBER() OVER (ORDER BY seed, step) - 20 AS a FROM steps ORDER BY a LIMIT 1": -19,
    "SELECT MAX(a) FROM (SELECT MAX(step) AS a FROM steps UNION ALL SELECT 3000000000 AS a FROM steps) AS b": 3 * 10**9,
}
# What 64 bits do not hold: a number must be this one.
BEYOND = {
    **{"SUM(step * 9223372036854775807)": 2 * (LAST_STEP + 5) * (2**63 - 1), "MAX(step * step * step)": LAST_STEP**3},
    **{"MAX(9223372036854775807 + 1)": 2**63, "MIN(-9223372036854775807 - 2)": -(2**63) - 1, "MAX(seed + 1)": 2**64},
    **{"MAX(4294967296 * 4294967296)": 2**64, "SUM(total_steps * total_steps * 4)": 24 * LAST_STEP**2,
       "MIN(-seed)": -LARGE[0]},
    **{"SUM(9223372036854775807)": 6 * (2**63 - 1), "MAX(ABS(-9223372036854775807 - 1))": 2**63,
       "MAX(seed * seed)": LARGE[0] ** 2},
    **{"SUM(seed)": 3 * sum(LARGE), "MAX(seed - 18446744073709551616)": -1,
       "COUNT(*) * 9223372036854775807": 6 * (2**63 - 1)},
    **{"MAX(CAST(seed AS BIGINT))": LARGE[0], "MAX(CAST(step AS SMALLINT))": LAST_STEP,
       "MAX(CAST(step AS TINYINT))": LAST_STEP},
    **{"SUM(video_width * video_height * video_frames)": 3 * ((2**31 - 1) * 46341 * 2**30 + 64 * 64 * 5)},
}


def one_number(ran):
    [[printed]] = [row.values() for row in rows_of(ran.out)]
    return number(printed)


@pytest.mark.parametrize("sql", [*[f"SELECT {expression} FROM steps" for expression in EXPRESSIONS], *STATEMENTS])
def test_expressions_do_not_wrap(run, integers, sql):
    ran = run("query", "sql", integers, sql)
    expected = STATEMENTS.get(sql, EXPRESSIONS.get(sql.removeprefix("SELECT ").removesuffix(" FROM steps")))
    assert ran.code == 0 and one_number(ran) == expected, ran.said


@pytest.mark.parametrize("expression", BEYOND)
def test_what_64_bits_do_not_hold_is_exact_or_an_error(run, integers, expression):
    ran = run("query", "sql", integers, f"SELECT {expression} FROM steps")
    assert ran.code != 0 or one_number(ran) == BEYOND[expression], ran.said


# Conditions on what 64 bits do not hold, and the rows of which they are true.
CONDITIONS = {
    **{"step * 9223372036854775807 > 0": 4, "step * step * step * step > 0": 4, "step + 9223372036854775807 < 0": 0},
    **{"seed * seed * seed > 0": 6, "seed + 9223372036854775807 > 0": 6, "-seed < 0": 6},
}


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("question", ["list", "average", "sql"])
def test_conditions_on_what_64_bits_do_not_hold_are_right_or_an_error(run, integers, question, condition):
    if question == "sql":
        ran = run("query", "sql", integers, f"SELECT step FROM steps WHERE {condition}")
    else:
        ran = run("query", question, integers, f"--where={condition}")
    assert ran.code != 0 or len([*rows_of(ran.out)]) == CONDITIONS[condition], ran.said


# Of videos of these seeds, by name.
BY_SEED = {
    **{"a": 2**64 - 1, "b": 2**64 - 2, "c": 2**63, "d": 2**63 - 1, "e": 2**53 + 1, "f": 0, "g": -1, "h": -(2**63)},
    "i": None,
}
SEED_CONDITIONS = {
    **{"seed = 18446744073709551615": "a", "seed = 18446744073709551614": "b", "18446744073709551615 = seed": "a"},
    **{"seed > 9223372036854775807": "abc", "seed >= 9223372036854775808": "abc", "seed < 0": "gh",
       "NOT seed < 0": "abcdef"},
    **{"seed IN (18446744073709551615, 0)": "af", "seed NOT IN (18446744073709551615, 0)": "bcdegh",
       "seed IS NULL": "i"},
    **{"seed <> 9223372036854775808": "abdefgh", "seed IS NOT NULL": "abcdefgh", "seed = -9223372036854775808": "h"},
    **{"seed BETWEEN 9223372036854775807 AND 18446744073709551614": "bcd", "seed = 11.5": "", "seed > 0.5": "abcde"},
    **{"seed = 9007199254740993": "e", "seed = 9007199254740992": "", "seed % 2 = 1 AND seed > 0": "ade"},
    **{"seed = 18446744073709551616": "", "seed > 18446744073709551615": "", "seed < 18446744073709551616": "abcdefgh"},
    **{"seed - 1 = 18446744073709551614": "a", "seed = 18446744073709551614 + 1": "a",
       "ABS(seed) = 9223372036854775808": "ch"},
    **{"CAST(seed AS VARCHAR) = '18446744073709551615'": "a"},
}
SEED_STATEMENTS = {
    "SELECT video_id FROM steps ORDER BY seed DESC NULLS LAST": [*"abcdefghi"],
    "SELECT video_id FROM steps ORDER BY seed NULLS LAST": [*"hgfedcbai"],
    "SELECT COUNT(DISTINCT seed) FROM steps": ["8"],
    "SELECT MAX(seed) FROM steps": [f"{2**64 - 1}"],
    "SELECT MIN(seed) FROM steps": [f"{-(2**63)}"],
    "SELECT seed FROM steps WHERE seed > 18446744073709551614 GROUP BY seed": [f"{2**64 - 1}"],
    "SELECT DISTINCT seed FROM steps WHERE seed > 9223372036854775808 ORDER BY seed": [f"{2**64 - 2}", f"{2**64 - 1}"],
    "SELECT COUNT(*) FROM steps GROUP BY seed": ["1"] * 9,
    "SELECT COUNT(*) FROM steps AS a JOIN steps AS b ON a.seed = b.seed": ["8"],
    "SELECT video_id FROM steps WHERE seed IN (SELECT MAX(seed) FROM steps)": ["a"],
    "SELECT COUNT(*) FROM steps AS a JOIN heads AS b USING (video_id) WHERE a.seed = 18446744073709551615": ["6"],
}


@pytest.fixture(scope="module")
def seeds(place, answered):
    arrays = {(name, "cat", 0): (maps(1, dtype=np.float32), {"seed": seed}) for name, seed in BY_SEED.items()}
    dump = write_dump(place / "seeds" / "dump", arrays)
    answered("ingest", dump, "--store", place / "seeds" / "store", "--quiet")
    return place / "seeds" / "store"


@pytest.mark.parametrize("condition, expected", SEED_CONDITIONS.items(), ids=SEED_CONDITIONS)
def test_seeds_of_64_bits_are_told_apart_by_conditions(run, seeds, condition, expected):
    """By those of `list`, of `sql`, and of `average`, which ends with an error where no map matches."""
    sql = f"SELECT video_id FROM steps WHERE {condition} ORDER BY video_id"
    for question in (("list", seeds, f"--where={condition}"), ("sql", seeds, sql),
                     ("average", seeds, f"--where={condition}")):
        ran = run("query", *question)
        found = "".join(row["video_id"] for row in rows_of(ran.out))
        assert found == expected and (ran.code == 0 or (question[0] == "average" and not expected)), ran.said


@pytest.mark.parametrize("sql, expected", SEED_STATEMENTS.items(), ids=SEED_STATEMENTS)
def test_seeds_of_64_bits_are_told_apart_by_statements(answered, seeds, sql, expected):
    assert [[*row.values()][0] for row in rows_of(answered("query", "sql", seeds, sql))] == expected


def test_seeds_of_64_bits_are_what_other_readers_find(seeds):
    found = {row["video_id"]: row["seed"] for row in table(seeds, "steps")}
    assert found == {name: seed if seed is None else Decimal(seed) for name, seed in BY_SEED.items()}
    rows = duckdb.sql(f"SELECT video_id, CAST(seed AS VARCHAR) FROM '{seeds}/index/steps/*.parquet'").fetchall()
    assert dict(rows) == {name: seed if seed is None else str(seed) for name, seed in BY_SEED.items()}
