"""Dumps, stores and answers come out the same wherever they are: a path is only a path."""

import json
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import zarr
from answers import rows_of
from good_dump import ARRAYS, GOOD, OTHER, STEPS

PATHS = (
    *(
        "seed=99",
        "step=50/block=7/row=5",
        "height=480/token=dog/video_id=x",
        "a=b=c",
        "[wan 2.1]",
        "[!x]/[a]",
        "a*b?",
        "**",
        "{x,y}",
    ),
    *(
        "50% %20 #x",
        "~tilde",
        "~",
        'it\'s "q"',
        "\U0001f600 \u00fc",
        "u\u0308",
        "--store/-o",
        "new\nline",
        "a;b&c|d/$HOME",
    ),
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
        "steps": ask(
            "query", "list", store, "--where", "seed < 99 AND step < 50", "--columns", "video_id,token,step,seed,row"
        ),
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
