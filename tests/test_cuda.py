"""The CUDA backend against the oracle, on a device or, where ``test_cuda_simulated`` runs this
file, in Numba's simulator, with the cases that take it less than about a second.
"""

from dataclasses import replace
from math import prod

import numpy as np
import pytest

import fastconv
from fastconv import padded
from fastconv.plan import cuda as cuda_plan

from . import pool_reference, reference
from .cases import CASES, Case, assert_close, data
from .test_maps import function
from .test_pool import Pool, draw

pytest.importorskip("numba_cuda")
from numba import config, cuda

if not cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)
if config.ENABLE_CUDASIM:
    from . import cuda_simulator

    cuda_simulator.install()

# Multiplications of the largest case that the simulator is given.
MOST = 40_000


def products(case):
    pixels = reference.conv(np.zeros(case.x_shape), np.zeros(case.weight_shape), **case.geometry)
    return pixels.size * prod(case.weight_shape[1:])


SMALL = [case for case in CASES if not config.ENABLE_CUDASIM or products(case) <= MOST]
FEW = SMALL[:: 4 if config.ENABLE_CUDASIM else 1]

# More than one tile of 128 filters, channels or pixels, and the ends of each.
IMAGE = Case((9, 12), (3, 2), batch=1, padding=1)
TILES = [
    replace(IMAGE, channels=9, filters=130),
    replace(IMAGE, channels=131, filters=3, kernel=(1, 2)),
    replace(IMAGE, batch=2, stride=(2, 1), filters=17),
    replace(IMAGE, channels=18, filters=34, groups=2, dilation=(1, 2)),
]
CROPPED = Case((7, 8), (3, 2), batch=1, padding=((-2, 1), (1, -3)), stride=(1, 2))

# Half precision keeps 11 bits of a result; sums are float32's.
TOLERANCE = {"float16": 6e-4, "float32": 2e-6, "float64": 1e-14}
# TF32 keeps 11 bits of each operand, half a unit of which may be lost.
TF32 = 2 * 2.0**-11

every_case = pytest.mark.parametrize(
    ("case", "dtype", "algorithm"),
    [(case, "float32", "reference") for case in SMALL]
    + [(case, dtype, "reference") for dtype in ("float16", "float64") for case in FEW]
    + [(case, "float32", "gemm") for case in FEW[::2] + TILES]
    + [(case, "float32", "planar") for case in FEW[::2]]
    + [(case, dtype, "planar") for dtype in ("float16", "float64") for case in FEW[::4]]
    + [(case, "float32", "tf32") for case in FEW[::8] + TILES]
    + [(case, "float32", "3xtf32") for case in TILES[2:3]]
    + [(TILES[2], "float16", algorithm) for algorithm in ("gemm", "tf32")]
    + [(CROPPED, "float32", algorithm) for algorithm in ("gemm", "planar")],
    ids=str,
)


@pytest.fixture(autouse=True)
def few_blocks(monkeypatch):
    if config.ENABLE_CUDASIM:
        monkeypatch.setattr(cuda_plan, "BLOCKS", 3)


def poisoned(shape, dtype):
    return cuda.to_device(np.full(shape, np.nan, dtype))


def check(got, expected, dtype, algorithm=None):
    check_copy(got.copy_to_host(), expected, dtype, algorithm)


def check_copy(got, expected, dtype, algorithm=None):
    assert got.dtype == dtype
    tolerance = TF32 if algorithm == "tf32" and dtype == "float32" else TOLERANCE[dtype]
    assert_close(got.astype("f8"), expected, tolerance=tolerance)


@every_case
def test_forward(case, dtype, algorithm, rng):
    x, w = data(rng, case.x_shape, dtype), data(rng, case.weight_shape, dtype)
    b = data(rng, case.filters, dtype)
    expected = reference.conv(x, w, b, **case.geometry)
    out = poisoned(expected.shape, dtype)
    arrays = [cuda.to_device(array) for array in (x, w, b)]
    y = function("conv", case.ndim)(*arrays, **case.geometry, algorithm=algorithm, out=out)
    assert y is out
    check(y, expected, dtype, algorithm)


