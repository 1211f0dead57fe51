"""``per_sample=True``: the gradients of the filters, one for each image of the batch."""

from dataclasses import replace

import numpy as np
import pytest

import fastconv
from fastconv import cpu

from . import reference
from .cases import CASES, Case, assert_close, assert_close_in_norm, data
from .test_channels_last import LAST, WIDE, last
from .test_maps import WINOGRAD, function, poisoned, read_only, strided

EACH = {"per_sample": True}
EVERY_THIRD = [
    *CASES[::3],
    Case((6, 7), (3, 2), batch=5, channels=40, filters=24, groups=2, padding=1),
    Case((9, 8), (2, 3), batch=3, channels=18, filters=36, groups=18, stride=2),
]


def expected_of(dy, x, case):
    """One image at a time."""
    each = [
        reference.conv_grad_weight(dy[n : n + 1], x[n : n + 1], case.weight_shape, **case.geometry)
        for n in range(case.batch)
    ]
    return np.stack(each) if each else np.empty((0, *case.weight_shape))


def operands(rng, case, dtype):
    x = data(rng, case.x_shape, dtype)
    pixels = reference.conv(x, np.zeros(case.weight_shape), **case.geometry).shape
    dy = data(rng, pixels, dtype)
    read_only(x, dy)
    return dy, x


@pytest.mark.parametrize("case", EVERY_THIRD, ids=str)
def test_channels_first(case, algorithm, rng):
    dy, x = operands(rng, case, "f4")
    expected = expected_of(dy, x, case)
    out = poisoned(expected.shape, "f4")
    grad_weight = function("conv_grad_weight", case.ndim)
    options = {**case.geometry, **EACH, "algorithm": algorithm}
    assert grad_weight(dy, x, case.weight_shape, **options, out=out) is out
    assert_close(out, expected)


@pytest.mark.parametrize("case", [*EVERY_THIRD, *WIDE[::6]], ids=str)
def test_channels_last(case, algorithm, rng):
    dy, x = operands(rng, case, "f4")
    expected = expected_of(dy, x, case)
    out = poisoned(expected.shape, "f4")
    options = {**case.geometry, **LAST, **EACH, "algorithm": algorithm}
    function("conv_grad_weight", case.ndim)(
        last(dy), last(x), case.weight_shape, **options, out=out
    )
    assert_close(out, expected)


@pytest.mark.parametrize("case", EVERY_THIRD, ids=str)
def test_auto(case, dtype, rng):
    dy, x = operands(rng, case, dtype)
    expected = expected_of(dy, x, case)
    grad_weight = function("conv_grad_weight", case.ndim)
    for images, options in (((dy, x), {}), ((last(dy), last(x)), LAST)):
        dw = grad_weight(*images, case.weight_shape, **case.geometry, **EACH, **options)
        assert dw.dtype == dtype
        assert dw.flags.c_contiguous
        assert_close_in_norm(dw, expected)
    whole = grad_weight(dy, x, case.weight_shape, **case.geometry)
    assert_close_in_norm(whole, expected.sum(axis=0))


