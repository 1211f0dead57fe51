"""complex64 and complex128: their maps, and gradients of real losses."""

import numpy as np
import pytest

import fastconv

from .dtype_maps import (
    TRANSPOSED,
    assert_sums,
    computed,
    data,
    every_third,
    maps_of,
    transposed_maps_of,
)


@pytest.fixture(params=["complex64", "complex128"])
def complexes(request):
    return np.dtype(request.param)


@every_third(1)
def test_complex(case, algorithm, complexes, rng):
    sums = "float32" if complexes == np.complex64 else "float64"
    for map_ in maps_of(case, complexes, rng):
        assert_sums(map_, computed(map_, case, algorithm=algorithm), sums)


@pytest.mark.parametrize("case", TRANSPOSED, ids=str)
def test_complex_transposed(case, complexes, rng):
    sums = "float32" if complexes == np.complex64 else "float64"
    for map_ in transposed_maps_of(case, complexes, rng):
        assert_sums(map_, computed(map_, case), sums)


def differences(loss, at, step=1e-6):
    """dL/dRe + i dL/dIm by central differences."""
    gradient = np.empty_like(at)
    for index in np.ndindex(*at.shape):
        total = 0
        for unit in (1, 1j):
            moved = at.copy()
            moved[index] = at[index] + unit * step
            above = loss(moved)
            moved[index] = at[index] - unit * step
            total += unit * (above - loss(moved)) / (2 * step)
        gradient[index] = total
    return gradient


@pytest.mark.parametrize("family", ["conv", "conv_transpose"])
def test_complex_gradients_of_a_real_loss(family, rng):
    """A loss that is no function of y alone, without its conjugate."""
    x, w = data(rng, (2, 4, 4, 3), "c16"), data(rng, (4, 2, 2, 3), "c16")
    options = {"stride": (1, 2), "padding": 1, "groups": 2}
    b = data(rng, 4, "c16")
    forward = getattr(fastconv, f"{family}2d")
    backward = getattr(fastconv, f"{family}2d_backward")
    y = forward(x, w, b, **options)
    p, q, r = rng.standard_normal((3, *y.shape))

    def loss(x, w, b):
        y = forward(x, w, b, **options)
        return (p * y.real**2 + q * y.real * y.imag + r * y.imag).sum()

    dy = 2 * p * y.real + q * y.imag + 1j * (q * y.real + r)
    dx, dw, db = backward(dy, x, w, **options)
    for gradient, expected in (
        (dx, differences(lambda x: loss(x, w, b), x)),
        (dw, differences(lambda w: loss(x, w, b), w)),
        (db, differences(lambda b: loss(x, w, b), b)),
    ):
        assert np.abs(gradient - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.torch
@pytest.mark.parametrize("transposed", [False, True])
def test_complex_gradients_are_those_of_torch(transposed, rng):
    torch = pytest.importorskip("torch")
    x, w = data(rng, (2, 6, 8, 7), "c16"), data(rng, (6, 3, 3, 2), "c16")
    b = data(rng, 6, "c16")
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, w, b)]
    name = "conv_transpose2d" if transposed else "conv2d"
    arguments = ((2, 1), (1, 0), 0, 2) if transposed else ((2, 1), (1, 0), 1, 2)
    ty = getattr(torch.nn.functional, name)(*tensors, *arguments)
    y = getattr(fastconv, name)(x, w, b, *arguments)
    assert np.abs(y - ty.detach().numpy()).max() <= 1e-13 * np.abs(y).max()
    dy = data(rng, y.shape, "c16")
    ty.backward(torch.from_numpy(dy))
    gradients = getattr(fastconv, f"{name}_backward")(dy, x, w, *arguments)
    for got, tensor in zip(gradients, tensors, strict=True):
        expected = tensor.grad.numpy()
        assert np.abs(got - expected).max() <= 1e-13 * np.abs(expected).max()


def test_gradcheck_of_complex_numbers(rng):
    x, w = data(rng, (1, 2, 5, 4), "c16"), data(rng, (3, 2, 2, 3), "c16")

    def gradient(dy):
        return fastconv.conv2d_grad_weight(dy, x, w.shape)

    passed = fastconv.gradcheck(lambda w: fastconv.conv2d(x, w), gradient, w, linear=True)
    assert passed, str(passed)
    assert passed.adjointness is not None
    for wrong in (lambda dy: gradient(dy).conj(), lambda dy: gradient(dy.conj())):
        assert not fastconv.gradcheck(lambda w: fastconv.conv2d(x, w), wrong, w)


def test_sums_in_float64_overflow_without_a_word():
    dy = np.full((2, 1, 4), 3e38 + 0j, "c8")
    db = fastconv.conv1d_grad_bias(dy, accumulate_dtype="float64")
    assert db.real == np.inf


def test_complex_layers_start_with_the_variance_of_real_ones():
    w = fastconv.Conv2d(64, 128, 3, dtype="complex64", rng=1).weight
    for part in (w.real, w.imag):
        assert part.std() == pytest.approx(np.sqrt(1 / (64 * 9)), rel=0.02)
    assert abs((w.real * w.imag).mean()) < 1e-5
    halves, doubles = (
        fastconv.Conv2d(4, 6, 3, dtype=dtype, rng=1).weight for dtype in ("f2", "f8")
    )
    np.testing.assert_array_equal(halves, doubles.astype("f2"))
