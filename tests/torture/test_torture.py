"""Whatever fails, whenever the process dies or the power goes: nothing that was committed is lost, nothing damaged is
believed, and the next run ends as if nothing had happened.

A sample that is drawn at random takes a minute; `ATTNKIT_TORTURE=1` (`make torture`) tries every call, every fault and
every state.
"""

import csv
import errno
import json
import os
import random
import shutil
import subprocess
import time
from collections import Counter

import journal
import numpy as np
import pytest
import scenes
import shim
from scenes import asked
from source_dump import step_arrays

IS_FULL = bool(os.environ.get("ATTNKIT_TORTURE"))
SCENES = ["first", "another video", "more steps", "replaced", "watch", "gc"]
ENDINGS = (0, 1, 2, 3)


def drawn(name, cases, count):
    """All cases, or so many of them."""
    cases = list(cases)
    return cases if IS_FULL else random.Random(name).sample(cases, min(count, len(cases)))


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return tmp_path_factory.mktemp("scenes")


@pytest.fixture(scope="module")
def all_scenes(places):
    return scenes.scenes(places)


def recorded(library, scene, place):
    """The names of the calls of an undisturbed run."""
    store, log = place / "store", place / "log"
    shim.fresh_copy(scene.before, store)
    log.unlink(missing_ok=True)
    finished = shim.run(*scene.arguments(store), library=library, root=store, log=log)
    assert finished.returncode == 0, finished.stderr
    assert scenes.told(store) == scenes.told(scene.after)
    return shim.calls(log)


def did_not_break(finished, fault):
    """It ended as commands do: of itself, in an answer or in an error that names a file."""
    said = finished.stdout + finished.stderr
    assert "panicked" not in said, said
    if fault in shim.KILLS and finished.returncode == -9:
        return
    assert finished.returncode in ENDINGS, f"ended with {finished.returncode}: {said}"
    assert finished.returncode != 1 or ("error: " in said and ("/" in said or "attnkit verify" in said)), (
        f"an error that names nothing: {said}"
    )


@pytest.mark.parametrize("name", SCENES)
def test_every_call_that_fails_or_is_the_last_one_costs_nothing(library, all_scenes, tmp_path, name):
    scene, store = all_scenes[name], tmp_path / "store"
    names = recorded(library, scene, tmp_path)
    tried = Counter()
    cases = [(number, fault) for number in range(1, len(names) + 1) for fault in shim.FAULTS]
    for number, fault in drawn(name, cases, 12 if name == "watch" else 30):
        call = names[number - 1]
        if fault == "short" and call not in ("read", "write", "writev", "pread", "pwrite"):
            continue
        shim.fresh_copy(scene.before, store)
        finished = shim.run(*scene.arguments(store), library=library, root=store, at=number, how=fault)
        try:
            did_not_break(finished, fault)
            scene.judge(store)
            scene.again(store)
        except Exception as error:
            raise AssertionError(
                f"call {number} ({call}), {fault}: {finished.stdout}{finished.stderr}\n{error}"
            ) from error
        tried[call] += 1
    print(f"{name}: {sum(tried.values())} disturbed runs: {dict(tried)}")


@pytest.mark.parametrize("name", ["first", "more steps", "replaced", "gc"])
def test_what_is_left_when_the_power_goes_is_a_store(library, all_scenes, tmp_path, name):
    scene, store, written = all_scenes[name], tmp_path / "store", tmp_path / "journal"
    shim.fresh_copy(scene.before, store)
    disk = journal.Disk(store)
    assert shim.run(*scene.arguments(store), library=library, root=store, journal=written).returncode == 0
    done = list(journal.records(written))
    cases = [(number, loss) for number in range(len(done) + 1) for loss in journal.LOSSES]
    wanted = set(drawn(name, cases, 25))
    for number in range(len(done) + 1):
        for loss in journal.LOSSES:
            if (number, loss) not in wanted:
                continue
            shutil.rmtree(store)
            disk.write(store, loss)
            try:
                scene.judge(store)
                scene.again(store)
            except Exception as error:
                raise AssertionError(f"after {number} of {len(done)} records, {loss} lost: {error}") from error
            store.mkdir(exist_ok=True)
        if number < len(done):
            disk.apply(*done[number])
    print(f"{name}: {len(wanted)} states")


