"""What the CUDA kernels compile to, without a device: nothing spilled, no double precision."""

import numpy as np
import pytest

pytest.importorskip("numba_cuda")
from fastconv.cuda import reference

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
