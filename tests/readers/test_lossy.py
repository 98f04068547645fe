"""What `--codec lossy:bits=N` stores, and how far it is from what was read."""

import json
import os

import numpy as np
import pytest
import zarr
from committed import table, words
from numcodecs import BitRound
from source_dump import DATASET, same_bits, step_arrays, write_dump

FRACTION = {"float16": 10, "float32": 23, "float64": 52}
SHAPE = (2, 3, 40, 1)


def array_of(dtype, seed):
    """Values of every magnitude, some too small or too large for their type to be usual, zeros of both signs."""
    chance = np.random.default_rng(seed)
    values = chance.random(SHAPE) * 10.0 ** chance.integers(-7, 5, SHAPE)
    values[0, 0, :4, 0] = 0, -0.0, -3.14159, np.finfo(dtype).tiny / 3
    return values.astype(dtype)


def as_rounded(array, bits):
    """The array with `bits` bits behind the leading one of each value; of finite values that do not become infinite."""
    significand, exponent = np.frexp(array.astype(np.float64))
    rounded = np.ldexp(np.rint(np.ldexp(significand, bits + 1)), exponent - bits - 1)
    return rounded.astype(array.dtype)


def stored(store):
    """The arrays of a store and the rows that tell of them, by video, word and step."""
    rows = {(row["video_id"], row["token"], row["step"]): row for row in table(store, "steps").to_pylist()}
    arrays = {
        (video, token, row["step"]): zarr.open_array(group / "attention", mode="r")[row["row"]]
        for video, token, group, of_word in words(store)
        for row in of_word
    }
    return arrays, rows


def lossy_of(store):
    return [
        json.loads((group / "zarr.json").read_text())["attributes"]["attnkit"]["lossy"] for *_, group, _ in words(store)
    ]


@pytest.fixture
def dump(tmp_path):
    def written(dtype, steps=4):
        arrays = {("v", token, step): (array_of(dtype, step), {}) for token in ("cat", "dog") for step in range(steps)}
        return write_dump(tmp_path / "dump", arrays)

    return written


@pytest.mark.parametrize("bits", [1, 3, 7, 10, 23])
@pytest.mark.parametrize("dtype", FRACTION)
def test_values_keep_so_many_bits_and_their_errors_are_told(attnkit, dump, tmp_path, dtype, bits):
    made, store = dump(dtype), tmp_path / "store"
    attnkit("ingest", made, "--store", store, "--codec", f"lossy:bits={bits}", "--rollups", "all")
    arrays, rows = stored(store)
    for key, array in step_arrays(made).items():
        expected = as_rounded(array, bits)
        assert same_bits(arrays[key], expected), key
        usual = np.abs(array) >= np.finfo(dtype).tiny
        if bits < FRACTION[dtype]:
            codec = BitRound(keepbits=bits)
            by_numcodecs = codec.decode(codec.encode(array.copy())).view(dtype).reshape(array.shape)
            assert same_bits(arrays[key][usual], by_numcodecs[usual])
        off = np.abs(arrays[key].astype(np.float64) - array.astype(np.float64))
        assert (off <= np.abs(array.astype(np.float64)) * 2.0 ** -(bits + 1)).all()
        differences = np.abs(array.astype(np.float64) - expected.astype(np.float64))
        assert rows[key]["max_error"] == differences.max()
        assert rows[key]["mean_error"] == pytest.approx(differences.mean(), rel=1e-12)
        assert (rows[key]["max_error"] > 0) == (bits < FRACTION[dtype])
    for row in table(store, "heads").to_pylist():
        of_map = arrays["v", row["token"], row["step"]][row["block"], row["head"]].astype(np.float64)
        assert row["max"] == of_map.max() and row["sum"] == pytest.approx(of_map.sum(), rel=1e-12)
    for *_, group, _ in words(store):
        mean = zarr.open_array(group / "mean_head", mode="r")[:]
        own = zarr.open_array(group / "attention", mode="r")[:].astype(np.float64)
        assert same_bits(mean, own.mean(axis=2).astype(np.float32))
    assert lossy_of(store) == [{"bits": bits} if bits < FRACTION[dtype] else {}] * 2
    attnkit("verify", store, "--against", made)


