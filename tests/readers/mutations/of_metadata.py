"""Metadata of steps: keys, values, texts, and what is no JSON."""

import gzip
import json
from decimal import Decimal

import numpy as np
from additions import add_steps
from arrays import NOT_IT, npy
from changes import MISSING, Literal, always, content, metadata, recoded, replaced
from good_dump import PROMPT, STEPS, described
from mutation import M, several
from outcomes import ANYTHING, LEFT_OUT, OTHERS_LEFT_OUT, SAME, WHOLE_WORD, Among, changed, further, row

# The keys of a step's metadata, and what is unknown in its row where one of them is.
KEYS = {
    **{key: {} for key in ("video_id", "step", "token_word", "block_idx", "head_idx", "dtype")},
    **{key: {} for key in ("attention_shape", "spatial_resolution", "num_blocks", "num_heads")},
    **{key: {key: []} for key in ("token_ids", "token_texts")},
    **{key: {key: None} for key in ("timestep", "total_steps", "aggregation_method", "threshold_applied", "prompt")},
    **{key: {key: None} for key in ("seed", "cfg_scale", "video_width", "video_height", "video_frames")},
}
UNKNOWN = {column: value for columns in KEYS.values() for column, value in columns.items()}
GRIDLESS = {"frames": None, "height": None, "width": None}
NOT_FLOATS = ('"4.5"', "true", "[4.5]", "{}", "NaN", "Infinity", "-Infinity", "1e400", "-1e999")
NOT_TEXTS = ("7", '["a cat"]', "{}", "false", "NaN")
NOT_SEEDS = (
    '"11"',
    "11.5",
    "true",
    "[11]",
    "{}",
    "18446744073709551616",
    "-9223372036854775809",
    "1" + "0" * 30,
    "1e300",
)
NOT_INT_32 = ('"3"', "3.5", "2147483648", "-2147483649", "true", "NaN", "[3]", "1e10")
NOT_IDS = ('"7"', "7.5", '["7"]', "[7.5]", "[9223372036854775808]", "[[7]]", "true", "{}", '{"token_ids": "7"}')
FLOATS = (
    *("699", "0.1", "699." + "9" * 30, "5e-324", "1e-400", "-0.0", "7e2", "-1", "1.7976931348623157e308", "0"),
    *("12345678901234567890", "0.30000000000000004", "4.000000000000000000001", "1e-5", "123456789.123456789123456789"),
)


def unknown(**keys):
    """Values of keys, as they are written, that are none: each is named, and unknown in its row."""
    cases = [(key, text) for key, texts in keys.items() for text in texts]
    name = f"{', '.join(keys)} that are {several(Literal(text) for _, text in cases)}"
    steps = [{key: Literal(text)} for key, text in cases]
    return M(name, add_steps(*steps), further(*[KEYS[key] for key, _ in cases]), warns=[text for _, text in cases])


def reads(**keys):
    """Values of keys, as they are written, and as they are read."""
    cases = [(key, text, value) for key, texts in keys.items() for text, value in texts.items()]
    name = f"{', '.join(keys)} that are {several(Literal(text) for _, text, _ in cases)}"
    steps = [{key: Literal(text)} for key, text, _ in cases]
    return M(name, add_steps(*steps), further(*[{key: value} for key, _, value in cases]), warns=ANYTHING)


def prompts(name, texts, warns=ANYTHING):
    """Prompts as their bytes are written, and as they may be read."""
    steps = [{"edit": replaced(json.dumps(PROMPT).encode(), text)} for text in texts]
    return M(name, add_steps(*steps), further(*[{"prompt": prompt} for prompt in texts.values()]), warns=warns)


def no_json(name, edits):
    """Metadata that is left out, each for its reason."""
    return M(name, add_steps(*[{"edit": edit} for edit in edits]), OTHERS_LEFT_OUT, says=[*edits.values()])


def nested(depth, opening="[", closing="]"):
    return replaced(b'"cfg_scale"', f'"extra": {opening * depth}1{closing * depth}, "cfg_scale"'.encode())


