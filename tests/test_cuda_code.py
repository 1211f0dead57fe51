"""What the CUDA kernels compile to, without a device: nothing spilled, no double precision."""

import numpy as np
import pytest

pytest.importorskip("numba_cuda")
from fastconv.cuda import (
    conversion,
    elementwise,
    gemm,
    gemm_weight,
    padding,
    planar,
    planar_weight,
    pool,
    reference,
    shares,
    simt,
    tensor,
)
from fastconv.cuda.kernel import word_of
from fastconv.plan.cuda import DEPTH

from .dtypes import BFLOAT16, NEEDS_ML_DTYPES
from .machine_code import machine_code

ARCHITECTURES = [(8, 0), (9, 0)]
REFERENCE = [
    reference.forward,
    reference.grad_input,
    reference.grad_weight,
    reference.grad_bias,
]
POOLING = [
    kernel.of(last)
    for kernel in (pool.max_windows, pool.max_gradient, pool.mean_windows, pool.mean_gradient)
    for last in (False, True)
]


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids="sm_{0[0]}{0[1]}".format)
@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
@pytest.mark.parametrize("kernel", REFERENCE, ids=lambda kernel: kernel.name)
def test_reference_kernels(kernel, name, architecture, tmp_path):
    code = machine_code(kernel, np.dtype(name), architecture, tmp_path)
    assert code.registers <= 128
    assert code.stack == code.spills == code.shared == 0
    double = code.count("DADD", "DMUL", "DFMA")
    assert (double > 0) == (name == "float64")


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids="sm_{0[0]}{0[1]}".format)
@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    "kernel",
    [elementwise.copy_elements, elementwise.mask_elements],
    ids=lambda kernel: kernel.name,
)
def test_elementwise_kernels(kernel, name, architecture, tmp_path):
    code = machine_code(kernel, np.dtype(name), architecture, tmp_path)
    assert code.registers <= 64
    assert code.stack == code.spills == code.shared == 0
    assert code.count("DADD", "DMUL", "DFMA") == 0


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids="sm_{0[0]}{0[1]}".format)
@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    "kernel",
    [planar.correlate_pixels, planar_weight.multiply_planes],
    ids=lambda kernel: kernel.name,
)
def test_planar_kernels(kernel, name, architecture, tmp_path):
    code = machine_code(kernel, np.dtype(name), architecture, tmp_path)
    assert code.registers <= 96
    assert code.stack == code.spills == 0
    assert code.shared <= 256 * 8
    double = code.count("DADD", "DMUL", "DFMA")
    assert (double > 0) == (name == "float64")


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids="sm_{0[0]}{0[1]}".format)
@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    "kernel", [padding.pad, padding.fold, padding.add], ids=lambda kernel: kernel.name
)
def test_padding_kernels(kernel, name, architecture, tmp_path):
    code = machine_code(kernel, np.dtype(name), architecture, tmp_path)
    assert code.registers <= 96
    assert code.stack == code.spills == code.shared == 0
    if kernel is not padding.pad:  # which adds nothing up
        assert (code.count("DADD") > 0) == (name == "float64")


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids="sm_{0[0]}{0[1]}".format)
@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
@pytest.mark.parametrize("kernel", POOLING, ids=lambda kernel: kernel.name)
def test_pooling_kernels(kernel, name, architecture, tmp_path):
    code = machine_code(kernel, np.dtype(name), architecture, tmp_path)
    assert code.registers <= 128
    assert code.stack == code.spills == code.shared == 0
    if name != "float64":
        assert code.count("DADD", "DMUL", "DFMA", "DSETP") == 0


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids="sm_{0[0]}{0[1]}".format)
@pytest.mark.parametrize("name", ["int32", "int64"])
@pytest.mark.parametrize(
    "kernel",
    [planar.correlate_pixels, reference.forward, reference.grad_input, *POOLING[:2]],
    ids=lambda kernel: kernel.name,
)
def test_kernels_of_integers(kernel, name, architecture, tmp_path):
    code = machine_code(kernel, np.dtype(name), architecture, tmp_path)
    assert code.registers <= 128
    assert code.stack == code.spills == code.shared == 0
    assert code.count("FADD", "FMUL", "FFMA", "FSETP", "DADD", "DMUL", "DFMA", "DSETP") == 0


