"""Bad input: a TypeError or ValueError that names the argument, before anything is written."""

import re

import numpy as np
import pytest

import fastconv

X = np.ones((2, 4, 8, 9), np.float32)
W = np.ones((6, 4, 3, 2), np.float32)
B = np.ones(6, np.float32)
Y = fastconv.conv2d(X, W)


def arrays(**changes):
    return {"x": X, "weight": W, **changes}


BAD = {
    # Arrays.
    "list": (
        arrays(x=X.tolist()),
        TypeError,
        "x must be a NumPy array or one on a CUDA device, got builtins.list",
    ),
    "none": (
        arrays(weight=None),
        TypeError,
        "weight must be a NumPy array or one on a CUDA device",
    ),
    "masked": (
        arrays(x=np.ma.array(X)),
        TypeError,
        "x must be a NumPy array or one on a CUDA device, got numpy.ma",
    ),
    "matrix": (
        arrays(x=X[0, 0].view(np.matrix)),
        TypeError,
        "x must be a NumPy array or one on a CUDA device, got numpy.matrix",
    ),
    "boolean": (arrays(x=X > 0), TypeError, "or integers of 8, 16, 32 or 64 bits, got bool"),
    "swapped": (arrays(x=X.astype(">f4")), TypeError, "x must be float16, bfloat16, float32, "),
    "integers": (arrays(x=X.astype(int)), TypeError, "one dtype, got x int64 and weight float32"),
    "half": (arrays(x=X.astype("f2")), TypeError, "one dtype, got x float16 and weight float32"),
    "mixed": (
        arrays(weight=W.astype("f8")),
        TypeError,
        "one dtype, got x float32 and weight float64",
    ),
    "mixed bias": (arrays(bias=B.astype("f8")), TypeError, "x float32 and bias float64"),
    # Shapes.
    "rank of x": (arrays(x=X[0, 0]), ValueError, "x must have 4 axes (N, C, H, W), or 3 without"),
    "rank of weight": (arrays(weight=W[0]), ValueError, "weight must have 4 axes (K, C/groups, R"),
    "channels": (arrays(weight=W[:, :3]), ValueError, "weight must have 4 / 1 = 4 input channels"),
    "groups, in": (arrays(groups=3), ValueError, "groups must divide the input channels, 4, and"),
    "groups, out": (arrays(groups=4, weight=W[:, :1]), ValueError, "channels, 6, got 4"),
    "bias shape": (arrays(bias=B[:5]), ValueError, "bias must have shape (6,)"),
    "bias rank": (arrays(bias=B[:, None]), ValueError, "bias must have shape (6,)"),
    "empty filter": (arrays(weight=W[:, :, :0]), ValueError, "weight must not have axes of length"),
    "no channels": (arrays(x=X[:, :0]), ValueError, "x may be empty along the batch axis only"),
    "no pixels": (arrays(x=X[:, :, :0]), ValueError, "x may be empty along the batch axis only"),
    "too large": (arrays(x=X[:, :, :2]), ValueError, "spans (3, 2), more than the padded x of (2"),
    "too dilated": (arrays(dilation=9), ValueError, "with dilation (9, 9) spans (19, 10)"),
    # Numbers.
    "stride 0": (arrays(stride=0), ValueError, "stride must be at least 1"),
    "stride -1": (arrays(stride=(1, -1)), ValueError, "stride must be at least 1"),
    "stride float": (arrays(stride=1.0), TypeError, "stride must be one integer or 2, one"),
    "stride floats": (arrays(stride=(1.0, 1)), TypeError, "stride must be made of integers"),
    "stride bool": (arrays(stride=True), TypeError, "stride must be one integer or 2, one"),
    "stride string": (arrays(stride="2"), TypeError, "stride must be one integer or 2, one"),
    "stride number": (arrays(stride=np.array(1.5)), TypeError, "got array(1.5)"),
    "stride huge": (arrays(stride=2**62), ValueError, "stride must be at least 1 and below 2**40"),
    "stride 3": (arrays(stride=(1, 1, 1)), ValueError, "stride must be one integer or 2"),
    "stride array": (arrays(stride=np.ones((2, 2), int)), TypeError, "stride must be made of int"),
    "dilation 0": (arrays(dilation=0), ValueError, "dilation must be at least 1"),
    "dilation huge": (arrays(weight=W[..., :1, :1], dilation=2**63), ValueError, "below 2**40"),
    "dilation none": (arrays(dilation=None), TypeError, "dilation must be one integer or 2"),
    "crop": (
        arrays(padding=-4),
        ValueError,
        "padding ((-4, -4), (-4, -4)) leaves nothing of x, of extents (8, 9)",
    ),
    "crop, then pad": (arrays(padding=((-8, 20), 0)), ValueError, "leaves nothing of x, of ext"),
    "crop too much": (arrays(padding=-3), ValueError, "spans (3, 2), more than the padded x of (2"),
    "padding -2**70": (arrays(padding=-(2**70)), ValueError, "padding must be below 2**40"),
    "padding name": (arrays(padding="full"), ValueError, 'padding must be "same", "valid"'),
    "padding 3": (arrays(padding=(1, 1, 1)), ValueError, "padding must have 2 entries"),
    "padding triple": (arrays(padding=((1, 1, 1), 0)), ValueError, "axis, got ((1, 1, 1), 0)"),
    "padding float": (
        arrays(padding=0.5),
        TypeError,
        'padding must be "same", "valid", an integer',
    ),
    "padding huge": (arrays(padding=2**39), ValueError, "more than memory can address"),
    "groups 0": (arrays(groups=0), ValueError, "groups must be at least 1"),
    "groups float": (arrays(groups=2.0), TypeError, "groups must be an integer"),
    # The rest.
    "precision": (arrays(precision="low"), ValueError, "precision must be one of highest, high, m"),
    "algorithm": (
        arrays(algorithm="fft"),
        ValueError,
        "algorithm must be one of auto, depthwise",
    ),
    "algorithms": (arrays(algorithm=["direct"]), TypeError, "algorithm must be a word, got ['dir"),
    "precisions": (arrays(precision=("high",)), TypeError, "precision must be a word, got ('high"),
    "activations": (arrays(activation=np.array(["relu", "x"])), ValueError, 'None or "relu", got'),
    "complex": (
        {"x": X[:0].astype("c8"), "weight": W.astype("c8"), "activation": "relu", "out": None},
        TypeError,
        "activation must be None for complex numbers",
    ),
    "out_dtype": (arrays(out_dtype="i4"), TypeError, "results of float32 are float32, got int32"),
    "out type": (arrays(out=Y.tolist()), TypeError, "out must be a NumPy array"),
    "out masked": (arrays(out=np.ma.masked_all(Y.shape, "f4")), TypeError, "got MaskedArray"),
    "out shape": (arrays(out=Y[:1]), ValueError, "out must have shape (2, 6, 6, 8)"),
    "out dtype": (arrays(out=Y.astype("f8")), ValueError, "out must be float32, got float64"),
}


