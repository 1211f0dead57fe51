import gc
import weakref
from inspect import signature

import numpy as np
import pytest

import fastconv

from . import reference
from .cases import assert_close, data

GEOMETRY = {1: ((9,), (4,)), 2: ((9, 7), (3, 2)), 3: ((5, 6, 4), (2, 3, 2))}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_conv(ndim, bias, dtype, rng):
    extents, kernel = GEOMETRY[ndim]
    options = {"stride": 2, "padding": 1, "groups": 2}
    layer = getattr(fastconv, f"Conv{ndim}d")(
        4, 6, kernel, bias=bias, dtype=dtype, rng=rng, **options
    )
    assert layer.weight.shape == (6, 2, *kernel)
    assert layer.weight.dtype == dtype
    if bias:
        layer.bias[:] = data(rng, 6, dtype)
    x = data(rng, (3, 4, *extents), dtype)
    y = layer.forward(x)
    np.testing.assert_array_equal(layer(x), y)
    assert_close(y, reference.conv(x, layer.weight, layer.bias, **options))
    dy = data(rng, y.shape, dtype)
    dx = layer.backward(dy)
    assert_close(dx, reference.conv_grad_input(dy, layer.weight, x.shape, **options))
    dw = reference.conv_grad_weight(dy, x, layer.weight.shape, **options)
    assert_close(layer.grads["weight"], dw)
    assert set(layer.grads) == set(layer.parameters) == {"weight"} | ({"bias"} if bias else set())
    for name, parameter in layer.parameters.items():
        assert layer.grads[name].shape == parameter.shape
        assert layer.grads[name].dtype == dtype


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_conv_transpose(ndim, dtype, rng):
    extents, kernel = GEOMETRY[ndim]
    options = {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2, "dilation": 2}
    layer = getattr(fastconv, f"ConvTranspose{ndim}d")(4, 6, kernel, dtype=dtype, rng=0, **options)
    assert layer.weight.shape == (4, 3, *kernel)
    layer.bias[:] = data(rng, 6, dtype)
    x = data(rng, (2, 4, *extents), dtype)
    y = layer.forward(x)
    assert_close(y, reference.conv_transpose(x, layer.weight, layer.bias, **options))
    dx = layer.backward(y)
    expected = getattr(fastconv, f"conv_transpose{ndim}d_backward")(y, x, layer.weight, **options)
    np.testing.assert_array_equal(dx, expected[0])
    np.testing.assert_array_equal(layer.grads["weight"], expected[1])
    np.testing.assert_array_equal(layer.grads["bias"], expected[2])


def test_backward_needs_forward():
    layer = fastconv.Conv2d(1, 1, 3)
    with pytest.raises(RuntimeError, match=r"Conv2d\.backward needs the input of a forward call"):
        layer.backward(np.ones((1, 1, 2, 2), np.float32))
    layer.eval()
    layer.forward(np.ones((1, 1, 4, 4), np.float32))
    with pytest.raises(RuntimeError, match="in training mode"):
        layer.backward(np.ones((1, 1, 2, 2), np.float32))


def test_evaluation_keeps_no_reference():
    layer = fastconv.Conv2d(1, 1, 3)
    for mode, alive in ((True, True), (False, False)):
        layer.train(mode)
        x = np.ones((1, 1, 4, 4), np.float32)
        layer.forward(x)
        kept = weakref.ref(x)
        del x
        gc.collect()
        assert (kept() is not None) == alive
    layer.train()
    layer.forward(np.ones((1, 1, 4, 4), np.float32))
    layer.eval()
    with pytest.raises(RuntimeError):
        layer.backward(np.ones((1, 1, 2, 2), np.float32))


def test_failed_forward_keeps_the_last_input():
    layer = fastconv.Conv2d(1, 1, 3)
    layer.forward(np.ones((1, 1, 5, 5), np.float32))
    with pytest.raises(ValueError, match="x may be empty"):
        layer.forward(np.ones((1, 0, 5, 5), np.float32))
    assert layer.backward(np.ones((1, 1, 3, 3), np.float32)).shape == (1, 1, 5, 5)


def test_initialisation():
    layer = fastconv.Conv2d(64, 128, 3, rng=1)
    assert layer.weight.std() == pytest.approx(np.sqrt(2 / (64 * 9)), rel=0.02)
    assert abs(layer.weight.mean()) < 1e-3
    assert (layer.bias == 0).all()
    np.testing.assert_array_equal(fastconv.Conv2d(64, 128, 3, rng=1).weight, layer.weight)
    assert not np.array_equal(fastconv.Conv2d(64, 128, 3, rng=2).weight, layer.weight)
    # A transposed layer's pixel sees kernel / stride taps of every input channel.
    transposed = fastconv.ConvTranspose2d(64, 32, 4, stride=2, rng=1)
    x = np.random.default_rng(0).standard_normal((4, 64, 16, 16)).astype("f4")
    assert transposed.forward(x)[..., 4:-4, 4:-4].var() == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("integer", [np.int8, np.uint8, np.int64])
