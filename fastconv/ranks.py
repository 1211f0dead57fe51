"""One definition for 1, 2 and 3 spatial axes: the functions that the public ones are made of.

``ranks(f)`` turns ``f(ndim, x, ...)`` into three functions without ``ndim``, their docstrings made
from that of ``f`` by filling in the words below.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

IMAGE_AXES = {1: "W", 2: "H, W", 3: "D, H, W"}
RESULT_AXES = {1: "Q", 2: "P, Q", 3: "O, P, Q"}
FILTER_AXES = {1: "S", 2: "R, S", 3: "T, R, S"}

_GEOMETRY = """stride : int or {n} ints, default 1
    Pixels of ``x`` from one window to the next, along each spatial axis.
padding : int, {n} ints, {n} pairs (before, after), "same" or "valid", default 0
    Zeros put around ``x``, in pixels; negative numbers crop it. "valid" is none; "same" as many as
    give ceil(extent / stride) windows, the odd one after.
dilation : int or {n} ints, default 1
    Pixels of ``x`` from one tap to the next.
groups : int, default 1
    Parts into which the channels are cut, each with filters of its own; C groups make a
    depthwise convolution."""

_PADDING_MODE = """padding_mode : "zeros", "reflect", "replicate" or "circular", default "zeros"
    What padding shows: zeros; the pixels inside the border, mirrored at it, fewer than there are;
    those of the border, however many; or those of the other end, at most as many as there are."""

_TRANSPOSED = """stride : int or {n} ints, default 1
    Pixels of the result from one pixel of ``x`` to the next, along each spatial axis.
padding : int, {n} ints, {n} pairs (before, after), "same" or "valid", default 0
    Pixels cut off the result, as the padding of the convolution whose gradient this is; negative
    numbers put zeros around it. "valid" is none; "same" as many as leave extent * stride.
output_padding : int or {n} ints, default 0
    Pixels added after the result; less than stride or dilation.
groups : int, default 1
    Parts into which the channels are cut, each with filters of its own.
dilation : int or {n} ints, default 1
    Pixels of the result from one tap to the next."""

_OUTPUT_SHAPE = """output_shape : int or {n} ints, optional
    Spatial extents of the result, in place of ``output_padding``: at least those without any, and
    less than ``stride`` more."""

_DATA_FORMAT = """data_format : "channels_first" or "channels_last", default "channels_first"
    Where images, gradients of images and results have their channels: with "channels_last", shapes
    above that begin with (N, C) or (N, K) end with C or K instead, as in (N, {spatial}, C). Filters
    keep their axes."""

_POOLING = """kernel_size : int or {n} ints
    Pixels of a window, along each spatial axis.
stride : int or {n} ints, optional
    Pixels of ``x`` from one window to the next; by default ``kernel_size``.
padding : int, {n} ints or {n} pairs (before, after), default 0
    Pixels put around ``x``, at most half of ``kernel_size``."""

_CEIL_MODE = """ceil_mode : bool, default False
    Whether there may be one more window along an axis, which reaches past the padded image but
    starts in ``x`` or in the padding before it."""

_ALGORITHM = """algorithm : str, default "auto"
    "direct" packs the operands and runs one register-tiled micro-kernel; "gemm" does so with the
    roles of pixels and filters exchanged; "planar" has pixels as lanes, for few channels to a
    group; "depthwise" has groups as lanes, for many of them; "winograd" saves products on 3x3
    filters of stride 1, at a relative L2 error of up to 1e-5 in float32, and spreads NaN over a
    tile; "reference" runs the formula as literal loops. ``fastconv.explain`` says which one
    "auto" takes. On a CUDA device there are "gemm", "tf32", "3xtf32", "planar" and
    "reference"."""

_PRECISION = """precision : "highest", "high" or "medium", default "highest"
    What products of float32 may lose of their 24 bits on a CUDA device: nothing; about 2, by three
    products in TF32 on tensor cores; or 13, by one. On the CPU nothing is lost."""

_ACTIVATION = """activation : "relu" or None, default None
    Applied to the result as it is written: "relu" puts 0 for what is below it; NaN stays NaN.
    Complex numbers, which have no order, have none."""

_BACK_THROUGH = """activation : "relu" or None, default None
    What the forward call applied; "relu" passes back no gradient where ``y`` is 0 or below.
y : ndarray, optional
    The result of the forward call, which an activation needs; of the shape of ``grad_output``."""

_PER_SAMPLE = """per_sample : bool, default False
    Whether each image of the batch gets a gradient of its own, on a leading axis, instead of one
    for their sum: N times the memory of the filters, and with large filters the time is that of
    writing it. An image without the batch axis gets its one gradient, without that axis too.
    Samples are groups of one image there; with ``groups`` and channels last they are copied."""

_NEEDS = """needs : 3 booleans, default (True, True, True)
    Which gradients are wanted; the others are not computed."""

_SECOND = """grad_grad_input : (N, C, {spatial}) or (C, {spatial}) ndarray, or None
    The gradient ggx of the loss with respect to dx; None for zero, here and below.
grad_grad_weight : ({filters}) ndarray or None
    The gradient ggw with respect to dw.
grad_grad_bias : (K,) ndarray or None
    The gradient ggb with respect to db.
grad_output : (N, K, {result}) or (K, {result}) ndarray of floating-point or complex numbers
    The gradient dy that ``{family}{n}d_backward`` was given.
x : (N, C, {spatial}) or (C, {spatial}) ndarray
    Images, of the same dtype.