@pytest.mark.parametrize("name", BAD)
def test_forward(name):
    options, error, message = BAD[name]
    out = np.full_like(Y, 7)
    with pytest.raises(error, match=re.escape(message)):
        fastconv.conv2d(**{"out": out, **options})
    assert (out == 7).all()


GRADIENT_BAD = {
    "rank": ({"grad_output": Y[0, 0]}, ValueError, "grad_output must have the shape of the result"),
    "shape": ({"grad_output": Y[:, :, 1:]}, ValueError, "grad_output must have the shape of"),
    "batch": ({"grad_output": Y[:1]}, ValueError, "grad_output must have the shape of the result"),
    "list": (
        {"grad_output": Y.tolist()},
        TypeError,
        "grad_output must be a NumPy array or one on a CUDA device",
    ),
    "mixed": ({"grad_output": Y.astype("f8")}, TypeError, "all arrays must have one dtype"),
    "stride": ({"stride": 0}, ValueError, "stride must be at least 1"),
    "algorithm": ({"algorithm": "x"}, ValueError, "algorithm must be one of"),
}


@pytest.mark.parametrize("name", GRADIENT_BAD)
def test_gradients(name):
    changes, error, message = GRADIENT_BAD[name]
    for function, rest in (
        (fastconv.conv2d_grad_input, {"weight": W, "input_shape": X.shape}),
        (fastconv.conv2d_grad_weight, {"x": X, "weight_shape": W.shape}),
        (fastconv.conv2d_backward, {"x": X, "weight": W}),
    ):
        with pytest.raises(error, match=re.escape(message)):
            function(**{"grad_output": Y, **rest, **changes})


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        ((4, 8, 9), ValueError, "grad_output must have the shape of the result"),
        ((2, 4), ValueError, "input_shape must have 4 axes"),
        ((2, 4, 8, -9), ValueError, "input_shape must not have negative entries"),
        ((2, 4, 8, 9.0), TypeError, "input_shape must be made of integers"),
        (7, TypeError, "input_shape must be a sequence of integers, got 7"),
        ((1, 4, 2**31, 2**31), ValueError, "an array of input_shape would have shape"),
        ((2, 5, 8, 9), ValueError, "to match input_shape of shape (2, 5, 8, 9)"),
    ],
)
def test_input_shape(shape, error, message):
    with pytest.raises(error, match=re.escape(message)):
        fastconv.conv2d_grad_input(Y, W, shape)


