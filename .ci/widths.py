"""Finds lines that are too long: 120 characters in code and comments, 110 in Markdown. Run by `make lint`.

Tables, and links that stand alone, cannot be broken; what programs print is shown as they print it.
"""

import subprocess
import sys
from pathlib import Path

WIDTHS = {
    ".rs": 120,
    ".py": 120,
    ".pyi": 120,
    ".toml": 120,
    ".c": 120,
    ".sh": 120,
    ".yml": 120,
    ".yaml": 120,
    ".md": 110,
}


def too_long(path: Path, width: int) -> list[int]:
    """The numbers of the lines, from 1."""
    found, in_block = [], False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if path.suffix == ".md":
            in_block ^= line.lstrip().startswith("```")
            if in_block or line.lstrip().startswith("|") or len(line.split()) < 3:
                continue
        if len(line) > width:
            found.append(number)
    return found


def main() -> int:
    listed = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True, text=True).stdout
    paths = [Path(name) for name in listed.split("\0") if name]
    lines = [
        f"{path}:{number}: longer than {WIDTHS[path.suffix]} characters"
        for path in paths
        if path.suffix in WIDTHS and path.is_file() and not path.is_symlink()
        for number in too_long(path, WIDTHS[path.suffix])
    ]
    print("\n".join(lines), end="\n" if lines else "")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
