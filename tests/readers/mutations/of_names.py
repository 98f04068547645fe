"""Names of words, with their weights, and of videos."""

import shutil
import unicodedata
from dataclasses import replace

from additions import add_video, add_word
from changes import both, metadata
from good_dump import OTHER, STEP, STEPS, VIDEO
from mutation import M, several
from outcomes import SAME, WHOLE_VIDEO, WHOLE_WORD, filmed, further, spelled, without

COMPOSED, DECOMPOSED = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")
FAMILY, CAT, ARABIC = "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f408", "\u0642\u0637\u0629"
CLEANED = {"a/b": "a_b", "c\\d": "c_d", "e:f": "e_f", "/": "_"}
PROMPT_IDS = {
    **{"prompt_012_vid001": "prompt_012", "prompt_1_vid1": "prompt_1", "prompt_000_vid1000": "prompt_000"},
    **{"p007_b001_s000": "prompt_007", "p7_b1_s2": "prompt_7"},
}
NESTED = {
    **{"prompt_007/vid001": "prompt_007_vid001", "prompt_007/vid_002": "prompt_007_vid002"},
    **{"prompt_007/p007_b001_s001": "p007_b001_s001"},
}


def words(*names):
    """Words that are spelled so in their directories and metadata."""
    columns = [{"token": name, "step": STEP} for name in names]
    return M(f"words {several(names)}", both(*map(add_word, names)), further(*columns))


def weighted(*cases):
    """Directories, what metadata says, and the words and weights that they mean."""
    changes, columns = [], []
    for place, (directory, claimed, word, weight) in enumerate(cases):
        changes.append(add_word(claimed, directory, f"v{place}"))
        columns.append({"video_id": f"v{place}", "prompt_id": None, "token": word, "weight": weight, "step": STEP})
    names = [f"{directory} as {claimed}" for directory, claimed, *_ in cases]
    return M(f"weights of {several(names)}", both(*changes), further(*columns))


def videos(*names):
    """Videos that are called so in their directories and metadata."""
    columns = [{"video_id": name, "prompt_id": None, "step": STEP} for name in names]
    return M(f"videos {several(names)}", both(*map(add_video, names)), further(*columns))


WORDS = [
    words("two people", " cat", "cat ", "  ", "cat.", ".cat", "..", "...", "", "tab\tbed", "new\nline",
          "carriage\rreturn"),
    words("_cat", "__cat", "-cat", "--store", "~cat", "~", "~~", "cat~", "~63at", "@cat", "cat@0123456789abcdef", "!",
          "=1+1"),
    words("Cat", "CAT", "DOG", "con", "CON", "nul.txt", "aux", "com1", "LPT9", "clock$", "c:cat", "cat::$DATA"),
    words("gr\u00f6\u00dfe", "GR\u00d6SSE", COMPOSED, "\u732b", ARABIC, CAT, FAMILY, "\u202ecat", "\ufeffcat",
          "\u05d0"),
    words(DECOMPOSED, "d\u043eg", "d\u200bog", "a\u2028b", "a\u00a0b", "\ufb01", "fi", "\u0130", "i\u0307", "\ufffd",
          "\x7f"),
    words("it's", '"cat"', "`id`", "$HOME", "a;b&c|d", "a\\b", "a,b", "(cat)", "<cat>", "'; DROP TABLE steps", "\\",
          "'"),
    words("%20", "50% off", "#1", "[a]", "[!a]", "*", "**", "?", "a*b?", "{x,y}", "{}", "a?b=c&d", "file:cat", "http:"),
    words("step=50", "seed=99", "token=dog", "block=7", "height=480", "video_id=x", "=", "a=",
          "__HIVE_DEFAULT_PARTITION__"),
    words("null", "NULL", "None", "NaN", "nan", "inf", "true", "1", "007", "1.5", "-1", "1e5", "0x10", "2024-01-01",
          "00:00"),
    words("token_cat", "cat_metadata", "aggregate", "step_000", "summary.json", "zarr.json", "c", "x.parquet",
          "attention"),
    words("__MACOSX", "@eaDir", "Thumbs.db", ".DS_Store", "#recycle", "lost+found", "cat:", ":cat", ":", "a:b",
          "cat:2,5"),
    words("x" * 240, "x" * 239 + "y", "\u00e9" * 120, CAT * 60, "x" * 122 + "\u00e9" * 59, "." * 200, "~" * 240,
          "X" * 240),
    M("words cleaned of what file systems refuse", both(*[add_word(word, name) for word, name in CLEANED.items()]),
      spelled(*[(word, VIDEO) for word in CLEANED])),
    M("a word composed in metadata, decomposed in its directory", add_word(COMPOSED, DECOMPOSED),
      (spelled((COMPOSED, VIDEO)), spelled((DECOMPOSED, VIDEO)))),
    M("a word decomposed in metadata, composed in its directory", add_word(DECOMPOSED, COMPOSED),
      (spelled((COMPOSED, VIDEO)), spelled((DECOMPOSED, VIDEO)))),
    M("a word composed here, decomposed there", both(add_word(COMPOSED), add_word(DECOMPOSED, video=OTHER)),
      spelled((COMPOSED, VIDEO), (COMPOSED, OTHER)), warns="one word"),
    M("a word decomposed here, composed there", both(add_word(DECOMPOSED), add_word(COMPOSED, video=OTHER)),
      spelled((DECOMPOSED, VIDEO), (DECOMPOSED, OTHER)), warns="one word"),
    M("a word decomposed and composed in one video", both(add_word(DECOMPOSED), add_word(COMPOSED)),
      replace(spelled((DECOMPOSED, VIDEO)), code=3), says="already found"),
    M("another word in metadata", metadata(token_word="tree"), SAME, warns="tree"),
    M("the other word in metadata", metadata(STEPS, token_word="dog"), SAME, warns="dog"),
    M("a copy of a word", lambda dump: [shutil.copytree(dump.word(), dump.word("cat (copy)"))],
      further({"token": "cat (copy)"}, like=WHOLE_WORD), warns="token_word"),
    weighted(("cat:2.5", "cat:2.5", "cat", 2.5), ("cat:2.5", "cat", "cat", 2.5), ("cat_2.5", "cat:2.5", "cat", 2.5),
             ("cat_2.5", "cat", "cat", 2.5), ("cat", "cat:2.5", "cat", 2.5), ("cat:2.5", None, "cat", 2.5)),
    weighted(("cat:0.5", "cat:0.5", "cat", 0.5), ("cat:3", "cat", "cat", 3.0), ("cat:1.10", "cat:1.10", "cat", 1.1),
             ("cat_0.8", "cat:0.8", "cat", 0.8), ("cat:1", "cat", "cat", 1.0), ("cat:1e-1", "cat:1e-1", "cat", 0.1)),
    weighted(("two cats:0.8", "two cats:0.8", "two cats", 0.8), ("a:b:2", "a:b:2", "a:b", 2.0),
             ("a_b_2", "a:b:2", "a:b", 2.0), ("[a]:2", "[a]:2", "[a]", 2.0), ("a_c_2", "a/c:2", "a/c", 2.0),
             ("_cat:2", "_cat:2", "_cat", 2.0)),
    weighted(("16:9", "16:9", "16:9", None), ("9_16", "9:16", "9:16", None), ("16:9", None, "16:9", None),
             ("10:30", "10:30", "10:30", None), ("10_30", "10:30", "10:30", None), ("4:3", "4:3", "4:3", None)),
    weighted(("route_66", "route_66", "route_66", None), ("cat_2", "cat_2", "cat_2", None),
             ("cat2", "cat2", "cat2", None), ("catch_22", None, "catch_22", None), ("cat_2.5", None, "cat_2.5", None),
             ("cat-2", "cat-2", "cat-2", None)),
    M("a number that the prompt has behind the word", add_word("model t:4", prompt="a model t:4 car"),
      further({"token": "model t:4", "step": STEP, "prompt": "a model t:4 car"})),
    M("a ratio that the prompt weighs", add_word("16:9", prompt="a (16:9) screen"),
      further({"token": "16", "weight": 9.0, "step": STEP, "prompt": "a (16:9) screen"})),
]  # fmt: skip

