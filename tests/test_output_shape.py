"""``output_shape`` of transposed convolutions: what ``output_padding`` says in another way."""

import itertools
import re

import numpy as np
import pytest

import fastconv

from . import reference
from .cases import CASES, assert_close, data
from .test_maps import function, poisoned, read_only


def shapes(case):
    """The smallest and the largest extents of a result, and one between, of which pixels are left
    when those that padding puts around it are gone.
    """
    stride, dilation = (reference.tuple_of(v, case.ndim) for v in (case.stride, case.dilation))
    reach = [(k - 1) * d + 1 for k, d in zip(case.kernel, dilation, strict=True)]
    if case.padding == "same":
        least = [(n - 1) * s + 1 for n, s in zip(case.extents, stride, strict=True)]
        grown = [0] * case.ndim
    else:
        pairs = reference.pairs_of(case.padding, case.extents, reach, stride)
        axes = zip(case.extents, stride, reach, pairs, strict=True)
        least = [(n - 1) * s + r - sum(pair) for n, s, r, pair in axes]
        grown = [-min(before, 0) - min(after, 0) for before, after in pairs]
    extras = [[0] * case.ndim, [s - 1 for s in stride], [max(s - 2, 0) for s in stride]]
    found = [tuple(n + e for n, e in zip(least, extra, strict=True)) for extra in extras]
    return dict.fromkeys(
        shape for shape in found if all(n > g for n, g in zip(shape, grown, strict=True))
    )


EVERY = [
    (case, shape)
    for case in CASES
    if case.stride != 1 and case.batch and case.ndim < 3
    for shape in shapes(case)
]


