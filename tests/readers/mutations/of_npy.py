"""Tensors in npy files: headers, sizes, types, axes, values; and files that are none."""

import gzip
import struct

import numpy as np
from additions import add_steps, add_word, damaged, forms
from arrays import NOT_IT, ONE_BLOCK, ONE_HEAD, ONE_OF_BOTH, four_blocks, npy, npy_of
from changes import always, both, tensor
from good_dump import STEP, STEPS
from mutation import M
from outcomes import ANYTHING, LEFT_OUT, SAME, WHOLE_WORD, WORD_LEFT_OUT, changed, further

PLAIN = "{'descr': '<f2', 'fortran_order': False, 'shape': (2, 3, 32, 1), }\n"
ODD_BITS = (0x7E01, 0xFE00, 0x7D55, 0x7C00, 0xFC00, 0x8000, 0x0001, 0x83FF, 0x7BFF, 0xFBFF)


def cast(to):
    return npy_of(lambda array: array.astype(to))


def cut(count):
    return lambda array: npy(array)[:count]


def headed(text, version=b"\1\0"):
    """An npy file with this header."""

    def pack(array):
        size = struct.pack("<H" if version == b"\1\0" else "<I", len(text))
        return b"\x93NUMPY" + version + size + text.encode() + array.tobytes()

    return pack


def plain(old="", new=""):
    return headed(PLAIN.replace(old, new))


def of_shape(shape):
    return plain("(2, 3, 32, 1)", shape)


def with_odd_values(array):
    """NaN of several payloads, infinities, -0, subnormals, the largest."""
    array = array.copy()
    array.ravel()[: len(ODD_BITS)] = np.array(ODD_BITS, np.uint16).view(np.float16)
    return array


def two_tokens(array):
    return np.concatenate([array, array[::-1]], axis=3)


def batch_of_2(array):
    return np.stack([array[::-1], array], axis=1)


def mean_of_batch(array):
    return ((array[::-1].astype(np.float64) + array) / 2).astype(np.float16)


def values(name, *changes):
    """Other values: they are stored bit for bit, and numpy knows their statistics."""
    steps = [{"pack": npy_of(change)} for change in changes]
    return M(name, add_steps(*steps), further(*[{"array": change} for change in changes]), warns=ANYTHING)


def shapes(name, *changes):
    """Words of other shapes or types."""
    unsaid = dict.fromkeys(("attention_shape", "num_blocks", "num_heads", "dtype"))
    added = [add_word(f"word{place}", pack=npy_of(change), **unsaid) for place, change in enumerate(changes)]
    native = [lambda a, change=change: change(a).astype(change(a).dtype.newbyteorder("=")) for change in changes]
    columns = [{"array": change, "token": f"word{place}", "step": STEP} for place, change in enumerate(native)]
    return M(name, both(*added), further(*columns))


NO_HEADERS = {
    **{headed(PLAIN, b"\4\0"): "npy", headed(PLAIN, b"\0\0"): "npy", headed("[1, 2]\n"): "npy", headed("\n"): "npy"},
    **{plain("\n", " " * 20_000 + "\n"): "header", plain("'shape'", "'form'"): "npy", plain("False", "None"): "npy"},
    **{
        of_shape("__import__('os').abort()"): "npy",
        of_shape("2"): "",
        of_shape("(-2, 3, 32, 1)"): "",
        of_shape("(2.0,)"): "npy",
    },
    **{plain("<f2", "<f3"): "f3", plain("<f2", ""): "", plain("<f2", "<f2x"): "f2x"},
}
OTHER_SIZES = {
    **{of_shape(f"(2, 3, {size}, 1)"): "bytes" for size in (31, 33, 2**40, 2**62)},
    **{
        of_shape(f"({2**32}, {2**32}, 1, 1)"): "",
        of_shape(f"({2**33}, {2**33}, {2**33}, 1)"): "",
        of_shape(f"({2**64},)"): "",
    },
}
OTHER_TYPES = {
    **{
        cast("f4"): "float32",
        cast("f8"): "float64",
        cast("g"): "longdouble",
        cast("G"): "complex",
        cast("c8"): "complex64",
    },
    **{cast("i1"): "int8", cast("u1"): "uint8", cast(">i4"): "int32", cast("i8"): "int64", cast("u8"): "uint64"},
    **{
        cast(bool): "bool",
        cast(object): "object",
        cast("U4"): "U4",
        cast("S4"): "S4",
        npy_of(lambda a: a.view("V2")): "V2",
    },
    **{npy_of(lambda a: a.astype("i8").astype("M8[s]")): "M8", npy_of(lambda a: a.view([("x", "<f2")])): "type"},
    **{npy_of(lambda a: a.view([(("a title", "x"), "<f2")])): "type"},
    **{npy_of(lambda a: np.zeros(3, [("x", "<f2", (2, 3, 32, 1))])): "type"},
}
OTHER_AXES = (
    *(
        np.ravel,
        lambda a: np.float16(1),
        lambda a: a[0, 0],
        lambda a: a[..., 0],
        lambda a: a[None, None],
        lambda a: a[:0],
    ),
    *(lambda a: a[:, :0], lambda a: a[:, :, :0], lambda a: a[..., :0]),
)
OTHER_SHAPES = (
    ONE_BLOCK,
    lambda a: a[:, :2],
    lambda a: a[:, :, :16],
    two_tokens,
    four_blocks,
    lambda a: a.swapaxes(0, 1),
)
NOT_NPY = (
    *(
        bytes(512),
        NOT_IT.tobytes(),
        b"0.1 0.2\n",
        b"<!DOCTYPE html>",
        b"[[0.1]]",
        b"version https://git-lfs.github.com/spec/v1\n",
    ),
    *(
        b"\x80\x04]\x94.",
        b"PK\3\4" + bytes(99),
        gzip.compress(npy(NOT_IT)),
        b"\x89HDF\r\n\x1a\n",
        struct.pack("<Q", 2) + b"{}",
    ),
    *(b"\xef\xbb\xbf" + npy(NOT_IT), npy(NOT_IT).replace(b"\n", b"\r\n"), npy(NOT_IT).replace(b"\x93", b"\xc2\x93")),
)
NOT_PT = (
    *(b"", npy(NOT_IT), b"text", b"PK\3\4", b"\x80\x02}q\0.", gzip.compress(b"x")),
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
)