VIDEOS = [
    videos("a b", " x", "x ", "x.", "_x", "__x", "-x", "--store", "~x", "~", "tab\tbed", "new\nline", "\r",
           "it's \"q\"", "a\\b"),
    videos("gr\u00f6\u00dfe", DECOMPOSED, CAT, FAMILY, ARABIC, "\u00e9" * 120, "x" * 250, "x" * 249 + "y", CAT * 60),
    videos("%20", "50% #x", "[a]", "*", "a*b?", "{x,y}", "a@b", "a;b&c", "$HOME", "'; DROP TABLE steps", "a:b", "x|y",
           "a,b"),
    videos("step=50", "seed=99", "block=7", "height=480", "token=dog", "con", "NUL", "com1.txt", "null", "1", "007",
           "1e5"),
    videos("steps", "heads", "x.parquet", "X", "x", "c", "0", "tokens", "maps", "index", "attention_maps",
           "attention_maps2"),
    videos("zarr.json", "zarr.json.x"),
    videos("prompt_x", "prompt", "p007", "prompt_", "p_b_s", "vid001", "vid", "step_000", "summary", "p007_b001",
           "x_prompt_0"),
    M("videos of prompts", both(*map(add_video, PROMPT_IDS)), filmed(PROMPT_IDS)),
    M("nested videos", both(*[add_video(name, directory) for directory, name in NESTED.items()]),
      filmed(dict.fromkeys(NESTED.values(), "prompt_007"))),
    M("videos below each other", both(add_video("a"), add_video("b", "a/b"), add_video("c", "a/b/c")),
      filmed(dict.fromkeys("abc"))),
    M("videos cleaned of what file systems refuse", both(add_video("a:b", "a_b"), add_video("c/d", "c_d")),
      filmed(dict.fromkeys(("a_b", "c_d")))),
    M("another video's id in metadata", metadata(video_id=OTHER), SAME, warns=OTHER),
    M("a copy of a video", lambda dump: [shutil.copytree(dump.video(), dump.maps() / "copy")],
      further({"video_id": "copy", "prompt_id": None}, like=WHOLE_VIDEO), warns=VIDEO),
    M("a hidden video", lambda dump: dump.video().rename(dump.maps() / ".hidden"), without(WHOLE_VIDEO, code=0)),
]  # fmt: skip

NAMES = [*WORDS, *VIDEOS]
