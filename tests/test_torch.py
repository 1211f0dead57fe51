"""The same results as PyTorch, where that is installed."""

import numpy as np
import pytest

import fastconv

from . import reference
from .cases import CASES, assert_close, data

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


def test_shares_memory_with_tensors(rng):
    x, w = data(rng, (1, 2, 6, 7), "f4"), data(rng, (3, 2, 3, 3), "f4")
    tensor = torch.empty(1, 3, 4, 5)
    fastconv.conv2d(np.from_dlpack(torch.from_numpy(x)), w, out=tensor.numpy())
    np.testing.assert_array_equal(tensor.numpy(), fastconv.conv2d(x, w))
