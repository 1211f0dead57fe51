"""Gradients of strided convolutions: all phases in one job, however it is run."""

import numpy as np
import pytest

import fastconv
from fastconv.cpu import driver, stages, strided
from fastconv.cpu.views import Layout, flat, part_of

from .cases import data
from .plans import forget_plans
from .test_channels_last import last
from .test_maps import function

pytestmark = pytest.mark.usefixtures("plans_anew")

# Phases of one block, which pack their own filters, beside others of two; some pixels that no tap
# reaches; fewer pixels than the stride; images for several tasks to a phase; many phases alike; an
# axis of one pixel; three axes.
CASES = [
    ((1, 24, 47, 33), (40, 24, 3, 3), {"stride": 2, "padding": 1}),
    ((2, 6, 15, 14), (9, 6, 2, 1), {"stride": (3, 2)}),
    ((2, 20, 15, 14), (9, 20, 3, 2), {"stride": 2, "dilation": (2, 1)}),
    ((3, 4, 1, 5), (6, 2, 3, 3), {"stride": 4, "padding": 2, "groups": 2}),
    ((6, 17, 21, 20), (33, 17, 5, 4), {"stride": (2, 3), "padding": (2, 1)}),
    ((2, 3, 32, 41), (20, 3, 8, 8), {"stride": 8, "padding": (0, 4)}),
    ((2, 4, 1, 9), (5, 4, 1, 3), {"stride": (2**40 - 1, 2)}),
    ((2, 3, 6, 9, 8), (4, 3, 3, 2, 3), {"stride": (2, 1, 3), "padding": 1}),
]


@pytest.fixture
def plans(monkeypatch):
    """The plans that are run."""
    plans, run = [], driver.run

    def spy(plan, *arrays):
        plans.append(plan)
        run(plan, *arrays)

    monkeypatch.setattr(driver, "run", spy)
    return plans