def test_what_is_not_finite_stays_and_nothing_becomes_infinite(attnkit, tmp_path):
    array = np.full((1, 1, 8, 1), 65504, np.float16)
    array[0, 0, :4, 0] = np.nan, np.inf, -np.inf, -65504
    made, store = write_dump(tmp_path / "dump", {("v", "cat", 0): (array, {})}), tmp_path / "store"
    attnkit("ingest", made, "--store", store, "--codec", "lossy:bits=3")
    arrays, rows = stored(store)
    found = arrays["v", "cat", 0].reshape(-1)
    assert np.isnan(found[0]) and list(found[1:4]) == [np.inf, -np.inf, -61440] and set(found[4:]) == {61440}
    row = rows["v", "cat", 0]
    assert (row["max_error"], row["mean_error"]) == (65504 - 61440, 65504 - 61440)
    attnkit("verify", store, "--against", made)


def test_without_it_nothing_is_lost_and_no_error_told(attnkit, tmp_path):
    attnkit("ingest", DATASET, "--store", tmp_path / "store", "--videos", "prompt_000*")
    arrays, rows = stored(tmp_path / "store")
    expected = step_arrays(DATASET)
    assert arrays and all(same_bits(arrays[key], expected[key]) for key in arrays)
    assert {(row["max_error"], row["mean_error"]) for row in rows.values()} == {(None, None)}


def test_other_bits_are_other_values_and_are_not_mixed(attnkit, finished, dump, tmp_path):
    made, store = dump("float16"), tmp_path / "store"
    ingest = ["ingest", made, "--store", store]
    attnkit(*ingest)
    exact = stored(store)[0]
    # Another codec is no reason to write the same values again; rounding makes others.
    kept = finished(*ingest, "--codec", "lossy:bits=5")
    assert "bits null, now 5" in kept.stderr and "--replace" in kept.stderr
    assert all(same_bits(array, exact[key]) for key, array in stored(store)[0].items())
    attnkit(*ingest, "--codec", "lossy:bits=5", "--replace")
    arrays, rows = stored(store)
    assert all(same_bits(arrays[key], as_rounded(exact[key], 5)) for key in exact)
    before = {key: row["array"] for key, row in rows.items()}
    for again in (["--codec", "lossy:bits=5"], ["--codec", "lossy:bits=5", "--replace"]):
        attnkit(*ingest, *again)
        assert {key: row["array"] for key, row in stored(store)[1].items()} == before
    assert "bits 5, now null" in finished(*ingest).stderr
    assert {key: row["array"] for key, row in stored(store)[1].items()} == before
    attnkit(*ingest, "--replace")
    arrays, rows = stored(store)
    assert all(same_bits(arrays[key], exact[key]) for key in exact)
    assert {row["max_error"] for row in rows.values()} == {None} and lossy_of(store) == [{}, {}]


def test_steps_that_come_later_are_rounded_and_what_is_known_of_the_others_stays(attnkit, dump, tmp_path):
    made, store = dump("float32", steps=2), tmp_path / "store"
    ingest = ["ingest", made, "--store", store, "--codec", "lossy:bits=4"]
    attnkit(*ingest)
    before = stored(store)[1]
    made = dump("float32", steps=5)
    for step in range(2):  # Only the store has these now.
        for token in ("cat", "dog"):
            for file in (made / "v" / f"token_{token}").glob(f"step_{step:03}*"):
                os.remove(file)
    attnkit(*ingest)
    arrays, rows = stored(store)
    for token in ("cat", "dog"):
        for step in range(5):
            assert same_bits(arrays["v", token, step], as_rounded(array_of("float32", step), 4))
            assert rows["v", token, step]["max_error"] > 0
    for key, row in before.items():
        assert (rows[key]["max_error"], rows[key]["mean_error"]) == (row["max_error"], row["mean_error"])
    attnkit("compact", store)
    assert {key: row["max_error"] for key, row in stored(store)[1].items()} == {
        key: row["max_error"] for key, row in rows.items()
    }