NPY = [
    forms("npy of versions 1, 2 and 3", *[npy_of(np.asarray, (version, 0)) for version in (1, 2, 3)]),
    forms("npy of other orders", npy_of(np.asfortranarray), cast(">f2"),
          npy_of(lambda a: np.asfortranarray(a.astype(">f2")), (3, 0)),
          npy_of(lambda a: np.repeat(a, 2, axis=2)[:, :, ::2])),
    forms("npy with other headers", plain(), plain("\n", " " * 3000 + "\n"), plain(" ", ""), plain("'", '"'),
          headed(PLAIN, b"\2\0"), headed(PLAIN, b"\3\0"),
          headed("{'shape': (2, 3, 32, 1), 'descr': '<f2', 'fortran_order': False}\n")),
    M("npy with a header of Python 2", tensor(of_shape("(2L, 3L, 32L, 1L)")), (SAME, LEFT_OUT), says="npy"),
    damaged("npy with damaged headers", NO_HEADERS),
    damaged("npy with headers of other sizes", OTHER_SIZES),
    shapes("words of other types", *[lambda a, to=to: a.astype(to) for to in ("f4", "f8", ">f4", ">f8")],
           lambda a: a * np.float64(1e300)),
    shapes("words of other shapes", ONE_BLOCK, ONE_HEAD, ONE_OF_BOTH, four_blocks, two_tokens),
    M("float32 that metadata calls float16", tensor(cast("f4"), steps=STEPS), changed(
        WHOLE_WORD, array=lambda a: a.astype("f4")), warns="float32"),
    damaged("steps of other types", OTHER_TYPES),
    M("a word of longdouble", tensor(cast("g"), steps=STEPS), WORD_LEFT_OUT, says="longdouble"),
    damaged("steps of other axes", {npy_of(change): "shape" for change in OTHER_AXES}),
    damaged("steps of other shapes", {npy_of(change): "most steps" for change in OTHER_SHAPES}),
    forms("a batch of 1", npy_of(lambda a: a[:, None]), attention_shape=[2, 1, 3, 32, 1]),
    damaged("a batch of 2", {npy_of(batch_of_2): "--batch"}),
    M("a batch of 2, of which one is chosen", tensor(npy_of(batch_of_2), attention_shape=None), SAME,
      options=("--batch", "1")),
    M("a batch of 2, of which none is chosen", tensor(npy_of(batch_of_2)), LEFT_OUT, "--batch 2",
      options=("--batch", "2")),
    M("a batch of 2, averaged", tensor(npy_of(batch_of_2), attention_shape=None), changed(array=mean_of_batch),
      options=("--batch", "mean"), warns=ANYTHING),
    M("a shape that metadata does not have", tensor(npy_of(four_blocks), steps=STEPS),
      changed(WHOLE_WORD, array=four_blocks), warns="shape"),
    values("values that are not finite", with_odd_values, lambda a: a * np.float16(np.nan),
           lambda a: a + np.float16(np.inf)),
    values("values that are no probabilities", np.negative, lambda a: a * 1000, lambda a: a * np.float16(1e-5),
           np.ones_like),
    values("values that are 0", np.zeros_like, lambda a: -np.zeros_like(a),
           lambda a: a * (np.arange(32)[:, None] == 31)),
    M("values that are not finite, big-endian", tensor(npy_of(lambda a: with_odd_values(a).astype(">f2"))),
      changed(array=with_odd_values), warns=ANYTHING),
    damaged("npy that is cut off", {
        cut(0): "empty", cut(1): "npy", cut(6): "npy", cut(9): "npy", cut(60): "header", cut(128): "bytes",
        cut(-1): "bytes"}),
    damaged("npy with more behind", {
        (lambda a, more=more: npy(a) + more): "bytes" for more in (b"\0", b"\n", bytes(4096), npy(NOT_IT))}),
    damaged("npy that is another file", {always(content): "npy" for content in NOT_NPY}),
    damaged("pt that is another file", {always(content): "" for content in NOT_PT}, ".pt"),
]  # fmt: skip
