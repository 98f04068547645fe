"""A copy of the good dump, and what is changed in it."""

import json

from good_dump import ARRAYS, STEP, VIDEO, WORD


class Copy:
    """A copy of the good dump; which path of it is ingested, and from where."""

    def __init__(self, place):
        self.place, self.root, self.store, self.report = place, place / "dump", place / "store", place / "report.json"
        self.arguments, self.cwd = [self.root], None

    def maps(self):
        return self.root / "attention_maps"

    def video(self, name=VIDEO):
        return self.maps() / name

    def word(self, name=WORD, video=VIDEO):
        return self.maps() / video / f"token_{name}"

    def tensor(self, step=STEP):
        return self.word() / f"step_{step:03}.npy"

    def metadata(self, step=STEP):
        return self.word() / f"step_{step:03}_metadata.json"

    def summary(self):
        return self.video() / "summary.json"


def both(*changes):
    """One after the other; what is to be named is what the last one says."""
    return lambda dump: [change(dump) for change in changes][-1]


# Other documents of JSON, and other bytes.


class Literal(str):
    """A JSON value as it is written."""


MISSING = object()


def dumped(document, keys):
    """A JSON document with other values of these keys."""
    members = {key: value for key, value in {**document, **keys}.items() if value is not MISSING}
    written = {key: value if isinstance(value, Literal) else json.dumps(value) for key, value in members.items()}
    return ("{" + ",\n".join(f"{json.dumps(key)}: {value}" for key, value in written.items()) + "}").encode()


def replaced(old, new):
    def edit(text):
        assert old in text
        return text.replace(old, new)

    return edit


def always(content):
    return lambda _: content


def recoded(name, mark=b""):
    return lambda text: mark + text.decode().encode(name)


# Changes of the step's own files.


def metadata(steps=(STEP,), **keys):
    """Other values of keys of the metadata: of one step, or several."""

    def change(dump):
        for step in steps:
            dump.metadata(step).write_bytes(dumped(json.loads(dump.metadata(step).read_bytes()), keys))
        return [tuple(map(dump.metadata, steps))]

    return change


def content(edit, which=Copy.metadata):
    """The bytes of a file are others."""

    def change(dump):
        which(dump).write_bytes(edit(which(dump).read_bytes()))
        return [which(dump)]

    return change


def renamed(stem, extension=".npy"):
    def change(dump):
        described = dump.metadata().rename(dump.word() / f"{stem}_metadata.json")
        return [(dump.tensor().rename(dump.word() / (stem + extension)), described)]

    return change


def tensor(pack, extension=".npy", steps=(STEP,), **keys):
    """The tensor's file has other bytes, made of the array; keys of the metadata have other values."""

    def change(dump):
        metadata(steps, **keys)(dump)
        for step in steps:
            dump.tensor(step).unlink()
            (dump.word() / f"step_{step:03}{extension}").write_bytes(pack(ARRAYS[VIDEO, WORD, step]))
        return [(dump.word() / f"step_{step:03}{extension}", dump.metadata(step)) for step in steps]

    return change


def instead(which, make):
    """Something else stands where a file was; `make` gets its path."""

    def change(dump):
        which(dump).unlink(missing_ok=True)
        make(which(dump))
        return [which(dump)]

    return change
