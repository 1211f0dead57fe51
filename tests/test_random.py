"""Random geometries, from hypothesis, against the oracle."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import fastconv

from . import reference
from .cases import Case, assert_close, data


@st.composite
def cases(draw):
    ndim = draw(st.integers(1, 3))

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(ndim))

    kernel, dilation, stride = each(1, 5), each(1, 3), each(1, 4)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    form = draw(st.sampled_from(["same", "valid", "pairs"]))
    padding = form
    before = after = (0,) * ndim
    if form == "pairs":
        before, after = each(0, 5), each(0, 5)
        padding = tuple(zip(before, after, strict=True))
    extents = tuple(
        max(1, (1 if form == "same" else r - b - a) + draw(st.integers(0, 9)))
        for r, b, a in zip(reach, before, after, strict=True)
    )
    groups = draw(st.integers(1, 4))
    return Case(
        extents=extents,
        kernel=kernel,
        batch=draw(st.integers(0, 4)),
        channels=groups * draw(st.integers(1, 5)),
        filters=groups * draw(st.integers(1, 40)),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )


@settings(max_examples=300, deadline=None, derandomize=True)
@given(case=cases(), seed=st.integers(0, 2**32), dtype=st.sampled_from(["f4", "f8"]))
def test_all_maps(case, seed, dtype):
    rng = np.random.default_rng(seed)
    conv = getattr(fastconv, f"conv{case.ndim}d")
    backward = getattr(fastconv, f"conv{case.ndim}d_backward")
    x, w = data(rng, case.x_shape, dtype), data(rng, case.weight_shape, dtype)
    expected = reference.conv(x, w, **case.geometry)
    y = conv(x, w, **case.geometry)
    assert_close(y, expected)
    dy = data(rng, y.shape, dtype)
    dx, dw, _ = backward(dy, x, w, **case.geometry)
    assert_close(dx, reference.conv_grad_input(dy, w, x.shape, **case.geometry))
    assert_close(dw, reference.conv_grad_weight(dy, x, w.shape, **case.geometry))
