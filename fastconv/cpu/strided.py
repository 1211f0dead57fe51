"""The gradient of a strided correlation: the correlations of its phases, as one job.

Each phase is a part of the pixels of ``dx``, correlated with a part of the taps: see
``ConvGeometry.phases``. Side by side, threads that have done their share of one go on with the
next: a layer has one beginning and one end at which some wait for others, not one for each phase.
"""

from typing import Any

import numpy as np

from ..geometry import ConvGeometry
from .engine import Engine
from .stages import Part, Plan, joined
from .views import Layout, part_of

ONES = (1, 1, 1)

# Scratch memory up to which phases are done side by side: 4 of 512 channels to 512 take 13 MiB with
# 2 threads, 26 with 8.
JOINED_BYTES = 32 * 2**20


def by_phases(correlate: Engine) -> Engine:
    """The engine that takes ``dy``, filters with their two channel axes swapped, and ``dx``.

    Its options are the geometry of the forward map and ``relu``.
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
        parts = []
        for phase in g.phases:
            taps, w_start = part_of(w, phase.taps[1:])
            place, dx_start = part_of(dx, phase.place[1:])
            how = taps, place, ONES, phase.before, phase.dilation, relu
            if how not in plans:
                plans[how] = correlate.make_plan(dtype, threads, dy, *how)
            parts.append(Part(plans[how], w_start, dx_start))
        # What takes longest begins first, so that threads end together.
        parts.sort(key=lambda part: -part.plan.operations)
        return joined(parts, JOINED_BYTES // dtype.itemsize)

    return Engine(make_plan)
