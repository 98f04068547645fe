"""What a store is before a command, what the command is, and how what is left of the store afterwards is judged."""

import json
from dataclasses import dataclass
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


def parts(store, table):
    """The rows of each committed part of a table, in the order of their names."""
    found = sorted((store / "index" / table).glob("*.parquet"))
    return [pq.read_table(part).to_pylist() for part in found if not part.name.startswith(".")]


def rows(store):
    """The rows of `steps`, by (video, token, step)."""
    listed = [row for part in parts(store, "steps") for row in part]
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
    return of_steps, parts(store, "heads"), {key: one.tobytes() for key, one in values(store).items()}


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

    def arguments(self, store):
        return asked(self.command, store)

    def again(self, store):
        """Runs the command once more, undisturbed, and cleans up: the store must be as if it had never been
        disturbed."""
        finished = shim.run(*self.arguments(store))
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
        checked = shim.run("verify", store, "--json")
        assert checked.returncode in (0, 1), checked.stderr
        faults = json.loads(checked.stdout)["faults"]
        odd = [fault for fault in faults if UNFINISHED not in fault["error"]]
        assert not odd, f"verify finds {odd}"
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


def scenes(directory):
    """All of them, by name."""
    full, other = dump(directory / "full"), dump(directory / "other", salt=1)
    one, two = dump(directory / "one", videos=1), dump(directory / "two", steps=2)
    none = directory / "none"
    ingest = ["ingest", full, "--store", "STORE", "--threads", "1"]
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
    found = [
        Scene("first", none, full_store, ingest, [full]),
        Scene("another video", ingested(one, directory / "one.store"), full_store, [*ingest, "--replace"], [full, one]),
        Scene("more steps", grown, full_store, ingest, [full, every_two]),
        Scene("replaced", other_store, full_store, [*ingest, "--replace"], [full, other]),
        Scene("watch", none, full_store, [*ingest, "--watch", "--poll", "10ms", "--until-idle", "30ms"], [full]),
        Scene("gc", replaced, full_store, ["gc", "STORE"], [full]),
    ]
    return {scene.name: scene for scene in found}
