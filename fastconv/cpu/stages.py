"""Plans: all that a job needs apart from its arrays.

A job is a list of *stages*, each a number of tasks of a kernel, or of several kernels side by side;
a stage begins when the one before has ended. ``driver.py`` runs them.
"""

from collections.abc import Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np

from ..host import LINE
from .blocks import Ints, Table, Tables
from .kernel import Kernel

# Python looks for signals between runs of at most this many operations: a second of a slow core.
# Starting a run costs microseconds.
INTERRUPTIBLE = 20_000_000_000


class Tasks(NamedTuple):
    """Tasks ``first`` to ``last`` of a kernel, and where the numbers that they see begin."""

    address: int
    first: int
    last: int
    size: int = 0  # in the plan's `size` and `table`
    table: int = 0
    b: int = 0  # in arrays of the caller
    out: int = 0
    work: int = 0


# A row is the numbers of Tasks, and behind which row its stage ends.
FIRST, LAST = (Tasks._fields.index(name) for name in ("first", "last"))
STARTS = {Tasks._fields.index(name): name for name in ("size", "table", "b", "out", "work")}
END, FIELDS = len(Tasks._fields), len(Tasks._fields) + 1


class Plan:
    """All that a call needs apart from its arrays.

    Parameters
    ----------
    dtype
        Of the arrays.
    stages : (kernel, number of tasks) of each
    size, tables
        What the kernels read of the problem: numbers, and offset tables.
    work : int
        Numbers of scratch memory, for ``team.threads()`` slots.
    operations : int
        Floating-point operations of all stages together.
    biases : int
        Length of the zeros that stand for a bias where there is none.

    Attributes
    ----------
    threads : int
        How many it was made for.
    stages : list of lists of Tasks
    runs : list of (rows, FIELDS) arrays
        Rows of all stages, or of some tasks of one after the other.
    """

    threads = 1

    def __init__(
        self,
        dtype: np.dtype[Any],
        stages: Sequence[tuple[Kernel, int]],
        size: Ints,
        tables: Tables,
        work: int,
        operations: int,
        biases: int = 1,
    ) -> None:
        self.stages = [[Tasks(kernel.address(dtype), 0, tasks)] for kernel, tasks in stages]
        self.size = np.array(size, np.int64)
        self.table = tables.joined()
        self.work = work
        self.operations = operations
        self.no_bias = np.zeros(biases, dtype)
        self.runs = _runs(self.stages, operations)

    @classmethod
    def joined(cls, parts: Sequence[tuple["Plan", int, int]], most_work: int) -> "Plan":
        """One plan for all parts, which share ``a``, the bias and a dtype.

        With the plan of each come the offsets of its own ``b`` and ``out`` in those of all. They
        are done side by side, the last stage of all together as are those before, if they take no
        more than ``most_work`` numbers of scratch memory; otherwise one after the other.
        """
        plans = [plan for plan, _, _ in parts]
        line = LINE // plans[0].no_bias.itemsize
        spaces = [-(-plan.work // line) * line for plan in plans]
        beside = sum(spaces) <= most_work
        most = max(len(plan.stages) for plan in plans)
        stages: list[list[Tasks]] = [[]] * most if beside else []
        size = table = work = 0
        for (plan, b, out), space in zip(parts, spaces, strict=True):
            starts = {"size": size, "table": table, "b": b, "out": out, "work": work}
            own = [[tasks._replace(**starts) for tasks in stage] for stage in plan.stages]
            if beside:
                own = [[]] * (most - len(own)) + own
                stages = [before + more for before, more in zip(stages, own, strict=True)]
                work += space
            else:
                stages += own
            size, table = size + plan.size.size, table + plan.table.size
        joined = copy(plans[0])
        joined.stages = stages
        joined.size = np.concatenate([plan.size for plan in plans])
        joined.table = np.concatenate([plan.table for plan in plans])
        joined.work = sum(spaces) if beside else max(spaces)
        joined.operations = sum(plan.operations for plan in plans)
        joined.runs = _runs(stages, joined.operations)
        return joined


def _runs(stages: Sequence[Sequence[Tasks]], operations: int) -> list[Table]:
    """Rows of what is run without a look at signals.

    That is all stages, unless they are so many operations that each is cut.
    """
    parts = -(-operations // INTERRUPTIBLE)
    if parts <= 1:
        return [_rows(stages)]
    runs = []
    for stage in stages:
        for part in range(parts):
            ends = [(part * each.last // parts, (part + 1) * each.last // parts) for each in stage]
            some = [
                each._replace(first=first, last=last)
                for each, (first, last) in zip(stage, ends, strict=True)
                if first < last
            ]
            runs += [_rows([some])] if some else []
    return runs


def _rows(stages: Sequence[Sequence[Tasks]]) -> Table:
    rows: list[Ints] = []
    for stage in stages:
        end = len(rows) + len(stage)
        rows += [(*tasks, end) for tasks in stage]
    return np.array(rows, np.int64)
