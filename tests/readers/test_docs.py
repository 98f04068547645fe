"""What README.md and the documents on query, prompts and render tell people to type runs, and prints what they say it
prints.
Every ```sh and ```python block of a document runs, from top to bottom, in one directory that holds nothing but
`fixtures`. A block that cannot run there comes after a visible reason: `<!-- not run: needs your own dump -->`; of its
commands the options are checked. A
```text block is what the block before it prints: each of its lines must be there,
    in order; rows and columns may be left out, and `…` may say so.
"""

import os
import pty
import re
import shlex
import subprocess
import sys
import tempfile
import termios
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from source_dump import REPOSITORY

# Each document, and how many of its blocks may be such that they cannot run.
DOCUMENTS = {"README.md": 5, "docs/query.md": 0, "docs/prompts.md": 1, "docs/render.md": 1}
NOT_RUN = re.compile(r"<!-- not run: (.+) -->")
WIDE = (60, 300)  # rows and columns of a terminal where no table is folded


@dataclass
class Block:
    """A fenced block, and the reason given before it if it is not to run."""

    line: int
    language: str
    not_run: str | None
    lines: list[str] = field(default_factory=list)

    @property
    def text(self):
        return "\n".join(self.lines) + "\n"


@dataclass
class Step:
    """One command or one snippet, to be run in its turn."""

    document: str
    line: int
    language: str
    text: str

    @property
    def arguments(self):
        return (
            [sys.executable, "-W", "error", "-c", self.text] if self.language == "python" else ["sh", "-c", self.text]
        )

    def __str__(self):
        return f"{Path(self.document).name}:{self.line} {' '.join(self.text.split())[:60]}"


def blocks(document):
    found, open_block, before = [], None, ""
    for number, line in enumerate((REPOSITORY / document).read_text().splitlines(), 1):
        if line.startswith("```"):
            if open_block is None:
                marker = NOT_RUN.fullmatch(before)
                open_block = Block(number, line[3:].strip(), marker and marker[1])
                found.append(open_block)
            else:
                open_block = None
        elif open_block is not None:
            open_block.lines.append(line)
        before = line.strip() or before
    assert open_block is None, f"{document}:{open_block.line}: the block has no end"
    return found


def commands(block):
    """(line number, command) for each command of a
    ```sh block: as many lines as the shell needs to make sense of them."""
    pending = []
    for number, line in enumerate(block.lines, block.line + 1):
        if not pending and (not line.strip() or line.lstrip().startswith("#")):
            continue
        pending.append(line.removeprefix("$ ") if not pending else line)
        complete = (
            not line.endswith("\\")
            and subprocess.run(["sh", "-n", "-c", "\n".join(pending)], capture_output=True).returncode == 0
        )
        if complete:
            yield number - len(pending) + 1, "\n".join(pending)
            pending = []
    assert not pending, f"line {block.line}: the shell finds no end of {pending}"


def steps_of(document):
    """[(step, …)] of each block that runs, and the ```text that should come of it."""
    shown = blocks(document)
    for block, after in zip(shown, [*shown[1:], None]):
        if block.not_run is not None or block.language not in ("sh", "python"):
            continue
        if block.language == "sh":
            steps = [Step(document, line, "sh", text) for line, text in commands(block)]
        else:
            steps = [Step(document, block.line, "python", block.text)]
        yield steps, after if after is not None and after.language == "text" else None


STEPS = [step for document in DOCUMENTS for steps, _ in steps_of(document) for step in steps]
OUTPUTS = [(steps, text) for document in DOCUMENTS for steps, text in steps_of(document) if text is not None]


