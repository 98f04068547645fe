"""Stores that were ingested in every way, damaged in several places at once: no question has a row that was not there,
and `repair` makes them what they were. Which files are damaged, and how, is drawn at random; `ATTNKIT_DAMAGES=100`
draws a hundred for each way instead of two.
"""

import os
import random
import shutil

import pytest
from test_query_compare import DATASET

DRAWN = int(os.environ.get("ATTNKIT_DAMAGES", "2"))
WAYS = [
    [], ["--average", "heads"], ["--downsample", "2"], ["--every", "2"], ["--dtype", "float32"], ["--prefix", "x"],
     ["--rollups", "none"],
    ["--downsample", "2", "--every", "3", "--prefix", "y", "--rollups", "none"],
]  # fmt: skip
COLUMNS = (
    "video_id,prompt_id,prompt,seed,token,weight,step,timestep,"
    "num_blocks,num_heads,frames,height,width,dtype,content_hash"
)
TABLES = {"steps": ["--columns", COLUMNS], "heads": ["--table", "heads"]}


def damage(chance, path, others):
    """Damages a file: what was done to it."""
    contents = bytearray(path.read_bytes())
    how = chance.choice(["flipped", "cut", "zeros", "gone", "swapped"])
    if how == "gone" and path.parent.name != "steps":  # a video without rows is not there
        path.unlink()
    elif how == "swapped":
        other = chance.choice([other for other in others if other.exists()])
        path.write_bytes(other.read_bytes())
        other.write_bytes(contents)
    elif how == "cut":
        path.write_bytes(contents[: chance.randrange(len(contents))])
    elif how == "zeros":
        path.write_bytes(bytes(len(contents)))
    else:
        contents[chance.randrange(len(contents))] ^= 1 << chance.randrange(8)
        path.write_bytes(contents)
    return how, path.name


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_damage_of_any_kind_is_mended(finished, attnkit, tmp_path, way):
    chance, sound, store = random.Random(" ".join(way)), tmp_path / "sound", tmp_path / "store"
    attnkit("ingest", DATASET, "--store", sound, "--videos", "prompt_00[01]_vid00[12]", *way)
    rows = lambda place: {table: attnkit("query", "list", place, *options) for table, options in TABLES.items()}
    before, prefix = rows(sound), way[way.index("--prefix") :][:2] if "--prefix" in way else []
    for _ in range(DRAWN):
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(sound, store)
        files = sorted(path for path in store.rglob("*") if path.is_file() and path.parent.name != ".writers")
        told = [path for path in files if path.suffix in (".parquet", ".json")]
        places = {chance.choice(chance.choice([files, told])) for _ in range(chance.randint(1, 4))}
        done = []
        for path in sorted(places):
            if path.exists() and path.stat().st_size:
                done.append(damage(chance, path, [other for other in files if other.suffix == path.suffix]))
        asked = finished("query", "list", store, *TABLES["heads"], code=None)
        assert asked.returncode in (0, 1, 3) and set(asked.stdout.splitlines()) <= set(before["heads"].splitlines()), (
            done
        )
        assert asked.returncode != 0 or asked.stdout == before["heads"], done
        finished("gc", store, code=None)
        attnkit("repair", store, "--from", DATASET, *prefix)
        attnkit("verify", store)
        assert rows(store) == before, done
