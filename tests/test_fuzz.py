"""A few of the random calls of ``fuzz.py``, and what it would find."""

import numpy as np
import pytest

import fastconv

from . import fuzz
from .guard import guarded


def test_random_calls():
    counts = fuzz.fuzz(seed=0, rounds=1500)
    assert counts["calls"] == 1500
    assert sum(n for kind, n in counts.items() if kind.startswith("mistake")) > 100


def test_a_wrong_result_is_found(monkeypatch):
    right = fastconv.conv2d

    def wrong(*arguments, **options):
        y = right(*arguments, **options)
        if y.size:
            y[(-1,) * y.ndim] *= 1.01
        return y

    monkeypatch.setattr(fastconv, "conv2d", wrong)
    with pytest.raises(AssertionError, match=r"seed 0, round \d+: error"):
        fuzz.fuzz(seed=0, rounds=100)


LAST = {"data_format": "channels_last"}


@pytest.mark.parametrize("algorithm", ["depthwise", "direct", "gemm", "planar", "winograd"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_nothing_outside_is_touched_at_any_width(algorithm, dtype):
    """Operands and results at the edges of memory, of every width up to three vectors."""
    rng = np.random.default_rng(0)
    for width in range(3, 52):
        x = rng.standard_normal((1, 18, 4, width)).astype(dtype)
        w = rng.standard_normal((19, 18, 3, 3)).astype(dtype)
        y = fastconv.conv2d(x, w, padding=1, algorithm=algorithm)
        dx, dw, _ = fastconv.conv2d_backward(y, x, w, padding=1, algorithm=algorithm)
        for before in (False, True):
            edge = [guarded(a, before) for a in (x, w, y, np.empty_like(y))]
            fastconv.conv2d(*edge[:2], padding=1, algorithm=algorithm, out=edge[3])
            np.testing.assert_array_equal(edge[3], y)
            options = {"padding": 1, "algorithm": algorithm}
            result = guarded(np.empty_like(x), before)
            fastconv.conv2d_grad_input(edge[2], edge[1], x.shape, **options, out=result)
            np.testing.assert_array_equal(result, dx)
            result = guarded(np.empty_like(w), before)
            fastconv.conv2d_grad_weight(edge[2], edge[0], w.shape, **options, out=result)
            np.testing.assert_array_equal(result, dw)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(
    ("channels", "filters", "groups"), [(18, 33, 1), (16, 16, 16), (35, 35, 35)]
)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_nothing_outside_is_touched_with_channels_last(channels, filters, groups, stride, dtype):
    rng = np.random.default_rng(0)
    for width in range(3, 22):
        x = rng.standard_normal((2, 4, width, channels)).astype(dtype)
        w = rng.standard_normal((filters, channels // groups, 3, 3)).astype(dtype)
        options = {"stride": stride, "padding": (1, 2), "groups": groups, **LAST}
        y = fastconv.conv2d(x, w, **options)
        dx, dw, _ = fastconv.conv2d_backward(y, x, w, **options)
        for before in (False, True):
            edge = [guarded(a, before) for a in (x, w, y, np.empty_like(y))]
            fastconv.conv2d(*edge[:2], **options, out=edge[3])
            np.testing.assert_array_equal(edge[3], y)
            result = guarded(np.empty_like(x), before)
            fastconv.conv2d_grad_input(edge[2], edge[1], x.shape, **options, out=result)
            np.testing.assert_array_equal(result, dx)
            result = guarded(np.empty_like(w), before)
            fastconv.conv2d_grad_weight(edge[2], edge[0], w.shape, **options, out=result)
            np.testing.assert_array_equal(result, dw)
