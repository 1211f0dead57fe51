"""``activation="relu"``: of results as they are written, and the way back through it."""

import numpy as np
import pytest

import fastconv

from . import reference
from .cases import CASES, Case, assert_close, assert_close_in_norm, data
from .test_channels_last import LAST, WIDE, first, last
from .test_maps import WINOGRAD, function, poisoned, read_only

RELU = {"activation": "relu"}

# Sums that are added up in pieces, of which only the last may be cut off at 0; results written
# where they lie, and through a panel.
LONG = [
    Case((5, 9), (1, 1), channels=600, filters=20, batch=1),
    Case((17, 16), (1, 1), channels=600, filters=40, batch=1),
    Case((6, 5), (3, 3), channels=70, filters=9, stride=(2, 1), padding=1),
]
EVERY_THIRD = [*CASES[::3], *LONG]


def operands(rng, case, dtype):
    arrays = [data(rng, shape, dtype) for shape in (case.x_shape, case.weight_shape, case.filters)]
    read_only(*arrays)
    return arrays


def relu(y):
    return np.where(y <= 0, 0, y)


@pytest.mark.parametrize("case", EVERY_THIRD, ids=str)
def test_conv(case, algorithm, rng):
    x, w, b = operands(rng, case, "f4")
    expected = relu(reference.conv(x, w, b, **case.geometry))
    options = {**case.geometry, "algorithm": algorithm}
    conv = function("conv", case.ndim)
    out = poisoned(expected.shape, "f4")
    assert conv(x, w, b, **options, **RELU, out=out) is out
    assert_close(out, expected)
    np.testing.assert_array_equal(out, relu(conv(x, w, b, **options)))


@pytest.mark.parametrize("case", [*EVERY_THIRD, *WIDE[::4]], ids=str)
def test_channels_last(case, algorithm, rng):
    x, w, b = operands(rng, case, "f4")
    expected = relu(reference.conv(x, w, b, **case.geometry))
    out = poisoned(last(expected).shape, "f4")
    options = {**case.geometry, **LAST, **RELU, "algorithm": algorithm}
    function("conv", case.ndim)(last(x), w, b, **options, out=out)
    assert_close(first(out), expected)


