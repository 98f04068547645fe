"""What a store is before a command, what the command is, and how what is left of the store afterwards is judged."""

import errno
import json
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import shim
import zarr
from source_dump import same_bits, step_arrays, write_dump

SHAPE = (2, 3, 12, 1)
METADATA = {"prompt": "a cat and a dog", "seed": 1, "video_frames": 5, "video_height": 32, "video_width": 48}
# Columns that differ from run to run.
VOLATILE = {"array", "source_mtime", "ingested_at", "generation"}
UNFINISHED = "missing, or of another commit than the steps part"


def dump(directory, videos=2, steps=3, salt=0):
    """Writes a dump of tiny maps that are different everywhere."""
    values = np.random.default_rng(salt)
    arrays = {
        (f"prompt_{video:03}_vid001", word, step): (
            values.random(SHAPE).astype(np.float16),
            {"timestep": 999.0 - step, "weight": 1.0},
        )
        for video in range(videos)
        for word in ("cat", "dog")
        for step in range(steps)
    }
    return write_dump(directory, arrays, **METADATA)


def ingested(dump, store, *options):
    finished = shim.run("ingest", dump, "--store", store, "-q", *options)
    assert finished.returncode == 0, finished.stderr
    return store


def index(store):
    """The directory of the tables; where there is none, the one that was set aside, until another one would be in its
    place."""
    present, aside = store / "index", list(store.glob(".index.*.old"))
    if present.exists() or not aside:
        return present
    assert len(aside) == 1, f"no index, and several that may be it: {aside}"
    return aside[0]


@contextmanager
def put_back(store):
    """With the index in its place, if it was set aside."""
    aside, present = index(store), store / "index"
    aside.rename(present)
    try:
        yield
    finally:
        present.rename(aside)


def packed(store, directory, name=None):
    """A copy of a store whose tables are packed."""
    copy = directory / (name or f"packed_{store.name}")
    shim.fresh_copy(store, copy)
    finished = shim.run("compact", copy)
    assert finished.returncode == 0 and "into 1 pack:" in finished.stdout, finished.stdout + finished.stderr
    assert told(copy) == told(store)
    return copy


def table(store, name):
    """The committed rows of a table, whichever files they are in."""
    found = (part for part in (index(store) / name).glob("*.parquet") if not part.name.startswith("."))
    return [row for part in found for row in pq.read_table(part).to_pylist()]


def rows(store):
    """The rows of `steps`, by (video, token, step)."""
    listed = table(store, "steps")
    found = {(row["video_id"], row["token"], row["step"]): row for row in listed}
    assert len(found) == len(listed), "rows that are there twice"
    return found


def values(store):
    """(video, token, step) -> values, read with zarr-python."""
    opened = {}
    found = {}
    for key, row in rows(store).items():
        if row["array"] not in opened:
            opened[row["array"]] = zarr.open_array(store / row["array"], mode="r")[:]
        found[key] = opened[row["array"]][row["row"]]
    return found


def told(store):
    """What a store says, without what differs from run to run."""
    if not (store / "zarr.json").exists():
        return None
    of_steps = {
        key: {name: value for name, value in row.items() if name not in VOLATILE} for key, row in rows(store).items()
    }
    beside = [sorted(table(store, name), key=repr) for name in ("heads", "text")]
    return of_steps, *beside, {key: one.tobytes() for key, one in values(store).items()}


def asked(command, store):
    """A command with a store in the place of STORE."""
    return [str(store) if part == "STORE" else str(part) for part in command]


