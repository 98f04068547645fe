"""How the dump is given, what it is called, and where its maps are."""

import shutil
from itertools import product

from changes import Copy, both
from good_dump import IDS, OTHER, SEEDS, VIDEO
from mutation import M, several
from outcomes import ANYTHING, REFUSED, SAME


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
