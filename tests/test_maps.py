"""Every map against the oracle, over every case, dtype and algorithm."""

from dataclasses import replace

import numpy as np
import pytest

import fastconv

from . import reference
from .cases import CASES, Case, assert_close, assert_close_in_norm, data
from .scratch import poison_scratch

every_case = pytest.mark.parametrize("case", CASES, ids=str)


def function(name, ndim):
    """``conv_grad_input`` and 2 give ``fastconv.conv2d_grad_input``."""
    family = "conv_transpose" if name.startswith("conv_transpose") else "conv"
    return getattr(fastconv, f"{family}{ndim}d{name.removeprefix(family)}")


def read_only(*arrays):
    for array in arrays:
        array.flags.writeable = False


def poisoned(shape, dtype):
    """A result of NaN, every number of which must be written, with scratch memory of NaN."""
    poison_scratch()
    return np.full(shape, np.nan, dtype)


@every_case
def test_forward(case, dtype, algorithm, rng):
    x, w = data(rng, case.x_shape, dtype), data(rng, case.weight_shape, dtype)
    b = data(rng, case.filters, dtype)
    read_only(x, w, b)
    expected = reference.conv(x, w, b, **case.geometry)
    out = poisoned(expected.shape, dtype)
    conv = function("conv", case.ndim)
    y = conv(x, w, b, **case.geometry, algorithm=algorithm, out=out)
    assert y is out
    assert_close(y, expected)


@every_case
def test_grad_input(case, dtype, algorithm, rng):
    w = data(rng, case.weight_shape, dtype)
    pixels = reference.conv(np.zeros(case.x_shape), w, **case.geometry).shape
    dy = data(rng, pixels, dtype)
    read_only(dy, w)
    expected = reference.conv_grad_input(dy, w, case.x_shape, **case.geometry)
    out = poisoned(case.x_shape, dtype)
    grad_input = function("conv_grad_input", case.ndim)
    dx = grad_input(dy, w, case.x_shape, **case.geometry, algorithm=algorithm, out=out)
    assert dx is out
    assert_close(dx, expected)


@every_case
def test_grad_weight(case, dtype, algorithm, rng):
    x = data(rng, case.x_shape, dtype)
    pixels = reference.conv(x, np.zeros(case.weight_shape), **case.geometry).shape
    dy = data(rng, pixels, dtype)
    read_only(dy, x)
    expected = reference.conv_grad_weight(dy, x, case.weight_shape, **case.geometry)
    out = poisoned(case.weight_shape, dtype)
    grad_weight = function("conv_grad_weight", case.ndim)
    dw = grad_weight(dy, x, case.weight_shape, **case.geometry, algorithm=algorithm, out=out)
    assert dw is out
    assert_close(dw, expected)


@every_case
def test_grad_bias(case, dtype, rng):
    dy = data(rng, (case.batch, case.filters, *case.extents), dtype)
    db = function("conv_grad_bias", case.ndim)(dy)
    assert db.dtype == dtype
    assert_close(db, dy.astype(np.float64).sum(axis=(0, *range(2, dy.ndim))))


@every_case
def test_maps_are_adjoint(case, rng):
    # <dy, conv(x, w)> = <x, grad_input(dy, w)> = <w, grad_weight(dy, x)>
    x, w = data(rng, case.x_shape, "f8"), data(rng, case.weight_shape, "f8")
    y = function("conv", case.ndim)(x, w, **case.geometry)
    dy = data(rng, y.shape, "f8")
    dx, dw, db = function("conv_backward", case.ndim)(dy, x, w, **case.geometry)
    scale = np.linalg.norm(dy) * np.linalg.norm(y) or 1.0
    assert abs(np.vdot(dy, y) - np.vdot(x, dx)) <= 1e-10 * scale
    assert abs(np.vdot(dy, y) - np.vdot(w, dw)) <= 1e-10 * scale
    assert_close(db, dy.sum(axis=(0, *range(2, dy.ndim))), tolerance=1e-12)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.stride == 1 and not isinstance(c.padding, str)], ids=str
)
def test_grad_input_is_forward_with_flipped_filter(case, rng):
    ndim, groups = case.ndim, case.groups
    w = data(rng, case.weight_shape, "f8")
    dy = data(rng, reference.conv(np.zeros(case.x_shape), w, **case.geometry).shape, "f8")
    pairs = reference.pairs_of(case.padding, case.extents, None, None)
    dilation = reference.tuple_of(case.dilation, ndim)
    reach = [(k - 1) * d for k, d in zip(case.kernel, dilation, strict=True)]
    flipped = np.flip(w, axis=range(2, 2 + ndim))
    swapped = flipped.reshape(groups, -1, *w.shape[1:]).swapaxes(1, 2)
    swapped = swapped.reshape(case.channels, -1, *case.kernel)
    # Negative where there is more padding than the filter reaches.
    padding = [tuple(r - p for p in pair) for r, pair in zip(reach, pairs, strict=True)]
    dx = function("conv_grad_input", ndim)(dy, w, case.x_shape, **case.geometry)
    same = function("conv", ndim)(dy, swapped, None, 1, padding, case.dilation, groups)
    assert_close(dx, same)


