"""Plans: all that a job needs apart from its arrays.

A job is a list of *stages*, each a number of tasks of a kernel, or of several kernels side by side;
a stage begins when the one before has ended. ``driver.py`` runs them.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from itertools import accumulate
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
    kernels : (kernel, number of tasks) of each stage
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
        kernels: Sequence[tuple[Kernel, int]],
        size: Ints,
        tables: Tables,
        work: int,
        operations: int,
        biases: int = 1,
    ) -> None:
        self.stages = [[Tasks(kernel.address(dtype), 0, tasks)] for kernel, tasks in kernels]
        self.size = np.array(size, np.int64)
        self.table = tables.joined()
        self.work = work
        self.operations = operations
        self.no_bias = np.zeros(biases, dtype)
        self.runs = _runs([(self.stages, operations)])

    @property
    def numbers(self) -> int:
        """How many it keeps."""
        return sum(array.size for array in (self.size, self.table, *self.runs))


class Part(NamedTuple):
    """A plan that becomes a part of another, and where in that one's arrays its own begin."""

    plan: Plan
    b: int
    out: int

    @property
    def space(self) -> int:
        """Numbers of scratch memory, to the end of a cache line."""
        line = LINE // self.plan.no_bias.itemsize
        return -(-self.plan.work // line) * line


# Plans a stage that serves all parts, or does not, given where in scratch memory each begins.
First = Callable[[Sequence[int]], Plan | None]


def joined(parts: Sequence[Part], most_work: int, first: First | None = None) -> Plan:
    """One plan for all parts, of which several may share one; all have ``a``, bias and dtype.

    As many as take no more than ``most_work`` numbers of scratch memory are done side by side. If
    several are, and these are all, of two stages each, what ``first`` plans takes the place of the
    first stage of each.
    """
    batches: list[list[Part]] = []
    room = 0
    for part in parts:
        if not batches or part.space > room:
            batches.append([])
            room = most_work
        batches[-1].append(part)
        room -= part.space
    plans = {id(part.plan): part.plan for part in parts}
    serves = None
    if first and len(parts) > len(batches) == 1 and all(len(p.stages) == 2 for p in plans.values()):
        serves = first([0, *accumulate(part.space for part in parts[:-1])])
        if serves:
            plans[id(serves)] = serves
    begins, size, table = {}, 0, 0
    for key, plan in plans.items():
        begins[key] = size, table
        size, table = size + plan.size.size, table + plan.table.size
    jobs = [
        (_side_by_side(batch, begins), sum(part.plan.operations for part in batch))
        for batch in batches
    ]
    if serves:
        size, table = begins[id(serves)]
        jobs[0][0][0] = [tasks._replace(size=size, table=table) for tasks in serves.stages[0]]
    whole = copy(parts[0].plan)
    whole.size = np.concatenate([plan.size for plan in plans.values()])
    whole.table = np.concatenate([plan.table for plan in plans.values()])
    whole.work = max(sum(part.space for part in batch) for batch in batches)
    whole.operations = sum(operations for _, operations in jobs)
    whole.stages = [stage for stages, _ in jobs for stage in stages]
    whole.runs = _runs(jobs)
    return whole


def _side_by_side(
    parts: Sequence[Part], begins: Mapping[int, tuple[int, int]]
) -> list[list[Tasks]]:
    """Stages of all parts: the last ones together, and so those before."""
    from_end: list[list[Tasks]] = []
    work = 0
    for part in parts:
        size, table = begins[id(part.plan)]
        for i, stage in enumerate(reversed(part.plan.stages)):
            if i == len(from_end):
                from_end.append([])
            from_end[i] += [
                tasks._replace(size=size, table=table, b=part.b, out=part.out, work=work)
                for tasks in stage
            ]
        work += part.space
    return from_end[::-1]


def _runs(jobs: Sequence[tuple[Sequence[Sequence[Tasks]], int]]) -> list[Table]:
    """Rows of what is run without a look at signals, for stages and their operations.

    That is all of them, unless they are so many operations that stages are cut.
    """
    if sum(operations for _, operations in jobs) <= INTERRUPTIBLE:
        return [_rows([stage for stages, _ in jobs for stage in stages])]
    runs = []
    for stages, operations in jobs:
        parts = -(-operations // INTERRUPTIBLE)
        for stage in stages:
            for part in range(parts):
                cut = [
                    each._replace(
                        first=part * each.last // parts, last=(part + 1) * each.last // parts
                    )
                    for each in stage
                ]
                some = [each for each in cut if each.first < each.last]
                runs += [_rows([some])] if some else []
    return runs


def _rows(stages: Sequence[Sequence[Tasks]]) -> Table:
    rows: list[Ints] = []
    for stage in stages:
        end = len(rows) + len(stage)
        rows += [(*tasks, end) for tasks in stage]
    return np.array(rows, np.int64)