@every_case
def test_grad_input(case, dtype, algorithm, rng):
    w = data(rng, case.weight_shape, dtype)
    pixels = reference.conv(np.zeros(case.x_shape), w, **case.geometry).shape
    dy = data(rng, pixels, dtype)
    expected = reference.conv_grad_input(dy, w, case.x_shape, **case.geometry)
    out = poisoned(case.x_shape, dtype)
    dx = function("conv_grad_input", case.ndim)(
        cuda.to_device(dy),
        cuda.to_device(w),
        case.x_shape,
        **case.geometry,
        algorithm=algorithm,
        out=out,
    )
    assert dx is out
    check(dx, expected, dtype, algorithm)


@every_case
def test_grad_weight(case, dtype, algorithm, rng):
    x = data(rng, case.x_shape, dtype)
    pixels = reference.conv(x, np.zeros(case.weight_shape), **case.geometry).shape
    dy = data(rng, pixels, dtype)
    expected = reference.conv_grad_weight(dy, x, case.weight_shape, **case.geometry)
    out = poisoned(case.weight_shape, dtype)
    dw = function("conv_grad_weight", case.ndim)(
        cuda.to_device(dy),
        cuda.to_device(x),
        case.weight_shape,
        **case.geometry,
        algorithm=algorithm,
        out=out,
    )
    assert dw is out
    check(dw, expected, dtype, algorithm)


@pytest.mark.parametrize("case", FEW, ids=str)
def test_backward_is_all_three_gradients(case, rng):
    x, w = data(rng, case.x_shape, "f4"), data(rng, case.weight_shape, "f4")
    dy = data(rng, reference.conv(x, w, **case.geometry).shape, "f4")
    arrays = [cuda.to_device(array) for array in (dy, x, w)]
    dx, dw, db = function("conv_backward", case.ndim)(*arrays, **case.geometry)
    check(dx, reference.conv_grad_input(dy, w, case.x_shape, **case.geometry), "float32")
    check(dw, reference.conv_grad_weight(dy, x, case.weight_shape, **case.geometry), "float32")
    check(db, dy.astype("f8").sum(axis=(0, *range(2, dy.ndim))), "float32")


