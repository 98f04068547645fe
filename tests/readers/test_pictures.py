"""The pictures that README.md opens with are what `make demo` makes of the bundled data."""

import re
import shlex

import numpy as np
import pytest
from PIL import Image, ImageSequence
from source_dump import REPOSITORY

PICTURES = REPOSITORY / "docs" / "pictures"


@pytest.fixture(scope="module")
def demo(attnkit, dataset_store, tmp_path_factory):
    """Makes a picture as the demo's script does."""
    place = tmp_path_factory.mktemp("demo")
    script = (REPOSITORY / "docs" / "demo.sh").read_text().replace("\\\n", " ")

    def make(name):
        (command,) = re.findall(rf'^run attnkit (.* -o "\$demo/{re.escape(name)}")$', script, re.MULTILINE)
        words = [
            word.replace("$store", str(dataset_store)).replace("$demo", str(place)) for word in shlex.split(command)
        ]
        attnkit(*(str(REPOSITORY / word) if word.startswith("fixtures/") else word for word in words))
        return place / name

    return make


def frames_of(path):
    with Image.open(path) as picture:
        return [np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(picture)]


@pytest.mark.parametrize("name", ["circle.gif", "heads.png"])
def test_what_readme_shows_is_what_the_demo_makes(demo, name):
    shown, made = frames_of(PICTURES / name), frames_of(demo(name))
    assert len(shown) == len(made) and all(a.shape == b.shape for a, b in zip(shown, made, strict=True))
    # Rounding of a colour may differ from one machine to another.
    assert max(np.abs(a - b).mean() for a, b in zip(shown, made, strict=True)) < 1


def test_pictures_are_small_and_readme_names_them_all():
    pictures = sorted(PICTURES.iterdir())
    assert sum(picture.stat().st_size for picture in pictures) < 1_500_000
    named = set(re.findall(r"\(docs/pictures/([\w.]+)\)", (REPOSITORY / "README.md").read_text()))
    assert named == {picture.name for picture in pictures}
