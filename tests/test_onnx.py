"""The test cases of the ONNX standard for the operators that the functions here are.

https://github.com/onnx/onnx/tree/main/onnx/backend/test/case/node holds them; they come with its
package. Each is run through a small adapter or listed below with the reason why not.
"""

import warnings

import numpy as np
import pytest

import fastconv

from .cases import assert_close
from .test_channels_last import first, last

pytestmark = pytest.mark.slow  # the cases of all operators are made at once, in some seconds

SEVERAL = "a graph of several operators, of which Conv is one"

NOT_RUN = {
    # CausalConvWithState is not served itself; its models in terms of Conv concatenate and slice.
    "test_causal_conv_with_state_b1_c1_degenerate_expanded": SEVERAL,
    "test_causal_conv_with_state_basic_expanded": SEVERAL,
    "test_causal_conv_with_state_decode_step_expanded": SEVERAL,
    "test_causal_conv_with_state_fp16_expanded": SEVERAL,
    "test_causal_conv_with_state_kernel_size_one_expanded": SEVERAL,
    "test_causal_conv_with_state_short_input_no_past_state_expanded": SEVERAL,
    "test_causal_conv_with_state_silu_expanded": SEVERAL,
    "test_causal_conv_with_state_silu_fp16_expanded": SEVERAL,
    "test_causal_conv_with_state_silu_with_past_state_expanded": SEVERAL,
    "test_causal_conv_with_state_swish_alias_expanded": SEVERAL,
    "test_causal_conv_with_state_with_bias_and_past_state_expanded": SEVERAL,
    "test_causal_conv_with_state_with_bias_expanded": SEVERAL,
    "test_causal_conv_with_state_with_past_state_expanded": SEVERAL,
    "test_maxpool_2d_pads": "padding of more than half a window",
    "test_averagepool_2d_pads": "padding of more than half a window",
    "test_averagepool_2d_pads_count_include_pad": "padding of more than half a window",
    "test_averagepool_2d_dilations": "means of dilated windows",
    "test_averagepool_3d_dilations_small": "means of dilated windows",
    "test_averagepool_3d_dilations_large_count_include_pad_is_0_ceil_mode_is_False": (
        "means of dilated windows"
    ),
    "test_averagepool_3d_dilations_large_count_include_pad_is_0_ceil_mode_is_True": (
        "means of dilated windows"
    ),
    "test_averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_False": (
        "means of dilated windows"
    ),
    "test_averagepool_3d_dilations_large_count_include_pad_is_1_ceil_mode_is_True": (
        "means of dilated windows"
    ),
}


# Results that are given to four digits.
ROUNDED = {"test_averagepool_2d_ceil_last_window_starts_on_pad"}