@pytest.mark.parametrize("case", dict.fromkeys(WINOGRAD[::2]), ids=str)
def test_winograd(case, rng):
    x, w, b = operands(rng, case, "f4")
    expected = relu(reference.conv(x, w, b, **case.geometry))
    options = {**case.geometry, **RELU, "algorithm": "winograd"}
    y = function("conv", case.ndim)(x, w, b, **options, out=poisoned(expected.shape, "f4"))
    assert_close_in_norm(y, expected)
    assert (y >= 0).all()
    y = function("conv", case.ndim)(last(x), w, b, **options, **LAST)
    assert_close_in_norm(first(y), expected)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "case",
    [
        *[case for case in CASES if case.padding == 0][::3],
        # Pixels that no tap reaches; a product of matrices; one in which lanes are groups.
        Case((4, 5), (1, 2), channels=4, filters=6, groups=2, stride=(2, 3)),
        Case((1, 1), (3, 2), channels=20, filters=40),
        Case((5, 4), (3, 3), channels=20, filters=20, groups=20, stride=2),
    ],
    ids=str,
)
def test_transposed(case, bias, algorithm, rng):
    x = data(rng, (case.batch, case.filters, *case.extents), "f8")
    w = data(rng, (case.filters, case.channels // case.groups, *case.kernel), "f8")
    b = data(rng, case.channels, "f8") if bias else None
    expected = relu(reference.conv_transpose(x, w, b, **case.geometry))
    conv_transpose = function("conv_transpose", case.ndim)
    options = {**case.geometry, **RELU, "algorithm": algorithm}
    out = poisoned(expected.shape, "f8")
    assert conv_transpose(x, w, b, **options, out=out) is out
    assert_close(out, expected)
    assert_close(first(conv_transpose(last(x), w, b, **options, **LAST)), expected)


def test_nan_stays_and_infinity_too(algorithm, rng):
    x, w = data(rng, (2, 3, 9, 11), "f4"), data(rng, (20, 3, 3, 2), "f4")
    x[0, 1, 2, 3], x[1, 2, 4, 5] = np.nan, np.inf
    y = fastconv.conv2d(x, w, padding=1, algorithm=algorithm)
    assert np.isnan(y).any()
    assert (y == np.inf).any()
    assert (y == -np.inf).any()
    rectified = fastconv.conv2d(x, w, padding=1, algorithm=algorithm, **RELU)
    np.testing.assert_array_equal(rectified, relu(y))


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("case", EVERY_THIRD, ids=str)
def test_backward(case, data_format, dtype, rng):
    x, w, b = operands(rng, case, dtype)
    y = relu(reference.conv(x, w, b, **case.geometry)).astype(dtype)
    dy = data(rng, y.shape, dtype)
    masked = np.where(y > 0, dy, 0)
    given = (dy, x, w, y)
    if data_format == "channels_last":
        given = last(dy), last(x), w, last(y)
    read_only(*given)
    dx, dw, db = function("conv_backward", case.ndim)(
        *given[:3],
        **case.geometry,
        **RELU,
        y=given[3],
        data_format=data_format,
        algorithm="direct",
    )
    if data_format == "channels_last":
        dx = first(dx)
    assert_close(dx, reference.conv_grad_input(masked, w, x.shape, **case.geometry))
    assert_close(dw, reference.conv_grad_weight(masked, x, w.shape, **case.geometry))
    assert_close(db, masked.astype("f8").sum(axis=(0, *range(2, dy.ndim))))


def test_transposed_backward(rng):
    x, w = data(rng, (2, 6, 5, 4), "f8"), data(rng, (6, 4, 3, 2), "f8")
    options = {"stride": (2, 3), "padding": 1, "output_padding": 1, "groups": 2}
    y = fastconv.conv_transpose2d(x, w, **options, **RELU)
    dy = data(rng, y.shape, "f8")
    got = fastconv.conv_transpose2d_backward(dy, x, w, **options, **RELU, y=y)
    expected = fastconv.conv_transpose2d_backward(np.where(y > 0, dy, 0), x, w, **options)
    for mine, right in zip(got, expected, strict=True):
        np.testing.assert_array_equal(mine, right)
    for needs in np.ndindex(2, 2, 2):
        some = fastconv.conv_transpose2d_backward(
            dy, x, w, **options, **RELU, y=y, needs=tuple(map(bool, needs))
        )
        assert [grad is not None for grad in some] == [bool(need) for need in needs]


@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (2, 3, 101, 83), (0, 3, 5, 7), (3, 5, 7)])
def test_what_passes_back(shape, dtype, rng):
    """All of dy where y is above 0 or NaN, nothing elsewhere, whatever dy holds there."""
    ones = np.ones((3, 1, 1, 1), dtype)
    y, dy = data(rng, shape, dtype), data(rng, shape, dtype)
    y[..., ::4], y[..., ::6] = 0, -0.0
    y[..., 1:2] = np.nan
    dy[..., 2:3] = np.inf
    # Every other pixel of a larger array, and the axes of another order.
    strided = np.moveaxis(np.repeat(np.moveaxis(y, -1, 0), 2, axis=0)[::2], 0, -1)
    for seen in (y, strided):
        dx, _, _ = fastconv.conv2d_backward(
            dy, dy, ones, groups=3, algorithm="direct", **RELU, y=seen, needs=(True, False, False)
        )
        np.testing.assert_array_equal(dx, np.where(y <= 0, 0, dy))