CONVERSIONS = [
    ("int8", "int32"),
    ("uint8", "int32"),
    ("uint64", "int64"),
    ("int64", "uint64"),
    ("int32", "int8"),
    ("float32", "float64"),
    ("float64", "float32"),
    ("float64", "float16"),
    *[
        pytest.param(*pair, marks=NEEDS_ML_DTYPES)
        for pair in (("bfloat16", "float32"), ("float32", "bfloat16"), ("float64", "bfloat16"))
    ],
]


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids="sm_{0[0]}{0[1]}".format)
@pytest.mark.parametrize(("source", "target"), CONVERSIONS)
def test_conversions(source, target, architecture, tmp_path):
    pair = [BFLOAT16 if name == "bfloat16" else np.dtype(name) for name in (source, target)]
    kernel = conversion.convert_elements.of(conversion.Conversion(*pair))
    code = machine_code(kernel, word_of(pair[1]), architecture, tmp_path)
    assert code.registers <= 64
    assert code.stack == code.spills == code.shared == 0
    if "float" not in source:
        assert code.count("FADD", "FMUL", "F2F", "DADD", "DMUL") == 0


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids="sm_{0[0]}{0[1]}".format)
@pytest.mark.parametrize(
    ("kernel", "source", "target"),
    [
        (conversion.spread_filters, "float32", "float32"),
        (conversion.spread_filters, "float32", "float64"),
        (conversion.gather_filters, "float32", "float32"),
        (conversion.gather_filters, "float64", "float32"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_filters_in_parts(kernel, source, target, architecture, tmp_path):
    pair = conversion.Conversion(np.dtype(source), np.dtype(target))
    code = machine_code(kernel.of(pair), pair.target, architecture, tmp_path)
    assert code.registers <= 96
    assert code.stack == code.spills == code.shared == 0
    if "float64" not in pair:
        assert code.count("DADD", "DMUL", "DFMA") == 0


# How tiles are multiplied; registers, with 128 of which a multiprocessor of 65536 has two blocks of
# 256 threads, with more one; instructions in a step of 8 products to a sum.
TILED = {
    "gemm": (gemm.multiply_filters, simt.PRODUCT, 128, 730),
    "gemm tf32": (gemm.multiply_filters, tensor.TF32, 128, 165),
    "gemm 3xtf32": (gemm.multiply_filters, tensor.TF32_THRICE, 160, 360),
    "gemm_weight": (gemm_weight.multiply_pixels, simt.PRODUCT, 128, 800),
    "gemm_weight tf32": (gemm_weight.multiply_pixels, tensor.TF32, 144, 250),
    "gemm_weight 3xtf32": (gemm_weight.multiply_pixels, tensor.TF32_THRICE, 168, 430),
}


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids="sm_{0[0]}{0[1]}".format)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("name", TILED)
def test_tiles(name, dtype, architecture, tmp_path):
    kernel, product, registers, instructions = TILED[name]
    code = machine_code(kernel.of(product), np.dtype(dtype), architecture, tmp_path)
    assert code.registers <= registers
    assert code.stack == code.spills == 0
    assert code.shared <= 48 * 1024
    assert code.count("DADD", "DMUL", "DFMA") == 0
    if product is simt.PRODUCT:
        # Two products at a time; around them, the next tile is fetched. In gemm_weight, 68
        # instructions of the step begin a new line of pixels: without them it is 0.7 as well.
        loop = code.nested_loop(repeats=DEPTH // 2)
        products = sum(n for name, n in loop.items() if name.startswith("FFMA"))
        assert products == DEPTH * 64
        assert products >= (0.7 if kernel is gemm.multiply_filters else 0.64) * loop.total()
        assert code.count("LDS.128") >= 4
    else:
        loop = code.longest_loop()
        assert loop["HMMA.1688.F32.TF32"] == (48 if product is tensor.TF32_THRICE else 16)
        assert loop["LDS.128"] == 6
    assert loop.total() <= instructions
    if kernel is gemm.multiply_filters:
        assert code.count("LDG.E.128") >= 1


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids="sm_{0[0]}{0[1]}".format)
@pytest.mark.parametrize(
    "kernel",
    [gemm.pack_filters.of(simt.PRODUCT), gemm.pack_filters.of(tensor.TF32), shares.add_shares],
    ids=lambda kernel: kernel.name,
)
def test_helpers(kernel, architecture, tmp_path):
    code = machine_code(kernel, np.dtype("float32"), architecture, tmp_path)
    assert code.registers <= 64
    assert code.stack == code.spills == code.shared == 0
    assert code.count("DADD", "DMUL", "DFMA") == 0