@pytest.mark.parametrize("case", [replace(case, batch=2) for case in FEW], ids=str)
def test_transposed(case, rng):
    x = data(rng, (case.batch, case.filters, *case.extents), "f4")
    w = data(rng, (case.filters, case.channels // case.groups, *case.kernel), "f4")
    b = data(rng, case.channels, "f4")
    expected = reference.conv_transpose(x, w, b, **case.geometry)
    if expected.size == 0:
        pytest.skip("the padding leaves nothing of the result")
    arrays = [cuda.to_device(array) for array in (x, w, b)]
    y = function("conv_transpose", case.ndim)(*arrays, **case.geometry)
    check(y, expected, "float32")


@pytest.mark.parametrize(
    ("case", "algorithm"),
    [(case, "reference") for case in FEW[:12:3]]
    + [(TILES[2], algorithm) for algorithm in ("gemm", "planar")],
    ids=str,
)
def test_channels_last(case, algorithm, rng):
    x, w = data(rng, case.x_shape, "f4"), data(rng, case.weight_shape, "f4")
    b = data(rng, case.filters, "f4")
    expected = reference.conv(x, w, b, **case.geometry)
    dy = data(rng, expected.shape, "f4")
    options = {**case.geometry, "algorithm": algorithm, "data_format": "channels_last"}
    on_device = [cuda.to_device(np.ascontiguousarray(np.moveaxis(a, 1, -1))) for a in (x, dy)]
    filters, bias = cuda.to_device(w), cuda.to_device(b)
    y = function("conv", case.ndim)(on_device[0], filters, bias, **options)
    check(y, np.moveaxis(expected, 1, -1), "float32")
    dx, dw, db = function("conv_backward", case.ndim)(*on_device[::-1], filters, **options)
    dx_expected = reference.conv_grad_input(dy, w, case.x_shape, **case.geometry)
    check(dx, np.moveaxis(dx_expected, 1, -1), "float32")
    check(dw, reference.conv_grad_weight(dy, x, case.weight_shape, **case.geometry), "float32")
    check(db, dy.astype("f8").sum(axis=(0, *range(2, dy.ndim))), "float32")


@pytest.mark.parametrize("algorithm", ["reference", "planar", "gemm", "tf32"])
def test_activation(algorithm, rng):
    case = Case((4, 5), (1, 2), channels=3, filters=4, stride=(2, 1))
    options = {**case.geometry, "algorithm": algorithm, "activation": "relu"}
    x, w, b = (data(rng, shape, "f4") for shape in (case.x_shape, case.weight_shape, case.filters))
    if algorithm != "tf32":  # whose stand-in for tensor cores would take it for a wrong rounding
        x[1, 0, 0, 1] = np.nan
    expected = reference.conv(x, w, b, **case.geometry)
    arrays = [cuda.to_device(array) for array in (x, w, b)]
    y = fastconv.conv2d(*arrays, **options).copy_to_host()
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    finite = cuda.to_device(np.nan_to_num(y))
    check(finite, np.nan_to_num(np.maximum(expected, 0)), "float32", algorithm)

    # Transposed, with pixels that no tap reaches.
    x = data(rng, expected.shape, "f4")
    b = data(rng, case.channels, "f4")
    expected = np.maximum(reference.conv_transpose(x, w, b, **case.geometry), 0)
    arrays = [cuda.to_device(array) for array in (x, w, b)]
    check(fastconv.conv_transpose2d(*arrays, **options), expected, "float32", algorithm)


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_activation_backward(data_format, rng):
    case = Case((4, 5), (1, 2), channels=4, filters=6, groups=2)
    x, w = data(rng, case.x_shape, "f4"), data(rng, case.weight_shape, "f4")
    y = np.ascontiguousarray(reference.conv(x, w, **case.geometry), "f4")
    y[0, 0, 0, :2] = np.nan, 0
    dy = data(rng, y.shape, "f4")
    masked = np.where(y <= 0, 0, dy)
    expected = [
        reference.conv_grad_input(masked, w, x.shape, **case.geometry),
        reference.conv_grad_weight(masked, x, w.shape, **case.geometry),
        masked.sum(axis=(0, 2, 3), dtype="f8"),
    ]
    if data_format == "channels_last":
        dy, x, y = (np.ascontiguousarray(np.moveaxis(a, 1, -1)) for a in (dy, x, y))
        expected[0] = np.moveaxis(expected[0], 1, -1)
    dy, x, w, y = (cuda.to_device(array) for array in (dy, x, w, y))
    options = {**case.geometry, "data_format": data_format}
    got = fastconv.conv2d_backward(dy, x, w, **options, activation="relu", y=y)
    for grad, right in zip(got, expected, strict=True):
        check(grad, right, "float32")


@pytest.mark.parametrize(
    ("algorithm", "data_format", "groups"),
    [
        ("reference", "channels_first", 1),
        ("reference", "channels_first", 2),
        ("reference", "channels_last", 1),
        ("reference", "channels_last", 2),
        ("planar", "channels_last", 2),
        ("gemm", "channels_first", 1),
    ],
)
def test_per_sample(algorithm, data_format, groups, rng):
    case = Case((3, 4), (1, 2), batch=3, channels=2, filters=4, groups=groups, stride=(2, 1))
    x = data(rng, case.x_shape, "f4")
    pixels = reference.conv(x, np.zeros(case.weight_shape), **case.geometry).shape
    dy = data(rng, pixels, "f4")
    expected = np.stack(
        [
            reference.conv_grad_weight(
                dy[n : n + 1], x[n : n + 1], case.weight_shape, **case.geometry
            )
            for n in range(case.batch)
        ]
    )
    if data_format == "channels_last":
        dy, x = (np.ascontiguousarray(np.moveaxis(a, 1, -1)) for a in (dy, x))
    # Contiguous, and with gaps between filters.
    wide = poisoned((3, 9, *expected.shape[2:]), "float32")
    for out in (poisoned(expected.shape, "float32"), wide[:, 1:5]):
        fastconv.conv2d_grad_weight(
            cuda.to_device(dy),
            cuda.to_device(x),
            case.weight_shape,
            **case.geometry,
            data_format=data_format,
            algorithm=algorithm,
            per_sample=True,
            out=out,
        )
        check(out, expected, "float32")
    assert np.isnan(wide.copy_to_host()[:, 5:]).all()


@pytest.mark.parametrize(("mode", "relu"), [("zeros", False), ("reflect", True)])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_double_backward(data_format, mode, relu, rng):
    case = Case(
        (3, 4, 5),
        (2, 1, 3),
        channels=4,
        filters=6,
        groups=2,
        stride=(1, 2, 1),
        padding=1,
        padding_mode=mode,
    )
    x, w = data(rng, case.x_shape, "f4"), data(rng, case.weight_shape, "f4")
    ggx, ggw, ggb = (data(rng, shape, "f4") for shape in (x.shape, w.shape, case.filters))
    of_dy = reference.conv(ggx, w, ggb, **case.geometry) + reference.conv(x, ggw, **case.geometry)
    dy, y = data(rng, of_dy.shape, "f4"), data(rng, of_dy.shape, "f4")
    passes = y > 0 if relu else np.ones(y.shape, bool)
    left = np.where(passes, dy, 0)
    of_x = reference.conv_grad_input(left, ggw, x.shape, **case.geometry)
    of_w = reference.conv_grad_weight(left, ggx, w.shape, **case.geometry)
    of_dy, spread = (np.where(passes, a, 0.0) for a in (of_dy, ggb.reshape(-1, 1, 1, 1)))
    if data_format == "channels_last":
        ggx, dy, x, y = (np.ascontiguousarray(np.moveaxis(a, 1, -1)) for a in (ggx, dy, x, y))
        of_dy, of_x, spread = (np.moveaxis(a, 1, -1) for a in (of_dy, of_x, spread))
    options = {**case.geometry, "data_format": data_format}
    if relu:
        options |= {"activation": "relu", "y": cuda.to_device(np.maximum(y, 0))}
    arrays = [cuda.to_device(array) for array in (ggx, ggw, ggb, dy, x, w)]
    got = fastconv.conv3d_double_backward(*arrays, **options)
    for grad, expected in zip(got, (of_dy, of_x, of_w), strict=True):
        check(grad, expected, "float32")
    arrays[:2] = None, None
    bias_alone, *others = fastconv.conv3d_double_backward(*arrays, **options)
    check(bias_alone, spread, "float32")
    assert others == [None, None]


SHOWING = [
    Case((5, 4), (3, 2), channels=2, filters=3, padding=((4, 1), (0, 3)), padding_mode="reflect"),
    Case(
        (3, 4),
        (2, 3),
        channels=4,
        filters=2,
        groups=2,
        padding="same",
        stride=2,
        padding_mode="replicate",
    ),
    Case((4,), (3,), batch=3, padding=((4, 3),), dilation=2, padding_mode="circular"),
    Case(
        (2, 3, 2), (2, 2, 3), channels=2, padding=((1, 0), (2, 1), (1, 1)), padding_mode="reflect"
    ),
]


@pytest.mark.parametrize("case", SHOWING, ids=str)
@pytest.mark.parametrize("form", [{}, {"data_format": "channels_last"}], ids=["first", "last"])
def test_padding_that_shows_pixels(case, form, rng, monkeypatch):
    """Where an image takes more than half as much as that, one after the other."""
    monkeypatch.setattr(padded, "PIECE_BYTES", 900)
    x, w = data(rng, case.x_shape, "f4"), data(rng, case.weight_shape, "f4")
    b = data(rng, case.filters, "f4")
    expected = reference.conv(x, w, b, **case.geometry)
    dy = data(rng, expected.shape, "f4")
    moved = (lambda a: np.ascontiguousarray(np.moveaxis(a, 1, -1))) if form else (lambda a: a)
    images = [cuda.to_device(moved(a)) for a in (x, dy)]
    filters, bias = cuda.to_device(w), cuda.to_device(b)
    conv, options = f"conv{case.ndim}d", {**case.geometry, **form}
    out = poisoned(moved(expected).shape, "float32")
    y = getattr(fastconv, conv)(images[0], filters, bias, **options, out=out)
    assert y is out
    check(y, moved(expected), "float32")
    out = poisoned(images[0].shape, "float32")
    grad_input = getattr(fastconv, f"{conv}_grad_input")
    dx = grad_input(images[1], filters, images[0].shape, **options, out=out)
    assert dx is out
    dx_expected = reference.conv_grad_input(dy, w, x.shape, **case.geometry)
    check(dx, moved(dx_expected), "float32")
    grad_weight = getattr(fastconv, f"{conv}_grad_weight")
    dw = grad_weight(images[1], images[0], w.shape, **options)
    check(dw, reference.conv_grad_weight(dy, x, w.shape, **case.geometry), "float32")
    if case.batch > 1:
        first = [array[0] for array in images]
        y = getattr(fastconv, conv)(first[0], filters, bias, **options)
        check(y, moved(expected)[0], "float32")
        dx = grad_input(first[1], filters, first[0].shape, **options)
        check(dx, moved(dx_expected)[0], "float32")


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_without_a_batch_axis(ndim, rng):
    x, w = data(rng, (2, *(5, 6, 4)[:ndim]), "f4"), data(rng, (3, 2, *(2, 3, 2)[:ndim]), "f4")
    y = function("conv", ndim)(cuda.to_device(x), cuda.to_device(w))
    expected = reference.conv(x[None], w)[0]
    check(y, expected, "float32")
    dy = data(rng, y.shape, "f4")
    arrays = [cuda.to_device(array) for array in (dy, x, w)]
    dx, dw, db = function("conv_backward", ndim)(*arrays)
    check(dx, reference.conv_grad_input(dy[None], w, x[None].shape)[0], "float32")
    check(dw, reference.conv_grad_weight(dy[None], x[None], w.shape), "float32")
    check(db, dy.astype("f8").sum(axis=tuple(range(1, dy.ndim))), "float32")


def test_views(rng):
    """Slices, as operands and as results."""
    x = cuda.to_device(data(rng, (3, 9, 8, 10), "f4"))[1:, 1:8:2, 2:7, ::3]
    w = cuda.to_device(data(rng, (10, 4, 3, 5), "f4"))[::2, :, :, 1:3]
    b = cuda.to_device(data(rng, 10, "f4"))[::2]
    host = [array.copy_to_host() for array in (x, w, b)]
    room = poisoned((2, 5, 6, 6), "float32")
    out = room[:, :, 1:4, ::2]
    y = fastconv.conv2d(x, w, b, out=out)
    check(y, reference.conv(*host), "float32")
    assert np.isnan(room.copy_to_host()[:, :, 0]).all()
    assert np.isnan(room.copy_to_host()[:, :, 4:]).all()
    assert np.isnan(room.copy_to_host()[:, :, :, 1::2]).all()


def test_an_empty_batch_gives_zero_gradients():
    x, w = poisoned((0, 2, 5, 5), "float32"), poisoned((3, 2, 3, 3), "float32")
    dy = fastconv.conv2d(x, w)
    assert dy.shape == (0, 3, 3, 3)
    dx, dw, db = fastconv.conv2d_backward(dy, x, w)
    assert dx.shape == x.shape
    assert (dw.copy_to_host() == 0).all()
    assert (db.copy_to_host() == 0).all()


X, W = np.ones((1, 2, 5, 6), np.float32), np.ones((3, 2, 3, 3), np.float32)
Y = np.ones((1, 3, 3, 4), np.float32)

# Arguments of conv2d besides x and weight as above; which of them stay on the host; the error.
ERRORS = {
    "weight on the host": ({}, "weight", TypeError, "weight in the host.* and x on a CUDA device"),
    "x on the host": ({}, "x", TypeError, "x in the host.* and weight on a CUDA device"),
    "bias on the host": (
        {"bias": Y[0, 0]},
        "bias",
        TypeError,
        "bias in the host.* and x on a CUDA",
    ),
    "list": ({"bias": [1.0]}, "bias", TypeError, "bias must be a NumPy array or one on a CUDA"),
    "dtypes": ({"weight": W.astype("f8")}, "", TypeError, "x float32 and weight float64"),
    "booleans": (
        {"x": X > 0},
        "",
        TypeError,
        "x must be float16, .* or integers of 8, 16, 32 or 64 bits, got bool",
    ),
    "algorithm": ({"algorithm": "winograd"}, "algorithm", ValueError, "device, got 'winograd'"),
    "precision": ({"precision": "low"}, "precision", ValueError, "one of highest, high, medium"),
    "out_dtype": ({"out_dtype": "i4"}, "out_dtype", TypeError, "out_dtype is for integers"),
    "accumulate_dtype": (
        {"accumulate_dtype": "f2"},
        "accumulate_dtype",
        ValueError,
        "accumulate_dtype must be None or float64, got float16",
    ),
    "bias shape": ({"bias": Y[0, 0, 0]}, "", ValueError, r"bias must have shape \(3,\)"),
    "out on the host": ({"out": Y}, "out", TypeError, "out must be of the inputs' type"),
    "out shape": ({"out": Y[:, :2]}, "", ValueError, r"out must have shape \(1, 3, 3, 4\)"),
    "out dtype": ({"out": Y.astype("f8")}, "", ValueError, "out must be float32, got float64"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    arguments, host, kind, message = ERRORS[name]
    arguments = {
        key: value if key == host else cuda.to_device(value)
        for key, value in {"x": X, "weight": W, **arguments}.items()
    }
    with pytest.raises(kind, match=message):
        fastconv.conv2d(**arguments)


def test_out_must_not_overlap_an_input():
    memory = cuda.to_device(np.ones(400, np.float32))
    x, w = memory[:60].reshape(1, 2, 5, 6), cuda.to_device(W)
    with pytest.raises(ValueError, match="out must not lie in the same part of memory"):
        fastconv.conv2d(x, w, out=memory[50:86].reshape(1, 3, 3, 4))
    y = fastconv.conv2d(x, w, out=memory[60:96].reshape(1, 3, 3, 4))
    check(y, reference.conv(X, W), "float32")


def test_precision(rng):
    """What a precision loses: for "medium" more than for "high", for either no more than told."""
    case = TILES[2]
    x, w = data(rng, case.x_shape, "f4"), data(rng, case.weight_shape, "f4")
    expected = reference.conv(x, w, **case.geometry)
    arrays = cuda.to_device(x), cuda.to_device(w)
    errors = {}
    for precision in ("highest", "high", "medium"):
        y = fastconv.conv2d(*arrays, **case.geometry, precision=precision).copy_to_host()
        errors[precision] = np.abs(y - expected).max() / np.abs(expected).max()
    assert errors["highest"] < 1e-6
    assert errors["high"] < 2e-6
    assert 1e-5 < errors["medium"] < TF32


def test_layers(rng):
    """A layer that is moved computes the same, and moves back."""
    for make in (fastconv.Conv2d, fastconv.ConvTranspose2d):
        layer = make(3, 4, kernel_size=(2, 3), stride=2, rng=0)
        x = data(rng, (2, 3, 5, 6), "f4")
        y = layer.forward(x)
        dx = layer.backward(y)
        weight, grads = layer.weight, layer.grads
        assert layer.to("cuda") is layer
        check(layer.forward(cuda.to_device(x)), y, "float32")
        check(layer.backward(cuda.to_device(y)), dx, "float32")
        for name, grad in grads.items():
            check(layer.grads[name], grad, "float32")
        layer.to("cpu")
        np.testing.assert_array_equal(layer.weight, weight)
        with pytest.raises(RuntimeError, match="needs the input of a forward call"):
            layer.backward(y)


def test_layers_of_the_demo(rng):
    """Their parameters stay NumPy's, and may be changed between steps."""
    from fastconv.demo.device import on_device
    from fastconv.demo.network import Network

    layer, same = (fastconv.Conv2d(2, 3, 3, padding=1, rng=0) for _ in range(2))
    network = on_device(Network({"conv": layer}))
    x = data(rng, (2, 2, 5, 6), "f4")
    for _ in range(2):
        y, expected = network.forward(x), same.forward(x)
        assert_close(y, expected, tolerance=2e-6)
        assert_close(network.backward(expected), same.backward(expected), tolerance=2e-6)
        grads = zip(network.parameters(), network.grads(), same.grads.values(), strict=True)
        for parameter, grad, same_grad in grads:
            assert_close(grad, same_grad, tolerance=2e-6)
            parameter -= same_grad / 10
        for name, array in same.parameters.items():
            array -= same.grads[name] / 10


POOLS = [
    Pool((7, 9), (3, 2), 2, 1, ceil_mode=True),
    Pool((7, 9), (3, 2), (1, 3), ((1, 0), (0, 1))),
    Pool((11,), (4,), 3, 2),
    Pool((3, 5, 4), (2, 3, 2), (1, 2, 1), 1, batch=1),
    Pool((5, 6), (2, 2), 5, batch=1),
    Pool((5, 6), (5, 6), batch=0),
]
DILATED = [Pool((7, 9), (3, 2), 2, 1, (2, 3), ceil_mode=True), Pool((4, 5), (2, 2), 1, 1, (5, 2))]


@pytest.mark.parametrize("order", ["channels_first", "channels_last", "transposed"])
@pytest.mark.parametrize(
    ("case", "dtype"),
    [(case, "float32") for case in POOLS + DILATED]
    + [(case, dtype) for case in POOLS[:2] for dtype in ("float16", "float64")],
    ids=str,
)
def test_pooling(case, dtype, order, rng):
    def function_of(name):
        return getattr(fastconv, f"{name[:8]}{case.ndim}d{name[8:]}")

    def on_device(array):
        if order == "channels_first":
            return cuda.to_device(array)
        last = cuda.to_device(np.ascontiguousarray(np.moveaxis(array, 1, -1)))
        if order == "channels_last":
            return last
        # What Numba's arrays can say of strides: those of a transposed array.
        return last.transpose((0, case.ndim + 1, *range(1, case.ndim + 1)))

    def on_host(array):
        array = array.copy_to_host()
        return np.moveaxis(array, -1, 1) if order == "channels_last" else array

    def nowhere(shape):
        return on_device(np.full(shape, np.nan, dtype))

    x = draw(rng, case.x_shape, dtype)
    format_ = {"data_format": "channels_last"} if order == "channels_last" else {}
    options = {"dilation": case.dilation, "ceil_mode": case.ceil_mode}
    expected, places = pool_reference.max_pool(x, *case.windows, **options)
    out = nowhere(expected.shape)
    y, indices = function_of("max_pool")(
        on_device(x), *case.windows, **options, **format_, return_indices=True, out=out
    )
    assert y is out
    np.testing.assert_array_equal(on_host(y), expected)
    np.testing.assert_array_equal(on_host(indices), places)
    dy = data(rng, expected.shape, dtype)
    dx = function_of("max_pool_grad_input")(
        on_device(dy), on_device(x), *case.windows, **options, **format_, out=nowhere(x.shape)
    )
    expected_dx = pool_reference.max_pool_grad_input(dy, x, *case.windows, **options)
    check_copy(on_host(dx), expected_dx, dtype)
    if case.dilation != 1:
        return
    x = data(rng, case.x_shape, dtype)
    for counted in (True, False):
        options = {"ceil_mode": case.ceil_mode, "count_include_pad": counted}
        y = function_of("avg_pool")(
            on_device(x), *case.windows, **options, **format_, out=nowhere(expected.shape)
        )
        check_copy(on_host(y), pool_reference.avg_pool(x, *case.windows, **options), dtype)
        out = nowhere(x.shape)
        dx = function_of("avg_pool_grad_input")(
            on_device(dy), out.shape, *case.windows, **options, **format_, out=out
        )
        expected_dx = pool_reference.avg_pool_grad_input(dy, x.shape, *case.windows, **options)
        check_copy(on_host(dx), expected_dx, dtype)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_pooling_without_a_batch_axis(ndim, rng):
    x = data(rng, (2, *(5, 6, 4)[:ndim]), "f4")
    pools = {name: getattr(fastconv, f"{name}_pool{ndim}d") for name in ("max", "avg")}
    y = pools["max"](cuda.to_device(x), 2)
    check(y, pool_reference.max_pool(x[None], 2)[0][0], "float32")
    y = pools["avg"](cuda.to_device(x), 2)
    check(y, pool_reference.avg_pool(x[None], 2)[0], "float32")
    last = cuda.to_device(np.ascontiguousarray(np.moveaxis(x, 0, -1)))
    y = pools["max"](last, 2, data_format="channels_last").copy_to_host()
    check_copy(np.moveaxis(y, -1, 0), pool_reference.max_pool(x[None], 2)[0][0], "float32")
    # As many channels as lines, lines as channels: only ``data_format`` tells them apart.
    x = data(rng, (2, *(2, 6, 4)[:ndim]), "f4")
    y, indices = pools["max"](
        cuda.to_device(x), 2, 1, 1, data_format="channels_last", return_indices=True
    )
    expected, places = pool_reference.max_pool(np.moveaxis(x, -1, 0)[None], 2, 1, 1)
    check(y, np.moveaxis(expected[0], 0, -1), "float32")
    np.testing.assert_array_equal(indices.copy_to_host(), np.moveaxis(places[0], 0, -1))


def test_pooling_layers(rng):
    x = data(rng, (2, 3, 5, 6), "f4")
    for make in (fastconv.MaxPool2d, fastconv.AvgPool2d):
        layer = make((2, 3), 2, 1)
        y = layer.forward(x)
        dx = layer.backward(y)
        assert layer.to("cuda") is layer
        check(layer.forward(cuda.to_device(x)), y, "float32")
        check(layer.backward(cuda.to_device(y)), dx, "float32")


def test_errors_of_pooling():
    with pytest.raises(TypeError, match="bfloat16, float32 or float64 to be pooled, got int32"):
        fastconv.avg_pool2d(cuda.to_device(X.astype("i4")), 2)
    with pytest.raises(TypeError, match="grad_output in the host's memory and x on a CUDA device"):
        fastconv.max_pool2d_grad_input(Y, cuda.to_device(X), 2)
    with pytest.raises(ValueError, match=r"out must have shape \(1, 2, 2, 3\)"):
        fastconv.avg_pool2d(cuda.to_device(X), 2, out=cuda.to_device(Y))


@pytest.mark.slow
def test_benchmark_of_both_paths(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    from fastconv.__main__ import main
    from fastconv.bench import machine, results

    monkeypatch.setattr(machine, "measure_peak", lambda threads: 1e11)
    monkeypatch.setattr(machine, "measure_bandwidth", lambda: 1e10)
    chosen = ["--suite", "tiny", "--quick", "--against", "numpy", "--backend", "cpu,cuda"]
    files = ["--json", str(tmp_path / "a.json"), "--plot", str(tmp_path / "a.png")]
    assert main(["bench", *chosen, *files]) == 0
    header = next(line for line in capsys.readouterr().out.splitlines() if "median ms" in line)
    assert header.split()[-3:] == ["numpy", "cuda", "cuda+copies"]
    found = results.Results.load(tmp_path / "a.json")
    assert [record.map_name for record in found.records] == ["forward", "grad_input", "grad_weight"]
    for record in found.records:
        assert not record.failed
        for path in ("cuda", "cuda+copies"):
            assert record.best_of(path).error < 1e-6


def test_the_check_for_devices():
    """``bench.gpu_check`` finds the kernels right."""
    pytest.importorskip("ml_dtypes")
    from bench import gpu_check

    found = gpu_check.Report(seed=0, deadline=float("inf"), machine=gpu_check.machine())
    gpu_check.check_results(found, gpu_check.SMALL[-1:])
    assert len(found.checks) == 3 * (5 + 4 + 2 + 2 + 2 + 1) + 2
    assert all(entry["right"] for entry in found.checks)
    assert any("50 checks, 0 wrong" in line for line in gpu_check.lines_of(found))


def test_the_table_for_devices():
    from bench import gpu_check

    names = {name: 2.0 for pair in gpu_check.PAIRS for name in pair}
    names |= {"fastconv tf32": 8.0, "cpu": 64.0}
    entry = {"layer": "conv1", "shape": "1x1", "map": "forward", "flops": 4e9, **names}
    found = gpu_check.Report(seed=0, deadline=0.0, times=[entry])
    text = "\n".join(gpu_check.lines_of(found))
    assert "fastconv 3xtf32: 100% of the speed of cudnn" in text
    assert "fastconv tf32: 25% of the speed of cudnn tf32" in text
    assert (
        "| conv1 | 1x1 | forward | 2.000 | 2.000 | 2.000 | 8.000 | 2.000 | 64.000 | 2.0 |" in text
    )
