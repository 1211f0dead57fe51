"""Running kernels: one parallel loop for all of them.

Within a stage of a job (``stages.py``) every thread takes the next task that nobody has taken, so
that a thread held up by another program does not hold up the rest. Which thread does a task never
changes what the task computes: results are bitwise the same for any number of threads.

Jobs that run in parallel take turns, and a forked process runs its own on one thread: ``team.py``.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from ..caching import PerDtype
from ..memory import workspace
from . import team
from .kernel import OPTIONS, driver_arguments, kernel_signature
from .stages import END, FIELDS, FIRST, LAST, STARTS, Plan

Array = NDArray[Any]
Run = Callable[[Array, Array, Array | None, Array], None]

# Work below this many operations is done by the calling thread: waking the others costs about
# 4 us, in which one core does several hundred thousand.
SERIAL_BELOW = 1_000_000


@intrinsic
def _call(typingctx, rows, row, task, slot, size, table, a, b, c, out, work):
    signature = kernel_signature(out.dtype)
    arrays = {"size": size, "table": table, "a": a, "b": b, "c": c, "out": out, "work": work}

    def codegen(context, builder, sig, args):
        place = builder.mul(args[1], ir.Constant(ir.IntType(64), FIELDS))
        fields = builder.gep(context.make_array(rows)(context, builder, args[0]).data, [place])

        def field(index):
            return builder.load(builder.gep(fields, [ir.Constant(ir.IntType(64), index)]))

        first = {
            name: context.make_array(array)(context, builder, value).data
            for (name, array), value in zip(arrays.items(), args[4:], strict=True)
        }
        for index, name in STARTS.items():
            first[name] = builder.gep(first[name], [field(index)])
        kind = context.call_conv.get_function_type(types.void, signature.args)
        function = builder.inttoptr(field(0), kind.as_pointer())
        values = [*args[2:4], *first.values()]
        context.call_conv.call_function(builder, function, types.void, signature.args, values)
        return context.get_dummy_value()

    return types.void(rows, *3 * (types.intp,), *arrays.values()), codegen


@intrinsic
def _take(typingctx, counters, i):
    """Atomically ``counters[i] += 1``; returns the value before."""

    def codegen(context, builder, sig, args):
        array = context.make_array(sig.args[0])(context, builder, args[0])
        place = builder.gep(array.data, [args[1]])
        return builder.atomic_rmw("add", place, ir.IntType(64)(1), "monotonic")

    return types.int64(counters, types.intp), codegen


def _parallel(rows, counters, threads, size, table, a, b, c, out, work):
    begin = 0
    while begin < rows.shape[0]:
        end = rows[begin, END]
        for slot in prange(threads):
            for row in range(begin, end):
                task = _take(counters, row)
                while task < rows[row, LAST]:
                    _call(rows, row, task, slot, size, table, a, b, c, out, work)
                    task = _take(counters, row)
        begin = end


def _serial(rows, size, table, a, b, c, out, work):
    for row in range(rows.shape[0]):
        for task in range(rows[row, FIRST], rows[row, LAST]):
            _call(rows, row, task, 0, size, table, a, b, c, out, work)


_ROWS = types.Array(types.int64, 2, "C", readonly=True)
_COUNTERS = types.Array(types.int64, 1, "C")


def _driver(function: Any, *leading: types.Type, **options: Any) -> PerDtype:
    """A loop over tasks, taking ``leading`` and then the arrays of a kernel."""

    def signature(scalar: types.Type) -> Any:
        return types.void(*leading, *driver_arguments(scalar))

    return PerDtype(function, signature, **OPTIONS, **options)


_run_parallel = _driver(_parallel, _ROWS, _COUNTERS, types.intp, parallel=True)
_run_serial = _driver(_serial, _ROWS)


def compile_for(dtype: str) -> None:
    """Compile the loops for a dtype, or take them from the cache."""
    for loop in (_run_parallel, _run_serial):
        loop[np.dtype(dtype)]


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
    (rows,), zeros = plan.runs, plan.no_bias

    def run(a: Array, b: Array, bias: Array | None, out: Array) -> None:
        c = zeros if bias is None else bias
        loop(rows, size, table, a, b, c, out, workspace(work, dtype))

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
    for rows in plan.runs:
        if threads == 1:
            _run_serial[dtype](rows, *arguments)
        else:
            counters = rows[:, FIRST].copy()
            with team.turn():
                _run_parallel[dtype](rows, counters, threads, *arguments)
