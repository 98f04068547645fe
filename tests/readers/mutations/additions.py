"""What is added to a copy: further steps, words, videos and files."""

import os
import shutil
from itertools import product
from pathlib import Path

from arrays import NOT_IT, npy
from changes import MISSING, Copy, dumped
from good_dump import ARRAY, FURTHER, SEEDS, STEP, VIDEO, WORD, described
from mutation import M
from outcomes import OTHERS_LEFT_OUT, further


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


ANOTHER_TENSOR = npy(NOT_IT)


def add_pairs(*names, content=ANOTHER_TENSOR):
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


# Mutations that add a step for each form of its tensor.


def forms(name, *packs, extension=".npy", warns=None, **keys):
    """Files that hold the array in other forms."""
    steps = [{"pack": pack, "extension": extension, **keys} for pack in packs]
    return M(name, add_steps(*steps), further(*[{}] * len(packs)), warns=warns)


def damaged(name, packs, extension=".npy"):
    """Files that are left out, each for its reason."""
    steps = [{"pack": pack, "extension": extension} for pack in packs]
    return M(name, add_steps(*steps), OTHERS_LEFT_OUT, says=[*packs.values()])
