"""Arrays in the bytes of files, and other arrays that several tables use."""

import io
import warnings

import numpy as np
from good_dump import maps

# What is somebody else's array: never to be found in a store.
NOT_IT = maps(5)


def npy(array, version=None):
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.lib.format.write_array(file, np.asanyarray(array), version, allow_pickle=True)
    return file.getvalue()


def npz(*positional, compressed=False, **arrays):
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, *positional, **arrays)
    return file.getvalue()


def npy_of(change, version=None):
    return lambda array: npy(change(array), version)


def four_blocks(array):
    return np.concatenate([array, array[::-1, ::-1]])


ONE_BLOCK, ONE_HEAD, ONE_OF_BOTH = lambda a: a[:1], lambda a: a[:, :1], lambda a: a[:1, :1]
