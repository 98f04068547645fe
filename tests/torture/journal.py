"""What a disk may hold after the power went at some point of a recorded run.

A file has the contents that were flushed last, a directory the names that were flushed last; what was written since may
be there or not. Two names of one directory that were exchanged are both exchanged, or neither is.
"""

from dataclasses import dataclass, field

# What became of what was not flushed: neither contents nor names are there, names without contents, names and zeros; of
# the names, only what was renamed, exchanged and removed (a directory has its new name, and not what is new in it), or
# only what was removed (from a directory that is still where another one was to be).
LOSSES = ("all", "contents", "zeros", "new names", "all but removals")


@dataclass
class File:
    data: bytearray = field(default_factory=bytearray)
    flushed: bytes = b""


@dataclass
class Directory:
    names: dict = field(default_factory=dict)
    flushed: dict = field(default_factory=dict)
    # Those that were flushed, with what was renamed, exchanged and removed since; and but for what was removed.
    moved: dict = field(default_factory=dict)
    kept: dict = field(default_factory=dict)

    def flush(self):
        self.flushed, self.moved, self.kept = dict(self.names), dict(self.names), dict(self.names)


def records(journal):
    """(kind, path, other path, number, bytes) of everything that was done."""
    contents, at = journal.read_bytes(), 0
    while at < len(contents):
        end = contents.index(b"\n", at)
        kind, *numbers = contents[at:end].decode().split()
        path_len, other_len, number, data_len = map(int, numbers)
        at = end + 1
        pieces = []
        for length in (path_len, other_len, data_len):
            pieces.append(contents[at : at + length])
            at += length
        yield kind, pieces[0].decode(), pieces[1].decode(), number, pieces[2]


class Disk:
    """The tree below a directory, whose present state is all on disk."""

    def __init__(self, root):
        self.root = str(root)
        self.tree = self._read(root) if root.exists() else None

    def _read(self, path):
        if path.is_file():
            contents = path.read_bytes()
            return File(bytearray(contents), contents)
        directory = Directory({child.name: self._read(child) for child in path.iterdir()})
        directory.flush()
        return directory

    def _find(self, path):
        parts = path[len(self.root) :].strip("/").split("/")
        node = self.tree
        for name in parts[:-1]:
            node = node.names[name]
        return node, parts[-1]

    def _node(self, path):
        parent, name = self._find(path)
        return parent.names[name] if name else self.tree

    def apply(self, kind, path, other, number, data):
        if kind == "Y":
            self._flush(self.tree)
            return
        if path == self.root and kind in "MS":
            if kind == "M":
                self.tree = Directory()
            else:
                self.tree.flush()
            return
        parent, name = self._find(path)
        match kind:
            case "C":
                parent.names[name] = File()
            case "M":
                parent.names[name] = Directory()
            case "W":
                contents = parent.names[name].data
                contents.extend(bytes(max(0, number - len(contents))))
                contents[number : number + len(data)] = data
            case "T":
                contents = parent.names[name].data
                del contents[number:]
                contents.extend(bytes(number - len(contents)))
            case "S":
                node = parent.names[name]
                if isinstance(node, File):
                    node.flushed = bytes(node.data)
                else:
                    node.flush()
            case "U":
                gone = parent.names.pop(name)
                parent.moved.pop(name, None)
                if parent.kept.get(name) is gone:
                    del parent.kept[name]
            case "R":
                target, new = self._find(other)
                target.names[new] = target.moved[new] = parent.names.pop(name)
                parent.moved.pop(name, None)
            case "X":
                target, new = self._find(other)
                parent.names[name], target.names[new] = target.names[new], parent.names[name]
                parent.moved[name], target.moved[new] = parent.names[name], target.names[new]
            case "L":
                target, new = self._find(other)
                target.names[new] = parent.names[name]

    def _flush(self, node):
        if isinstance(node, File):
            node.flushed = bytes(node.data)
            return
        node.flush()
        for child in node.names.values():
            self._flush(child)

    def write(self, target, loss):
        """Writes down what is left after the loss of what was not flushed."""
        if self.tree is not None:
            self._write(self.tree, target, loss)

    def _write(self, node, target, loss):
        if isinstance(node, File):
            zeros = bytes(len(node.data)) if loss == "zeros" and node.flushed != node.data else b""
            target.write_bytes(node.flushed + zeros[len(node.flushed) :])
            return
        target.mkdir(parents=True)
        names = {"all": node.flushed, "new names": node.moved, "all but removals": node.kept}.get(loss, node.names)
        for name, child in names.items():
            self._write(child, target / name, loss)
