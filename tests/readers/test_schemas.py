"""The JSON Schemas describe what is read, as lenient as real dumps need, and what is written, to the letter."""

import json

import pytest
from committed import words
from jsonschema import Draft202012Validator, ValidationError
from source_dump import DATASET, REPOSITORY, VARIANTS

SCHEMAS = REPOSITORY / "schemas"


def validator(name):
    return Draft202012Validator(json.loads((SCHEMAS / f"{name}.schema.json").read_text()))


def attributes(group):
    return json.loads((group / "zarr.json").read_text())["attributes"]["attnkit"]


@pytest.mark.parametrize("path", sorted(SCHEMAS.glob("*.schema.json")), ids=lambda path: path.name)
def test_each_schema_is_one(path):
    Draft202012Validator.check_schema(json.loads(path.read_text()))


@pytest.mark.parametrize("dump", [DATASET, *VARIANTS], ids=lambda dump: dump.name)
def test_fixtures_have_valid_metadata(dump):
    found = sorted(dump.rglob("*_metadata.json"))
    assert found
    for path in found:
        validator("step_metadata").validate(json.loads(path.read_bytes()))


def test_fixtures_have_valid_summaries():
    found = sorted(DATASET.rglob("summary.json"))
    assert len(found) == 16
    for path in found:
        validator("summary").validate(json.loads(path.read_bytes()))


def test_metadata_may_be_as_bare_and_as_odd_as_generators_write_it():
    known = {"video_id": "p000_b001_s000", "step": -1, "token_word": "two people"}
    validator("step_metadata").validate(known)
    validator("step_metadata").validate(
        known
        | {"token_ids": {"token_ids": [7], "positions": [2]}, "seed": None, "video_width": None, "added_later": [1]}
    )
    with pytest.raises(ValidationError):
        validator("step_metadata").validate(known | {"step": "three"})


def test_summaries_of_older_dumps_list_bare_ids():
    validator("summary").validate(
        {"stored_steps": [], "target_tokens": {"flower": [93643]}, "storage_dir": "elsewhere"}
    )


def test_the_root_of_a_store_has_the_attributes_of_its_schema(store):
    validator("store_root").validate(attributes(store))


def test_the_group_of_a_word_has_the_attributes_of_its_schema(dump, store):
    for video, token, group, rows in words(store):
        found = attributes(group)
        validator("store_token").validate(found)
        assert (found["video_id"], found["token"], found["lossy"]) == (video, token, {})
        assert found["source_dtype"] == {"torch_bfloat16": "bfloat16", "float32": "float32"}.get(dump.name, "float16")
        assert {key: found[key] for key in ("prompt", "seed", "cfg_scale")} == {
            key: rows[0][key] for key in ("prompt", "seed", "cfg_scale")
        }