@dataclass
class Scene:
    """A command, and the states that a store may be in while it runs."""

    name: str
    before: Path
    after: Path
    command: list
    dumps: list
    library: Path
    # What the file system is like: settings of `faults.c`.
    settings: dict = field(default_factory=dict)

    @property
    def packs(self):
        """Whether all that changes is which files the rows are in."""
        return self.command[0] == "compact"

    def arguments(self, store):
        return asked(self.command, store)

    def run(self, store, **settings):
        """Runs the command on such a file system, with these disturbances."""
        return shim.run(*self.arguments(store), library=self.library, root=store, **self.settings, **settings)

    def again(self, store):
        """Runs the command once more, undisturbed, and cleans up: the store must be as if it had never been
        disturbed."""
        finished = self.run(store)
        assert finished.returncode == 0, f"the next run: {finished.stdout}{finished.stderr}"
        assert told(store) == told(self.after), "the next run leaves another store than an undisturbed one"
        for _ in range(2):
            cleaned = shim.run("gc", store)
            assert cleaned.returncode == 0, cleaned.stderr
        assert cleaned.stdout == "nothing to remove\n", cleaned.stdout
        checked = shim.run("verify", store)
        assert checked.returncode == 0, checked.stdout + checked.stderr

    def judge(self, store):
        """What is left of the store is what was there, or what was to be there, video by video; nothing else, and
        nothing damaged."""
        if not (store / "zarr.json").exists():
            assert not self.before.exists(), "there is no store any more"
            return
        if index(store) != store / "index":
            refused_without_index(store)
            with put_back(store):
                self.judge(store)
            return
        checked = shim.run("verify", store, "--json")
        assert checked.returncode in (0, 1) and checked.stdout, checked.stderr
        faults = json.loads(checked.stdout)["faults"]
        odd = [fault for fault in faults if UNFINISHED not in fault["error"]]
        assert not odd, f"verify finds {odd}"
        if self.packs:
            assert told(store) == told(self.before), "it says something else than before"
            return
        known = [step_arrays(one) for one in self.dumps]
        found = values(store)
        before = values(self.before) if self.before.exists() else {}
        for video in {key[0] for key in [*found, *before]}:
            of_video = lambda state, video=video: {key: one for key, one in state.items() if key[0] == video}
            states = [of_video(before), *(of_video(one) for one in known)]
            held = of_video(found)
            assert any(
                held.keys() == state.keys() and all(same_bits(held[key], state[key]) for key in state)
                for state in states
            ), f"{video} is neither as it was nor as it is to be"


# What only reads.
READING = (["verify"], ["verify", "--json"], ["info"], ["query", "list"])


def refused_without_index(store):
    """Where the index was set aside, whoever reads is told that there is none, not that there is nothing."""
    for command in READING:
        refused = shim.run(*command, store)
        assert refused.returncode == 1 and not refused.stdout, f"{command} without an index: {refused.stdout}"
        assert "error: " in refused.stderr and str(store / "index") in refused.stderr, refused.stderr


def interrupted(library, store, call, is_it, *command, **settings):
    """Leaves of a store what a command leaves that is killed before the first of such calls whose path is the one."""
    trial, log = store.with_name("trial"), store.with_name("log")
    at = 0
    while True:
        at += 1
        log.unlink(missing_ok=True)
        shim.fresh_copy(store, trial)
        killed = shim.run(
            *asked(command, trial), library=library, root=trial, only=call, at=at, how="before", log=log, **settings
        )
        assert killed.returncode == -9, f"{command} makes no such call: {killed.stderr}"
        if is_it(shim.lines(log)[-1][1]):
            shutil.rmtree(store)
            trial.rename(store)
            return


# Calls before which a writer is killed, and which of them. All of a commit is staged; half of it is in its place; a
# new index is whole; the present one is to be set aside, the new one to take its place, the former one to be out of
# the way.
ALL_STAGED = ("rename", lambda path: path.endswith(".heads"))
HALF_STAGED = ("rename", lambda path: path.endswith(".steps"))
EXCHANGE = ("renameat2", lambda path: True)
SET_ASIDE = ("rename", lambda path: path.endswith("/index"))
PUT_IN_PLACE = ("rename", lambda path: "/.index." in path and not path.endswith(".old"))
OUT_OF_THE_WAY = ("rename", lambda path: path.endswith(".old"))
NO_EXCHANGE = {"exchange": errno.EINVAL}


