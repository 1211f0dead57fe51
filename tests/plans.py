"""Plans that are kept between calls."""

from fastconv import repeats
from fastconv.cpu import fill, jobs


def forget_plans():
    """For tests that change what plans are made of."""
    for engines in (jobs._CORRELATE, jobs._GRAD_INPUT, jobs._WEIGHT):
        for engine in engines.values():
            engine._plans.clear()
    fill.correlate._plans.clear()
    repeats._known.clear()
