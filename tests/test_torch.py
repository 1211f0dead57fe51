"""The same results as PyTorch, where that is installed."""

import numpy as np
import pytest

import fastconv

from . import reference
from .cases import CASES, assert_close, data
from .test_pool import CASES as POOL_CASES
from .test_pool import draw

# PyTorch knows no padding of two sizes.
POOLS = [
    case
    for case in POOL_CASES
    if case.batch and all(type(p) is int for p in reference.tuple_of(case.padding, case.ndim))
]

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


def pads(case):
    """Padding as ``torch.nn.functional.pad`` takes it: last axis first."""
    dilation = reference.tuple_of(case.dilation, case.ndim)
    reach = [(k - 1) * d + 1 for k, d in zip(case.kernel, dilation, strict=True)]
    stride = reference.tuple_of(case.stride, case.ndim)
    pairs = reference.pairs_of(case.padding, case.extents, reach, stride)
    return [n for pair in reversed(pairs) for n in pair]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_conv_and_gradients(case, dtype, rng):
    x, w = data(rng, case.x_shape, dtype), data(rng, case.weight_shape, dtype)
    b = data(rng, case.filters, dtype)
    tx, tw, tb = (torch.tensor(a, requires_grad=True) for a in (x, w, b))
    conv = getattr(torch.nn.functional, f"conv{case.ndim}d")
    padded = torch.nn.functional.pad(tx, pads(case))
    ty = conv(padded, tw, tb, case.stride, 0, case.dilation, case.groups)
    y = getattr(fastconv, f"conv{case.ndim}d")(x, w, b, **case.geometry)
    assert_close(y, ty.detach().numpy().astype("f8"), tolerance=4e-6)
    dy = data(rng, y.shape, dtype)
    ty.backward(torch.from_numpy(dy))
    gradients = getattr(fastconv, f"conv{case.ndim}d_backward")(dy, x, w, **case.geometry)
    for got, expected in zip(gradients, (tx.grad, tw.grad, tb.grad), strict=True):
        assert_close(got, expected.numpy().astype("f8"), tolerance=4e-6)


@pytest.mark.parametrize("output_padding", [0, 1, (1, 2)])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dilation", [1, (2, 3)])
def test_transposed(output_padding, groups, dilation, rng):
    x, w = data(rng, (2, 6, 5, 4), "f8"), data(rng, (6, 4, 3, 2), "f8")
    b = data(rng, 4 * groups, "f8")
    # Positional, in PyTorch's order: code ports by changing the import.
    arguments = ((3, 4), (1, 0), output_padding, groups, dilation)
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, w, b)]
    ty = torch.nn.functional.conv_transpose2d(*tensors, *arguments)
    y = fastconv.conv_transpose2d(x, w, b, *arguments)
    assert_close(y, ty.detach().numpy())
    dy = data(rng, y.shape, "f8")
    ty.backward(torch.from_numpy(dy))
    gradients = fastconv.conv_transpose2d_backward(dy, x, w, *arguments)
    for got, tensor in zip(gradients, tensors, strict=True):
        assert_close(got, tensor.grad.numpy())


@pytest.mark.parametrize("case", POOLS, ids=str)
def test_max_pool(case, dtype, rng):
    """PyTorch has the last of several NaN, fastconv the first: here a window has one at most."""
    x = draw(rng, case.x_shape, dtype)
    x[np.isnan(x)] = 0
    x.reshape(-1)[x.size // 2] = np.nan
    tx = torch.tensor(x, requires_grad=True)
    windows = (*case.windows, case.dilation, case.ceil_mode)
    ty, places = getattr(torch.nn.functional, f"max_pool{case.ndim}d")(
        tx, *windows, return_indices=True
    )
    options = {"dilation": case.dilation, "ceil_mode": case.ceil_mode}
    y, indices = getattr(fastconv, f"max_pool{case.ndim}d")(
        x, *case.windows, **options, return_indices=True
    )
    np.testing.assert_array_equal(y, ty.detach().numpy())
    seen = indices >= 0
    np.testing.assert_array_equal(indices[seen], places.numpy()[seen])
    if not seen.all():
        return  # of windows of nothing but padding, PyTorch writes the gradient outside the image
    dy = data(rng, y.shape, dtype)
    ty.backward(torch.from_numpy(dy))
    grad_input = getattr(fastconv, f"max_pool{case.ndim}d_grad_input")
    assert_close(grad_input(dy, x, *case.windows, **options), tx.grad.numpy().astype("f8"))


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("case", [case for case in POOLS if case.dilation == 1], ids=str)
def test_avg_pool(case, padded, dtype, rng):
    x = data(rng, case.x_shape, dtype)
    tx = torch.tensor(x, requires_grad=True)
    options = {"ceil_mode": case.ceil_mode, "count_include_pad": padded}
    ty = getattr(torch.nn.functional, f"avg_pool{case.ndim}d")(tx, *case.windows, **options)
    y = getattr(fastconv, f"avg_pool{case.ndim}d")(x, *case.windows, **options)
    assert_close(y, ty.detach().numpy().astype("f8"), tolerance=4e-6)
    dy = data(rng, y.shape, dtype)
    ty.backward(torch.from_numpy(dy))
    grad_input = getattr(fastconv, f"avg_pool{case.ndim}d_grad_input")
    dx = grad_input(dy, x.shape, *case.windows, **options)
    assert_close(dx, tx.grad.numpy().astype("f8"), tolerance=4e-6)


def test_layer_signatures():
    for name in ("Conv1d", "Conv2d", "Conv3d"):
        theirs = getattr(torch.nn, name)(4, 6, 3, 2, 1, 2, 2, False)
        ours = getattr(fastconv, name)(4, 6, 3, 2, 1, 2, 2, False)
        assert ours.weight.shape == tuple(theirs.weight.shape)
        transposed = name.replace("Conv", "ConvTranspose")
        theirs = getattr(torch.nn, transposed)(4, 6, 3, 2, 1, 1, 2, False, 2)
        ours = getattr(fastconv, transposed)(4, 6, 3, 2, 1, 1, 2, False, 2)
        assert ours.weight.shape == tuple(theirs.weight.shape)
        assert (ours.output_padding, ours.dilation) == (theirs.output_padding, theirs.dilation)
    ours, theirs = fastconv.MaxPool2d(3, 2, 1, 2), torch.nn.MaxPool2d(3, 2, 1, 2)
    assert (ours.kernel_size, ours.stride) == ((theirs.kernel_size,) * 2, (theirs.stride,) * 2)
    assert (ours.padding, ours.dilation) == (((theirs.padding,) * 2,) * 2, (theirs.dilation,) * 2)
    assert fastconv.AvgPool3d(3).stride == (torch.nn.AvgPool3d(3).stride,) * 3


def test_shares_memory_with_tensors(rng):
    x, w = data(rng, (1, 2, 6, 7), "f4"), data(rng, (3, 2, 3, 3), "f4")
    tensor = torch.empty(1, 3, 4, 5)
    fastconv.conv2d(np.from_dlpack(torch.from_numpy(x)), w, out=tensor.numpy())
    np.testing.assert_array_equal(tensor.numpy(), fastconv.conv2d(x, w))