weight : ({filters}) ndarray
    Filters, of the same dtype."""

_SECOND_RESULTS = """grad_grad_output, grad_x, grad_weight : ndarray or None
    With respect to ``grad_output``, ``x`` and ``weight``. None where not wanted, or zero because
    nothing reaches it: the first where all three of ggx, ggw and ggb are None, the second without
    ggw, the third without ggx."""

_SECOND_NOTES = """Where ggx and ggw are both given, they are copied side by side with ``x`` and
``weight``, for one convolution of twice the channels."""

_OUT_DTYPE = """out_dtype : integer dtype, optional
    Of the result, where ``x`` is of integers: by default int32 for those of 8 and 16 bits, and
    otherwise ``x``'s. Sums are exact modulo 2**bits of it: they wrap around, as NumPy's do."""

_ACCUMULATE_DTYPE = """accumulate_dtype : float64, optional
    Sums floating-point or complex numbers in float64, and rounds each result once. By default half
    precision is summed in float32, everything else in its own precision."""

_DTYPES = """Arrays are of float16, bfloat16 (of ml_dtypes), float32, float64, complex64,
complex128, or of signed or unsigned integers of 8, 16, 32 or 64 bits. Half precision is summed in
float32, each result rounded once. Complex numbers are multiplied as they are: nothing is
conjugated."""

_GRADIENT_DTYPES = """Dtypes are those of ``conv{n}d`` but for integers, which have no gradients.
With respect to a complex z the gradient of a real loss L is ``dL/dRe(z) + 1j*dL/dIm(z)``, as in
PyTorch: dy is multiplied by conjugates, those of the filters for the images' gradient, and the
other way round."""

_OUT = """out : ndarray, optional
    Array of the result's shape and dtype to write to, of any strides; it must share no memory with
    an input. By default a new one."""

_RAISES = """TypeError
    If an argument is not an array, a dtype is not served or does not go with the others, or a
    number is not an integer.
ValueError
    If a shape does not fit, a number is out of range, the filter is larger than the padded image,
    or ``out``, ``algorithm``, ``precision`` or ``accumulate_dtype`` cannot serve. Nothing is
    written then."""


_POOL_RAISES = """TypeError
    If an argument is not an array, a dtype is not float16, bfloat16 (of ml_dtypes),
    float32 or float64 (nor, where there are integers, one of these), or differs from the others, or
    a number is not an integer.
ValueError
    If a shape does not fit, a number is out of range, a window is larger than the padded image, or
    ``out`` cannot serve. Nothing is written then."""

_FAMILIES = ("conv_transpose", "conv", "max_pool", "avg_pool")


def _docstring(template: str, family: str, ndim: int) -> str:
    filters = "C, K/groups" if family == "conv_transpose" else "K, C/groups"
    words = {
        "n": str(ndim),
        "family": family,
        "filters": f"{filters}, {FILTER_AXES[ndim]}",
        "spatial": IMAGE_AXES[ndim],
        "result": RESULT_AXES[ndim],
        "kernel": FILTER_AXES[ndim],
    }
    texts = {
        "geometry": _GEOMETRY,
        "padding_mode": _PADDING_MODE,
        "transposed": _TRANSPOSED,
        "output_shape": _OUTPUT_SHAPE,
        "data_format": _DATA_FORMAT,
        "pooling": _POOLING,
        "ceil_mode": _CEIL_MODE,
        "algorithm": _ALGORITHM,
        "precision": _PRECISION,
        "per_sample": _PER_SAMPLE,
        "activation": _ACTIVATION,
        "back_through": _BACK_THROUGH,
        "needs": _NEEDS,
        "second": _SECOND,
        "second_results": _SECOND_RESULTS,
        "second_notes": _SECOND_NOTES,
        "out_dtype": _OUT_DTYPE,
        "accumulate_dtype": _ACCUMULATE_DTYPE,
        "dtypes": _DTYPES,
        "gradient_dtypes": _GRADIENT_DTYPES,
        "out": _OUT,
        "raises": _RAISES,
        "pool_raises": _POOL_RAISES,
    }
    filled = {key: text.format(**words) for key, text in texts.items()}
    return template.format(**words, **filled)


def _check_call(
    name: str, signature: inspect.Signature, args: tuple[object, ...], kwargs: dict[str, object]
) -> None:
    """Raise TypeError under the public name if arguments are missing, too many or unknown."""
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        what = f"got {error}" if str(error).startswith("multiple") else error
        raise TypeError(f"{name}() {what}") from None


def ranks(
    function: Callable[Concatenate[int, P], R],
) -> tuple[Callable[P, R], Callable[P, R], Callable[P, R]]:
    """The 1-D, 2-D and 3-D functions of one that takes the number of spatial axes first."""
    signature = inspect.signature(function)
    rest = signature.replace(parameters=list(signature.parameters.values())[1:])
    name = function.__name__
    family = next(family for family in _FAMILIES if name.startswith(family))

    def ranked(ndim: int) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(ndim, *args, **kwargs)
            except TypeError:
                _check_call(call.__name__, rest, args, kwargs)
                raise

        call.__name__ = call.__qualname__ = f"{family}{ndim}d{name.removeprefix(family)}"
        call.__doc__ = _docstring(inspect.cleandoc(function.__doc__ or ""), family, ndim)
        vars(call)["__signature__"] = rest
        return call

    return ranked(1), ranked(2), ranked(3)
