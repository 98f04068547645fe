"""Gzipped tensors: levels, members, what is behind them, and damaged streams."""

import gzip
import lzma
import struct
import zlib

from additions import damaged, forms
from arrays import NOT_IT, npy, npz
from changes import always, renamed
from mutation import M
from outcomes import LEFT_OUT


def members(content):
    return [gzip.compress(content[:300]), gzip.compress(content[300:])]


def gzip_with_header(content):
    """A gzip stream with every optional field: extra, name, comment, checksum of the header."""
    header = b"\x1f\x8b\x08\x1e" + struct.pack("<I", 1_700_000_000) + b"\0\x03\4\0abcdstep_001.npy\0of a cat\0"
    packed = zlib.compressobj(wbits=-15)
    body = packed.compress(content) + packed.flush()
    end = struct.pack("<II", zlib.crc32(content), len(content))
    return header + struct.pack("<H", zlib.crc32(header) & 0xFFFF) + body + end


def with_wrong_end(checksum=0, size=0):
    def pack(content):
        packed = gzip.compress(content)
        found = struct.unpack("<II", packed[-8:])
        return packed[:-8] + struct.pack("<II", found[0] ^ checksum, found[1] ^ size)

    return pack


def with_wrong_middle(content):
    return gzip.compress(content)[:150] + b"\xff" * 20 + gzip.compress(content)[170:]


def level(number):
    return lambda content: gzip.compress(content, number)


def behind(tail):
    return lambda content: gzip.compress(content) + tail


def gzip_cut(count):
    return lambda content: gzip.compress(content)[:count]


def gzipped(name, *packs):
    """Gzipped in other ways; `packs` get the bytes of the npy file."""
    return forms(name, *[lambda a, pack=pack: pack(npy(a)) for pack in packs], extension=".npy.gz")


def damaged_gzip(name, packs):
    return damaged(name, {(lambda a, pack=pack: pack(npy(a))): says for pack, says in packs.items()}, ".npy.gz")


TAILS = (b"trailing words", bytes(9) + b"words", b"\x1f", npy(NOT_IT), b"\n", bytes(9) + b"\x8b")
NOT_GZIP = {
    **{
        bytes: "not gzip",
        always(b"text\n"): "not gzip",
        zlib.compress: "not gzip",
        lzma.compress: "not gzip",
        always(b""): "empty",
    },
    **{
        always(bytes(99)): "not gzip",
        always(npz(NOT_IT)): "not gzip",
        always(b"\x28\xb5\x2f\xfd" + bytes(9)): "not gzip",
    },
    **{always(gzip.compress(b"")): "empty", always(gzip.compress(npz(NOT_IT))): "npy"},
    **{lambda content: gzip.compress(gzip.compress(content)): "npy"},
}

GZIP = [
    gzipped("gzip of all levels", gzip_with_header, level(0), level(1), level(6), level(9)),
    gzipped("gzip of several members", lambda content: b"".join(members(content)), behind(gzip.compress(b"")),
            lambda content: gzip.compress(content[:128]) + gzip.compress(content[128:]),
            lambda content: b"".join(gzip.compress(bytes([byte])) for byte in content)),
    gzipped("gzip with an empty member before", lambda content: gzip.compress(b"") + gzip.compress(content)),
    gzipped("gzip with zeros behind", *[behind(bytes(count)) for count in (1, 2, 9, 10, 512, 70_000)],
            lambda content: b"".join(members(content)) + bytes(512)),
    gzipped("gzip with zeros between members", lambda content: bytes(512).join(members(content))),
    damaged_gzip("gzip with other bytes behind", {behind(tail): "behind" for tail in TAILS}),
    damaged_gzip("gzip of more than the array", {
        lambda content: gzip.compress(content + b"more"): "bytes", behind(gzip.compress(b"more")): "bytes",
        behind(gzip.compress(b"more")[:-3]): "", behind(b"\x1f\x8b"): ""}),
    damaged_gzip("gzip that is another file", NOT_GZIP),
    damaged_gzip("gzip that is cut off", {gzip_cut(count): "" for count in (1, 2, 9, 10, 40, 200, -8, -4, -1)}),
    damaged_gzip("gzip that is damaged", {
        with_wrong_end(checksum=1): "gzip", with_wrong_end(size=1): "gzip", with_wrong_middle: "",
        lambda content: b"".join(members(content))[:-20]: "gzip",
        lambda content: b"\x1f\x8b\x07" + gzip.compress(content)[3:]: ""}),
    M("gzip of an npz, called so", renamed("step_001", ".npz.gz"), LEFT_OUT),
]  # fmt: skip
