import numpy as np
import pytest

import fastconv


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_every_map_passes(ndim, rng):
    extents, kernel = (7, 6, 5)[:ndim], (3, 2, 2)[:ndim]
    x = rng.standard_normal((2, 2, *extents))
    w = rng.standard_normal((4, 1, *kernel))
    b = rng.standard_normal(4)
    options = {"stride": 2, "padding": 1, "groups": 2}
    conv = getattr(fastconv, f"conv{ndim}d")
    backward = getattr(fastconv, f"conv{ndim}d_backward")
    for i, (point, linear) in enumerate(((x, True), (w, True), (b, False))):

        def function(value, i=i):
            given = [x, w, b]
            given[i] = value
            # Without the bias the map is linear in x and in w.
            return conv(*given[: 3 if i == 2 else 2], **options)

        def gradient(dy, i=i):
            return backward(dy, x, w, **options)[i]

        result = fastconv.gradcheck(function, gradient, point, linear=linear)
        assert result, str(result)
        assert (result.adjointness is not None) == linear


def test_finds_the_wrong_element():
    x = np.linspace(-1, 1, 12).reshape(3, 4)

    def gradient(dy):
        dx = 2 * x * dy
        dx[2, 1] += 0.5
        return dx

    result = fastconv.gradcheck(lambda x: x * x, gradient, x)
    assert not result
    assert result.worst == (2, 1)
    assert result.gradient - result.difference == pytest.approx(0.5, abs=1e-6)
    assert "FAILED" in str(result)
    assert "(2, 1)" in str(result)


def test_finds_a_wrong_adjoint_and_nan():
    x = np.array([1.0, 2.0, -3.0])
    flipped = fastconv.gradcheck(lambda x: 2 * x, lambda dy: 2 * dy[::-1], x, linear=True)
    assert not flipped
    assert flipped.adjointness > 1e-3
    nan = fastconv.gradcheck(lambda x: 2 * x, lambda dy: dy * np.nan, x)
    assert not nan


def test_of_a_number():
    assert fastconv.gradcheck(lambda x: x**2, lambda dy: 2 * 3.0 * dy, np.array(3.0))


def test_shape_of_the_gradient():
    with pytest.raises(
        ValueError, match=r"gradient must return the shape of x, \(3,\), got \(2,\)"
    ):
        fastconv.gradcheck(lambda x: x, lambda dy: dy[:2], np.ones(3))


def test_empty():
    assert fastconv.gradcheck(lambda x: x, lambda dy: dy, np.ones((0, 3)))