@pytest.mark.parametrize("transposed", [False, True])
def test_central_differences(transposed, rng):
    name = "conv_transpose2d" if transposed else "conv2d"
    x = rng.standard_normal((2, 4, 5, 6))
    w = rng.standard_normal((4, 3, 3, 2) if transposed else (6, 2, 3, 2))
    b = rng.standard_normal(6)
    options = {"stride": (1, 2), "padding": 1, "groups": 2, **RELU}
    conv, backward = getattr(fastconv, name), getattr(fastconv, f"{name}_backward")
    y = conv(x, w, b, **options)
    assert 0.2 < (y > 0).mean() < 0.8
    for i, point in enumerate((x, w, b)):

        def layer(value, i=i):
            given = [x, w, b]
            given[i] = value
            return conv(*given, **options)

        def gradient(dy, i=i):
            return backward(dy, x, w, y=y, **options)[i]

        result = fastconv.gradcheck(layer, gradient, point)
        assert result, str(result)


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("layer_type", [fastconv.Conv2d, fastconv.ConvTranspose2d])
def test_layers(layer_type, data_format, rng):
    options = {"stride": 2, "padding": 1, "data_format": data_format}
    plain, layer = (layer_type(6, 10, 3, rng=1, **options, **a) for a in ({}, RELU))
    x = data(rng, (2, 6, 6, 6), "f4")
    y = layer.forward(x)
    np.testing.assert_array_equal(y, relu(plain.forward(x)))
    dy = data(rng, y.shape, "f4")
    np.testing.assert_array_equal(layer.backward(dy), plain.backward(np.where(y > 0, dy, 0)))
    for name, grad in plain.grads.items():
        np.testing.assert_array_equal(layer.grads[name], grad)
    layer.eval()
    np.testing.assert_array_equal(layer.forward(x), y)
    layer.train()
    with pytest.raises(RuntimeError, match="needs the input of a forward call"):
        layer.backward(dy)


X, W, Y = (np.ones(shape, "f4") for shape in ((2, 4, 8, 9), (6, 4, 3, 2), (2, 6, 6, 8)))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"activation": "gelu"}, ValueError, "activation must be None or \"relu\", got 'gelu'"),
        ({"activation": True}, ValueError, 'activation must be None or "relu", got True'),
        ({"y": None}, ValueError, "y must be the result of the forward call where activation"),
        ({"activation": None}, ValueError, "y must be None where activation is"),
        ({"y": Y[:1]}, ValueError, "y must have the shape of grad_output"),
        ({"y": Y.tolist()}, TypeError, "y must be a NumPy array or one on a CUDA device"),
        ({"y": Y.astype("f8")}, TypeError, "all arrays must have one dtype"),
    ],
)
def test_mistakes(changes, error, message):
    arguments = {"grad_output": Y, "x": X, "weight": W, **RELU, "y": Y, **changes}
    with pytest.raises(error, match=message):
        fastconv.conv2d_backward(**arguments)


@pytest.mark.parametrize(
    "call",
    [
        lambda name: fastconv.conv2d(X, W, activation=name),
        lambda name: fastconv.conv_transpose2d(Y, W, activation=name),
        lambda name: fastconv.conv_transpose2d_backward(X, Y, W, activation=name, y=X),
        lambda name: fastconv.Conv2d(4, 6, 3, activation=name),
        lambda name: fastconv.ConvTranspose2d(4, 6, 3, activation=name),
    ],
)
def test_names_of_activations(call):
    with pytest.raises(ValueError, match="activation must be None or \"relu\", got 'ReLU'"):
        call("ReLU")


def test_transposed_gradients_need_the_result():
    with pytest.raises(ValueError, match="y must be the result of the forward call"):
        fastconv.conv_transpose2d_backward(X, Y, W, **RELU)


@pytest.mark.torch
def test_as_pytorch(rng):
    torch = pytest.importorskip("torch")
    x, w, b = data(rng, (2, 4, 7, 6), "f8"), data(rng, (6, 2, 3, 2), "f8"), data(rng, 6, "f8")
    x[0, 1, 2, 3] = np.nan
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, w, b)]
    ty = torch.nn.functional.conv2d(*tensors, 2, 1, 1, 2).relu()
    y = fastconv.conv2d(x, w, b, 2, 1, 1, 2, **RELU)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(ty.detach().numpy()))
    assert_close(np.nan_to_num(y), np.nan_to_num(ty.detach().numpy()))
    dy = data(rng, y.shape, "f8")
    ty.backward(torch.from_numpy(dy))
    got = fastconv.conv2d_backward(dy, x, w, 2, 1, 1, 2, **RELU, y=y)
    for mine, tensor in zip(got, tensors, strict=True):
        right = tensor.grad.numpy()
        np.testing.assert_array_equal(np.isnan(mine), np.isnan(right))
        assert_close(np.nan_to_num(mine), np.nan_to_num(right))