@pytest.mark.parametrize("algorithm", ["direct", "gemm", "planar"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: "x".join(map(str, case[0])))
def test_side_by_side_and_in_batches(case, algorithm, plans, rng, monkeypatch):
    x_shape, w_shape, options = case
    ndim = len(x_shape) - 2
    conv, grad_input = function("conv", ndim), function("conv_grad_input", ndim)
    x, w = data(rng, x_shape, "f4"), data(rng, w_shape, "f4")
    dy = data(rng, conv(x, w, **options).shape, "f4")
    doubles = dy.astype("f8"), w.astype("f8")
    exact = grad_input(*doubles, x_shape, algorithm="reference", **options)

    def gradient():
        out = np.full((*x_shape[:-1], x_shape[-1] + 3), np.nan, "f4")
        grad_input(dy, w, x_shape, out=out[..., :-3], algorithm=algorithm, **options)
        assert np.isnan(out[..., -3:]).all()
        return out[..., :-3]

    expected = gradient()
    np.testing.assert_allclose(expected, exact, rtol=1e-4, atol=1e-4)
    plan = plans[-1]
    for module, name, value in [
        (strided, "JOINED_BYTES", 4 * (plan.work - 1)),
        (strided, "JOINED_BYTES", 0),
        (stages, "INTERRUPTIBLE", plan.operations // 3),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            forget_plans()
            np.testing.assert_array_equal(gradient(), expected)
        other = plans[-1]
        if module is stages:
            several = any(tasks.last > 1 for stage in plan.stages for tasks in stage)
            assert (len(other.runs) > 1) is several
        elif len(plan.stages[-1]) > 1:
            assert len(other.stages) > len(plan.stages)
            assert other.work < plan.work
        if value == 0:
            assert all(len(stage) == 1 for stage in other.stages)
    like = {"data_format": "channels_last", "algorithm": algorithm, **options}
    channels_last = grad_input(last(dy), w, last(x).shape, **like)
    np.testing.assert_allclose(channels_last, last(exact), rtol=1e-4, atol=1e-4)


def test_bias_and_activation(rng):
    x, w = data(rng, (3, 20, 9, 8), "f4"), data(rng, (20, 7, 4, 3), "f4")
    bias, options = data(rng, 7, "f4"), {"stride": 2, "padding": 1}
    y = fastconv.conv_transpose2d(x, w, bias, activation="relu", **options)
    plain = fastconv.conv_transpose2d(x.astype("f8"), w.astype("f8"), **options)
    expected = np.maximum(plain + bias[:, None, None], 0)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_phases_are_one_job(plans, rng):
    dy, w = data(rng, (4, 40, 8, 8), "f4"), data(rng, (40, 30, 4, 4), "f4")
    y = fastconv.conv_transpose2d(dy, w, stride=2, padding=1)
    (plan,) = plans
    # The filters of all phases are packed at once ...
    assert [len(stage) for stage in plan.stages] == [1, 4]
    # ... unless they need not be transposed, ...
    neighbours = np.ascontiguousarray(w.transpose(2, 3, 0, 1)).transpose(2, 3, 0, 1)
    np.testing.assert_array_equal(fastconv.conv_transpose2d(dy, neighbours, stride=2, padding=1), y)
    assert [len(stage) for stage in plans[1].stages] == [4, 4]
    # ... or there is but one.
    fastconv.conv_transpose2d(dy, w[..., :1, :1], stride=2)
    assert [len(stage) for stage in plans[-1].stages] == [1, 1]


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "options"),
    [
        ((6, 140, 31, 22), (40, 70, 3, 3), {"groups": 2, "padding": 1}),  # panels with a tail
        ((6, 20, 31, 25), (24, 20, 3, 5), {"dilation": (1, 3)}),  # taps that are scattered
        ((40, 20, 1, 25), (24, 20, 1, 5), {"stride": (3, 2)}),  # some phases only
        ((9, 20, 9, 8, 9), (24, 20, 2, 3, 3), {}),
    ],
)
def test_all_phases_are_packed_as_each_is(
    x_shape, w_shape, options, dtype, plans, rng, monkeypatch
):
    ndim, options = len(x_shape) - 2, {"stride": 2, **options, "algorithm": "direct"}
    x, w = np.zeros(x_shape, dtype), data(rng, w_shape, dtype)
    dy = data(rng, function("conv", ndim)(x, w, **options).shape, dtype)
    gradient = function("conv_grad_input", ndim)
    plans.clear()
    dx = gradient(dy, w, x_shape, **options)
    assert [len(plan.stages[0]) for plan in plans if len(plan.stages[-1]) > 1] == [1]
    monkeypatch.setattr(stages, "INTERRUPTIBLE", plans[-1].operations // 3)
    forget_plans()
    np.testing.assert_array_equal(gradient(dy, w, x_shape, **options), dx)
    monkeypatch.setattr(strided, "JOINED_BYTES", 0)
    forget_plans()
    np.testing.assert_array_equal(gradient(dy, w, x_shape, **options), dx)


def test_filters_that_lie_backwards(rng):
    dy, w = data(rng, (4, 40, 8, 8), "f4"), data(rng, (40, 30, 5, 3), "f4")
    backwards = np.ascontiguousarray(w[:, :, ::-1])[:, :, ::-1]
    y = fastconv.conv_transpose2d(dy, w, stride=2, padding=1)
    np.testing.assert_array_equal(fastconv.conv_transpose2d(dy, backwards, stride=2, padding=1), y)


def test_phases_that_are_alike_share_what_kernels_read(plans, rng):
    dy, w = data(rng, (4, 40, 8, 8), "f4"), data(rng, (40, 3, 8, 8), "f4")
    fastconv.conv_transpose2d(dy, w, stride=8)
    (plan,) = plans
    assert len(plan.stages[-1]) == 64
    assert len({tasks.size for tasks in plan.stages[-1]}) == 1


def test_part_of_a_layout():
    spatial = slice(4, None, -2), slice(1, None, 3), slice(None)
    array = np.arange(2 * 3 * 4 * 5 * 6 * 7).reshape(2, 3, 4, 5, 6, 7)
    part, start = part_of(Layout(array.shape, tuple(s // 8 for s in array.strides)), spatial)
    view = array[..., *spatial]
    assert part == Layout(view.shape, tuple(s // 8 for s in view.strides))
    assert start == view.flat[0]


def test_pixels_of_a_part_that_is_the_whole_lie_on_a_line():
    whole = Layout((4, 1, 8, 1, 3, 5), (120, 120, 1, 120, 40, 8))
    part, _ = part_of(whole, 3 * (slice(0, None, 1),))
    (line,) = flat(part)
    assert line.shape == (1, 1, 8, 1, 1, 60)
    assert line.strides[5] == 8
    some, _ = part_of(whole, (slice(0, None, 1), slice(0, None, 2), slice(0, None, 1)))
    assert flat(some) == (some,)


def test_part_of_one_pixel_has_no_step():
    whole = Layout((1, 1, 1, 2, 3, 4), (24, 24, 24, 12, 4, 1))
    part, start = part_of(whole, (slice(1, None, 2**62), slice(None), slice(3, None, 5)))
    assert part == Layout((1, 1, 1, 1, 3, 1), (24, 24, 24, 0, 4, 0))
    assert start == 15
