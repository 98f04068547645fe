"""Whatever fails, whenever the process dies or the power goes: nothing that was committed is lost, nothing damaged is
believed, and the next run ends as if nothing had happened.

A sample that is drawn at random takes two or three minutes; `ATTNKIT_TORTURE=1` (`make torture`) tries every call,
every fault and every state.
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
SCENES = [
    "first",
    "another video",
    "more steps",
    "replaced",
    "watch",
    "gc",
    "compact",
    "compact, beside a pack",
    "packed, more steps",
    "packed, replaced",
    "gc, leftovers of compact",
    "gc, no index",
    "gc, half a commit",
    "compact, no index",
    "ingest, no index",
    "compact, renamed",
    "packed, more steps, renamed",
]
# Of these, more is drawn.
LONG_KNOWN = SCENES[:6]
ENDINGS = (0, 1, 2, 3)
EIO = f"errno {errno.EIO}"


def drawn(name, cases, count):
    """All cases, or so many of them."""
    cases = list(cases)
    return cases if IS_FULL else random.Random(name).sample(cases, min(count, len(cases)))


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return tmp_path_factory.mktemp("scenes")


@pytest.fixture(scope="module")
def all_scenes(places, library):
    return scenes.scenes(places, library)


def recorded(scene, place):
    """Names and paths of the calls of an undisturbed run."""
    store, log = place / "store", place / "log"
    shim.fresh_copy(scene.before, store)
    log.unlink(missing_ok=True)
    finished = scene.run(store, log=log)
    assert finished.returncode == 0, finished.stderr
    assert scenes.told(store) == scenes.told(scene.after)
    return shim.lines(log)


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


def moves_an_index(name, path):
    return name == "renameat2" or (name == "rename" and (path.endswith("/index") or "/.index." in path))


@pytest.mark.parametrize("name", SCENES)
def test_every_call_that_fails_or_is_the_last_one_costs_nothing(all_scenes, tmp_path, name):
    scene, store = all_scenes[name], tmp_path / "store"
    made = recorded(scene, tmp_path)
    tried = Counter()
    cases = [(number, fault) for number in range(1, len(made) + 1) for fault in shim.FAULTS]
    count = {"watch": 12}.get(name, 30 if name in LONG_KNOWN else 8)
    decisive = [case for case in cases if moves_an_index(*made[case[0] - 1]) and case[1] in ("before", "after", EIO)]
    for number, fault in sorted({*drawn(name, cases, count), *decisive}):
        call = made[number - 1][0]
        if fault == "short" and call not in ("read", "write", "writev", "pread", "pwrite"):
            continue
        shim.fresh_copy(scene.before, store)
        finished = scene.run(store, at=number, how=fault)
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


@pytest.mark.parametrize("name", [name for name in SCENES if name not in ("another video", "watch")])
def test_what_is_left_when_the_power_goes_is_a_store(all_scenes, tmp_path, name):
    scene, store, written = all_scenes[name], tmp_path / "store", tmp_path / "journal"
    shim.fresh_copy(scene.before, store)
    disk = journal.Disk(store)
    assert scene.run(store, journal=written).returncode == 0
    done = list(journal.records(written))
    cases = [(number, loss) for number in range(len(done) + 1) for loss in journal.LOSSES]
    # Right before and after what decides.
    moves = [number for number, (kind, path, *_) in enumerate(done) if kind == "X" or (kind == "R" and "index" in path)]
    decisive = {(number + after, loss) for number in moves for after in (0, 1) for loss in journal.LOSSES}
    decisive |= {(len(done), loss) for loss in journal.LOSSES}
    wanted = {*drawn(name, cases, 25 if name in LONG_KNOWN else 6), *decisive}
    for number in range(len(done) + 1):
        for loss in journal.LOSSES:
            if (number, loss) not in wanted:
                continue
            shutil.rmtree(store)
            disk.write(store, loss)
            try:
                scene.judge(store)
                # What was said to be done is done.
                assert number < len(done) or scenes.told(store) == scenes.told(scene.after), "it is not there"
                scene.again(store)
            except Exception as error:
                raise AssertionError(f"after {number} of {len(done)} records, {loss} lost: {error}") from error
            store.mkdir(exist_ok=True)
        if number < len(done):
            disk.apply(*done[number])
    print(f"{name}: {len(wanted)} states")


@pytest.mark.parametrize("name", ["first", "replaced", "compact", "packed, replaced"])
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


def test_whoever_finds_no_index_is_told_how_it_comes_back(all_scenes):
    store = all_scenes["gc, no index"].before
    for command in (*scenes.READING, ["gc", "--dry-run"], ["export", "--out", "nowhere"]):
        told = shim.run(*command, store).stderr
        assert "No such file" not in told and "attnkit gc" in told, f"{command}: {told}"


def test_an_index_that_was_set_aside_long_ago_is_not_put_back(library, all_scenes, tmp_path):
    store, full, other = tmp_path / "store", all_scenes["replaced"].after, all_scenes["replaced"].before
    replace = all_scenes["replaced"].command
    for turn in range(8):
        shim.fresh_copy(other, store)
        for where, commits in [(scenes.OUT_OF_THE_WAY, True), (scenes.PUT_IN_PLACE, False)]:
            scenes.interrupted(library, store, *where, "compact", "STORE", **scenes.NO_EXCHANGE)
            if commits:
                assert shim.run(*asked(replace, store)).returncode == 0
        assert not (store / "index").exists() and list(store.glob(".index.*.old"))
        assert shim.run("gc", store).returncode == 0
        assert scenes.told(store) == scenes.told(full), f"turn {turn}: what was committed is lost"


@pytest.mark.parametrize("settings", [{}, scenes.NO_EXCHANGE], ids=["exchanged", "renamed"])
def test_killed_time_and_again_nothing_goes_and_nothing_comes_back(library, all_scenes, tmp_path, settings):
    """Commits and packs in turn, most of them killed where names change: of each video, there is what was committed
    last, or what was about to be."""
    store, chance = tmp_path / "store", random.Random(len(settings))
    scene = all_scenes["packed, replaced"]
    commands = [["ingest", one, "--store", "STORE", "--replace", "-q", "--threads", "1"] for one in scene.dumps]
    known = [step_arrays(one) for one in scene.dumps]
    videos = sorted({key[0] for key in known[0]})
    shim.fresh_copy(scene.after, store)
    allowed = {video: {0} for video in videos}
    said = []
    for _ in range(600 if IS_FULL else 25):
        number = chance.choice([0, 1, 2, 2, 2, 3])
        command = [*commands, ["compact", "STORE"], ["gc", "STORE"]][number]
        kill = {"only": chance.choice(["rename", "renameat2", "unlinkat"]), "at": chance.randint(1, 8)}
        kill["how"] = chance.choice(shim.KILLS)
        ended = shim.run(*asked(command, store), library=library, root=store, **kill, **settings)
        said.append(f"{command[0]}{number} {kill}: {ended.returncode}")
        did_not_break(ended, kill["how"])
        assert ended.returncode in (0, -9), (said, ended.stderr)
        if number < 2:
            allowed = {video: {number} if ended.returncode == 0 else was | {number} for video, was in allowed.items()}
        judged = store
        if not (store / "index").exists():
            judged = tmp_path / "judged"
            shim.fresh_copy(store, judged)
            restored = shim.run("gc", judged)
            assert restored.returncode == 0, (said, restored.stderr)
        checked = json.loads(shim.run("verify", judged, "--json").stdout)
        assert all(scenes.UNFINISHED in fault["error"] for fault in checked["faults"]), (said, checked)
        found = {key: one.tobytes() for key, one in scenes.values(judged).items()}
        for video in videos:
            held = {key: one for key, one in found.items() if key[0] == video}
            is_it = [held == {key: one.tobytes() for key, one in of.items() if key[0] == video} for of in known]
            there = allowed[video] & {one for one in range(len(known)) if is_it[one]}
            assert there, f"{video} is not what it was: {said}"
            # What is half in its place may be finished by whoever comes next.
            allowed[video] = allowed[video] if checked["faults"] else there


QUESTIONS = [
    ["query", "list", "STORE", "--table", "heads"],
    ["query", "average", "STORE", "--over", "block,head", "--format", "csv"],
    ["query", "map", "STORE", "--token", "cat", "--video", "prompt_000_vid001", "--step", "1", "--format", "json"],
    ["query", "sql", "STORE", "SELECT video_id, token, count(*) AS n FROM heads GROUP BY video_id, token ORDER BY "
                              "video_id, token"],
    ["info", "STORE", "--json"],
]  # fmt: skip


@pytest.mark.parametrize("of", ["first", "compact, beside a pack"])
@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: " ".join(question[:2]))
def test_a_question_that_is_disturbed_is_answered_rightly_or_not_at_all(library, all_scenes, tmp_path, question, of):
    store, log, source = tmp_path / "store", tmp_path / "log", all_scenes[of].after
    shim.fresh_copy(source, store)
    right = shim.run(*asked(question, store), "--threads", "1", library=library, root=store, log=log)
    assert right.returncode == 0, right.stderr
    names = shim.calls(log)
    faults = [fault for fault in shim.FAULTS if fault not in shim.KILLS]
    cases = [(number, fault) for number in range(1, len(names) + 1) for fault in faults]
    for number, fault in drawn(" ".join(question), cases, 40 if of == "first" else 10):
        answer = shim.run(*asked(question, store), "--threads", "1", library=library, root=store, at=number, how=fault)
        case = f"call {number} ({names[number - 1]}), {fault}: {answer.stdout}{answer.stderr}"
        did_not_break(answer, fault)
        assert answer.returncode != 0 or answer.stdout == right.stdout, case
    assert scenes.told(store) == scenes.told(source)


# What is stopped at some call, what is run meanwhile, and what the store is before: all of scenes.
INTERLEAVED = {
    "a commit, packing": ("packed, replaced", "compact", "packed, replaced"),
    "a first commit, packing": ("replaced", "compact", "replaced"),
    "more steps, packing": ("packed, more steps", "compact", "packed, more steps"),
    "a commit, the same": ("packed, replaced", "replaced", "packed, replaced"),
    "packing, a commit": ("compact", "replaced", "replaced"),
    "packing, unpacking": ("compact", "replaced", "compact, beside a pack"),
    "packing, packing": ("compact", "compact", "compact, beside a pack"),
}


@pytest.mark.parametrize("settings", [{}, scenes.NO_EXCHANGE], ids=["exchanged", "renamed"])
@pytest.mark.parametrize("name", INTERLEAVED)
def test_between_any_two_calls_of_a_writer_there_may_be_another_one(library, all_scenes, tmp_path, name, settings):
    *commands, before = (all_scenes[scene] for scene in INTERLEAVED[name])
    store, log = tmp_path / "store", tmp_path / "log"
    one, other = (scene.arguments(store) for scene in commands)
    shim.fresh_copy(before.before, store)
    assert shim.run(*one, library=library, root=store, log=log, **settings).returncode == 0
    assert shim.run(*other).returncode == 0
    right = scenes.told(store)
    for at in sorted(drawn(name, range(1, len(shim.calls(log)) + 1), 5)):
        shim.fresh_copy(before.before, store)
        for ended in shim.run_with_another(one, other, library, at, root=store, **settings):
            assert ended.returncode == 0, f"call {at}: {ended.args}: {ended.stdout}{ended.stderr}"
        assert scenes.told(store) == right, f"call {at}"
        checked = shim.run("verify", store)
        assert checked.returncode == 0, f"call {at}: {checked.stdout}{checked.stderr}"
        cleaned = [shim.run("gc", store) for _ in range(2)][1]
        assert cleaned.stdout == "nothing to remove\n", f"call {at}: {cleaned.stdout}{cleaned.stderr}"


def said_in(answer):
    """An answer, without the bytes that files have."""
    without_bytes = lambda found: {key: value for key, value in found.items() if key != "bytes"}
    if answer.stdout.startswith("{"):
        return answer.returncode, json.loads(answer.stdout, object_hook=without_bytes)
    return answer.returncode, answer.stdout


@pytest.mark.parametrize("settings", [{}, scenes.NO_EXCHANGE], ids=["exchanged", "renamed"])
@pytest.mark.parametrize("meanwhile", ["compact, beside a pack", "packed, more steps"])
@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: " ".join(question[:2]))
def test_a_question_is_answered_of_the_state_before_or_after(
    library, all_scenes, tmp_path, question, meanwhile, settings
):
    scene, store, log = all_scenes[meanwhile], tmp_path / "store", tmp_path / "log"
    asks = [*asked(question, store), "--threads", "1"]
    shim.fresh_copy(scene.before, store)
    right = [said_in(shim.run(*asks, library=library, root=store, log=log))]
    assert scene.run(store).returncode == 0
    right.append(said_in(shim.run(*asks)))
    assert right[1][0] == 0
    for at in sorted(drawn(" ".join(question), range(1, len(shim.calls(log)) + 1), 1)):
        shim.fresh_copy(scene.before, store)
        answer, _ = shim.run_with_another(asks, scene.arguments(store), library, at, root=store, **settings)
        assert said_in(answer) in right, f"call {at}: {answer.stderr}{answer.stdout}"


def test_a_writer_that_runs_while_another_one_dies_puts_the_index_back(library, all_scenes, tmp_path):
    scene, store, log = all_scenes["replaced"], tmp_path / "store", tmp_path / "log"
    shim.fresh_copy(scene.before, store)
    assert scene.run(store, log=log).returncode == 0
    dies = {"only": "rename", "at": 2, "how": "before", **scenes.NO_EXCHANGE}
    for at in sorted(drawn("dies", range(1, len(shim.calls(log)) + 1), 4)):
        shim.fresh_copy(scene.before, store)
        written, died = shim.run_with_another(
            scene.arguments(store), ["compact", store], library, at, of_other=dies, root=store
        )
        assert died.returncode in (0, -9), died.stderr
        assert written.returncode == 0, f"call {at}: {written.stderr}"
        scene.judge(store)
        scene.again(store)


def test_videos_keep_their_ids_where_the_index_was_set_aside(library, tmp_path):
    """Which id a video has, of those of a dump with several batches, is known from the store."""
    dumps, store = tmp_path / "dumps", tmp_path / "store"
    scenes.dump(dumps / "one")
    scenes.ingested(dumps, store)
    scenes.dump(dumps / "two", salt=1)
    scenes.interrupted(library, store, *scenes.PUT_IN_PLACE, "compact", "STORE", **scenes.NO_EXCHANGE)
    scenes.ingested(dumps, store)
    videos = {video for video, *_ in scenes.rows(store)}
    assert videos == {f"{batch}prompt_{video:03}_vid001" for batch in ("", "two/") for video in (0, 1)}


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
        repair = ["repair", store, "--from", scene.dumps[1]]
        for writes in (scene.arguments(store), ["gc", store], ["compact", store], repair):
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


@pytest.mark.parametrize("settings", [{}, scenes.NO_EXCHANGE], ids=["exchanged", "renamed"])
def test_many_writers_beside_readers_mix_nothing(library, places, tmp_path, settings):
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
    started = lambda *arguments: shim.start(*arguments, library=library, root=store, **settings)
    read = packed = turn = 0
    while time.monotonic() < until:
        turn += 1
        sources = [dumps[10 + (turn + writer) % 2] for writer in range(6)] + [others, others]
        writers = [started("ingest", source, "--store", store, "--replace", "-q") for source in sources]
        packs = [started("compact", store) for _ in range(2)]
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
        for pack in packs:
            said = pack.communicate()
            # Whoever packs gives up where others commit again and again.
            assert pack.returncode == 0 or ("error: " in said[1] and str(store) in said[1]), said
            packed += "packed" in said[0]
        checked = shim.run("verify", store)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        found = scenes.values(store)
        for video in {key[0] for key in found}:
            of_video = {key: one.tobytes() for key, one in found.items() if key[0] == video}
            assert any(
                of_video == {key: one.tobytes() for key, one in of.items() if key[0] == video} for of in right.values()
            ), f"{video} is mixed of two dumps"
    assert read > 0 and packed > 0
    print(f"{turn * 8} ingests, {packed} times packed, {read} answers beside them")


@pytest.mark.parametrize(("of", "below", "count"), [("first", "", 60), ("compact, beside a pack", "index", 30)])
def test_every_flipped_bit_is_found_and_no_number_is_wrong(all_scenes, tmp_path, of, below, count):
    store, chance = tmp_path / "store", random.Random(7)
    shim.fresh_copy(all_scenes[of].after, store)
    questions = [asked(question, store) for question in QUESTIONS[:3]]
    right = [shim.run(*question).stdout for question in questions]
    files = sorted(path for path in (store / below).rglob("*") if path.is_file() and path.stat().st_size)
    for _ in range(10_000 if IS_FULL else count):
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