@pytest.mark.parametrize(("case", "shape"), EVERY, ids=str)
def test_every_extent(case, shape, algorithm, rng):
    x = data(rng, (case.batch, case.filters, *case.extents), "f8")
    w = data(rng, (case.filters, case.channels // case.groups, *case.kernel), "f8")
    b = data(rng, case.channels, "f8")
    read_only(x, w, b)
    name, ndim = "conv_transpose", case.ndim
    options = {**case.geometry, "output_shape": shape, "algorithm": algorithm}
    expected = reference.conv_transpose(x, w, b, **case.geometry, output_shape=shape)
    out = poisoned(expected.shape, "f8")
    y = function(name, ndim)(x, w, b, **options, out=out)
    assert y.shape[2:] == shape
    assert_close(y, expected)
    dy = data(rng, y.shape, "f8")
    dx, dw, db = function(f"{name}_backward", ndim)(dy, x, w, **options)
    linear = y - b.reshape(-1, *[1] * ndim)
    scale = np.linalg.norm(dy) * np.linalg.norm(y)
    assert abs(np.vdot(dy, linear) - np.vdot(x, dx)) <= 1e-10 * scale
    assert abs(np.vdot(dy, linear) - np.vdot(w, dw)) <= 1e-10 * scale
    assert_close(db, dy.sum(axis=(0, *range(2, dy.ndim))), tolerance=1e-12)
    single = function(f"{name}_grad_input", ndim)(dy, w, x.shape, **options)
    np.testing.assert_array_equal(single, dx)
    single = function(f"{name}_grad_weight", ndim)(dy, x, w.shape, **options)
    np.testing.assert_array_equal(single, dw)


def test_is_output_padding(rng):
    x, w = data(rng, (2, 4, 5, 6), "f4"), data(rng, (4, 3, 3, 2), "f4")
    geometry = {"stride": (3, 2), "padding": (1, 0)}
    for extra in itertools.product(range(3), range(2)):
        y = fastconv.conv_transpose2d(x, w, **geometry, output_padding=extra)
        same = fastconv.conv_transpose2d(x, w, **geometry, output_shape=y.shape[2:])
        np.testing.assert_array_equal(same, y)
        last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
        options = {"output_shape": y.shape[2:], "data_format": "channels_last"}
        same = fastconv.conv_transpose2d(last, w, **geometry, **options)
        assert_close(np.moveaxis(same, -1, 1), y.astype("f8"))


def test_one_integer_serves_all_axes(rng):
    x, w = data(rng, (4, 5, 5), "f4"), data(rng, (4, 3, 3, 3), "f4")
    assert fastconv.conv_transpose2d(x, w, stride=2, output_shape=12).shape == (3, 12, 12)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_layers(ndim, rng):
    """``forward`` takes it; ``backward`` is that of the last call."""
    layer = getattr(fastconv, f"ConvTranspose{ndim}d")(4, 3, (3, 2, 4)[:ndim], stride=3, rng=0)
    x = data(rng, (2, 4, *(4, 3, 2)[:ndim]), "f4")
    smallest = layer.forward(x).shape[2:]
    for extra in (2, 0, 1):
        shape = tuple(n + extra for n in smallest)
        y = layer.forward(x, output_shape=shape)
        assert_close(y, reference.conv_transpose(x, layer.weight, stride=3, output_shape=shape))
        dy = data(rng, y.shape, "f4")
        with pytest.raises(ValueError, match="output_shape must lie between"):
            layer.forward(x, output_shape=tuple(n + 3 for n in smallest))
        dx = layer.backward(dy)
        backward = getattr(fastconv, f"conv_transpose{ndim}d_backward")
        same = backward(dy, x, layer.weight, stride=3, output_padding=extra)
        for got, expected in zip((dx, *layer.grads.values()), same, strict=True):
            np.testing.assert_array_equal(got, expected)


X, W = np.ones((2, 4, 5, 6), "f4"), np.ones((4, 3, 3, 2), "f4")
BAD = {
    "below": ({"output_shape": (10, 12)}, ValueError, "between (11, 12) and (12, 13)"),
    "above": ({"output_shape": (11, 14)}, ValueError, "stride - 1 more, got (11, 14)"),
    "same": (
        {"output_shape": (10, 13), "padding": "same"},
        ValueError,
        "between (9, 11) and (10, 12)",
    ),
    "padding": ({"output_shape": (9, 13), "padding": 1}, ValueError, "between (9, 10) and (10, 11"),
    "both": (
        {"output_shape": (11, 12), "output_padding": (0, 1)},
        ValueError,
        "output_padding must be 0 where output_shape is given, got (0, 1)",
    ),
    "one of two": ({"output_shape": (11,)}, ValueError, "output_shape must be one integer or 2"),
    "whole shape": ({"output_shape": (2, 3, 11, 12)}, ValueError, "one for each spatial axis"),
    "zero": ({"output_shape": (0, 12)}, ValueError, "output_shape must be at least 1"),
    "float": ({"output_shape": (11.0, 12)}, TypeError, "output_shape must be made of integers"),
    "text": ({"output_shape": "same"}, TypeError, "output_shape must be one integer or 2"),
}


@pytest.mark.parametrize("name", BAD)
def test_mistakes(name):
    changes, error, message = BAD[name]
    out = np.full((2, 3, 11, 12), 7, "f4")
    calls = {
        fastconv.conv_transpose2d: {"x": X, "weight": W, "out": out},
        fastconv.conv_transpose2d_grad_input: {
            "grad_output": out,
            "weight": W,
            "input_shape": X.shape,
        },
        fastconv.conv_transpose2d_grad_weight: {
            "grad_output": out,
            "x": X,
            "weight_shape": W.shape,
        },
        fastconv.conv_transpose2d_backward: {"grad_output": out, "x": X, "weight": W},
    }
    for call, arguments in calls.items():
        with pytest.raises(error, match=re.escape(message)):
            call(**arguments, **{"stride": 2, **changes})
    assert (out == 7).all()


@pytest.mark.torch
def test_torch(rng):
    torch = pytest.importorskip("torch")
    ours = fastconv.ConvTranspose2d(4, 6, (3, 2), stride=(3, 2), padding=1, groups=2, rng=0)
    theirs = torch.nn.ConvTranspose2d(4, 6, (3, 2), stride=(3, 2), padding=1, groups=2)
    theirs.load_state_dict({name: torch.tensor(a) for name, a in ours.parameters.items()})
    x = data(rng, (2, 4, 5, 6), "f4")
    for shape in ((13, 10), (15, 11), (14, 10)):
        expected = theirs(torch.tensor(x), output_size=shape).detach().numpy()
        assert_close(ours.forward(x, shape), expected.astype("f8"), tolerance=4e-6)
    with pytest.raises(ValueError, match="output size"):
        theirs(torch.tensor(x), output_size=(16, 10))
    with pytest.raises(ValueError, match="output_shape"):
        ours.forward(x, (16, 10))
