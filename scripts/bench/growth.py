"""A table of how costs grow: the same actions on ever more of something."""

import os
import sys

from programs import Failed
from table import MIB, brief, row


class Growth:
    """One column for each size, one row for each action; each cell is one run."""

    def __init__(self, title, sizes, legend):
        """`sizes` are the headings of the columns, smallest first."""
        self.title = title
        self._legend = legend
        self._sizes = sizes
        self._cells = {}
        self.failures = {}

    def run(self, action, size, measure):
        """Fills one cell with a sample, if the action did not fail before."""
        if action in self.failures:
            return
        try:
            sample = measure()
            outcome = f'{sample.seconds:.3f} s'
            self._cells.setdefault(action, {})[size] = sample
        except Failed as why:
            self.failures[action] = outcome = f'{size}: {why}'
        print(f'{self.title}: {size}, {action}: {outcome}, load {os.getloadavg()[0]:.1f}', file=sys.stderr)

    def __str__(self):
        lines = [f'**{self.title}**', '', self._legend, '', row(['', *self._sizes, 'last step']), '|' + '---|' * (len(self._sizes) + 2)]
        for action, cells in self._cells.items():
            shown = [told(cells[size]) if size in cells else '' for size in self._sizes]
            lines.append(row([f'**GPB, {action}**', *shown, step([cells[s] for s in self._sizes if s in cells])]))
        lines += [line for action, why in self.failures.items() for line in ('', f'{action} failed at {why}')]
        return '\n'.join(lines) + '\n'


def told(sample):
    """Time, and memory of each side that took part."""
    memory = ' + '.join(f'{side / MIB:.0f}' for side in sample.memory if side)
    return f'{brief(sample.seconds)} s, {memory} MiB'


def step(samples):
    """By how much the last size is dearer than the one before."""
    if len(samples) < 2:
        return ''
    before, last = samples[-2:]
    memory = ' + '.join(f'{b / a:.1f}' for a, b in zip(before.memory, last.memory) if a)
    return f'time x {last.seconds / before.seconds:.1f}, memory x {memory}'
