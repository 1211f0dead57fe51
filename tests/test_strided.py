"""Gradients of strided convolutions: all phases in one job, however it is run."""

import numpy as np
import pytest

import fastconv
from fastconv.cpu import driver, stages, strided
from fastconv.cpu.views import Layout, part_of

from .cases import data
from .plans import forget_plans

pytestmark = pytest.mark.usefixtures("plans_anew")

# Phases of one block, which pack their own filters, beside others of two; some pixels that no tap
# reaches; a single phase; fewer pixels than the stride; images for several tasks to a phase.
CASES = [
    ((1, 24, 47, 33), (40, 24, 3, 3), {"stride": 2, "padding": 1}),
    ((2, 6, 15, 14), (9, 6, 2, 1), {"stride": (3, 2)}),
    ((2, 6, 15, 14), (9, 6, 3, 2), {"stride": 2, "dilation": 2}),
    ((3, 4, 1, 5), (6, 2, 3, 3), {"stride": 4, "padding": 2, "groups": 2}),
    ((6, 17, 21, 20), (33, 17, 5, 4), {"stride": (2, 3), "padding": (2, 1)}),
]


@pytest.fixture(params=CASES, ids=lambda case: "x".join(map(str, case[0])))
def gradient(request, rng):
    """A function of the algorithm, and what the formula says."""
    x_shape, w_shape, options = request.param
    x, w = data(rng, x_shape, "f4"), data(rng, w_shape, "f4")
    dy = data(rng, fastconv.conv2d(x, w, **options).shape, "f4")

    def call(algorithm):
        out = np.full(x_shape, np.nan, "f4")
        return fastconv.conv2d_grad_input(dy, w, x_shape, out=out, algorithm=algorithm, **options)

    exact = fastconv.conv2d_grad_input(
        dy.astype("f8"), w.astype("f8"), x_shape, algorithm="reference", **options
    )
    return call, exact


@pytest.mark.parametrize("algorithm", ["direct", "gemm", "planar"])
def test_beside_each_other_and_one_after_the_other(gradient, algorithm, monkeypatch):
    call, exact = gradient
    beside = call(algorithm)
    np.testing.assert_allclose(beside, exact, rtol=1e-4, atol=1e-4)
    for module, name, value in [(strided, "JOINED_BYTES", 0), (stages, "INTERRUPTIBLE", 20_000)]:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            forget_plans()
            np.testing.assert_array_equal(call(algorithm), beside)


def test_phases_are_one_job(rng, monkeypatch):
    plans, run = [], driver.run

    def spy(plan, *arrays):
        plans.append(plan)
        run(plan, *arrays)

    monkeypatch.setattr(driver, "run", spy)
    dy, w = data(rng, (4, 40, 8, 8), "f4"), data(rng, (40, 30, 4, 4), "f4")
    fastconv.conv_transpose2d(dy, w, stride=2, padding=1)
    (plan,) = plans
    *_, last = plan.stages
    assert len(last) == 4


def test_part_of_a_layout():
    array = np.arange(2 * 3 * 4 * 5 * 6 * 7).reshape(2, 3, 4, 5, 6, 7)
    spatial = slice(4, None, -2), slice(1, None, 3), slice(None)
    part, start = part_of(Layout(array.shape, tuple(s // 8 for s in array.strides)), spatial)
    view = array[..., *spatial]
    assert part == Layout(view.shape, tuple(s // 8 for s in view.strides))
    assert start == view.flat[0]
