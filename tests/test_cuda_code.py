"""What the CUDA kernels compile to, without a device: nothing spilled, no double precision."""

import numpy as np
import pytest

pytest.importorskip("numba_cuda")
from fastconv.cuda import gemm, gemm_weight, reference

from .machine_code import machine_code

ARCHITECTURES = [(8, 0), (9, 0)]
REFERENCE = [
    reference.forward,
    reference.grad_input,
    reference.grad_weight,
    reference.grad_bias,
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
@pytest.mark.parametrize(
    ("kernel", "registers"),
    # Two blocks to a multiprocessor of 65536 registers; in 128, grad_weight would spill.
    [(gemm.multiply_filters, 128), (gemm_weight.multiply_pixels, 160)],
    ids=["gemm", "gemm_weight"],
)
def test_tiles(kernel, registers, architecture, tmp_path):
    code = machine_code(kernel, np.dtype("float32"), architecture, tmp_path)
    assert code.registers <= registers
    assert code.stack == code.spills == 0
    assert code.shared <= 48 * 1024
    assert code.count("DADD", "DMUL", "DFMA") == 0
    loop = code.longest_loop()
    products = sum(n for name, n in loop.items() if name.startswith("FFMA"))
    assert products >= 0.8 * loop.total()
    assert code.count("LDS.128") >= 4
    if kernel is gemm.multiply_filters:
        assert code.count("LDG.E.128") >= 1


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids="sm_{0[0]}{0[1]}".format)
@pytest.mark.parametrize(
    "kernel", [gemm.pack_filters, gemm_weight.add_shares], ids=lambda kernel: kernel.name
)
def test_helpers(kernel, architecture, tmp_path):
    code = machine_code(kernel, np.dtype("float32"), architecture, tmp_path)
    assert code.registers <= 64
    assert code.stack == code.spills == code.shared == 0
    assert code.count("DADD", "DMUL", "DFMA") == 0
