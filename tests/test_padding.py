"""``padding_mode``: every map and layout against the oracle, which pads by ``numpy.pad``."""

import re
from dataclasses import replace

import numba
import numpy as np
import pytest

import fastconv
from fastconv import cpu, padded
from fastconv.cpu import driver
from fastconv.cpu import padding as engines
from fastconv.padding import MODES

from . import reference
from .cases import CASES, Case, assert_close, assert_close_in_norm, data
from .guard import guarded
from .test_maps import function, poisoned, read_only, strided

SHOWING = [mode for mode in MODES if mode != "zeros"]
LAST = {"data_format": "channels_last"}


IMAGE = Case((5, 6), (3, 2))
MOST = [
    # The largest amounts, which show every pixel several times; extents of a single pixel.
    replace(IMAGE, padding=((4, 3), (0, 5)), padding_mode="reflect"),
    replace(IMAGE, padding=((5, 2), (0, 6)), stride=(2, 3), padding_mode="circular"),
    replace(
        IMAGE, padding=((25, 0), (3, 40)), stride=(3, 1), dilation=(1, 2), padding_mode="replicate"
    ),
    replace(IMAGE, extents=(1, 4), padding=((0, 0), (3, 1)), kernel=(1, 3), padding_mode="reflect"),
    replace(IMAGE, extents=(1, 4), padding=((1, 1), (2, 1)), padding_mode="circular"),
    replace(IMAGE, extents=(1, 1), padding=((1, 3), (2, 1)), padding_mode="replicate"),
    Case(
        (3, 4, 5),
        (2, 3, 2),
        padding=((2, 1), (0, 3), (4, 2)),
        stride=(1, 2, 1),
        padding_mode="reflect",
    ),
    Case(
        (3, 4, 5),
        (2, 3, 2),
        padding=((2, 3), (0, 3), (4, 5)),
        stride=(1, 2, 1),
        padding_mode="circular",
    ),
    Case(
        (3, 4, 5),
        (2, 3, 2),
        padding=((7, 1), (0, 9), (4, 6)),
        channels=18,
        padding_mode="replicate",
    ),
    # Lines longer than a vector, channels of several.
    Case((50, 41), (3, 3), batch=1, padding=((7, 1), (20, 33)), padding_mode="reflect"),
    Case((7, 35), (3, 3), channels=70, filters=70, padding="same", padding_mode="circular"),
    Case((1100,), (5,), batch=1, channels=2, padding=((600, 3),), padding_mode="circular"),
]
# Lines that are cut into parts, which padding reaches across.
LINE = Case((20_000,), (3,), batch=1, channels=2, filters=1)
LONG = [
    replace(LINE, padding=((9_000, 19_999),), padding_mode="reflect"),
    replace(LINE, padding=((20_000, 700),), padding_mode="circular"),
    replace(LINE, padding=((30_000, 9_000),), padding_mode="replicate"),
]
EVERY = [replace(case, padding_mode=mode) for case in CASES for mode in SHOWING]
EVERY = [case for case in EVERY if any(map(any, case.pairs)) and case.is_allowed][::2] + MOST
FEW = EVERY[::5] + MOST
EVERY += LONG
every_case = pytest.mark.parametrize("case", EVERY, ids=str)
few_cases = pytest.mark.parametrize("case", FEW, ids=str)


