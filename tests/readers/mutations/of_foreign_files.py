"""Files and directories that are no part of a dump."""

import os

from additions import add_files, add_word
from changes import Copy
from good_dump import VIDEO
from mutation import M, several
from outcomes import ANYTHING, NAMED, OTHERS_LEFT_OUT, SAME, spelled

JUNK = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(60)
EVERYWHERE = lambda dump: dump.root, Copy.maps, Copy.video, Copy.word
OUTSIDE = EVERYWHERE[:3]
NOTES = (
    *("notes.txt", "README.md", "preview.png", "~$notes.docx", "nohup.out", "core", "x", "events.json", "step"),
    *("events.out.tfevents.1", "summary.json", "metadata.json", "notes/today.txt", "token_cat", "new\nline"),
)
BESIDE_WORDS = (
    *("notes.txt", "batch_metadata.json", "configs/run.yaml", "videos/a.mp4", "logs/x.log", "token.txt", "video.mp4"),
    *("empty/.keep", "token_x.txt", "a/b/c/d/e/f.txt"),
)


def left(*names):
    """What systems and tools leave in any directory is no part of a dump."""
    return M(f"{several(names)} in every directory", add_files(*names, places=EVERYWHERE, content=JUNK), SAME)


def mirrored(top, name="{}", content=None, where=Copy.maps):
    """A second tree beside the maps, with a file for each of theirs."""

    def change(dump):
        for path in [path for path in dump.root.rglob("*") if path.is_file()]:
            copy = where(dump) / top / path.relative_to(dump.root).parent / name.format(path.name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes() if content is None else content)

    return change


def empty_directories(dump):
    for name in ("v3", "x", f"{VIDEO}/token_bird"):
        (dump.maps() / name).mkdir()


FOREIGN = [
    left(".DS_Store", "._step_001.npy", "._step_001_metadata.json", "._summary.json", "._token_cat", ".directory",
         "__MACOSX/._step_001.npy", ".AppleDouble/step_001.npy", ".Trash-1000/step_001.npy", "Icon\r", "Thumbs.db",
         "ehthumbs.db", "desktop.ini"),
    left(".nfs000000000042", ".fuse_hidden0001", ".step_001.npy.swp", ".step_001.npy.Xa1b2c", ".~lock.notes#",
         ".gitkeep", ".git/objects/00", ".hidden/token_cat/step_000.npy", ".ipynb_checkpoints/step_001-checkpoint.npy"),
    left("@eaDir/step_001.npy/THUMB.jpg", "@Recycle/step_001.npy", "#recycle/step_001.npy", "#snapshot/step_001.npy",
         "@tmp/step_001.npy", "~snapshot/step_001.npy", "THUMBS.DB", "__macosx/._step_001.npy", "Desktop.ini",
         "$RECYCLE.BIN/step_001.npy", "System Volume Information/x", "lost+found/step_001.npy", "__pycache__/x.pyc"),
    M("files that are no steps, in a word", add_files(*NOTES), NAMED),
    M("files that are like steps, in a word", add_files("step", "\u00e9.npy", "new\nline.npy", "x.pt", "x.safetensors"),
      NAMED),
    M("steps below a word", add_files("run2/step_000.npy", "old/1/step_000.npy.gz", "step_7/step_000.pt"),
      OTHERS_LEFT_OUT),
    M("steps whose names have directories of another system in them",
      add_files("token_cat\\step_007.npy", places=(Copy.video,)), OTHERS_LEFT_OUT, says="outside"),
    M("such steps of all videos", add_files("prompt_001_vid001\\token_cat\\step_000.npy", places=(Copy.maps,)),
      OTHERS_LEFT_OUT, says="outside"),
    M("steps further below than is searched", add_files("/".join("abcdefghijklmnopqrs") + "/step_000.npy",
                                                        places=(lambda dump: dump.root,)), NAMED, warns=ANYTHING),
    M("files beside the words", add_files(*BESIDE_WORDS, places=OUTSIDE), SAME, warns=ANYTHING),
    M("a tree of what the Finder adds", mirrored("__MACOSX", "._{}", JUNK, lambda dump: dump.root), SAME),
    M("a tree of what the Finder adds, beside the videos", mirrored("__MACOSX", "._{}", JUNK), SAME),
    M("a whole copy below #snapshot", mirrored("#snapshot/daily"), SAME),
    M("empty directories", empty_directories, SAME, warns=ANYTHING),
    M("names that are not UTF-8", add_files(os.fsdecode(b"step_\xff.npy"), os.fsdecode(b"caf\xe9")), NAMED),
    M("a word whose directory is not UTF-8", add_word("caf\u00e9", os.fsdecode(b"caf\xe9")),
      (spelled(("caf\u00e9", VIDEO)), spelled(("caf\ufffd", VIDEO)), OTHERS_LEFT_OUT), warns=ANYTHING),
]  # fmt: skip