@pytest.mark.parametrize("name", ["first", "replaced"])
def test_kill_after_kill_gets_there(all_scenes, tmp_path, name):
    scene, store, chance = all_scenes[name], tmp_path / "store", random.Random(name)
    for _ in range(40 if IS_FULL else 2):
        shim.fresh_copy(scene.before, store)
        ended = None
        while ended != 0:
            running = subprocess.Popen(
                [shim.BINARY, *scene.arguments(store)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            time.sleep(chance.uniform(0, 0.12))
            running.kill()
            ended = running.wait()
            scene.judge(store)
        scene.again(store)


QUESTIONS = [
    ["query", "list", "STORE", "--table", "heads"],
    ["query", "average", "STORE", "--over", "block,head", "--format", "csv"],
    ["query", "map", "STORE", "--token", "cat", "--video", "prompt_000_vid001", "--step", "1", "--format", "json"],
    ["query", "sql", "STORE", "SELECT video_id, token, count(*) AS n FROM heads GROUP BY video_id, token ORDER BY "
                              "video_id, token"],
    ["info", "STORE", "--json"],
]  # fmt: skip


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: " ".join(question[:2]))
def test_a_question_that_is_disturbed_is_answered_rightly_or_not_at_all(library, all_scenes, tmp_path, question):
    store, log = tmp_path / "store", tmp_path / "log"
    shim.fresh_copy(all_scenes["first"].after, store)
    right = shim.run(*asked(question, store), "--threads", "1", library=library, root=store, log=log)
    assert right.returncode == 0, right.stderr
    names = shim.calls(log)
    faults = [fault for fault in shim.FAULTS if fault not in shim.KILLS]
    cases = [(number, fault) for number in range(1, len(names) + 1) for fault in faults]
    for number, fault in drawn(" ".join(question), cases, 40):
        answer = shim.run(*asked(question, store), "--threads", "1", library=library, root=store, at=number, how=fault)
        case = f"call {number} ({names[number - 1]}), {fault}: {answer.stdout}{answer.stderr}"
        did_not_break(answer, fault)
        assert answer.returncode != 0 or answer.stdout == right.stdout, case
    assert scenes.told(store) == scenes.told(all_scenes["first"].after)


OUTPUTS = [
    ["export", "STORE", "--out", "OUT/dump"],
    ["query", "average", "STORE", "--over", "block,head", "-o", "OUT/maps.npy"],
    ["query", "average", "STORE", "--over", "block,head", "-o", "OUT/maps.zarr"],
    ["query", "list", "STORE", "-o", "OUT/list.parquet"],
    ["query", "list", "STORE", "-o", "OUT/list.csv"],
]  # fmt: skip


@pytest.mark.parametrize("command", OUTPUTS, ids=lambda command: command[-1])
def test_what_is_written_of_an_answer_is_whole_or_absent(library, all_scenes, tmp_path, command):
    store, out, log = all_scenes["first"].after, tmp_path / "out", tmp_path / "log"
    arguments = [part.replace("OUT", str(out)) for part in asked(command, store)]
    out.mkdir()
    assert shim.run(*arguments, "--threads", "1", library=library, root=out, log=log).returncode == 0
    tree = lambda: {
        path.relative_to(out): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and not any(part.startswith(".attnkit-") for part in path.relative_to(out).parts)
    }
    whole, names = tree(), shim.calls(log)
    is_export = command[0] == "export"
    cases = [(number, fault) for number in range(1, len(names) + 1) for fault in shim.FAULTS]
    for number, fault in drawn(command[-1], cases, 25):
        shutil.rmtree(out)
        out.mkdir()
        finished = shim.run(*arguments, "--threads", "1", library=library, root=out, at=number, how=fault)
        case = f"call {number} ({names[number - 1]}), {fault}: {finished.stdout}{finished.stderr}"
        did_not_break(finished, fault)
        left = tree()
        assert all(left[path] == whole.get(path) for path in left), case
        assert finished.returncode != 0 or left == whole, case
        if ".zarr" in command[-1]:
            assert not left or left == whole, case
        # An export that is whole has nothing left to go on with.
        if left != whole or not is_export:
            again = shim.run(*arguments, "--threads", "1")
            assert again.returncode == 0, case + again.stderr
        assert tree() == whole, case


def test_a_file_system_without_locks_is_told_and_usable_by_one_writer(library, all_scenes, tmp_path):
    scene, store = all_scenes["replaced"], tmp_path / "store"
    for number in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
        for writes in (scene.arguments(store), ["gc", store], ["repair", store, "--from", scene.dumps[1]]):
            shim.fresh_copy(scene.before, store)
            if writes[0] == "repair":
                next(store.rglob("attention/c.0.0.0.0.0")).write_bytes(b"damaged")
            refused = shim.run(*writes, library=library, root=store, locks=number)
            assert refused.returncode == 1 and "no locks" in refused.stderr and "--single-writer" in refused.stderr, (
                refused.stderr
            )
            done = shim.run(*writes, "--single-writer", library=library, root=store, locks=number)
            assert done.returncode == 0, done.stderr
        shim.fresh_copy(scene.after, store)
        for question in QUESTIONS:
            assert shim.run(*asked(question, store), library=library, root=store, locks=number).returncode == 0


def test_many_writers_beside_readers_mix_nothing(places, tmp_path):
    store = tmp_path / "store"
    dumps = {salt: scenes.dump(places / f"salt_{salt}", salt=salt) for salt in (10, 11)}
    others = scenes.dump(tmp_path / "others", videos=4, salt=12)
    for video in ("prompt_000_vid001", "prompt_001_vid001"):
        shutil.rmtree(others / video)
    right = {salt: step_arrays(one) for salt, one in {**dumps, 12: others}.items()}
    mean = {
        salt: {key: float(array.astype(np.float64).mean()) for key, array in of.items()} for salt, of in right.items()
    }
    scenes.ingested(dumps[10], store)
    until = time.monotonic() + (120 if IS_FULL else 4)
    started = lambda *arguments: subprocess.Popen(
        [shim.BINARY, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    read = 0
    turn = 0
    while time.monotonic() < until:
        turn += 1
        sources = [dumps[10 + (turn + writer) % 2] for writer in range(6)] + [others, others]
        writers = [started("ingest", source, "--store", store, "--replace", "-q") for source in sources]
        while any(writer.poll() is None for writer in writers):
            answer = shim.run("query", "average", store, "--over", "block,head", "--format", "csv")
            assert answer.returncode in ENDINGS and "panicked" not in answer.stderr, answer.stderr
            if answer.returncode == 1:
                assert str(store) in answer.stderr, answer.stderr
                continue
            read += 1
            for line in csv.DictReader(answer.stdout.splitlines()):
                key = (line["video_id"], line["token"], int(line["step"]))
                known = [of[key] for of in mean.values() if key in of]
                assert any(abs(float(line["mean"]) - one) < 1e-5 for one in known), (line, known)
        for writer in writers:
            said = writer.communicate()
            assert writer.returncode == 0, said
        assert shim.run("verify", store).returncode == 0
        found = scenes.values(store)
        for video in {key[0] for key in found}:
            of_video = {key: one.tobytes() for key, one in found.items() if key[0] == video}
            assert any(
                of_video == {key: one.tobytes() for key, one in of.items() if key[0] == video} for of in right.values()
            ), f"{video} is mixed of two dumps"
    assert read > 0
    print(f"{turn * 8} ingests, {read} answers beside them")


def test_every_flipped_bit_is_found_and_no_number_is_wrong(all_scenes, tmp_path):
    store, chance = tmp_path / "store", random.Random(7)
    shim.fresh_copy(all_scenes["first"].after, store)
    questions = [asked(question, store) for question in QUESTIONS[:3]]
    right = [shim.run(*question).stdout for question in questions]
    files = sorted(path for path in store.rglob("*") if path.is_file() and path.stat().st_size)
    for _ in range(10_000 if IS_FULL else 60):
        path = chance.choice(files)
        contents = path.read_bytes()
        at, bit = chance.randrange(len(contents)), chance.randrange(8)
        path.write_bytes(contents[:at] + bytes([contents[at] ^ 1 << bit]) + contents[at + 1 :])
        place = f"bit {bit} of byte {at} of {path.relative_to(store)}"
        checked = shim.run("verify", store)
        assert checked.returncode == 1, f"{place} is not found: {checked.stdout}"
        for question, answer in zip(questions, right):
            found = shim.run(*question)
            assert found.returncode in ENDINGS and "panicked" not in found.stderr, place + found.stderr
            if found.returncode == 0:
                assert found.stdout == answer, f"{place} changes an answer"
            elif found.returncode == 3 and "json" not in question:
                assert set(found.stdout.splitlines()) <= set(answer.splitlines()), f"{place} changes an answer in part"
        path.write_bytes(contents)
    assert json.loads(shim.run("verify", store, "--json").stdout)["faults"] == []
