"""Running kernels: one parallel loop for all of them.

A job is a list of *stages*, each a kernel and a number of tasks; a stage begins when the one before
has ended. Within a stage every thread takes the next task that nobody has taken, so that a thread
held up by another program does not hold up the rest. Which thread does a task never changes what
the task computes: results are bitwise the same for any number of threads.

Jobs that run in parallel take turns, and a forked process runs its own on one thread: ``team.py``.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from ..caching import PerDtype
from ..memory import workspace
from . import team
from .blocks import Ints, Tables
from .kernel import OPTIONS, Kernel, driver_arguments, kernel_signature

Array = NDArray[Any]
Run = Callable[[Array, Array, Array | None, Array], None]

# Work below this many operations is done by the calling thread: waking the others costs about
# 4 us, in which one core does several hundred thousand.
SERIAL_BELOW = 1_000_000

# Python looks for signals between runs of at most this many operations: a second of a slow core.
# Starting a run costs microseconds.
INTERRUPTIBLE = 20_000_000_000


@intrinsic
def _call(typingctx, address, task, slot, size, table, a, b, c, out, work):
    signature = kernel_signature(out.dtype)
    arrays = (size, table, a, b, c, out, work)

    def codegen(context, builder, sig, args):
        kind = context.call_conv.get_function_type(types.void, signature.args)
        function = builder.inttoptr(args[0], kind.as_pointer())
        first = [
            context.make_array(array)(context, builder, value).data
            for array, value in zip(arrays, args[3:], strict=True)
        ]
        values = [*args[1:3], *first]
        context.call_conv.call_function(builder, function, types.void, signature.args, values)
        return context.get_dummy_value()

    return types.void(*3 * (types.intp,), *arrays), codegen


@intrinsic
def _take(typingctx, counters, i):
    """Atomically ``counters[i] += 1``; returns the value before."""

    def codegen(context, builder, sig, args):
        array = context.make_array(sig.args[0])(context, builder, args[0])
        place = builder.gep(array.data, [args[1]])
        return builder.atomic_rmw("add", place, ir.IntType(64)(1), "monotonic")

    return types.int64(counters, types.intp), codegen


def _parallel(stages, counters, threads, size, table, a, b, c, out, work):
    for stage in range(stages.shape[0]):
        address, tasks = stages[stage, 0], stages[stage, 2]
        for slot in prange(threads):
            task = _take(counters, stage)
            while task < tasks:
                _call(address, task, slot, size, table, a, b, c, out, work)
                task = _take(counters, stage)


def _serial(stages, size, table, a, b, c, out, work):
    for stage in range(stages.shape[0]):
        for task in range(stages[stage, 1], stages[stage, 2]):
            _call(stages[stage, 0], task, 0, size, table, a, b, c, out, work)


_STAGES = types.Array(types.int64, 2, "C", readonly=True)
_COUNTERS = types.Array(types.int64, 1, "C")


def _driver(function: Any, *leading: types.Type, **options: Any) -> PerDtype:
    """A loop over tasks, taking ``leading`` and then the arrays of a kernel."""

    def signature(scalar: types.Type) -> Any:
        return types.void(*leading, *driver_arguments(scalar))

    return PerDtype(function, signature, **OPTIONS, **options)


_run_parallel = _driver(_parallel, _STAGES, _COUNTERS, types.intp, parallel=True)
_run_serial = _driver(_serial, _STAGES)


def compile_for(dtype: str) -> None:
    """Compile the loops for a dtype, or take them from the cache."""
    for loop in (_run_parallel, _run_serial):
        loop[np.dtype(dtype)]


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
        addresses = [(kernel.address(dtype), tasks) for kernel, tasks in stages]
        self.runs = [np.array(run, np.int64) for run in _runs(addresses, operations)]
        self.size = np.array(size, np.int64)
        self.table = tables.joined()
        self.work = work
        self.operations = operations
        self.no_bias = np.zeros(biases, dtype)


def _runs(
    stages: Sequence[tuple[int, int]], operations: int
) -> Iterator[list[tuple[int, int, int]]]:
    """Stages (kernel, first task, the one after the last) that are run without a look at signals.

    All in one, unless they are so many operations that each stage is cut.
    """
    parts = -(-operations // INTERRUPTIBLE)
    if parts <= 1:
        yield [(address, 0, tasks) for address, tasks in stages]
        return
    for address, tasks in stages:
        for part in range(parts):
            first, last = part * tasks // parts, (part + 1) * tasks // parts
            if first < last:
                yield [(address, first, last)]


def is_small(plan: Plan) -> bool:
    """Whether there is so little to do that one thread does it."""
    return plan.operations < SERIAL_BELOW


def is_stale(plan: Plan) -> bool:
    """Whether another number of threads has been set since the plan was made."""
    # Asking how many there are takes a tenth of a small call, which needs but one.
    return not is_small(plan) and plan.threads != team.threads()


def threads_of(plan: Plan) -> int:
    """Threads that take part in a job."""
    return 1 if is_small(plan) else plan.threads


def small_run(plan: Plan, dtype: np.dtype[Any]) -> Run:
    """What ``run`` does with a plan of little to do, as a function of arrays and a bias."""
    loop, size, table, work = _run_serial[dtype], plan.size, plan.table, plan.work
    (stages,), zeros = plan.runs, plan.no_bias

    def run(a: Array, b: Array, bias: Array | None, out: Array) -> None:
        c = zeros if bias is None else bias
        loop(stages, size, table, a, b, c, out, workspace(work, dtype))

    return run


def run(plan: Plan, a: Array, b: Array, c: Array, out: Array) -> None:
    """Do all tasks of all stages; the arrays are what ``kernel.kernel_signature`` says."""
    dtype = out.dtype
    arguments = (
        plan.size,
        plan.table,
        a,
        b,
        c,
        out,
        workspace(plan.work, dtype),
    )
    threads = threads_of(plan)
    for stages in plan.runs:
        if threads == 1:
            _run_serial[dtype](stages, *arguments)
        else:
            counters = stages[:, 1].copy()
            with team.turn():
                _run_parallel[dtype](stages, counters, threads, *arguments)
