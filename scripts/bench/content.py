"""Random content to be spread, and whether it arrived."""

import os
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


@dataclass
class Content:
    """Files below `folder`; `entry`, a file or a directory, is what is asked for."""

    folder: Path
    entry: str
    files: int
    bytes: int

    @property
    def path(self):
        """The entry itself."""
        return self.folder / self.entry

    def differs_from(self, received):
        """What is wrong with a copy; empty if nothing is."""
        if self.path.is_file():
            return '' if same_bytes(self.path, received) else 'the received file differs from the source'
        names = names_below(self.path)
        if names_below(received) != names:
            return 'other files were received than sent'
        wrong = sum(not same_bytes(self.path / name, received / name) for name in names)
        return f'{wrong} received files differ from their source' if wrong else ''


def one_file(folder, length):
    """A file of random bytes."""
    folder.mkdir(parents=True)
    write_random(folder / 'file.bin', length)
    return Content(folder, 'file.bin', 1, length)


def many_files(folder, *kinds):
    """A tree of random files, 100 in each directory, of so many files of such a length each."""
    lengths = [length for count, length in kinds for _ in range(count)]
    for number, length in enumerate(lengths):
        directory = folder / 'tree' / f'd{number // 100:03}'
        if number % 100 == 0:
            directory.mkdir(parents=True)
        write_random(directory / f'f{number:05}', length)
    return Content(folder, 'tree', len(lengths), sum(lengths))


def write_random(path, length):
    """Writes in pieces, since the whole may not fit twice into memory."""
    with open(path, 'wb') as file:
        for at in range(0, length, 8 * MIB):
            file.write(os.urandom(min(8 * MIB, length - at)))


def same_bytes(one, other):
    """Whether two files are equal; one that is missing equals none."""
    try:
        with open(one, 'rb') as a, open(other, 'rb') as b:
            while True:
                piece = a.read(8 * MIB)
                if piece != b.read(8 * MIB):
                    return False
                if not piece:
                    return True
    except FileNotFoundError:
        return False


def names_below(folder):
    """The relative paths of all files below a directory."""
    return sorted(os.path.relpath(os.path.join(at, name), folder) for at, _, names in os.walk(folder) for name in names)
