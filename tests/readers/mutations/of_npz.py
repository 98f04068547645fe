"""Tensors in npz archives: one array, several of which one is meant or none, and damaged archives."""

import io
import warnings
import zipfile

import numpy as np
from additions import add_steps, damaged, forms
from arrays import NOT_IT, npy, npz
from changes import always, tensor
from mutation import M
from outcomes import ANYTHING, LEFT_OUT, SAME, further


def zipped(*members):
    """A zip archive of these files; names may be there twice."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def beside(name, *others, options=()):
    """An npz with the array as `it`, beside another one: what is taken is told."""
    steps = [{"pack": lambda a, other=other: npz(**other, it=a), "extension": ".npz"} for other in others]
    return M(name, add_steps(*steps), further(*[{}] * len(others)), warns=["`it`"] * len(others), options=options)


def twice(name):
    """An npz with two arrays of one name, which numpy reads as the last."""
    pack = lambda a: zipped((f"{name}.npy", npy(NOT_IT)), (f"{name}.npy", npy(a)))
    return M(f"npz with {name} twice", tensor(pack, ".npz"), LEFT_OUT, says="several arrays of one name")


IT = ("--array", "it")
NO_STEPS = ({"timestep": np.array(700)}, {"prompt": np.array("a cat")}, {"counts": np.ones((2, 3, 32, 1), int)},
            {"mask": np.ones((2, 3, 32))}, {"objects": np.array([{}], object)},
            {"empty": np.ones((0, 3, 32, 1))})  # fmt: skip
NONE_MEANT = {
    **{
        lambda a: npz(uncond=NOT_IT, cond=a): "--array",
        lambda a: npz(a, maps=a): "--array",
        lambda a: npz(NOT_IT, a): "arr_0, arr_1",
    },
    **{
        lambda a: npz(a=a, b=a, c=a): "a, b, c",
        lambda a: npz(attention=a[0], maps=a): "shape",
        lambda a: npz(): "no array",
    },
    **{lambda a: npz(step=np.array(1), seed=np.array(11)): "seed", lambda a: zipped(("x", b"text")): "npz"},
    **{
        lambda a: npz(a.astype("f4")): "float32",
        lambda a: npz(a.astype("g")): "longdouble",
        lambda a: npz(a.astype(object)): "object",
    },
}
NOT_NPZ = {
    **{always(b""): "empty", npy: "npz", lambda a: npz(a)[:-30]: "npz", lambda a: npz(a)[30:]: "npz"},
    **{
        lambda a: npz(a).replace(a.tobytes()[:8], bytes(8), 1): "npz",
        lambda a: zipped(("attention.npy", b"")): "empty",
    },
    **{
        lambda a: zipped(("attention.npy", npy(a)[:-9])): "bytes",
        lambda a: zipped(("attention.npy", npy(a) + b"more")): "bytes",
    },
}

NPZ = [
    forms("npz of one array", npz, lambda a: npz(attention=a), lambda a: npz(maps=a),
          lambda a: npz(attention=a, compressed=True), lambda a: npz(attention=a[:, None]),
          lambda a: npz(np.asfortranarray(a.astype(">f2"))),
          lambda a: zipped(("maps/attention.npy", npy(a))), lambda a: zipped(("attention", npy(a))),
          lambda a: zipped(("readme.txt", b"text"), ("attention.npy", npy(a))), extension=".npz", warns=ANYTHING),
    forms("npz with attention beside others", lambda a: npz(a=NOT_IT, attention=a),
          lambda a: npz(attention=a, z=NOT_IT),
          lambda a: npz(NOT_IT, NOT_IT, attention=a, Attention=NOT_IT), extension=".npz", warns=["attention"] * 3),
    beside("npz with others that are no steps", *NO_STEPS),
    beside("npz with others, and one chosen", {"uncond": NOT_IT}, {"attention": NOT_IT}, {"arr_0": NOT_IT},
           {"IT": NOT_IT}, options=IT),
    damaged("npz of which none is meant", NONE_MEANT, ".npz"),
    M("npz without the chosen one", tensor(lambda a: npz(attention=a), ".npz"), LEFT_OUT, says="`it`", options=IT),
    M("npz of which the chosen one is no step", tensor(lambda a: npz(a, it=a[0]), ".npz"), LEFT_OUT, says="shape",
      options=IT),
    twice("attention"), twice("arr_0"),
    M("npz with bytes before it", tensor(lambda a: b"#!/bin/sh\n" + npz(a), ".npz"), (SAME, LEFT_OUT), "npz", ANYTHING),
    damaged("npz that is damaged", NOT_NPZ, ".npz"),
]  # fmt: skip
