"""Engines: each computes one map in one way.

An engine is written as a function that makes a plan for arrays of given layouts; ``Engine`` keeps
the plans it made and runs them. The arrays have groups as an axis of their own and three spatial
axes, one dtype and any strides; none is empty. They are, in the order of the parameters,

    correlate     x (N, G, C/G, D, H, W), w (G, K/G, C/G, T, R, S)   to  y (N, G, K/G, O, P, Q)
    grad_weight   dy (N, G, K/G, O, P, Q), x (N, G, C/G, D, H, W)    to  dw (G, K/G, C/G, T, R, S)

with ``stride``, ``before`` and ``dilation`` of the forward correlation, each (d, h, w), and, to
correlate, ``relu``: whether 0 takes the place of results below it, as they are written. ``before``
is the zero padding ahead of each axis, negative to crop; windows that reach past ``x`` at the other
end see zeros there. How many windows there are is said by the extents of ``y``. Those of
``strided.py`` take ``dy`` and swapped filters to ``dx``, those of ``padding.py`` move images about;
they have other options.
"""

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from ..geometry import ConvGeometry
from . import driver, team
from .blocks import Ints
from .driver import Run
from .stages import Plan
from .views import aligned, layout

Array = NDArray[Any]
Option = Ints | bool | ConvGeometry

KEPT = 256  # plans
KEPT_NUMBERS = 2**20  # of theirs: 8 MiB for each engine

# Numbers of a plan that ``repeat`` keeps as well, 64 KiB: of 1024 calls that are
# known (``repeats.KEPT``) most have less. Others are looked up here, for which their work makes up.
REPEATED_NUMBERS = 8192


class Engine:
    """An engine, given how it makes a plan for ``(dtype, threads, *layouts, *options)``."""

    def __init__(self, make_plan: Callable[..., Plan]) -> None:
        self.make_plan = make_plan
        self._plans: dict[tuple[Any, ...], Plan] = {}

    def plan(self, a: Array, b: Array, out: Array, *options: Option) -> Plan:
        """The plan for these arrays, made when such shapes and strides are first seen."""
        key = out.dtype, a.shape, a.strides, b.shape, b.strides, out.shape, out.strides, options
        plan = self._plans.get(key)
        if plan is None or driver.is_stale(plan):
            threads = team.threads()
            itemsize = out.dtype.itemsize
            views = [layout(x.shape, x.strides, itemsize) for x in (a, b, out)]
            plan = self.make_plan(out.dtype, threads, *views, *options)
            plan.threads = threads
            numbers = [kept.numbers for kept in list(self._plans.values())]
            if len(numbers) >= KEPT or sum(numbers) + plan.numbers > KEPT_NUMBERS:
                self._plans.clear()
            self._plans[key] = plan
        return plan

    def __call__(
        self, a: Array, b: Array, bias: Array | None, out: Array, *options: Option
    ) -> None:
        """Write what the engine computes of ``a`` and ``b`` into ``out``.

        ``bias``, (K,) contiguous or None for zeros, is added where the engine correlates.
        """
        a, b = aligned(a), aligned(b)
        plan = self.plan(a, b, out, *options)
        driver.run(plan, a, b, plan.no_bias if bias is None else bias, out)

    def repeat(self, a: Array, b: Array, out: Array, *options: Option) -> Run:
        """What a call does with such arrays, all aligned, as a function of them and a bias."""
        plan = self.plan(a, b, out, *options)
        if plan.numbers > REPEATED_NUMBERS:
            return lambda a, b, bias, out: self(a, b, bias, out, *options)
        if driver.is_small(plan):
            return driver.small_run(plan, out.dtype)
        zeros = plan.no_bias

        def run(a: Array, b: Array, bias: Array | None, out: Array) -> None:
            now = self.plan(a, b, out, *options) if driver.is_stale(plan) else plan
            driver.run(now, a, b, zeros if bias is None else bias, out)

        return run