def as_written(key, text):
    """The value of a key has these bytes."""
    return replaced(f'"{key}": {json.dumps(described()[key])}'.encode(), f'"{key}": '.encode() + text)


def again(*seeds):
    """A key that is there several times."""
    return metadata(seed=Literal(', "seed": '.join(seeds)))


REFORMATTED = [
    lambda text: json.dumps(json.loads(text), separators=(",", ":")).encode(),
    lambda text: json.dumps(dict(reversed(json.loads(text).items())), indent=4).encode(),
    lambda text: text.replace(b"\n", b"\r\n"),
    lambda text: text.replace(b"\n", b"\r"),
    lambda text: text.replace(b"\n", b"\t"),
    lambda text: b" \n\t\r" + text + b"\n\n  ",
    lambda text: text.replace(b":", b" \n : \t"),
]
BY_HAND = [
    lambda text: text[:-1] + b",\n}",
    lambda text: b"# seed\n" + text,
    lambda text: str(json.loads(text)).encode(),
    as_written("token_ids", b"[7,]"),
    replaced(b',\n"seed"', b'\n"seed"'),
    replaced(b'"seed"', b'// seed\n"seed"'),
    replaced(b'"seed"', b'/* seed */ "seed"'),
    replaced(b'"seed"', b"seed"),
    replaced(b'"seed":', b'"seed"'),
    replaced(b'"seed": ', b'"seed" = '),
    replaced(b'"seed": ', b'"seed":\xc2\xa0'),
    replaced(b'"seed"', b'\xef\xbb\xbf"seed"'),
    replaced(PROMPT.encode(), rb"C:\dumps"),
    replaced(PROMPT.encode(), rb"\u12g4"),
]
NO_VALUES = (
    *("nan", "inf", "None", "True", "undefined", "+1", "01", ".5", "1.", "0x10", "'x'", "1_000", "1e", "", "-", "--1"),
    "1,5",
)
NO_OBJECTS = (b"[]", b"null", b"7", b'"text"', b"true", b"NaN", b"[{}]")
OTHER_FILES = (
    *(b"seed: 11\n", b"<!DOCTYPE html><title>404</title>", b"version https://git-lfs.github.com/spec/v1\nsize 9\n"),
    *(b"\x80\x04}\x94.", gzip.compress(b"{}"), npy(NOT_IT), b"PK\3\4", b"(7)", b"{'a': 1}", b"{1: 2}"),
)
WIDE = {
    **{recoded(name): "UTF-16" for name in ("utf-16", "utf-16-le", "utf-16-be")},
    **{
        recoded("utf-16-be", b"\xfe\xff"): "UTF-16",
        recoded("utf-32"): "UTF-32",
        recoded("utf-32-be", b"\0\0\xfe\xff"): "UTF-32",
    },
}
NOT_UTF_8 = {
    b'"a caf\xe9"': Among(None, "a caf\ufffd"),
    b'"a \xff\xfe\xc0\x80"': Among(None, "a " + 4 * "\ufffd"),
    b'"a \xed\xa0\xbd"': Among(None, "a " + 3 * "\ufffd", "a \ufffd"),
}
HALVES = {
    rb'"a \ud83d cat"': Among(None, "a \ufffd cat"),
    rb'"a \udc08 cat"': Among(None, "a \ufffd cat"),
    rb'"a \udc08\ud83d"': Among(None, "a \ufffd\ufffd"),
    rb'"a \ud83d\ud83d\udc08"': Among(None, "a \ufffd\U0001f408"),
    rb'"a cat \ud83d"': Among(None, "a cat \ufffd"),
    rb'"a \ud83d\u0041"': Among(None, "a \ufffdA"),
}
ANY_TEXT = {
    '"ein K\u00e4tzchen \U0001f408, \u2028"'.encode(): "ein K\u00e4tzchen \U0001f408, \u2028",
    rb'"a \ud83d\udc08"': "a \U0001f408",
    rb'"\"\\\/\b\f\n\r\t\u00E9"': '"\\/\b\f\n\r\t\u00e9',
    b'"' + b"".join(rb"\u%04x" % ord(letter) for letter in PROMPT) + b'"': PROMPT,
    b'"' + 20_000 * b"cat, " + b'"': 20_000 * "cat, ",
}