def test_averages_are_rounded_last(attnkit, dump, tmp_path):
    made, store = dump("float32"), tmp_path / "store"
    attnkit("ingest", made, "--store", store, "--codec", "lossy:bits=6", "--average", "heads", "--dtype", "float16")
    for key, array in step_arrays(made).items():
        averaged = array.astype(np.float64).mean(axis=1, keepdims=True).astype(np.float16)
        arrays, rows = stored(store)
        assert same_bits(arrays[key], as_rounded(averaged, 6))
        differences = np.abs(averaged.astype(np.float64) - as_rounded(averaged, 6).astype(np.float64))
        assert rows[key]["max_error"] == differences.max()


def test_an_export_says_what_was_lost(attnkit, dump, tmp_path):
    made, store = dump("float16"), tmp_path / "store"
    attnkit("ingest", made, "--store", store, "--codec", "lossy:bits=6")
    attnkit("export", store, "--out", tmp_path / "out")
    attnkit("ingest", tmp_path / "out", "--store", tmp_path / "again")
    assert lossy_of(tmp_path / "again") == [{"bits": 6}] * 2
    attnkit("ingest", tmp_path / "out", "--store", tmp_path / "finer", "--codec", "lossy:bits=8")
    rows = stored(tmp_path / "finer")[1]
    assert lossy_of(tmp_path / "finer") == [{"bits": 6}] * 2 and {row["max_error"] for row in rows.values()} == {0}
    assert "lossy: bits 6" in attnkit("info", tmp_path / "again")
    # What values were before cannot be told of it: they are those of the store.
    attnkit("verify", store, "--against", tmp_path / "out")


def test_steps_whose_files_are_gone_are_not_written_with_other_bits(attnkit, finished, dump, tmp_path):
    made, store = dump("float32"), tmp_path / "store"
    attnkit("ingest", made, "--store", store, "--codec", "lossy:bits=3")
    before = stored(store)[0]
    for file in (made / "v" / "token_cat").glob("step_000*"):
        os.remove(file)
    refused = finished("ingest", made, "--store", store, "--codec", "lossy:bits=2", "--replace", code=3)
    assert "holds step 0 of this word, which is not in the dump now" in refused.stderr
    assert "bits 3, now 2" in refused.stderr
    after = stored(store)[0]
    assert all(same_bits(after[key], before[key]) for key in before if key[1] == "cat")
    assert all(same_bits(after[key], as_rounded(array_of("float32", key[2]), 2)) for key in after if key[1] == "dog")


def test_repair_ingests_lost_videos_as_they_were(attnkit, finished, tmp_path):
    """Of a pack whose rows are damaged, its records say how each video was ingested."""
    steps = range(3)
    ways = {"a": ["--codec", "lossy:bits=3"], "b": ["--average", "heads"], "c": [], "d": ["--codec", "lossy:bits=3"]}
    store, dumps = tmp_path / "store", []
    for video, way in ways.items():
        arrays = {(video, "cat", step): (array_of("float32", step + ord(video)), {}) for step in steps}
        dumps.append(write_dump(tmp_path / video, arrays))
        attnkit("ingest", dumps[-1], "--store", store, *way)
    attnkit("compact", store)
    before, rows = stored(store)
    (pack,) = (store / "index" / "steps").glob("pack*")
    contents = bytearray(pack.read_bytes())
    contents[100] ^= 1
    pack.write_bytes(contents)
    told = finished("repair", store, *(part for dump in dumps for part in ("--from", dump)), code=None)
    after, rows_after = stored(store)
    assert after.keys() == before.keys(), told.stderr
    assert all(same_bits(after[key], before[key]) for key in before)
    errors = lambda of: {key: (row["max_error"], row["mean_error"]) for key, row in of.items()}
    assert errors(rows_after) == errors(rows)


@pytest.mark.parametrize(
    ("codec", "told"),
    [
        ("lossy", "lossy:bits=N, with N from 1 to 51"),
        ("lossy:bits=0", "from 1 to 51"),
        ("lossy:bits=52", "from 1 to 51"),
        ("lossy:bits=-1", "from 1 to 51"),
        ("lossy:bits=7.5", "from 1 to 51"),
        ("lossy:7", "lossy:bits=N"),
        ("lz4", "is not one of fast, balanced, small, none, lossy:bits=N"),
    ],
)
def test_what_is_no_codec_is_refused(finished, tmp_path, codec, told):
    refused = finished("ingest", DATASET, "--store", tmp_path / "store", "--codec", codec, code=2)
    assert told in refused.stderr and not (tmp_path / "store").exists()
