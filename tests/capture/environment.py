"""An environment with torch and diffusers for the tests of capture: python environment.py VENV REQUIREMENTS

torch is installed without the gigabytes of CUDA libraries that its wheel for Linux asks for, which tests on a CPU do
not need: libraries of the same names take their place, in which every function says that there is no device.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

#: What CUDA's functions answer where there is no device.
NO_DEVICE = 100
#: Names that the functions of CUDA's libraries begin with.
CUDA = r"(?:__cuda|cu|nccl|nv)\w*"
#: Of libraries whose functions have no versions: what their names begin with.
UNVERSIONED = {"libcufile": "cuFile", "libcusparseLt": "cusparseLt", "libnccl": "nccl", "libnvshmem_host": "nvshmem"}


def main(venv: Path, requirements: Path) -> None:
    done = venv / "made"
    if done.exists():
        return
    run(sys.executable, "-m", "venv", "--clear", venv)
    python = venv / "bin" / "python"
    torch = next(line for line in requirements.read_text().splitlines() if line.startswith("torch=="))
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "--no-deps", torch)
    packages = Path(said(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    without_cuda(packages)
    # Each of them is pinned, those that others pull in too.
    run(*pip, "--no-deps", "--requirement", requirements)
    run(python, "-c", "import torch, diffusers, transformers")
    done.touch()


def without_cuda(packages: Path) -> None:
    """Puts empty libraries in the place of CUDA's, and takes these off what torch asks for."""
    for metadata in packages.glob("torch-*.dist-info/METADATA"):
        lines = metadata.read_text().splitlines(keepends=True)
        metadata.write_text(
            "".join(line for line in lines if not re.match(r"Requires-Dist: (cuda|nvidia|triton)", line))
        )
    libraries = packages / "torch" / "lib"
    own = sorted(libraries.glob("lib*.so*"))
    needed: set[str] = set()
    versions: defaultdict[str, set[str]] = defaultdict(set)
    functions: defaultdict[str, set[str]] = defaultdict(set)
    for library in own:
        needed |= set(re.findall(r"\(NEEDED\).*\[(lib(?:cu|nccl|nv).*?)\]", said("readelf", "-d", library)))
        of_files = re.findall(r"File: (\S+)\s+Cnt: \d+\n((?:.*Name:.*\n)*)", said("readelf", "-VW", library))
        for file, names in of_files:
            versions[file] |= set(re.findall(r"Name: (\S+)", names))
        undefined = said("nm", "-D", "--undefined-only", library)
        for name, version in re.findall(rf" U ({CUDA})(?:@+(\S+))?", undefined):
            functions[version].add(name)
    # The driver's is looked for while it runs, and not found.
    for name in sorted(needed - {library.name for library in own} - {"libcuda.so.1"}):
        prefix = UNVERSIONED.get(name.split(".so")[0])
        plain = {function for function in functions[""] if prefix and function.startswith(prefix)}
        make_library(libraries / name, plain, {version: functions[version] for version in versions[name]})


def make_library(path: Path, plain: set[str], by_version: dict[str, set[str]]) -> None:
    """A library whose functions all fail."""
    lines = []
    for name in sorted(plain.union(*by_version.values())):
        if name.endswith(("ErrorString", "ErrorName")):
            lines.append(f'const char *{name}(void) {{ return "there is no CUDA"; }}')
        else:
            lines.append(f"long {name}(void) {{ return {NO_DEVICE}; }}")
    options = ["-shared", "-fPIC", "-w", "-fno-builtin", "-s", f"-Wl,-soname,{path.name}"]
    with tempfile.TemporaryDirectory() as work:
        if by_version:
            script = Path(work) / "versions"
            nodes = (f"{version} {{ global: {'; '.join(sorted(names))}; }};" for version, names in by_version.items())
            script.write_text("\n".join(nodes))
            options.append(f"-Wl,--version-script={script}")
        source = Path(work) / "stub.c"
        source.write_text("\n".join(lines) or "int nothing;")
        run("cc", *options, "-o", path, source)


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True)


def said(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