class Reader:
    """Someone who follows a document from the top, at a terminal of their own."""

    def __init__(self, directory, binary):
        self.work = directory / "work"
        self.work.mkdir()
        (self.work / "fixtures").symlink_to(REPOSITORY / "fixtures")
        (directory / "bin").mkdir()
        (directory / "bin" / "attnkit").symlink_to(binary)
        self.environment = os.environ | {"PATH": f"{directory / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        self.done = {}

    def follow(self, step):
        """(exit code, what was printed) of a step, after all those before it."""
        for earlier in STEPS:
            if earlier.document == step.document and earlier.line not in self.done:
                self.done[earlier.line] = self.run(earlier.arguments)
            if earlier is step:
                break
        return self.done[step.line]

    def run(self, arguments):
        controller, terminal = pty.openpty()
        termios.tcsetwinsize(terminal, WIDE)
        printed = b""
        with tempfile.TemporaryFile() as messages:
            # In a session of its own, so that the size of the terminal that pytest runs in is not found.
            process = subprocess.Popen(
                arguments,
                cwd=self.work,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=terminal,
                stderr=messages,
                start_new_session=True,
            )
            os.close(terminal)
            while more := read_terminal(controller):
                printed += more
            os.close(controller)
            code = process.wait()
            messages.seek(0)
            return code, (printed + messages.read()).decode()


def read_terminal(controller):
    try:
        return os.read(controller, 1 << 16)
    except OSError:  # how Linux says that the other side is closed
        return b""


@pytest.fixture(scope="module")
def readers(attnkit, tmp_path_factory):
    """A reader for each document."""
    binary = Path(os.environ["ATTNKIT_BIN"]).resolve()
    return {document: Reader(tmp_path_factory.mktemp(Path(document).stem), binary) for document in DOCUMENTS}


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_it_runs(readers, step):
    code, printed = readers[step.document].follow(step)
    assert code == 0, f"{step.document}:{step.line}\n{step.text}\n{printed}"


@pytest.mark.parametrize("steps, text", OUTPUTS, ids=[str(steps[-1]) for steps, _ in OUTPUTS])
def test_it_prints_what_is_shown(readers, steps, text):
    printed = "".join(readers[step.document].follow(step)[1] for step in steps)
    left = iter(printed.splitlines())
    for number, line in enumerate(text.lines, text.line + 1):
        words = [word for word in line.split() if word != "…"]
        assert not words or any(is_part(words, other.split()) for other in left), (
            f"{steps[0].document}:{number}: not printed, or not there:\n{line}\n\nprinted was:\n{printed}"
        )


def is_part(words, of):
    """Whether all of `words` are among `of`, in order."""
    rest = iter(of)
    return all(word in rest for word in words)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_is_in_a_block_that_runs_or_says_why_not(document):
    text = (REPOSITORY / document).read_text()
    shown = blocks(document)
    hidden = [
        block.line for block in shown if block.language != "sh" and re.search(r"^\s*(\$ )?attnkit ", block.text, re.M)
    ]
    assert not hidden, f"{document}: lines {hidden}: commands in blocks that are not ```sh are not run"
    assert not re.search(r"^( {4}|\t)\s*(\$ )?attnkit ", re.sub(r"```.*?```", "", text, flags=re.S), re.M), (
        f"{document}: indented commands are not run"
    )
    not_run = [block for block in shown if block.not_run is not None]
    assert len(not_run) == len(NOT_RUN.findall(text)), f"{document}: a `not run` without a block after it"
    assert len(not_run) <= DOCUMENTS[document], f"{document}: {[block.line for block in not_run]}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_that_are_not_run_have_options_that_exist(attnkit, document):
    in_blocks = [
        text
        for block in blocks(document)
        if block.not_run is not None and block.language == "sh"
        for _, text in commands(block)
    ]
    in_prose = re.findall(r"`(attnkit [^`\n]+)`", (REPOSITORY / document).read_text())
    for text in in_blocks + in_prose:
        words = shlex.split(text, comments=True)
        if words[0] != "attnkit":
            continue
        subcommand = words[1:3] if words[1] in ("query", "prompt") else words[1:2]
        known = re.findall(
            r"(?<![\w-])--?[a-z][\w-]*", attnkit(*[word for word in subcommand if not word.startswith("-")], "--help")
        )
        unknown = [word for word in words[1:] if re.match(r"--?[a-z]", word) and word.split("=")[0] not in known]
        assert not unknown, f"{document}: `{text}`: there is no {', '.join(unknown)}"


def test_the_fixtures_are_as_their_script_finds_them():
    finds = subprocess.run(
        [sys.executable, "fixtures/lift.py"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert finds.stdout in (REPOSITORY / "fixtures" / "README.md").read_text()