TRANSPOSED = [
    (case, extra)
    for case in CASES
    for extra in (0, 1, 2)
    if extra == 0
    or (
        case.padding != "same"
        and all(
            extra < max(s, d)
            for s, d in zip(
                reference.tuple_of(case.stride, case.ndim),
                reference.tuple_of(case.dilation, case.ndim),
                strict=True,
            )
        )
    )
]


@pytest.mark.parametrize(("case", "extra"), TRANSPOSED, ids=lambda value: str(value))
def test_transposed(case, extra, algorithm, rng):
    """Result, and all its gradients by adjointness and against the forward map's."""
    geometry = {**case.geometry, "output_padding": extra}
    channels, filters = case.filters, case.channels
    x = data(rng, (case.batch, channels, *case.extents), "f8")
    w = data(rng, (channels, filters // case.groups, *case.kernel), "f8")
    b = data(rng, filters, "f8")
    read_only(x, w, b)
    try:
        expected = reference.conv_transpose(x, w, b, **geometry)
    except ValueError:
        expected = None
    if expected is None or 0 in expected.shape[1:]:
        with pytest.raises(ValueError, match="padding"):
            function("conv_transpose", case.ndim)(x, w, b, **geometry)
        return
    options = {**geometry, "algorithm": algorithm}
    out = poisoned(expected.shape, x.dtype)
    y = function("conv_transpose", case.ndim)(x, w, b, **options, out=out)
    assert_close(y, expected)

    dy = data(rng, y.shape, "f8")
    dx, dw, db = function("conv_transpose_backward", case.ndim)(dy, x, w, **options)
    linear = y - b.reshape(-1, *[1] * case.ndim)
    scale = np.linalg.norm(dy) * np.linalg.norm(y) or 1.0
    assert abs(np.vdot(dy, linear) - np.vdot(x, dx)) <= 1e-10 * scale
    assert abs(np.vdot(dy, linear) - np.vdot(w, dw)) <= 1e-10 * scale
    assert_close(db, dy.sum(axis=(0, *range(2, dy.ndim))), tolerance=1e-12)
    single = function("conv_transpose_grad_input", case.ndim)(dy, w, x.shape, **options)
    np.testing.assert_array_equal(single, dx)
    single = function("conv_transpose_grad_weight", case.ndim)(dy, x, w.shape, **options)
    np.testing.assert_array_equal(single, dw)


@pytest.mark.parametrize("case", CASES[:4], ids=str)
def test_unbatched(case, dtype, rng):
    x, w = data(rng, case.x_shape[1:], dtype), data(rng, case.weight_shape, dtype)
    y = function("conv", case.ndim)(x, w, **case.geometry)
    assert_close(y, reference.conv(x[None], w, **case.geometry)[0])
    dx, dw, db = function("conv_backward", case.ndim)(y, x, w, **case.geometry)
    batch = function("conv_backward", case.ndim)(y[None], x[None], w, **case.geometry)
    np.testing.assert_array_equal(dx, batch[0][0])
    np.testing.assert_array_equal(dw, batch[1])
    np.testing.assert_array_equal(db, batch[2])


def strided(array):
    """The same numbers behind every kind of stride: reversed, transposed and with gaps."""
    spaced = np.repeat(np.repeat(array, 2, axis=-1), 3, axis=1)[:, ::3, ..., ::2]
    fortran = np.asfortranarray(array)
    backwards = np.ascontiguousarray(array[..., ::-1, ::-1])[..., ::-1, ::-1]
    last = np.ascontiguousarray(np.moveaxis(array, 1, -1))
    return [spaced, fortran, backwards, np.moveaxis(last, -1, 1)]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 2)])
