"""A table of measurements: runs its rows by turns, and is printed as Markdown."""

import statistics
import sys

from programs import Failed

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40


class Table:
    """Rows of the same work done by different programs."""

    def __init__(self, title, headings=(), sides=('program',), ideal_s=None):
        """`headings` are those of what is said of each row, `sides` those that are weighed apart. With `ideal_s`, rows
        are compared with that; otherwise with the row that is added as the reference."""
        self.title = title
        self._headings = headings
        self._sides = sides
        self._ideal_s = ideal_s
        self._reference = None
        self._rows = {}
        self._missing = {}
        self.failures = {}

    def row(self, name, run, cells=(), packages=(), reference=False):
        """Adds a row that is measured by `run`, unless `packages` would have to be installed for it. `cells` are the
        last of the row, or make these from its samples."""
        if packages:
            self._missing[name] = packages
            return
        self._rows[name] = (run, cells, [])
        if reference:
            self._reference = name

    def fill(self, runs):
        """Measures all rows by turns, so that what else the machine does strikes all alike."""
        for turn in range(1, runs + 1):
            for name, (run, _, samples) in self._rows.items():
                if name in self.failures:
                    continue
                try:
                    samples.append(run())
                    outcome = f'{samples[-1].seconds:.3f} s'
                except Failed as why:
                    self.failures[name] = outcome = str(why)
                print(f'{self.title.split(":")[0]} run {turn} of {runs}, {name}: {outcome}', file=sys.stderr)
        return self

    def __str__(self):
        sides = ' + '.join(self._sides)
        compared = 'of the limit' if self._ideal_s else f'/ {self._reference}'
        heads = ['', 'seconds', compared, f'CPU s, {sides}', f'MiB, {sides}', *self._headings]
        if not self._ideal_s and not self._reference_s():
            heads.remove(compared)
        lines = [f'**{self.title}**', '', row(heads), '|' + '---|' * len(heads)]
        lines += [self._line(name) for name in self._rows if name not in self.failures]
        notes = [f'{name} failed: {why}' for name, why in self.failures.items()]
        notes += [f'{name} was left out: apt-get install {" ".join(packages)}' for name, packages in self._missing.items()]
        return '\n'.join(lines + [line for note in notes for line in ('', note)]) + '\n'

    def _line(self, name):
        _, cells, samples = self._rows[name]
        seconds = [sample.seconds for sample in samples]
        middle = statistics.median(seconds)
        compared = []
        if self._ideal_s:
            compared = [f'{100 * self._ideal_s / middle:.1f} %']
        elif reference_s := self._reference_s():
            ratio = middle / reference_s
            compared = [f'{ratio:.2f}' if ratio >= 0.1 else f'{ratio:.3f}']
        cpu_s = [statistics.median(side) for side in zip(*(sample.cpu_s for sample in samples))]
        memory = [max(side) / MIB for side in zip(*(sample.memory for sample in samples))]
        return row([
            f'**{name}**' if name.startswith('GPB') else name,
            f'{brief(middle)} ({brief(min(seconds))}-{brief(max(seconds))})',
            *compared,
            ' + '.join(f'{side:.2f}' for side in cpu_s[: len(self._sides)]),
            ' + '.join(f'{side:.0f}' for side in memory[: len(self._sides)]),
            *(cells(samples) if callable(cells) else cells),
        ])

    def _reference_s(self):
        if self._reference is None or self._reference in self.failures:
            return None
        return statistics.median(sample.seconds for sample in self._rows[self._reference][2])


def row(cells):
    """One line of a table."""
    return f'| {" | ".join(cells)} |'.replace('|  |', '| |')


def brief(seconds):
    """Seconds with the digits that mean something."""
    return f'{seconds:.3f}' if seconds < 1 else f'{seconds:.2f}'


def amount(length):
    """A number of bytes for people."""
    units = [(TIB, 'TiB'), (GIB, 'GiB'), (MIB, 'MiB'), (KIB, 'KiB')]
    unit, name = next((each for each in units if length >= each[0]), units[-1])
    return f'{length / unit:.3g} {name}'
