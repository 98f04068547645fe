"""The dumps below `fixtures/`, read with numpy alone: what the values in a store are held against."""

import gzip
import json
import re
import zipfile
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
DATASET = REPOSITORY / "fixtures" / "dataset"
VARIANTS = sorted(p for p in (REPOSITORY / "fixtures" / "variants").iterdir() if p.is_dir())

STEP_FILE = re.compile(r"step_(\d+)(?:_block_(\d+))?(?:_head_(\d+))?\.(npy|pt)(\.gz)?")


def step_files(dump):
    """(video_id, token, step) -> [(block, head, tensor file, metadata file)] in path order; block and head are None in
    whole steps."""
    found = {}
    for path in sorted(Path(dump).rglob("token_*/step_*")):
        if match := STEP_FILE.fullmatch(path.name):
            step, block, head = (None if part is None else int(part) for part in match.groups()[:3])
            metadata = path.with_name(path.name.split(".")[0] + "_metadata.json")
            video = json.loads(metadata.read_bytes())["video_id"]
            token = path.parent.name.removeprefix("token_")
            found.setdefault((video, token, step), []).append((block, head, path, metadata))
    return found


def step_arrays(dump):
    """(video_id, token, step) -> [block, head, spatial, token], native byte order, bfloat16 widened to float32."""
    return {key: assemble(files) for key, files in step_files(dump).items()}


def assemble(files):
    parts = {(block or 0, head or 0): read_tensor(path) for block, head, path, _ in files}
    blocks, heads = (1 + max(index) for index in zip(*parts))
    return np.concatenate([np.concatenate([parts[b, h] for h in range(heads)], axis=1) for b in range(blocks)], axis=0)


def read_tensor(path):
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        if ".pt" in path.suffixes:
            return read_torch(file, path)
        array = np.load(file)
        return array.astype(array.dtype.newbyteorder("="))


def read_torch(file, path):
    """A contiguous tensor of half or bfloat16 as `torch.save` writes it: a zip file with the bare values in
    `data/0`."""
    shape = json.loads(path.with_name(path.name.split(".")[0] + "_metadata.json").read_bytes())["attention_shape"]
    with zipfile.ZipFile(file) as archive:
        members = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
    if b"BFloat16Storage" in members["data.pkl"]:
        values = (np.frombuffer(members["data/0"], "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        assert b"HalfStorage" in members["data.pkl"], path
        values = np.frombuffer(members["data/0"], "<f2")
    return values.reshape(shape)


def write_dump(directory, arrays, **metadata):
    """Writes arrays `(video_id, token, step) -> ([block, head, spatial, token], metadata of this step)` as a generator
    does."""
    for (video, token, step), (array, of_step) in arrays.items():
        word = Path(directory) / video / f"token_{token}"
        word.mkdir(parents=True, exist_ok=True)
        np.save(word / f"step_{step:03}.npy", array)
        described = {
            "video_id": video,
            "step": step,
            "token_word": token,
            "attention_shape": list(array.shape),
            **metadata,
            **of_step,
        }
        (word / f"step_{step:03}_metadata.json").write_text(json.dumps(described))
    return Path(directory)


def same_bits(found, expected):
    """Equal shape, type and every bit: NaN payloads and negative zeros count."""
    found, expected = np.ascontiguousarray(found), np.ascontiguousarray(expected)
    return found.shape == expected.shape and found.dtype == expected.dtype and found.tobytes() == expected.tobytes()