def test_strided_arrays(stride, padding, kernel, algorithm, rng):
    x, w = data(rng, (2, 20, 9, 13), "f4"), data(rng, (18, 20, *kernel), "f4")
    y = fastconv.conv2d(x, w, None, stride, padding, algorithm=algorithm)
    dy = data(rng, y.shape, "f4")
    dx, dw, _ = fastconv.conv2d_backward(dy, x, w, stride, padding, algorithm=algorithm)
    options = {"stride": stride, "padding": padding, "algorithm": algorithm}
    for sx, sw, sdy in zip(strided(x), strided(w), strided(dy), strict=True):
        read_only(sx, sw, sdy)
        for out in strided(np.full_like(y, np.nan)):
            fastconv.conv2d(sx, sw, out=out, **options)
            assert_close(out, y.astype("f8"))
        for out in strided(np.full_like(x, np.nan)):
            fastconv.conv2d_grad_input(sdy, sw, x.shape, out=out, **options)
            assert_close(out, dx.astype("f8"))
        for out in strided(np.full_like(w, np.nan)):
            fastconv.conv2d_grad_weight(sdy, sx, w.shape, out=out, **options)
            assert_close(out, dw.astype("f8"))


def test_broadcast_and_unaligned_inputs(rng):
    x, w = data(rng, (1, 3, 8, 9), "f4"), data(rng, (4, 3, 3, 3), "f4")
    expected = fastconv.conv2d(np.ascontiguousarray(np.broadcast_to(x, (3, 3, 8, 9))), w)
    np.testing.assert_array_equal(fastconv.conv2d(np.broadcast_to(x, (3, 3, 8, 9)), w), expected)
    buffer = np.zeros(x.nbytes + 1, np.uint8)
    unaligned = buffer[1:].view(np.float32).reshape(x.shape)
    unaligned[...] = x
    assert not unaligned.flags.aligned
    np.testing.assert_array_equal(fastconv.conv2d(unaligned, w), expected[:1])


