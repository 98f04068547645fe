"""Links, and directories, pipes, sockets, devices and files without end where files are expected."""

import os
import socket
from pathlib import Path

from additions import add_step
from changes import Copy, both, instead
from good_dump import ARRAYS, VIDEO, WORD
from mutation import M
from outcomes import ANYTHING, LEFT_OUT, NAMED, OTHERS_LEFT_OUT, SAME, WHOLE_WORD, changed, further


def linked(which, relative=False):
    """Something of the dump lies elsewhere, and a link leads there."""

    def change(dump):
        path, target = which(dump), dump.place / "elsewhere" / "job 8817" / "out"
        target.parent.mkdir(parents=True)
        path.rename(target)
        path.symlink_to(os.path.relpath(target, path.parent) if relative else target)

    return change


def link(where, to):
    """A further link."""
    return lambda dump: [where(dump).symlink_to(to) or where(dump)]


def linking(to):
    return lambda path: path.symlink_to(to)


def blobs(dump):
    """Every file is a link to one without a name."""
    for number, path in enumerate([*dump.root.rglob("*.*")]):
        path.symlink_to(path.rename(dump.place / f"{number}.blob"))


def circles(dump):
    for name, to in {"a": "b", "b": "a", "here": ".", f"{VIDEO}/up": "..", f"{VIDEO}/token_cat/.up": "../.."}.items():
        (dump.maps() / name).symlink_to(to)


def bind_socket(path):
    """A socket, bound from its directory: the path of one has a limit."""
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(path.parent)
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.fchdir(here)
        os.close(here)


def terabyte(which):
    """A file is that long, and its bytes are not written."""
    return lambda dump: [os.truncate(which(dump), 1 << 40) or which(dump)]


def of_step(change):
    """The report names the step's tensor or its metadata."""
    return lambda dump: [change(dump) and (dump.tensor(), dump.metadata())]


PLACES = {
    "a video": Copy.video,
    "a word": Copy.word,
    "a tensor": Copy.tensor,
    "metadata": Copy.metadata,
    "a summary": Copy.summary,
}
AGAIN = lambda dump: dump.maps() / "prompt_000_vid003"
ANOTHER_STEP = lambda dump: dump.tensor(7)

KINDS_OF_FILE = [
    *[M(f"{name} is a link", linked(which), SAME) for name, which in PLACES.items()],
    *[M(f"{name} is a relative link", linked(PLACES[name], relative=True), SAME) for name in ("a video", "a tensor")],
    M("attention_maps is a link", linked(Copy.maps), SAME),
    M("a link to a link",
      both(linked(Copy.video), lambda dump: dump.video().symlink_to(dump.video().rename(dump.place / "x"))), SAME),
    M("every file is a link to a blob", blobs, SAME),
    M("a word that links to nowhere", link(lambda dump: dump.word("bird"), "gone"), OTHERS_LEFT_OUT, says="gone"),
    M("a video that links to nowhere", link(AGAIN, "/gone/video"), OTHERS_LEFT_OUT, says="/gone/video"),
    M("a step that links to nowhere", link(ANOTHER_STEP, "gone.npy"), OTHERS_LEFT_OUT),
    M("a tensor that links to nowhere", instead(Copy.tensor, linking("gone.npy")), LEFT_OUT),
    M("metadata that links to nowhere", of_step(instead(Copy.metadata, linking("gone.json"))), LEFT_OUT),
    M("a tensor that links to itself", instead(Copy.tensor, linking("step_001.npy")), LEFT_OUT),
    M("a word that links to itself", link(lambda dump: dump.word("self"), "token_self"), OTHERS_LEFT_OUT),
    M("links in circles", circles, SAME, warns=ANYTHING),
    M("a link to all in a word", link(lambda dump: dump.word() / "up", "../../.."), NAMED),
    M("a link to a video beside it", link(AGAIN, VIDEO), SAME, warns="same directory"),
    M("a link to a video beside it, that sorts before", link(lambda dump: dump.maps() / "a", VIDEO), SAME,
      warns="same directory"),
    M("two links to a video elsewhere", both(linked(Copy.video), lambda dump: [
        AGAIN(dump).symlink_to(dump.video().readlink()) or AGAIN(dump)]), SAME, warns="same directory"),
    M("a link to all videos", link(lambda dump: dump.root / "again", "attention_maps"), SAME, warns="same directory"),
    M("a link to a word beside it", link(lambda dump: dump.word("kitten"), "token_cat"),
      (further({"token": "kitten"}, like=WHOLE_WORD), NAMED), warns=ANYTHING),
    M("a step that links to another", instead(Copy.tensor, linking("step_000.npy")),
      changed(array=lambda _: ARRAYS[VIDEO, WORD, 0])),
    M("a directory called like aggregates, with a step in it", lambda dump: [
        (dump.word() / "aggregates").mkdir() or (add_step(dump.word() / "aggregates",
         0) and dump.word() / "aggregates")],
      OTHERS_LEFT_OUT, says="outside"),
    M("a directory instead of a tensor", instead(Copy.tensor, Path.mkdir), LEFT_OUT, says="directory"),
    M("a pipe instead of a tensor", instead(Copy.tensor, os.mkfifo), LEFT_OUT, says="regular"),
    M("a pipe instead of metadata", of_step(instead(Copy.metadata, os.mkfifo)), LEFT_OUT, says="metadata"),
    M("a socket instead of a tensor", instead(Copy.tensor, bind_socket), LEFT_OUT, says="regular"),
    M("a device instead of a tensor", instead(Copy.tensor, linking("/dev/zero")), LEFT_OUT, says="regular"),
    M("a pipe beside the steps", instead(ANOTHER_STEP, os.mkfifo), OTHERS_LEFT_OUT, says="regular"),
    M("a tensor of a terabyte, not written", terabyte(Copy.tensor), LEFT_OUT, says="bytes"),
    M("metadata of a terabyte, not written", terabyte(Copy.metadata), LEFT_OUT, says="bytes"),
]  # fmt: skip
