"""How long a film of a large video takes, and how much memory, beside what people write with OpenCV and matplotlib's
colormaps: run by `make bench`.

One word of a 14B-sized map (21 x 45 x 80 positions) over 81 frames of 1280 x 720, coloured by viridis and blended, then
encoded by the same ffmpeg with the same options. Both read the same frames and the same map; what the peers do is in
render_peers.py.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from harness import Document, bench, find_binary, parser_of, prose, run, said, say, table, versions

GRID = (21, 45, 80)
FRAMES = 4 * (GRID[0] - 1) + 1
SIZE = (720, 1280)
PEERS = Path(__file__).with_name("render_peers.py")
WORD = "flower"
ATTNKIT, PEER = "attnkit render film", "OpenCV + matplotlib"
ALONE = "attnkit render film, WebP without ffmpeg"


def main() -> int:
    parser = parser_of(__doc__, "attnkit", "synth", rounds=3)
    parser.add_argument("--ffmpeg", type=Path, required=True, help="path of ffmpeg")
    return bench(parser.parse_args(), measure, markdown)


def measure(arguments: argparse.Namespace, work: Path) -> Document:
    attnkit, synth = find_binary(arguments.attnkit), find_binary(arguments.synth)
    os.environ["ATTNKIT_FFMPEG"] = str(find_binary(arguments.ffmpeg))
    say("making a map and frames …")
    grid = "x".join(map(str, GRID))
    dump, store, frames, map_ = work / "dump", work / "store", work / "frames", work / "map.npy"
    sizes = ["--videos", 1, "--tokens", WORD, "--steps", 1, "--blocks", 1, "--heads", 1, "--grid", grid]
    run(synth, *sizes, "--out", dump)
    run(attnkit, "ingest", dump, "--store", store, "--quiet")
    run(attnkit, "query", "map", store, "--token", WORD, "--step", 0, "-o", map_)
    run(sys.executable, PEERS, "frames", frames, FRAMES, *SIZE)
    options = [
        "--frames-dir",
        frames,
        "--size",
        "x".join(map(str, SIZE)),
        "--dpi",
        96,
        "--alpha",
        0.5,
    ]
    ways: dict[str, dict[str, list[float]]] = {way: {"seconds": [], "bytes": []} for way in (ATTNKIT, PEER, ALONE)}
    for _ in range(arguments.rounds):
        of = {
            ATTNKIT: run(attnkit, "render", "film", store, *options, "-o", work / "attnkit.mp4"),
            PEER: run(sys.executable, PEERS, "film", frames, map_, work / "peer.mp4"),
            ALONE: run(attnkit, "render", "film", store, *options, "-o", work / "attnkit.webp"),
        }
        for way, finished in of.items():
            ways[way]["seconds"].append(finished.seconds)
            ways[way]["bytes"].append(finished.peak_rss_bytes)
    counted = run(sys.executable, PEERS, "count", work / "attnkit.mp4")
    assert said(counted, PEERS)["frames"] == FRAMES
    return {"versions": versions(attnkit, "opencv-python-headless", "matplotlib", "numpy"), "ways": ways}


def markdown(document: Document) -> str:
    ways = document["ways"]
    least = min(ways[PEER]["seconds"])
    rows = [
        (
            way,
            f"{min(found['seconds']):.2f} s",
            f"{min(found['seconds']) / least:.2f}",
            f"{max(found['bytes']) / 2**20:.0f} MiB",
        )
        for way, found in ways.items()
    ]
    head = ("way", "time", f"time / {PEER}", "peak memory, of it or of ffmpeg")
    of, rounds = " x ".join(map(str, GRID)), document["rounds"]
    says = f"{FRAMES} frames of {SIZE[1]} x {SIZE[0]}, of a map of {of}; best of {rounds}."
    return "\n\n".join((prose(says), table(head, rows)))


if __name__ == "__main__":
    sys.exit(main())
