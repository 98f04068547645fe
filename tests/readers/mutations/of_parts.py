"""Steps in parts, one for each block or head, and the numbers of chosen blocks and heads."""

import gzip
import json
from itertools import product

import numpy as np
from additions import add_word
from arrays import NOT_IT, ONE_BLOCK, ONE_HEAD, ONE_OF_BOTH, four_blocks, npy, npy_of
from changes import both, dumped, instead, metadata
from good_dump import ARRAY, ARRAYS, STEP, STEPS, VIDEO, WORD, described
from mutation import M
from outcomes import LEFT_OUT, OTHERS_LEFT_OUT, SAME, WHOLE_WORD, Outcome, changed, further


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


def part_metadata(content=None, **keys):
    """The second part of a step has other metadata."""

    def change(dump):
        paths = [dump.word() / f"step_001_block_0{block}_metadata.json" for block in (0, 1)]
        paths[1].write_bytes(dumped(json.loads(paths[1].read_bytes()), keys) if content is None else content)
        return [tuple(paths)]

    return change


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
    M("all other parts are left out with one that is damaged",
      one_part(lambda path: path.write_bytes(npy(NOT_IT)[:200])), LEFT_OUT, says="step 1 is left out with all of its "
          "2"),
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
    M("files for blocks, and heads by metadata", parts([6, 8], head_idx=[3, 5, 7]),
      changed(WHOLE_WORD, blocks=[6, 8], heads=[3, 5, 7])),
    M("files for heads, and blocks by metadata", parts(None, [3, 5, 7], block_idx=[6, 8]),
      changed(WHOLE_WORD, blocks=[6, 8], heads=[3, 5, 7])),
    *[M(f"parts of one step whose metadata say another {key}", both(parts([0, 1]), part_metadata(**{key: value})),
        SAME, warns=key)
      for key, value in {"seed": 7, "prompt": "a dog", "timestep": 1.0, "token_ids": [1], "cfg_scale": None}.items()],
    M("parts whose heads are in another order by metadata", both(parts([0, 1], head_idx=[3, 5, 7]),
                                                                 part_metadata(head_idx=[5, 3, 7])),
      Outcome(lambda steps: LEFT_OUT.holds(changed(WHOLE_WORD, heads=[3, 5, 7]).holds(steps)), 3), says="head_idx"),
    M("parts of which one alone numbers its heads", both(parts([0, 1]), part_metadata(head_idx=[3, 5, 7])), LEFT_OUT,
      says="head_idx"),
    M("parts with another key that is not documented", both(parts([0, 1]), part_metadata(host="a")), SAME,
        warns="host"),
    M("a further part whose metadata is no JSON", both(parts([0, 1]), part_metadata(content=b"{")), SAME, warns="JSON"),
    numbered([6, 8]), numbered([6, 8], [3, 5, 7]), numbered([8, 6], [5, 3, 7]), numbered(heads=[2, 1, 0]),
    M("blocks from 0 by metadata", metadata(STEPS, block_idx=[0, 1]), SAME),
    M("one block by metadata", add_word("bird", pack=npy_of(ONE_BLOCK), attention_shape=None, num_blocks=1,
                                        block_idx=6),
      further({"token": "bird", "step": STEP, "array": ONE_BLOCK, "blocks": [6]})),
    *[M(f"two blocks that are {numbers} by metadata", metadata(STEPS, block_idx=numbers), SAME, warns="block_idx")
      for numbers in (6, [6, 8, 10], [6, 6], [2**31, 2**31 + 1])],
    M("blocks of one step by metadata", both(metadata(block_idx=[6, 8]), lambda dump: [dump.tensor()]), LEFT_OUT,
      says="block"),
]  # fmt: skip