JSON = [
    M("keys that are missing, one by one", add_steps(*[{key: MISSING} for key in KEYS]), further(*KEYS.values())),
    M("keys that are null, one by one", add_steps(*[{key: None} for key in KEYS]), further(*KEYS.values())),
    M("all keys are missing", content(always(b"{}")), row(**UNKNOWN)),
    unknown(video_id=["7", "true", "[]", "NaN"], token_word=["7", '["cat"]', "NaN", "{}"], dtype=["16", "[]", "true"]),
    unknown(step=['"one"', "1.5", "[1]", "true", "NaN", "1e400"]),
    unknown(timestep=['"tensor(700.)"', *NOT_FLOATS]),
    unknown(cfg_scale=NOT_FLOATS, threshold_applied=NOT_FLOATS),
    unknown(seed=NOT_SEEDS),
    unknown(seed=["NaN", "Infinity", "-Infinity", "0.1", "1e400", '"0x10"']),
    unknown(prompt=NOT_TEXTS, aggregation_method=NOT_TEXTS),
    unknown(total_steps=NOT_INT_32),
    unknown(video_width=NOT_INT_32, video_height=NOT_INT_32, video_frames=NOT_INT_32),
    unknown(token_ids=NOT_IDS, token_texts=['"cat"', "[7]", "[null]", "{}", "7"]),
    unknown(attention_shape=['"[2, 3, 32, 1]"', "[-2, 3, 32, 1]", "2", "[2.5]", "{}", "[null]"]),
    M("a key that is not read", add_steps({"spatial_resolution": "32"}, {"spatial_resolution": {}}), further({}, {})),
    unknown(num_blocks=['"two"', "[2]", "2.5", "true"], num_heads=['"three"', "[3]", "NaN"]),
    unknown(block_idx=['"6"', "-1", "1.5", "[-1, 0]", '["a", "b"]', "true", "{}"],
            head_idx=['"6"', "-1", "NaN", "[1.5, 2, 3]"]),
    M("NaN that is not read", add_steps({"extra": Literal("NaN")}, {"extra": Literal('[1, {"deep": Infinity}]')}),
      further({}, {}), warns=["NaN", "Infinity"]),
    M("NaN in lists", add_steps({"attention_shape": Literal("[2, NaN, 32, 1]")}, {"token_ids": Literal("[NaN]")}),
      further({}, {"token_ids": []}), warns=["NaN", "NaN"]),
    reads(seed={str(seed): Decimal(seed) for seed in (0, -1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63))}),
    reads(seed={"11.0": Decimal(11), "-0": Decimal(0), "1.1e1": Decimal(11), "42.000": Decimal(42), "-7": Decimal(-7)}),
    reads(timestep={text: float(text) for text in FLOATS}, cfg_scale={text: float(text) for text in FLOATS}),
    reads(total_steps={"3.0": 3, "2147483647": 2**31 - 1, "-2147483648": -(2**31), "0": 0, "5e1": 50},
          video_width={"64.0": 64, "2147483647": 2**31 - 1, "0": 0, "-64": -64}),
    reads(token_ids={"[7.0]": [7], "[]": [], "[9223372036854775807, -1]": [2**63 - 1, -1], '{"token_ids": [7]}': [7]},
          token_texts={'["\\u2581cat", ""]': ["\u2581cat", ""], "[]": []}),
    M("seed of 1e19", metadata(seed=Literal("1e19")), (row(seed=None), row(seed=Decimal(10**19))), warns=ANYTHING),
    M("a byte order mark", content(lambda text: b"\xef\xbb\xbf" + text), SAME, warns="byte order mark"),
    no_json("UTF-16 and UTF-32", WIDE),
    no_json("UTF-32 without its mark", {recoded("utf-32-le"): "UTF-", recoded("utf-32-be"): "UTF-"}),
    prompts("prompts in bytes that are not UTF-8", NOT_UTF_8, warns="UTF-8"),
    prompts("prompts with half a character", HALVES, warns="prompt"),
    prompts("prompts with any other character", ANY_TEXT),
    prompts("prompts of nothing", {b'""': Among(None, ""), rb'"a\u0000cat"': Among(None, "a\0cat"), b'" "': " "},
            ANYTHING),
    M("half a character in texts, keys and words",
      add_steps({"token_texts": Literal(r'["\ud83d"]')}, {"extra": Literal(r'{"\ud83d": 1}')},
                {"token_word": Literal(r'"\ud83dt"')}),
      further({"token_texts": Among([], ["\ufffd"])}, {}, {}), warns=["token_texts", "extra", "token_word"]),
    M("a key twice, of one value", again("11", "11"), SAME, warns="seed"),
    M("a key twice, the last null", again("1", "null"), row(seed=None), warns="seed"),
    M("a key three times", again("1", "2", "3"), row(seed=Decimal(3)), warns="seed"),
    M("a key twice, once escaped", content(as_written("seed", rb'1, "s\u0065ed": 12')), row(seed=Decimal(12)),
      warns="seed"),
    M("a key twice, further down", metadata(extra=Literal('[{"a": 1, "a": 2}]')), SAME, warns="extra"),
    M("a key in another case", content(replaced(b'"seed"', b'"Seed"')), row(seed=None)),
    M("keys that are not known", metadata(extra={"a": [1, None, "x"]}, attnkit={"x": 1}, **{"": 1, "\u00e9": 2}), SAME),
    M("written otherwise", add_steps(*[{"edit": edit} for edit in REFORMATTED]), further(*[{}] * len(REFORMATTED))),
    no_json("as people write it", dict.fromkeys(BY_HAND, "JSON")),
    no_json("values that are none", {as_written("cfg_scale", text.encode()): "JSON" for text in NO_VALUES}),
    no_json("more than one document", {
        (lambda text, more=more: text + more): "JSON" for more in (b"\n{}", bytes(512), b"done", b"}", b"\xff", b",")}),
    no_json("less than a document", {
        always(b""): "empty", always(b" \n"): "JSON", always(b"\xef\xbb\xbf"): "JSON", always(bytes(900)): "JSON",
        lambda text: text[:1]: "JSON", lambda text: text[:30]: "JSON", lambda text: text[:-1]: "JSON",
        lambda text: text[:300] + bytes(300): "JSON"}),
    no_json("other than an object", {always(text): "object" for text in NO_OBJECTS}),
    no_json("other than JSON", {always(text): "JSON" for text in OTHER_FILES}),
    no_json("too deep", {nested(100_000): "nested", nested(100_000, '{"a":', "}"): "nested", nested(5000): "nested"}),
    M("a line break in a text", content(replaced(PROMPT.encode(), b"a\ncat")), (row(prompt="a\ncat"), LEFT_OUT),
      says="JSON", warns=ANYTHING),
    M("another step in metadata", metadata(step=2), SAME, warns="step 2"),
    M("another shape in metadata", metadata(attention_shape=[30, 12, 32, 1]), SAME, warns="shape"),
    M("other numbers of blocks and heads in metadata", metadata(num_blocks=30, num_heads=12), SAME, warns="num_blocks"),
    M("another type in metadata", metadata(dtype="torch.bfloat16"), SAME, warns="bfloat16"),
    M("an average in metadata that is none", metadata(aggregation_method="blocks_averaged"),
      row(aggregation_method="blocks_averaged"), warns="blocks_averaged"),
    M("one step of another seed and prompt", metadata(seed=12, prompt="a dog"), row(seed=Decimal(12), prompt="a dog"),
      warns=ANYTHING),
    *[M(f"a video width of {width}", metadata(STEPS, video_width=width), changed(
        WHOLE_WORD, array=np.copy, video_width=width, **GRIDLESS), warns=ANYTHING) for width in (None, 640, 0)],
]  # fmt: skip