def last(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def check_maps(case, dtype, rng, close, **options):
    """All maps into poisoned results, of operands that are read-only."""
    x, w = data(rng, case.x_shape, dtype), data(rng, case.weight_shape, dtype)
    b = data(rng, case.filters, dtype)
    expected = reference.conv(x, w, b, **case.geometry)
    dy = data(rng, expected.shape, dtype)
    to, back = lambda a: a, lambda a: a
    if options.get("data_format") == "channels_last":
        to, back = last, lambda a: np.moveaxis(a, -1, 1)
    xs, dys = to(x), to(dy)
    read_only(xs, dys, w, b)
    conv, options = f"conv{case.ndim}d", {**case.geometry, **options}

    out = poisoned(dys.shape, dtype)
    assert getattr(fastconv, conv)(xs, w, b, **options, out=out) is out
    close(back(out), expected)

    out = poisoned(xs.shape, dtype)
    assert getattr(fastconv, f"{conv}_grad_input")(dys, w, xs.shape, **options, out=out) is out
    close(back(out), reference.conv_grad_input(dy, w, case.x_shape, **case.geometry))

    out = poisoned(w.shape, dtype)
    assert getattr(fastconv, f"{conv}_grad_weight")(dys, xs, w.shape, **options, out=out) is out
    close(out, reference.conv_grad_weight(dy, x, case.weight_shape, **case.geometry))


@every_case
def test_maps(case, dtype, rng):
    check_maps(case, dtype, rng, assert_close_in_norm)


@few_cases
def test_algorithms(case, algorithm, rng):
    check_maps(case, np.dtype("f4"), rng, assert_close, algorithm=algorithm)


@pytest.mark.parametrize("case", FEW + LONG, ids=str)
def test_channels_last(case, rng):
    check_maps(case, np.dtype("f4"), rng, assert_close_in_norm, **LAST)


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


@pytest.mark.parametrize("mode", SHOWING)
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_central_differences(ndim, mode, rng):
    x = data(rng, (2, 2, *(5, 4, 3)[:ndim]), "f8")
    w = data(rng, (4, 1, *(3, 2, 2)[:ndim]), "f8")
    padding = ((2, 4), (3, 1), (0, 2))[:ndim]
    options = {"stride": 2, "padding": padding, "groups": 2, "padding_mode": mode}
    conv, grad_input = function("conv", ndim), function("conv_grad_input", ndim)
    result = fastconv.gradcheck(
        lambda x: conv(x, w, **options),
        lambda dy: grad_input(dy, w, x.shape, **options),
        x,
        linear=True,
    )
    assert result, str(result)


@pytest.mark.parametrize("mode", SHOWING)
def test_strided_arrays(mode, rng):
    options = {"padding": ((1, 3), (2, 0)), "padding_mode": mode, "stride": (1, 2)}
    x, w = data(rng, (2, 20, 9, 13), "f4"), data(rng, (18, 20, 3, 2), "f4")
    y = reference.conv(x, w, **options)
    dy = data(rng, y.shape, "f4")
    dx = reference.conv_grad_input(dy, w, x.shape, **options)
    dw = reference.conv_grad_weight(dy, x, w.shape, **options)
    for sx, sw, sdy in zip(strided(x), strided(w), strided(dy), strict=True):
        read_only(sx, sw, sdy)
        # As they are, and as images whose channels are named last.
        for moved, form in ((lambda a: a, {}), (lambda a: np.moveaxis(a, 1, -1), LAST)):
            for out in strided(np.full_like(dy, np.nan)):
                fastconv.conv2d(moved(sx), sw, **options, **form, out=moved(out))
                assert_close(out, y)
            for out in strided(np.full_like(x, np.nan)):
                shape = moved(x).shape
                fastconv.conv2d_grad_input(moved(sdy), sw, shape, **options, **form, out=moved(out))
                assert_close(out, dx)
            got = fastconv.conv2d_grad_weight(moved(sdy), moved(sx), w.shape, **options, **form)
            assert_close(got, dw)


@pytest.mark.parametrize("mode", SHOWING)
def test_broadcast_and_unaligned_inputs(mode, rng):
    options = {"padding": ((2, 1), (0, 3)), "padding_mode": mode}
    x, w = data(rng, (1, 3, 8, 9), "f4"), data(rng, (4, 3, 3, 3), "f4")
    expected = reference.conv(x, w, **options)
    for whole in ((3, 3, 8, 9), (1, 3, 8, 9)):
        y = fastconv.conv2d(np.broadcast_to(x, whole), w, **options)
        assert_close(y, np.broadcast_to(expected, y.shape))
    row = np.broadcast_to(x[..., :1], x.shape)
    assert_close(fastconv.conv2d(row, w, **options), reference.conv(row, w, **options))
    unaligned = np.zeros(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    unaligned[...] = x
    assert not unaligned.flags.aligned
    assert_close(fastconv.conv2d(unaligned, w, **options), expected)


@pytest.mark.parametrize("form", [{}, LAST], ids=["first", "last"])
@pytest.mark.parametrize("mode", SHOWING)
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_unbatched_and_empty(ndim, mode, form, rng):
    options = {"padding": ((2, 1), (0, 2), (1, 1))[:ndim], "padding_mode": mode, **form}
    extents = (5, 4, 3)[:ndim]
    shape = (2, *extents, 3) if form else (2, 3, *extents)
    x, w = data(rng, shape, "f4"), data(rng, (4, 3, *(3, 2, 2)[:ndim]), "f4")
    conv, backward = function("conv", ndim), function("conv_backward", ndim)
    y = conv(x, w, **options)
    dx, dw, _ = backward(y, x, w, **options)
    one_by_one = [backward(y[n], x[n], w, **options) for n in range(2)]
    for n, (one, _, _) in enumerate(one_by_one):
        np.testing.assert_array_equal(conv(x[n], w, **options), y[n])
        np.testing.assert_array_equal(one, dx[n])
    assert_close(one_by_one[0][1] + one_by_one[1][1], dw.astype("f8"))
    empty = conv(x[:0], w, **options)
    assert empty.shape == (0, *y.shape[1:])
    dx, dw, db = backward(empty, x[:0], w, **options)
    assert dx.shape == (0, *x.shape[1:])
    assert not dw.any()
    assert not db.any()


@pytest.mark.parametrize("form", [{}, LAST], ids=["first", "last"])
@pytest.mark.parametrize("images", [1, 2, 3])
def test_a_batch_in_parts(images, form, rng, monkeypatch):
    """The same images, however many are padded at a time; sums over parts are those of all."""
    case = Case((9, 12), (3, 2), batch=7, padding=((2, 1), (0, 3)), padding_mode="reflect")
    nbytes = 3 * 12 * 15 * 8
    monkeypatch.setattr(padded, "PIECE_BYTES", images * nbytes)
    made = []
    pad = cpu.pad
    monkeypatch.setattr(cpu, "pad", lambda x, g, *rest: made.append(g.batch) or pad(x, g, *rest))
    check_maps(case, np.dtype("f8"), rng, assert_close, **form)
    assert max(made) == images
    assert sum(made) == 2 * 7  # for forward and for grad_weight


def test_same_bits_for_any_number_of_threads(rng):
    options = {"padding": 3, "padding_mode": "circular"}
    x, w = data(rng, (4, 20, 61, 67), "f4"), data(rng, (20, 20, 3, 3), "f4")
    dy = data(rng, fastconv.conv2d(x, w, **options).shape, "f4")
    found, threads = [], numba.get_num_threads()
    try:
        for number in {1, threads}:
            numba.set_num_threads(number)
            y = fastconv.conv2d(x, w, **options)
            found.append((y, *fastconv.conv2d_backward(dy, x, w, **options)))
    finally:
        numba.set_num_threads(threads)
    for one, other in zip(found[0], found[-1], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("case", [*LONG, MOST[6]], ids=str)
def test_tasks_in_any_order(case, rng, monkeypatch):
    """The last one first: none writes what another one has to."""
    x, w = data(rng, case.x_shape, "f8"), data(rng, case.weight_shape, "f8")
    conv, grad_input = function("conv", case.ndim), function("conv_grad_input", case.ndim)
    y = conv(x, w, **case.geometry)
    dx = grad_input(y, w, x.shape, **case.geometry)
    run, tasks = driver.run, []

    def run_backwards(plan, *arrays):
        ((every,),) = plan.stages
        tasks.append(every.last)
        single = [
            np.array([(*every._replace(first=i, last=i + 1), 1)], np.int64)
            for i in reversed(range(every.last))
        ]
        with monkeypatch.context() as patch:
            patch.setattr(plan, "runs", single)
            run(plan, *arrays)

    def backwards(engine):
        def call(a, b, bias, out, *segments):
            with monkeypatch.context() as patch:
                patch.setattr(driver, "run", run_backwards)
                engine(a, b, bias, out, *segments)

        return call

    for name in ("pad", "fold"):
        monkeypatch.setattr(engines, name, backwards(getattr(engines, name)))
    out = poisoned(x.shape, x.dtype)
    np.testing.assert_array_equal(conv(x, w, **case.geometry), y)
    np.testing.assert_array_equal(grad_input(y, w, x.shape, **case.geometry, out=out), dx)
    assert min(tasks) > 1 or case not in LONG


@pytest.mark.parametrize("mode", SHOWING)
def test_nothing_outside_is_touched_at_any_width(mode, dtype):
    rng = np.random.default_rng(0)
    w = data(rng, (2, 18, 3, 2), dtype)
    options = {"padding": (1, 2), "padding_mode": mode}
    for width in range(3, 38):
        for form, shape in (({}, (1, 18, 4, width)), (LAST, (1, 4, width, 18))):
            x = data(rng, shape, dtype)
            y = fastconv.conv2d(x, w, **options, **form)
            dx = fastconv.conv2d_grad_input(y, w, shape, **options, **form)
            for before in (False, True):
                edge, result = guarded(x, before), guarded(np.full_like(x, np.nan), before)
                np.testing.assert_array_equal(fastconv.conv2d(edge, w, **options, **form), y)
                fastconv.conv2d_grad_input(y, w, shape, **options, **form, out=result)
                np.testing.assert_array_equal(result, dx)


def test_without_padding_nothing_is_copied(rng, monkeypatch):
    def fail(*_):
        raise AssertionError

    for name in ("pad", "fold", "temporary"):
        monkeypatch.setattr(cpu, name, fail)
    x, w = data(rng, (2, 3, 8, 9), "f4"), data(rng, (4, 3, 3, 2), "f4")
    expected = fastconv.conv2d(x, w)
    gradients = fastconv.conv2d_backward(expected, x, w)
    for mode in MODES:
        for padding in (0, "valid", ((0, 0), 0)):
            options = {"padding": padding, "padding_mode": mode}
            np.testing.assert_array_equal(fastconv.conv2d(x, w, **options), expected)
            same = fastconv.conv2d_backward(expected, x, w, **options)
            for got, gradient in zip(same, gradients, strict=True):
                np.testing.assert_array_equal(got, gradient)
    x, w = x[..., :1, :], w[:, :, :1]  # one pixel needs no others where there is no padding
    fastconv.conv2d(x, w, padding="same", padding_mode="zeros")
    with pytest.raises(AssertionError):
        fastconv.conv2d(x, w, padding="same", padding_mode="reflect")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("mode", SHOWING)
def test_special_values_reach_exactly_their_windows(mode, value, rng):
    options = {"padding": ((2, 1), (3, 2)), "padding_mode": mode}
    x, w = data(rng, (2, 3, 6, 7), "f4"), data(rng, (20, 3, 3, 2), "f4")
    x[1, 2, 1, 5] = value
    y = fastconv.conv2d(x, w, **options, algorithm="direct")
    hits = reference.conv(~np.isfinite(x), np.ones_like(w), **options)
    np.testing.assert_array_equal(~np.isfinite(y), hits > 0)
    dy = np.ones_like(y)
    dy[1, 4, 0, 3] = value
    dx = fastconv.conv2d_grad_input(dy, w, x.shape, **options, algorithm="direct")
    hits = reference.conv_grad_input(~np.isfinite(dy), np.ones_like(w), x.shape, **options)
    np.testing.assert_array_equal(~np.isfinite(dx), hits > 0)


@pytest.mark.parametrize("form", [{}, LAST], ids=["first", "last"])
@pytest.mark.parametrize("mode", SHOWING)
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_layers(ndim, mode, form, rng):
    extents, kernel = (9, 7, 5)[:ndim], (4, 2, 3)[:ndim]
    geometry = {"stride": 2, "padding": "same", "groups": 2, "padding_mode": mode}
    layer = getattr(fastconv, f"Conv{ndim}d")(4, 6, kernel, rng=0, **geometry, **form)
    x = data(rng, (2, 4, *extents), "f4")
    back = (lambda a: np.moveaxis(a, -1, 1)) if form else (lambda a: a)
    y = layer.forward(last(x) if form else x)
    assert_close(back(y), reference.conv(x, layer.weight, layer.bias, **geometry))
    dx = layer.backward(y)
    dy = back(y)
    assert_close(back(dx), reference.conv_grad_input(dy, layer.weight, x.shape, **geometry))
    dw = reference.conv_grad_weight(dy, x, layer.weight.shape, **geometry)
    assert_close(layer.grads["weight"], dw)


X, W = np.ones((2, 4, 3, 9), "f4"), np.ones((6, 4, 2, 3), "f4")
BAD = {
    "name": ({"padding_mode": "wrap"}, "padding_mode must be one of zeros, reflect, replicate, c"),
    "none": ({"padding_mode": None}, "padding_mode must be one of zeros"),
    "list": ({"padding_mode": ["reflect"]}, "padding_mode must be one of zeros"),
    "reflect": (
        {"padding_mode": "reflect", "padding": ((0, 3), 2)},
        'padding must be less than the extent of each axis with padding_mode="reflect", got'
        " ((0, 3), (2, 2)) for x of extents (3, 9)",
    ),
    "circular": (
        {"padding_mode": "circular", "padding": (3, (10, 0))},
        'padding must be at most the extent of each axis with padding_mode="circular", got'
        " ((3, 3), (10, 0)) for x of extents (3, 9)",
    ),
    "same": (
        {"padding_mode": "reflect", "padding": "same", "dilation": (6, 1)},
        "got ((3, 3), (1, 1)) for x of extents (3, 9)",
    ),
    "negative": (
        {"padding_mode": "replicate", "padding": ((1, 1), (2, -1))},
        'padding must not be negative with padding_mode="replicate", got ((1, 1), (2, -1)) for',
    ),
    "channels last": (
        {"padding_mode": "reflect", "padding": 4, **LAST},
        "got ((4, 4), (4, 4)) for x (channels first) of extents (4, 3)",
    ),
    "huge": (
        {"padding_mode": "replicate", "padding": 2**40 - 1, "stride": 2**40 - 1},
        "the padded x would have shape (2, 1, 4, 1, 2199023255553, 2199023255559), more than",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_mistakes(name):
    changes, message = BAD[name]
    weight = np.ones((6, 9, 2, 3), "f4") if "data_format" in changes else W
    dy = out = np.full((2, 6, 2, 7), 7, "f4")
    called = "input_shape"
    for call, rest in (
        (fastconv.conv2d, {"x": X, "weight": weight, "out": out}),
        (fastconv.conv2d_backward, {"grad_output": dy, "x": X, "weight": weight}),
        (
            fastconv.conv2d_grad_weight,
            {"grad_output": dy, "x": X, "weight_shape": weight.shape},
        ),
        (
            fastconv.conv2d_grad_input,
            {"grad_output": dy, "weight": weight, called: X.shape},
        ),
    ):
        text = message.replace(" x ", f" {called} ") if called in rest else message
        with pytest.raises(ValueError, match=re.escape(text)):
            call(**{**rest, **changes})
    assert (out == 7).all()


def test_mistakes_of_layers():
    with pytest.raises(ValueError, match="padding_mode must be one of zeros, reflect"):
        fastconv.Conv2d(1, 1, 3, padding_mode="same")
    with pytest.raises(TypeError, match="padding_mode"):
        fastconv.ConvTranspose2d(1, 1, 3, padding_mode="zeros")


def test_explain():
    shapes = (64, 64, 56, 56), (64, 64, 3, 3)
    zeros, told = (
        fastconv.explain(*shapes, padding=1, padding_mode=mode) for mode in ("zeros", "circular")
    )
    assert "padding ((1, 1), (1, 1)) (circular)" in str(told)
    assert told.flops == zeros.flops
    copied = 64 * 58 * 58 * 4
    for name, plan in told.maps.items():
        more = plan.workspace - zeros.maps[name].workspace
        assert abs(more - 32 * copied) < 2**21


@pytest.mark.torch
@few_cases
def test_torch(case, rng):
    torch = pytest.importorskip("torch")
    x, w = data(rng, case.x_shape, "f8"), data(rng, case.weight_shape, "f8")
    b = data(rng, case.filters, "f8")
    tx, tw, tb = (torch.tensor(a, requires_grad=True) for a in (x, w, b))
    pads = [n for pair in reversed(case.pairs) for n in pair]
    shown = torch.nn.functional.pad(tx, pads, case.padding_mode)
    conv = getattr(torch.nn.functional, f"conv{case.ndim}d")
    ty = conv(shown, tw, tb, case.stride, 0, case.dilation, case.groups)
    y = function("conv", case.ndim)(x, w, b, **case.geometry)
    assert_close(y, ty.detach().numpy())
    dy = data(rng, y.shape, "f8")
    ty.backward(torch.from_numpy(dy))
    gradients = function("conv_backward", case.ndim)(dy, x, w, **case.geometry)
    for got, expected in zip(gradients, (tx.grad, tw.grad, tb.grad), strict=True):
        assert_close(got, expected.numpy(), tolerance=1e-13)