def scenes(directory, library):
    """All of them, by name."""
    full, other = dump(directory / "full"), dump(directory / "other", salt=1)
    one, two = dump(directory / "one", videos=1), dump(directory / "two", steps=2)
    three = dump(directory / "three", videos=3)
    none = directory / "none"
    ingest = ["ingest", full, "--store", "STORE", "--threads", "1"]
    replace, compact, gc = [*ingest, "--replace"], ["compact", "STORE", "--threads", "1"], ["gc", "STORE"]
    full_store = ingested(full, directory / "full.store")
    other_store = ingested(other, directory / "other.store")
    two_store = ingested(two, directory / "two.store")
    # As the steps of a generation that goes on: the files that were there are those of the longer dump.
    grown = ingested(full, directory / "grown.store", "--every", "2")
    replaced = ingested(other, directory / "replaced.store")
    ingested(full, replaced, "--replace")
    assert told(two_store) is not None and told(replaced) == told(full_store)
    every_two = dump(directory / "every_two")
    for path in every_two.rglob("step_001*"):
        path.unlink()

    three_store = ingested(three, directory / "three.store")
    grows = ingested(full, directory / "grows.store", "--every", "2", "--videos", "prompt_000*")
    ingested(full, grows, "--videos", "prompt_001*")
    packed_grows, packed_other = packed(grows, directory), packed(other_store, directory)
    beside = packed(full_store, directory, "beside.store")
    ingested(three, beside, "--videos", "prompt_002*")
    assert len(list((beside / "index/steps").iterdir())) == 2, "a pack and a part"

    def killed(name, store, *kills):
        """A copy of a store in which writers were killed one after the other."""
        shim.fresh_copy(store, directory / name)
        for where, command, settings in kills:
            interrupted(library, directory / name, *where, *command, **settings)
        return directory / name

    staged, next_to_it = (ALL_STAGED, replace, {}), (EXCHANGE, compact, {})
    left = killed("left.store", other_store, staged, next_to_it, (OUT_OF_THE_WAY, compact, NO_EXCHANGE))
    kinds = {path.name.count(".") for path in left.glob(".index.*")}
    assert kinds == {2, 3} and list((left / ".staged").iterdir()) and (left / "index").exists()
    aside = killed("aside.store", other_store, staged, (PUT_IN_PLACE, compact, NO_EXCHANGE))
    unpacked = killed("unpacked.store", packed_other, (PUT_IN_PLACE, replace, NO_EXCHANGE))
    assert not (aside / "index").exists() and not (unpacked / "index").exists()
    half = killed("half.store", packed_other, (HALF_STAGED, replace, {}))
    finished = directory / "finished.store"
    shim.fresh_copy(half, finished)
    assert shim.run("gc", finished).returncode == 0 and told(finished) != told(other_store)

    def scene(name, before, after, command, dumps, **settings):
        return Scene(name, before, after, command, dumps, library, settings)

    found = [
        scene("first", none, full_store, ingest, [full]),
        scene("another video", ingested(one, directory / "one.store"), full_store, replace, [full, one]),
        scene("more steps", grown, full_store, ingest, [full, every_two]),
        scene("replaced", other_store, full_store, replace, [full, other]),
        scene("watch", none, full_store, [*ingest, "--watch", "--poll", "10ms", "--until-idle", "30ms"], [full]),
        scene("gc", replaced, full_store, gc, [full]),
        scene("compact", three_store, three_store, compact, [three]),
        scene("compact, beside a pack", beside, beside, compact, [three]),
        scene("packed, more steps", packed_grows, full_store, ingest, [full, every_two]),
        scene("packed, replaced", packed_other, full_store, replace, [full, other]),
        scene("gc, leftovers of compact", left, other_store, gc, [other]),
        scene("gc, no index", aside, other_store, gc, [other]),
        scene("gc, half a commit", half, finished, gc, [full, other]),
        scene("compact, no index", aside, other_store, compact, [other]),
        scene("ingest, no index", unpacked, full_store, replace, [full, other]),
        scene("compact, renamed", three_store, three_store, compact, [three], **NO_EXCHANGE),
        scene("packed, more steps, renamed", packed_grows, full_store, ingest, [full, every_two], **NO_EXCHANGE),
    ]
    return {scene.name: scene for scene in found}