def test_weight_shape():
    for shape, message in (
        ((6, 4, 3), "weight_shape must have 4 axes"),
        ((6, 3, 3, 2), "weight_shape must have 4 / 1 = 4 input channels"),
        ((6, 4, 3, 3), "grad_output must have the shape of the result"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            fastconv.conv2d_grad_weight(Y, X, shape)


TRANSPOSED_BAD = {
    "channels": ({"weight": W[:3]}, "weight must have 4 input channels on its first axis"),
    "groups": ({"groups": 3}, "groups must divide the input channels, 4, got 3"),
    "output_padding": ({"output_padding": 1}, "output_padding must be smaller than stride"),
    "negative": ({"output_padding": -1}, "output_padding must be at least 0"),
    "same": ({"output_padding": 1, "stride": 2, "padding": "same"}, "must be 0 with padding="),
    "cropped": ({"padding": 9}, "leaves nothing of the result"),
    "grown": ({"padding": ((10, -9), 0)}, "leaves nothing of the result: its extents would be (0,"),
    "bias": ({"bias": B}, "bias must have shape (4,)"),
}


@pytest.mark.parametrize("name", TRANSPOSED_BAD)
def test_transposed(name):
    changes, message = TRANSPOSED_BAD[name]
    arguments = {"x": X, "weight": np.ones((4, 4, 3, 2), np.float32), **changes}
    with pytest.raises(ValueError, match=re.escape(message)):
        fastconv.conv_transpose2d(**arguments)


def test_out_must_not_overlap():
    buffer = np.ones(2 * X.size, np.float32)
    x = buffer[: X.size].reshape(X.shape)
    out = buffer[X.size - Y.size + 1 :][: Y.size].reshape(Y.shape)
    with pytest.raises(ValueError, match="out must not share memory with an input"):
        fastconv.conv2d(x, W, out=out)
    # Interleaved, but apart.
    pairs = np.ones((*X.shape, 2), np.float32)
    same = pairs[..., 0]
    fastconv.conv2d(same, np.ones((4, 4, 1, 1), np.float32), out=pairs[..., 1])
    assert (pairs[..., 0] == 1).all()
    assert (pairs[..., 1] == 4).all()


def test_out_must_be_writeable_aligned_and_of_distinct_elements():
    frozen = Y.copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="out must be writeable"):
        fastconv.conv2d(X, W, out=frozen)
    unaligned = np.zeros(Y.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(Y.shape)
    with pytest.raises(ValueError, match="out must be aligned"):
        fastconv.conv2d(X, W, out=unaligned)
    repeated = np.lib.stride_tricks.as_strided(Y.copy(), Y.shape, (0, *Y.strides[1:]))
    with pytest.raises(ValueError, match="out must have distinct elements"):
        fastconv.conv2d(X, W, out=repeated)


def test_algorithm_is_checked_even_if_not_needed():
    for needs in ((False, False, True), (False, False, False)):
        with pytest.raises(ValueError, match="algorithm must be one of"):
            fastconv.conv2d_backward(Y, X, W, needs=needs, algorithm="x")
        with pytest.raises(ValueError, match="algorithm must be one of"):
            fastconv.conv_transpose2d_backward(X, Y, W, needs=needs, algorithm="x")


def test_needs():
    with pytest.raises(ValueError, match="needs must have 3 entries"):
        fastconv.conv2d_backward(Y, X, W, needs=(True, False))
    for needs in (True, (1, 0, 1), (np.ones(2), True, True)):
        with pytest.raises(TypeError, match="needs must be a tuple of 3 booleans"):
            fastconv.conv2d_backward(Y, X, W, needs=needs)
    fastconv.conv2d_backward(Y, X, W, needs=(np.bool(True), False, False))


def test_result_of_the_activation():
    with pytest.raises(ValueError, match='where activation is "relu", got None'):
        fastconv.conv2d_backward(Y, X, W, activation="relu")
    with pytest.raises(ValueError, match="y must be None where activation is, got an array"):
        fastconv.conv2d_backward(Y, X, W, y=Y)
    dy, x, w = (a.astype(np.complex64) for a in (Y, X, W))
    with pytest.raises(TypeError, match="activation must be None for complex numbers"):
        fastconv.conv2d_backward(dy, x, w, activation="relu", y=dy, needs=(False,) * 3)


def test_dtype_of_layers():
    for dtype in ("foo", None):
        with pytest.raises(TypeError, match="dtype must name a dtype, got"):
            fastconv.Conv2d(1, 1, 3, dtype=dtype)
        with pytest.raises(TypeError, match="dtype must name a dtype, got"):
            fastconv.explain(X.shape, W.shape, dtype=dtype)
    with pytest.raises(ValueError, match="backend must be one of cpu, cuda, got"):
        fastconv.explain(X.shape, W.shape, backend=["cpu"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fastconv.conv2d(X), "conv2d() missing a required argument: 'weight'"),
        (lambda: fastconv.conv1d(*11 * (X,)), "conv1d() too many positional arguments"),
        (
            lambda: fastconv.conv_transpose3d_backward(X, X, X, strides=2),
            "conv_transpose3d_backward() got an unexpected keyword argument 'strides'",
        ),
        (lambda: fastconv.conv2d(X, X, x=X), "conv2d() got multiple values for argument 'x'"),
        (lambda: fastconv.max_pool2d(), "max_pool2d() missing a required argument: 'x'"),
    ],
)
def test_calls_that_do_not_fit_are_refused_by_their_public_name(call, message):
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        call()


def test_integers_of_every_kind_are_taken():
    expected = fastconv.conv2d(X, W, None, 2, 1)
    for stride in (np.int8(2), [2, 2], np.array([2, 2]), np.array(2)):
        np.testing.assert_array_equal(fastconv.conv2d(X, W, None, stride, 1), expected)
    for padding in (np.int64(1), [1, 1], [[1, 1], 1], np.ones((2, 2), int)):
        np.testing.assert_array_equal(fastconv.conv2d(X, W, None, 2, padding), expected)