@pytest.mark.parametrize("case", dict.fromkeys(WINOGRAD[::3]), ids=str)
def test_winograd(case, rng):
    dy, x = operands(rng, case, "f4")
    options = {**case.geometry, **EACH, "algorithm": "winograd"}
    dw = function("conv_grad_weight", case.ndim)(dy, x, case.weight_shape, **options)
    assert_close_in_norm(dw, expected_of(dy, x, case))


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize(
    "case", [case for case in EVERY_THIRD if case.padding != "same" and case.batch > 1], ids=str
)
def test_transposed(case, data_format, rng):
    x = data(rng, (case.batch, case.filters, *case.extents), "f8")
    shape = (case.filters, case.channels // case.groups, *case.kernel)
    try:
        y = reference.conv_transpose(x, np.zeros(shape), **case.geometry)
    except ValueError:
        y = np.empty((1, 0))
    if 0 in y.shape[1:]:
        pytest.skip("the padding leaves nothing of the result")
    dy = data(rng, y.shape, "f8")
    # A transposed convolution is linear in its filters: <dy, y> = <dw, w>, image by image.
    expected = np.stack(
        [
            reference.conv_grad_weight(x[n : n + 1], dy[n : n + 1], shape, **case.geometry)
            for n in range(case.batch)
        ]
    )
    w = data(rng, shape, "f8")
    y = reference.conv_transpose(x, w, **case.geometry)
    inner = [np.vdot(dy[n], y[n]) for n in range(case.batch)]
    np.testing.assert_allclose(np.tensordot(expected, w, w.ndim), inner, atol=1e-9)
    if data_format == "channels_last":
        x, dy = last(x), last(dy)
    grad_weight = function("conv_transpose_grad_weight", case.ndim)
    options = {**case.geometry, **EACH, "data_format": data_format}
    dw = grad_weight(dy, x, shape, **options, out=poisoned(expected.shape, "f8"))
    assert_close(dw, expected)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("algorithm", ["direct", "planar", "depthwise", "reference"])
def test_strided_arrays(groups, algorithm, rng):
    case = Case((7, 9), (3, 2), batch=3, channels=4, filters=6, groups=groups, padding=1)
    dy, x = operands(rng, case, "f4")
    expected = expected_of(dy, x, case)
    outs = strided(poisoned(expected.shape, "f4"))
    for sdy, sx, out in zip(strided(dy), strided(x), outs, strict=True):
        read_only(sdy, sx)
        options = {**case.geometry, **EACH, "algorithm": algorithm}
        fastconv.conv2d_grad_weight(sdy, sx, case.weight_shape, **options, out=out)
        assert_close(out, expected)


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_unbatched_and_empty(data_format, rng):
    """An image without the batch axis has one gradient, the ordinary one."""
    case = Case((7, 9), (3, 2), channels=4, filters=6, groups=2, padding=1)
    dy, x = operands(rng, case, "f4")
    if data_format == "channels_last":
        dy, x = last(dy), last(x)
    options = {**case.geometry, "data_format": data_format}
    one = fastconv.conv2d_grad_weight(dy[0], x[0], case.weight_shape, **options, **EACH)
    ordinary = fastconv.conv2d_grad_weight(dy[0], x[0], case.weight_shape, **options)
    np.testing.assert_array_equal(one, ordinary)
    single = fastconv.conv2d_grad_weight(dy[:1], x[:1], case.weight_shape, **options, **EACH)
    assert single.shape == (1, *case.weight_shape)
    np.testing.assert_array_equal(single[0], ordinary)
    none = fastconv.conv2d_grad_weight(dy[:0], x[:0], case.weight_shape, **options, **EACH)
    assert none.shape == (0, *case.weight_shape)


@pytest.mark.parametrize("nbytes", [1, 1000])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_some_samples_at_a_time(nbytes, data_format, rng, monkeypatch):
    """Where filters are large: the same bits, however many samples are computed together."""
    case = Case((7, 9), (3, 2), batch=5, channels=4, filters=6, groups=2, padding=1)
    dy, x = operands(rng, case, "f4")
    if data_format == "channels_last":
        dy, x = last(dy), last(x)
    options = {**case.geometry, **EACH, "data_format": data_format, "algorithm": "direct"}
    together = fastconv.conv2d_grad_weight(dy, x, case.weight_shape, **options)
    monkeypatch.setattr(cpu, "SAMPLES_BYTES", nbytes)
    out = poisoned(together.shape, "f4")
    apart = fastconv.conv2d_grad_weight(dy, x, case.weight_shape, **options, out=out)
    np.testing.assert_array_equal(apart, together)


def test_the_plan_is_that_of_one_image():
    """What serves samples depends on how large each is, not on how many there are."""
    from fastconv.functional import conv_geometry_of
    from fastconv.plan.cpu import explain_choice

    def choice(batch, channels, extent, filters, kernel, groups=1):
        x, w = (batch, channels, extent, extent), (filters, channels // groups, kernel, kernel)
        g = conv_geometry_of(2, x, w, 1, kernel // 2, 1, groups, "channels_first")
        return explain_choice("grad_weight", g.per_sample, np.dtype("f4"), "auto").algorithm

    for batch in (16, 128):
        assert choice(batch, 64, 28, 64, 3) == "winograd"
        assert choice(batch, 64, 7, 64, 3) == "direct"
        assert choice(batch, 64, 28, 64, 1) == "direct"
        assert choice(batch, 32, 28, 32, 3, groups=32) == "depthwise"
        assert choice(batch, 5, 28, 1, 3) == "planar"


X, W, Y = (np.ones(shape, "f4") for shape in ((2, 4, 8, 9), (6, 4, 3, 2), (2, 6, 6, 8)))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"out": np.ones(W.shape, "f4")}, ValueError, r"out must have shape \(2, 6, 4, 3, 2\)"),
        ({"grad_output": Y[:1]}, ValueError, "grad_output must have the shape of the result"),
        ({"algorithm": "winograd"}, ValueError, "the filter must be 3x3"),
        ({"x": X[:0], "grad_output": Y[:0], "algorithm": "fft"}, ValueError, "algorithm must be"),
        ({"precision": "low"}, ValueError, "precision must be one of"),
    ],
)
def test_mistakes(changes, error, message):
    arguments = {"grad_output": Y, "x": X, "weight_shape": W.shape, **EACH, **changes}
    with pytest.raises(error, match=message):
        fastconv.conv2d_grad_weight(**arguments)


@pytest.mark.torch
@pytest.mark.parametrize("groups", [1, 2])
def test_as_pytorch(groups, rng):
    torch = pytest.importorskip("torch")
    case = replace(CASES[0], batch=4, channels=6, filters=4, groups=groups, stride=2, padding=1)
    dy, x = operands(rng, case, "f8")
    w = torch.tensor(data(rng, case.weight_shape, "f8"), requires_grad=True)
    dw = fastconv.conv2d_grad_weight(dy, x, case.weight_shape, **case.geometry, **EACH)
    for n in range(case.batch):
        y = torch.nn.functional.conv2d(torch.tensor(x[n]), w, **case.geometry)
        (expected,) = torch.autograd.grad(y, w, torch.tensor(dy[n]))
        assert_close(dw[n], expected.numpy())