class Windows:
    """What the attributes of an operator say of its windows, for images of these extents."""

    def __init__(self, attributes, extents, kernel):
        ndim = len(extents)
        self.kernel = tuple(attributes.pop("kernel_shape", kernel))
        assert kernel is None or self.kernel == tuple(kernel)
        self.stride = tuple(attributes.pop("strides", [1] * ndim))
        self.dilation = tuple(attributes.pop("dilations", [1] * ndim))
        self.auto_pad = attributes.pop("auto_pad", b"NOTSET").decode()
        pads = attributes.pop("pads", [0] * 2 * ndim)
        assert self.auto_pad == "NOTSET" or not any(pads)
        self.pads = tuple(zip(pads[:ndim], pads[ndim:], strict=True))
        self.extents = extents
        self.reach = [(r - 1) * d + 1 for r, d in zip(self.kernel, self.dilation, strict=True)]

    def halves(self, totals):
        """Each total cut into a pair, the odd pixel after with "SAME_UPPER" and else before."""
        pairs = [(total // 2, total - total // 2) for total in totals]
        return tuple(pair if self.auto_pad == "SAME_UPPER" else pair[::-1] for pair in pairs)

    def padding(self):
        if not self.auto_pad.startswith("SAME"):
            return self.pads
        axes = zip(self.extents, self.stride, self.reach, strict=True)
        return self.halves([max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in axes])


def conv(x, w, b=None, group=1, data_format="channels_first", **attributes):
    windows = Windows(attributes, x.shape[2:], w.shape[2:])
    assert not attributes
    function = getattr(fastconv, f"conv{w.ndim - 2}d")
    arguments = windows.stride, windows.padding(), windows.dilation, group
    return (formatted(function, x, w, b, *arguments, data_format=data_format),)


def conv_transpose(
    x,
    w,
    b=None,
    group=1,
    output_padding=None,
    output_shape=None,
    data_format="channels_first",
    **attributes,
):
    windows = Windows(attributes, x.shape[2:], w.shape[2:])
    assert not attributes
    extra = [*(output_padding or [0] * (w.ndim - 2))]
    padding = windows.pads
    if windows.auto_pad.startswith("SAME"):
        output_shape = [n * s for n, s in zip(windows.extents, windows.stride, strict=True)]
    if output_shape:
        axes = zip(windows.extents, windows.stride, windows.reach, extra, output_shape, strict=True)
        totals = [(n - 1) * s + r + e - out for n, s, r, e, out in axes]
        # What is missing is added after the result.
        extra = [e + max(-total, 0) for e, total in zip(extra, totals, strict=True)]
        padding = windows.halves([max(total, 0) for total in totals])
    function = getattr(fastconv, f"conv_transpose{w.ndim - 2}d")
    arguments = windows.stride, padding, tuple(extra), group, windows.dilation
    return (formatted(function, x, w, b, *arguments, data_format=data_format),)


def formatted(function, x, w, b, *arguments, data_format):
    if data_format == "channels_first":
        return function(x, w, b, *arguments)
    return first(function(last(x), w, b, *arguments, data_format=data_format))


def max_pool(x, ceil_mode=0, storage_order=0, data_format="channels_first", **attributes):
    windows = Windows(attributes, x.shape[2:], None)
    assert not attributes
    y, indices = pooled(
        "max_pool",
        x,
        windows.kernel,
        windows.stride,
        windows.padding(),
        windows.dilation,
        ceil_mode=bool(ceil_mode),
        return_indices=True,
        data_format=data_format,
    )
    # There they count through the whole array, and with ``storage_order`` down columns first.
    if storage_order:
        rows, cols = np.unravel_index(indices, x.shape[2:])
        indices = np.ravel_multi_index((cols, rows), x.shape[:1:-1])
    channels = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *[1] * (x.ndim - 2))
    return y, indices + channels * np.prod(x.shape[2:], dtype=np.int64)


def avg_pool(x, ceil_mode=0, count_include_pad=0, data_format="channels_first", **attributes):
    windows = Windows(attributes, x.shape[2:], None)
    assert not attributes
    return pooled(
        "avg_pool",
        x,
        windows.kernel,
        windows.stride,
        windows.padding(),
        ceil_mode=bool(ceil_mode),
        count_include_pad=bool(count_include_pad),
        data_format=data_format,
    )


def global_max_pool(x, data_format):
    return pooled("max_pool", x, x.shape[2:], data_format=data_format)


def global_avg_pool(x, data_format):
    return pooled("avg_pool", x, x.shape[2:], data_format=data_format)


def pooled(name, x, *arguments, data_format, **options):
    """What the function returns, as a tuple."""
    function = getattr(fastconv, f"{name}{x.ndim - 2}d")
    channels_last = data_format == "channels_last"
    images = last(x) if channels_last else x
    results = function(images, *arguments, **options, data_format=data_format)
    results = results if isinstance(results, tuple) else (results,)
    return tuple(map(first, results)) if channels_last else results


OPERATORS = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "MaxPool": max_pool,
    "AveragePool": avg_pool,
    "GlobalMaxPool": global_max_pool,
    "GlobalAveragePool": global_avg_pool,
}


@pytest.fixture(scope="module")
def cases():
    """All cases in whose models one of the operators is, by name."""
    pytest.importorskip("onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of numbers that other operators' cases are made of
        from onnx.backend.test.loader import load_model_tests

        everything = load_model_tests(kind="node")
    return {
        case.name: case
        for case in everything
        if not OPERATORS.keys().isdisjoint(node.op_type for node in case.model.graph.node)
    }


def of_operator(cases, name):
    return {
        key: case
        for key, case in cases.items()
        if key not in NOT_RUN and [node.op_type for node in case.model.graph.node] == [name]
    }


def test_every_case_is_run_or_listed(cases):
    run = [key for name in OPERATORS for key in of_operator(cases, name)]
    assert sorted([*run, *NOT_RUN]) == sorted(cases)


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize(("name", "count"), [("Conv", 6), ("ConvTranspose", 11)])
def test_convolutions(name, count, data_format, cases):
    chosen = of_operator(cases, name)
    assert len(chosen) >= count
    for key, case in chosen.items():
        check(key, case, data_format=data_format)


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("name", ["MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"])
def test_pooling(name, data_format, cases):
    chosen = of_operator(cases, name)
    assert chosen
    for key, case in chosen.items():
        check(key, case, data_format=data_format)


def check(key, case, **options):
    import onnx

    (node,) = case.model.graph.node
    tolerance = case.rtol if key in ROUNDED else 1e-5
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    for inputs, outputs in case.data_sets:
        results = OPERATORS[node.op_type](*inputs, **attributes, **options)
        # A case that does not ask for indices has one output.
        for got, expected in zip(results, outputs, strict=len(results) == 1):
            assert got.dtype == expected.dtype, key
            try:
                assert_close(got, expected.astype("f8"), tolerance=tolerance)
            except AssertionError as error:
                raise AssertionError(f"{key}: {error}") from error
