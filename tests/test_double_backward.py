"""``conv{n}d_double_backward``: against the maps of the oracle, central differences and PyTorch."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

import fastconv

from . import reference
from .cases import CASES, Case, assert_close, data
from .test_channels_last import first, last
from .test_maps import function, read_only
from .test_padding import MOST, SHOWING

RELU = {"activation": "relu"}
WIDE = Case((7, 9), (3, 2), channels=20, filters=36, groups=2, padding=1)
EVERY_THIRD = [*CASES[::3], WIDE]
PADDED = [replace(WIDE, padding=((2, 1), (0, 3)), padding_mode=mode) for mode in SHOWING] + MOST[
    ::2
]


def oracle(case, ggx, ggw, ggb, dy, x, w):
    """By the definition; a term whose factor is None is left out, without any the sum is None."""
    bias = 0 if ggb is None else ggb.astype("f8").reshape(-1, *[1] * case.ndim)
    of_dy = None
    if not ggx is ggw is ggb is None:
        of_dy = np.zeros(dy.shape) + bias
        if ggx is not None:
            of_dy += reference.conv(ggx, w, **case.geometry)
        if ggw is not None:
            of_dy += reference.conv(x, ggw, **case.geometry)
    of_x = of_w = None
    if ggw is not None:
        of_x = reference.conv_grad_input(dy, ggw, x.shape, **case.geometry)
    if ggx is not None:
        of_w = reference.conv_grad_weight(dy, ggx, w.shape, **case.geometry)
    return of_dy, of_x, of_w


def transposed_oracle(case, ggx, ggw, ggb, dy, x, w):
    """The same of a transposed convolution; its gradients are maps of the plain one."""
    of_dy = reference.conv_transpose(ggx, w, ggb, **case.geometry)
    of_dy += reference.conv_transpose(x, ggw, **case.geometry)
    of_x = reference.conv(dy, ggw, **case.geometry)
    of_w = reference.conv_grad_weight(ggx, dy, w.shape, **case.geometry)
    return of_dy, of_x, of_w


def compare(got, expected, tolerance=None):
    for mine, right in zip(got, expected, strict=True):
        assert (mine is None) == (right is None)
        if right is not None:
            assert_close(mine, right, tolerance=tolerance)


def arrays(rng, case, dtype):
    """ggx, ggw, ggb, dy, x, w of a convolution."""
    x, w = data(rng, case.x_shape, dtype), data(rng, case.weight_shape, dtype)
    ggx, ggw, ggb = (data(rng, a, dtype) for a in (x.shape, w.shape, case.filters))
    dy = data(rng, reference.conv(x, w, **case.geometry).shape, dtype)
    read_only(ggx, ggw, ggb, dy, x, w)
    return ggx, ggw, ggb, dy, x, w


@pytest.mark.parametrize("case", [*EVERY_THIRD, *PADDED], ids=str)
def test_conv(case, dtype, rng):
    given = arrays(rng, case, dtype)
    got = function("conv_double_backward", case.ndim)(*given, **case.geometry, algorithm="direct")
    compare(got, oracle(case, *given))
    assert all(grad.dtype == dtype for grad in got)


@pytest.mark.parametrize("case", [*EVERY_THIRD, *PADDED], ids=str)
def test_channels_last(case, rng):
    ggx, ggw, ggb, dy, x, w = arrays(rng, case, "f4")
    of_dy, of_x, of_w = function("conv_double_backward", case.ndim)(
        last(ggx),
        ggw,
        ggb,
        last(dy),
        last(x),
        w,
        **case.geometry,
        data_format="channels_last",
        algorithm="planar",
    )
    expected = oracle(case, ggx, ggw, ggb, dy, x, w)
    compare((first(of_dy), first(of_x), of_w), expected)


def transposed_arrays(rng, case, dtype):
    x = data(rng, (case.batch, case.filters, *case.extents), dtype)
    w = data(rng, (case.filters, case.channels // case.groups, *case.kernel), dtype)
    ggx, ggw, ggb = (data(rng, a, dtype) for a in (x.shape, w.shape, case.channels))
    try:
        y = reference.conv_transpose(x, w, **case.geometry)
    except ValueError:
        y = np.empty((1, 0))
    if 0 in y.shape[1:]:
        pytest.skip("the padding leaves nothing of the result")
    return ggx, ggw, ggb, data(rng, y.shape, dtype), x, w


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("case", EVERY_THIRD, ids=str)
def test_transposed(case, data_format, rng):
    ggx, ggw, ggb, dy, x, w = given = transposed_arrays(rng, case, "f8")
    double_backward = function("conv_transpose_double_backward", case.ndim)
    options = {**case.geometry, "data_format": data_format}
    if data_format == "channels_last":
        of_dy, of_x, of_w = double_backward(last(ggx), ggw, ggb, last(dy), last(x), w, **options)
        got = first(of_dy), first(of_x), of_w
    else:
        got = double_backward(*given, **options)
    compare(got, transposed_oracle(case, *given), tolerance=2e-14)


def result_of_relu(rng, dy):
    """A third above 0, and everything else that is a number; where the mask lets pass."""
    y = np.maximum(data(rng, dy.shape, dy.dtype), 0)
    y.flat[::5], y.flat[::7] = 0, -0.0
    y.flat[::11] = np.nan
    read_only(y)
    return y, ~(y <= 0)


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("case", [*EVERY_THIRD[::2], *PADDED[::2]], ids=str)
def test_relu(case, data_format, dtype, rng):
    ggx, ggw, ggb, dy, x, w = arrays(rng, case, dtype)
    y, passes = result_of_relu(rng, dy)
    expected = oracle(case, ggx, ggw, ggb, np.where(passes, dy, 0), x, w)
    to, back = (last, first) if data_format == "channels_last" else (np.array, np.array)
    double_backward = function("conv_double_backward", case.ndim)
    options = {**case.geometry, **RELU, "data_format": data_format, "algorithm": "direct"}
    of_dy, of_x, of_w = double_backward(to(ggx), ggw, ggb, to(dy), to(x), w, **options, y=to(y))
    compare((back(of_dy), back(of_x), of_w), (np.where(passes, expected[0], 0), *expected[1:]))
    spread = double_backward(None, None, ggb, to(dy), to(x), w, **options, y=to(y))[0]
    bias = ggb.reshape(-1, *[1] * case.ndim)
    np.testing.assert_array_equal(back(spread), np.where(passes, bias, np.zeros((), dtype)))


@pytest.mark.parametrize("case", EVERY_THIRD[::2], ids=str)
def test_relu_transposed(case, rng):
    ggx, ggw, ggb, dy, x, w = transposed_arrays(rng, case, "f8")
    y, passes = result_of_relu(rng, dy)
    of_dy, *others = transposed_oracle(case, ggx, ggw, ggb, np.where(passes, dy, 0), x, w)
    double_backward = function("conv_transpose_double_backward", case.ndim)
    got = double_backward(ggx, ggw, ggb, dy, x, w, **case.geometry, **RELU, y=y)
    compare(got, (np.where(passes, of_dy, 0), *others), tolerance=2e-14)


@pytest.mark.parametrize("extra", [(0, 1), (2, 0)])
def test_output_shape(extra, rng):
    """It says the same as ``output_padding``."""
    x, w = data(rng, (2, 4, 5, 6), "f8"), data(rng, (4, 3, 3, 2), "f8")
    options = {"stride": (3, 2), "padding": 1, "groups": 2}
    y = reference.conv_transpose(x, w, **options, output_padding=extra)
    given = [data(rng, a, "f8") for a in (x.shape, w.shape, 6, y.shape)]
    double_backward = fastconv.conv_transpose2d_double_backward
    got = double_backward(*given, x, w, **options, output_shape=y.shape[2:])
    expected = double_backward(*given, x, w, **options, output_padding=extra)
    for mine, right in zip(got, expected, strict=True):
        np.testing.assert_array_equal(mine, right)


@pytest.mark.parametrize("case", [CASES[0], CASES[3], CASES[-1], PADDED[0]], ids=str)
def test_what_is_missing_and_what_is_needed(case, rng):
    """None stands for zero, and is returned for what nothing reaches or nobody wants."""
    *second, dy, x, w = arrays(rng, case, "f8")
    double_backward = function("conv_double_backward", case.ndim)
    for given in itertools.product((True, False), repeat=3):
        some = [a if keep else None for a, keep in zip(second, given, strict=True)]
        expected = oracle(case, *some, dy, x, w)
        compare(double_backward(*some, dy, x, w, **case.geometry), expected)
        for needs in itertools.product((True, False), repeat=3):
            got = double_backward(*some, dy, x, w, **case.geometry, needs=needs)
            wanted = [e if need else None for e, need in zip(expected, needs, strict=True)]
            compare(got, wanted)


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_unbatched_and_empty(data_format, rng):
    case = Case((6, 7), (3, 2), batch=1, channels=4, filters=6, groups=2, padding=1)
    ggx, ggw, ggb, dy, x, w = arrays(rng, case, "f4")
    if data_format == "channels_last":
        ggx, dy, x = map(last, (ggx, dy, x))
    options = {**case.geometry, "data_format": data_format}
    batch = fastconv.conv2d_double_backward(ggx, ggw, ggb, dy, x, w, **options)
    one = fastconv.conv2d_double_backward(ggx[0], ggw, ggb, dy[0], x[0], w, **options)
    np.testing.assert_array_equal(one[0], batch[0][0])
    np.testing.assert_array_equal(one[1], batch[1][0])
    np.testing.assert_array_equal(one[2], batch[2])
    bias_alone = fastconv.conv2d_double_backward(None, None, ggb, dy[0], x[0], w, **options)[0]
    assert bias_alone.shape == dy[0].shape
    np.testing.assert_array_equal(
        bias_alone,
        np.zeros_like(dy[0]) + (ggb if data_format == "channels_last" else ggb[:, None, None]),
    )
    none = fastconv.conv2d_double_backward(ggx[:0], ggw, ggb, dy[:0], x[:0], w, **options)
    assert none[0].shape == dy[:0].shape
    assert none[1].shape == x[:0].shape
    assert (none[2] == 0).all()


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("mode", [None, "zeros", *SHOWING], ids=str)
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_central_differences(ndim, mode, activation, rng):
    """Of the loss <ggx, dx> + <ggw, dw> + <ggb, db>, by dy, x and w; transposed without a mode."""
    case = Case(
        (5, 4, 3)[:ndim],
        (2, 3, 2)[:ndim],
        channels=2,
        filters=4,
        groups=2,
        stride=2,
        padding=1,
        padding_mode=mode or "zeros",
    )
    make, name = (arrays, "conv") if mode else (transposed_arrays, "conv_transpose")
    *second, dy, x, w = make(rng, case, "f8")
    forward, backward, double_backward = (
        function(f"{name}{what}", ndim) for what in ("", "_backward", "_double_backward")
    )

    def passing(x, w):
        if activation is None:
            return {}
        y = forward(x, w, **case.geometry)
        assert np.abs(y).min() > 1e-4  # no step of the differences crosses 0
        return {"activation": activation, "y": np.maximum(y, 0)}

    got = double_backward(*second, dy, x, w, **case.geometry, **passing(x, w))

    for i, point in enumerate((dy, x, w)):

        def loss(value, i=i):
            changed = [dy, x, w]
            changed[i] = value
            grads = backward(*changed, **case.geometry, **passing(*changed[1:]))
            return np.array(
                [sum(np.vdot(gg, grad) for gg, grad in zip(second, grads, strict=True))]
            )

        result = fastconv.gradcheck(loss, lambda scale, i=i: scale * got[i], point)
        assert result, str(result)


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3)])
@pytest.mark.parametrize("algorithm", ["auto", "depthwise", "gemm", "reference"])
def test_algorithms(kernel, algorithm, rng):
    case = Case((16, 14), kernel, channels=20, filters=36, padding=kernel[0] // 2)
    given = arrays(rng, case, "f8")
    got = fastconv.conv2d_double_backward(*given, **case.geometry, algorithm=algorithm)
    compare(got, oracle(case, *given))


X, W, Y = (np.ones(shape, "f4") for shape in ((2, 4, 8, 9), (6, 4, 3, 2), (2, 6, 6, 8)))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"grad_grad_input": X[:1]}, ValueError, "grad_grad_input must have the shape of x,"),
        ({"grad_grad_weight": X}, ValueError, "grad_grad_weight must have the shape of weight,"),
        ({"grad_grad_bias": Y[0]}, ValueError, r"grad_grad_bias must .* of the bias, \(6,\)"),
        ({"grad_grad_bias": [1.0]}, TypeError, "grad_grad_bias must be a NumPy array"),
        ({"grad_grad_input": X.astype("f8")}, TypeError, "all arrays must have one dtype"),
        ({"grad_output": Y[:, :5]}, ValueError, "grad_output must have the shape of the result"),
        ({"needs": (True, True)}, ValueError, "needs must have 3 entries, for grad_output, x and"),
        ({"needs": (False,) * 3, "algorithm": "fft"}, ValueError, "algorithm must be one of"),
        ({"stride": 0}, ValueError, "stride must be at least 1"),
        ({"precision": "low"}, ValueError, "precision must be one of"),
        ({"padding_mode": "wrap"}, ValueError, "padding_mode must be one of zeros, reflect,"),
        ({"padding_mode": "reflect", "padding": 9}, ValueError, "padding must be less than the"),
        ({"activation": "gelu"}, ValueError, "activation must be None or \"relu\", got 'gelu'"),
        (RELU, ValueError, "y must be the result of the forward call where activation"),
        ({"y": Y}, ValueError, "y must be None where activation is"),
        ({**RELU, "y": Y[:1]}, ValueError, "y must have the shape of grad_output"),
        ({**RELU, "y": Y.astype("f8")}, TypeError, "all arrays must have one dtype"),
    ],
)
def test_mistakes(changes, error, message):
    arguments = {
        "grad_grad_input": None,
        "grad_grad_weight": None,
        "grad_grad_bias": None,
        "grad_output": Y,
        "x": X,
        "weight": W,
        **changes,
    }
    with pytest.raises(error, match=message):
        fastconv.conv2d_double_backward(**arguments)


@pytest.mark.torch
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("mode", [None, "zeros", *SHOWING], ids=str)
@pytest.mark.parametrize("groups", [1, 2])
def test_as_pytorch(groups, mode, activation, rng):
    """Transposed without a mode."""
    torch = pytest.importorskip("torch")
    name = "conv" if mode else "conv_transpose"
    x = data(rng, (2, 4, 7, 6), "f8")
    w = data(rng, (6, 4 // groups, 3, 2) if mode else (4, 6 // groups, 3, 2), "f8")
    b = data(rng, 6, "f8")
    stride, padding, dilation = (2, 1), (1, 2), (1, 2)
    tail = (dilation, groups) if mode else ((1, 0), groups, dilation)
    tx, tw, tb = (torch.tensor(a, requires_grad=True) for a in (x, w, b))
    seen, inside = tx, padding
    if mode in SHOWING:
        seen, inside = torch.nn.functional.pad(tx, (2, 2, 1, 1), mode), 0
    ty = getattr(torch.nn.functional, f"{name}2d")(seen, tw, tb, stride, inside, *tail)
    ty = ty if activation is None else ty.relu()
    dy = data(rng, tuple(ty.shape), "f8")
    tdy = torch.tensor(dy, requires_grad=True)
    grads = torch.autograd.grad(ty, (tx, tw, tb), tdy, create_graph=True)
    second = [data(rng, a.shape, "f8") for a in (x, w, b)]
    expected = torch.autograd.grad(grads, (tdy, tx, tw), [torch.tensor(gg) for gg in second])
    options = {} if mode is None else {"padding_mode": mode}
    if activation:
        options |= {"activation": activation, "y": ty.detach().numpy()}
    double_backward = getattr(fastconv, f"{name}2d_double_backward")
    got = double_backward(*second, dy, x, w, stride, padding, *tail, **options)
    compare(got, [grad.numpy() for grad in expected])