def test_needs(rng):
    x, w, dy = data(rng, (2, 3, 6, 7), "f4"), data(rng, (4, 3, 3, 3), "f4"), None
    dy = fastconv.conv2d(x, w)
    full = fastconv.conv2d_backward(dy, x, w)
    for needs in np.ndindex(2, 2, 2):
        some = fastconv.conv2d_backward(dy, x, w, needs=tuple(map(bool, needs)))
        for wanted, got, expected in zip(needs, some, full, strict=True):
            assert (got is not None) == bool(wanted)
            if wanted:
                np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_special_values_reach_exactly_their_windows(value, algorithm, rng):
    x, w = data(rng, (2, 3, 9, 11), "f4"), data(rng, (20, 3, 3, 2), "f4")
    x[1, 2, 4, 5] = value
    dy = np.ones((2, 20, 9, 12), "f4")
    y = fastconv.conv2d(x, w, padding=1, algorithm=algorithm)
    hits = reference.conv(~np.isfinite(x), np.ones_like(w), padding=1)
    np.testing.assert_array_equal(~np.isfinite(y), hits > 0)
    dw = fastconv.conv2d_grad_weight(dy, x, w.shape, padding=1, algorithm=algorithm)
    expected = np.zeros_like(dw, dtype=bool)
    expected[:, 2] = True  # every tap of that channel passes over the pixel
    np.testing.assert_array_equal(~np.isfinite(dw), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("groups", [1, 20])
@pytest.mark.parametrize("stride", [1, 2])
def test_special_values_of_filters_stay_in_their_channels(
    stride, groups, data_format, value, algorithm, rng
):
    """Whatever becomes of zeros beside the image that meet them, which is not promised."""
    x, w = data(rng, (2, 20, 9, 11), "f4"), data(rng, (20, 20 // groups, 3, 3), "f4")
    options = {"padding": 1, "stride": stride, "groups": groups, "algorithm": algorithm}
    options["data_format"] = data_format
    to_last = (lambda a: np.moveaxis(a, 1, -1)) if data_format == "channels_last" else (lambda a: a)
    channel = 3 if data_format == "channels_last" else 1
    plain = np.delete(fastconv.conv2d(to_last(x), w, **options), 7, axis=channel)
    w[7, -1, 0, 2] = value
    y = fastconv.conv2d(to_last(x), w, **options)
    np.testing.assert_array_equal(np.delete(y, 7, axis=channel), plain)
    inside = reference.conv(np.ones((1, 1, 9, 11)), np.ones((1, 1, 3, 3)), padding=1, stride=stride)
    met = np.take(y, 7, axis=channel)[:, inside[0, 0] == 9]
    assert not np.isfinite(met).any()


WINOGRAD = [
    *[
        replace(case, extents=extents, kernel=(3, 3), padding=padding)
        for case in CASES
        if case.ndim == 2 and case.batch and case.stride == case.dilation == 1
        for extents in ((9, 12), (4, 17))
        for padding in (0, 1, ((2, 0), (1, 3)), ((-1, 1), (2, -3)))
    ][::7],
    Case((7, 7), (3, 3), batch=13, padding=1, channels=40, filters=70),
    Case((70, 101), (3, 3), batch=1, padding=1),
    Case((1, 1), (3, 3), padding=1),
    Case((3, 7, 9), (1, 3, 3), padding=(0, 1, 2)),
    Case((4, 7, 9), (3, 3, 3), padding=1, channels=17, filters=35),
    Case((5, 6, 10), (2, 3, 3), padding=((2, 0), 1, (0, 2)), channels=6, filters=4, groups=2),
    Case((2, 5, 6), (4, 3, 3), padding=((3, 2), 0, 1)),
    # Three lines of tiles that fill a block each: as many shares of the gradient of the filters.
    Case((12, 160), (3, 3), batch=1, padding=1, channels=32, filters=32),
]


@pytest.mark.parametrize("case", dict.fromkeys(WINOGRAD), ids=str)
def test_winograd(case, dtype, rng):
    x, w = data(rng, case.x_shape, dtype), data(rng, case.weight_shape, dtype)
    b = data(rng, case.filters, dtype)
    options = {**case.geometry, "algorithm": "winograd"}
    expected = reference.conv(x, w, b, **case.geometry)
    y = function("conv", case.ndim)(x, w, b, **options, out=poisoned(expected.shape, dtype))
    assert_close_in_norm(y, expected)
    dy = data(rng, y.shape, dtype)
    dx = function("conv_grad_input", case.ndim)(
        dy, w, x.shape, **options, out=poisoned(x.shape, dtype)
    )
    assert_close_in_norm(dx, reference.conv_grad_input(dy, w, x.shape, **case.geometry))
    dw = function("conv_grad_weight", case.ndim)(
        dy, x, w.shape, **options, out=poisoned(w.shape, dtype)
    )
    assert_close_in_norm(dw, reference.conv_grad_weight(dy, x, w.shape, **case.geometry))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernel": (3, 2)}, "the filter must be 3x3"),
        ({"stride": 2}, "stride and dilation must be 1"),
        ({"dilation": 2}, "stride and dilation must be 1"),
    ],
)
def test_winograd_says_what_it_cannot_do(changes, message, rng):
    case = replace(Case((9, 12), (3, 3)), **changes)
    x, w = data(rng, case.x_shape, "f4"), data(rng, case.weight_shape, "f4")
    with pytest.raises(ValueError, match=message):
        fastconv.conv2d(x, w, **case.geometry, algorithm="winograd")


def test_large_reductions_keep_their_precision(rng):
    # 1.6 million terms: added one by one in float32 the relative error would be 4e-4.
    dy, x = np.ones((1, 1, 1265, 1265), "f4"), rng.random((1, 1, 1265, 1265)).astype("f4")
    dw = fastconv.conv2d_grad_weight(dy, x, (1, 1, 1, 1))
    assert abs(dw.item() / x.astype("f8").sum() - 1) < 1e-6
