"""The gradient of a strided correlation: the correlations of its phases, as one job.

Each phase is a part of the pixels of ``dx``, correlated with a part of the taps: see
``ConvGeometry.phases``. Side by side, threads that have done their share of one go on with the
next: a layer has one beginning and one end at which some wait for others, not one for each phase.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..geometry import ConvGeometry, Phase
from .engine import Engine
from .stages import Part, Plan, joined
from .views import Layout, part_of

ONES = (1, 1, 1)

# Scratch memory up to which phases are done side by side: 4 of 512 channels to 512 take 13 MiB with
# 2 threads, 26 with 8.
JOINED_BYTES = 32 * 2**20


# Plans what packs the filters ``w`` for all phases, each with where its scratch memory begins.
Pack = Callable[[np.dtype[Any], int, Layout, Sequence[tuple[Phase, int]]], Plan | None]


def by_phases(correlate: Engine, pack: Pack | None = None) -> Engine:
    """The engine that takes ``dy``, filters with their two channel axes swapped, and ``dx``.

    Its options are the geometry of the forward map and ``relu``. What ``pack`` plans takes the
    place of the first stage of all phases, if these have two each and are done side by side.
    """

    def make_plan(
        dtype: np.dtype[Any],
        threads: int,
        dy: Layout,
        w: Layout,
        dx: Layout,
        g: ConvGeometry,
        relu: bool,
    ) -> Plan:
        plans: dict[tuple[Any, ...], Plan] = {}  # many phases are alike but for their places
        parts: list[tuple[Part, Phase]] = []
        for phase in g.phases:
            taps, w_start = part_of(w, phase.taps[1:])
            place, dx_start = part_of(dx, phase.place[1:])
            how = taps, place, ONES, phase.before, phase.dilation, relu
            if how not in plans:
                plans[how] = correlate.make_plan(dtype, threads, dy, *how)
            parts.append((Part(plans[how], w_start, dx_start), phase))
        # What takes longest begins first, so that threads end together.
        parts.sort(key=lambda each: -each[0].plan.operations)

        def packing(begins: Sequence[int]) -> Plan | None:
            phases = [phase for _, phase in parts]
            return pack(dtype, threads, w, list(zip(phases, begins, strict=True))) if pack else None

        return joined([part for part, _ in parts], JOINED_BYTES // dtype.itemsize, packing)

    return Engine(make_plan)
