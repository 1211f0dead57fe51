"""Plans that are kept between calls."""

from fastconv import repeats
from fastconv.cpu import depthwise, direct, gemm, winograd


def forget_plans():
    """For tests that change what plans are made of."""
    for engine in (module.correlate for module in (depthwise, direct, gemm, winograd)):
        engine._plans.clear()
    repeats._known.clear()
