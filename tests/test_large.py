"""Arrays that span more than 2**31 elements, of which few are touched: offsets need 64 bits."""

import numpy as np
import pytest

import fastconv

from . import reference
from .cases import assert_close_in_norm

FAR = 2**31 + 40


def far_apart(array):
    """A copy whose first axis has a stride of more than 2**31 elements; pages come when touched."""
    try:
        room = np.zeros((len(array) - 1) * FAR + array[0].size, array.dtype)
    except MemoryError:
        pytest.skip("no address space for it")
    strides = (FAR * array.itemsize, *array[0].strides)
    view = np.lib.stride_tricks.as_strided(room, array.shape, strides)
    view[...] = array
    return view


@pytest.mark.parametrize(
    "algorithm", ["depthwise", "direct", "gemm", "planar", "winograd", "reference"]
)
def test_offsets_beyond_32_bits(algorithm, rng):
    x = rng.standard_normal((2, 18, 9, 11)).astype("f4")
    w = rng.standard_normal((2, 18, 3, 3)).astype("f4")
    options = {"padding": 1, "algorithm": algorithm}
    y = reference.conv(x, w, padding=1)
    far_x, far_w, far_y = far_apart(x), far_apart(w), far_apart(np.full(y.shape, np.nan, "f4"))
    assert fastconv.conv2d(far_x, far_w, **options, out=far_y) is far_y
    assert_close_in_norm(far_y, y)
    dx, dw = far_apart(np.full_like(x, np.nan)), far_apart(np.full_like(w, np.nan))
    fastconv.conv2d_grad_input(far_y, far_w, x.shape, **options, out=dx)
    fastconv.conv2d_grad_weight(far_y, far_x, w.shape, **options, out=dw)
    assert_close_in_norm(dx, reference.conv_grad_input(y, w, x.shape, padding=1))
    assert_close_in_norm(dw, reference.conv_grad_weight(y, x, w.shape, padding=1))