@pytest.mark.parametrize("make", [fastconv.Conv2d, fastconv.ConvTranspose2d])
def test_integers_of_numpy(make, integer):
    """They make the layer that Python's make: its fan-in does not overflow."""
    layer, same = (make(i(100), i(64), i(3), i(2), groups=i(2), rng=0) for i in (integer, int))
    np.testing.assert_array_equal(layer.weight, same.weight)
    assert layer.bias.shape == (64,)
    assert {*map(type, (layer.in_channels, layer.out_channels, layer.groups))} == {int}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 4, 3), ValueError, "in_channels must be at least 1"),
        ((4, 0, 3), ValueError, "out_channels must be at least 1"),
        ((4.0, 4, 3), TypeError, "in_channels must be an integer"),
        ((4, 4, (3, 3, 3)), ValueError, "kernel_size must be one integer or 2"),
        ((4, 4, 0), ValueError, "kernel_size must be at least 1"),
        ((4, 4, 3, 0), ValueError, "stride must be at least 1"),
        ((4, 4, 3, 1, "full"), ValueError, 'padding must be "same", "valid", an integer'),
        ((4, 6, 3, 1, 0, 1, 4), ValueError, "groups must divide in_channels, 4, and out_channels"),
    ],
)
def test_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        fastconv.Conv2d(*arguments)


@pytest.mark.parametrize(
    "wrong",
    [
        {"in_channels": 0},
        {"groups": 3},
        {"padding_mode": "mirror"},
        {"output_padding": -1},
        {"output_padding": 2, "stride": 2},
        {"output_padding": 1, "stride": 2, "padding": "same"},
        {"padding": (1, (0, -1)), "padding_mode": "circular"},
        {"bias": np.ones(4)},
        {"dtype": np.int64},
        {"activation": "gelu"},
        {"activation": "relu", "dtype": np.complex64},
        {"data_format": "NHWC"},
        {"precision": "low"},
        {"accumulate_dtype": np.float32},
    ],
    ids=str,
)
def test_mistakes_leave_the_generator_as_it_was(wrong):
    make = fastconv.ConvTranspose2d if "output_padding" in wrong else fastconv.Conv2d
    rng = np.random.default_rng(0)
    state = rng.bit_generator.state
    arguments = {"in_channels": 4, "out_channels": 4, "kernel_size": 3, **wrong}
    with pytest.raises((TypeError, ValueError)):
        make(**arguments, rng=rng)
    assert rng.bit_generator.state == state


def test_dtype():
    with pytest.raises(TypeError, match=r"dtype must be float16, .* or complex128, got int64"):
        fastconv.Conv2d(1, 1, 3, dtype=np.int64)


def test_precision():
    assert fastconv.Conv2d(1, 1, 3, precision="high").precision == "high"
    with pytest.raises(ValueError, match="precision must be one of"):
        fastconv.ConvTranspose2d(1, 1, 3, precision="low")


@pytest.mark.parametrize(
    "text",
    [
        "Conv1d(2, 4, kernel_size=(3,), padding='same')",
        "Conv2d(4, 6, kernel_size=(3, 2), stride=(2, 1), padding=((1, 1), (0, 1)), bias=False)",
        "ConvTranspose2d(1, 1, kernel_size=(3, 3), stride=(2, 2), output_padding=(1, 1))",
        "ConvTranspose3d(2, 1, kernel_size=(2, 2, 2), dilation=(1, 2, 1))",
        "MaxPool2d(kernel_size=(3, 3), stride=(2, 2), data_format='channels_last')",
        "AvgPool1d(kernel_size=(2,), padding=((0, 1),))",
        "AvgPool3d(kernel_size=(2, 2, 2))",
    ],
)
def test_repr(text):
    assert repr(eval(text, vars(fastconv).copy())) == text


# Other than the defaults.
OTHERS = {
    "stride": 2,
    "padding": 1,
    "output_padding": 1,
    "dilation": (1, 2),
    "groups": 2,
    "bias": False,
    "dtype": np.float64,
    "padding_mode": "reflect",
    "activation": "relu",
    "data_format": "channels_last",
    "precision": "high",
    "accumulate_dtype": np.float64,
    "ceil_mode": True,
    "count_include_pad": False,
}


@pytest.mark.parametrize(
    ("make", "required"),
    [
        (fastconv.Conv2d, (4, 6, 3)),
        (fastconv.ConvTranspose2d, (4, 6, 3, 3)),  # a stride, for output_padding to be below
        (fastconv.MaxPool2d, (3,)),
        (fastconv.AvgPool2d, (3,)),
    ],
)
def test_repr_shows_each_argument(make, required):
    """One that is not its default is in the text, alone, and the text makes such a layer."""
    plain = repr(make(*required))
    shown = [*signature(make).parameters][: len(required)]
    shown = [name for name in shown if not name.endswith("channels")]
    assert plain.count("=") == len(shown)
    names = [*signature(make).parameters][len(required) :]
    for name in (name for name in names if name != "rng"):
        text = repr(make(*required, **{name: OTHERS[name]}))
        assert text.startswith(f"{plain[:-1]}, {name}=")
        assert text.count("=") == len(shown) + 1
        assert repr(eval(text, vars(fastconv).copy())) == text


def test_repr_of_a_class_of_ones_own():
    """Its constructor may take what it likes."""

    class Block(fastconv.Conv2d):
        def __init__(self, width):
            super().__init__(width, width, 3, padding=1)

    assert repr(Block(2)) == "Block(2, 2, kernel_size=(3, 3), padding=((1, 1), (1, 1)))"


def test_layers_stay_where_they_are():
    layer = fastconv.Conv2d(1, 1, 1)
    weight = layer.weight
    assert layer.to("cpu") is layer
    assert layer.weight is weight
    with pytest.raises(ValueError, match="device must be"):
        layer.to("tpu")
