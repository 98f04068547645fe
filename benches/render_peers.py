"""What render.py measures attnkit beside, one process for each: OpenCV to read and to resize, a colormap of matplotlib,
numpy or OpenCV to blend, ffmpeg to encode. Needs opencv-python-headless, matplotlib and numpy.

Usage: render_peers.py frames DIRECTORY COUNT HEIGHT WIDTH
       render_peers.py film FRAMES MAP.npy FILM.mp4
       render_peers.py count FILM.mp4
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import matplotlib
import numpy as np


def make_frames(directory: str, count: str, height: str, width: str) -> None:
    """Something like a video: gradients that move, and noise."""
    place = Path(directory)
    place.mkdir()
    random = np.random.default_rng(1)
    y, x = np.mgrid[: int(height), : int(width)]
    for frame in range(int(count)):
        waves = [np.sin((x + 5 * frame) / 90 + part) + np.cos((y - 3 * frame) / 70 + 2 * part) for part in range(3)]
        noise = random.normal(0, 4, (int(height), int(width), 3))
        cv2.imwrite(str(place / f"frame_{frame:03}.jpg"), np.clip(np.dstack(waves) * 50 + 128 + noise, 0, 255))


def film(frames: str, map_: str, path: str) -> None:
    """As in notebooks: a frame at a time, and one colour range for all."""
    values = np.load(map_).reshape(21, 45, 80).astype(np.float32)
    low, high = np.percentile(values, [1, 99])
    colours = matplotlib.colormaps["viridis"]
    encoder = None
    for number, name in enumerate(sorted(Path(frames).iterdir())):
        frame = cv2.cvtColor(cv2.imread(str(name)), cv2.COLOR_BGR2RGB)
        height, width = frame.shape[:2]
        plane = cv2.resize(values[-(-number // 4)], (width, height), interpolation=cv2.INTER_LINEAR)
        coloured = colours((plane - low) / (high - low), bytes=True)[..., :3]
        shown = cv2.addWeighted(frame, 0.5, np.ascontiguousarray(coloured), 0.5, 0)
        if encoder is None:
            encoder = subprocess.Popen(command(width, height, path), stdin=subprocess.PIPE)
        assert encoder.stdin is not None
        encoder.stdin.write(shown.tobytes())
    assert encoder is not None and encoder.stdin is not None
    encoder.stdin.close()
    if encoder.wait() != 0:
        sys.exit("ffmpeg failed")


def command(width: int, height: int, path: str) -> list[str]:
    """What attnkit gives ffmpeg."""
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "16", "-i", "-"]
    encoder = ["-c:v", "libx264", "-crf", "16", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
    return [os.environ["ATTNKIT_FFMPEG"], "-v", "error", "-y", *source, *encoder, path]


def count(path: str) -> None:
    video = cv2.VideoCapture(path)
    frames = 0
    while video.read()[0]:
        frames += 1
    print(json.dumps({"frames": frames}))


if __name__ == "__main__":
    {"frames": make_frames, "film": film, "count": count}[sys.argv[1]](*sys.argv[2:])
