"""The micro-kernel as machine code, made for processors that need not be this one."""

import platform
import re

import pytest

from .child import python
from .machine_code import find_loops, innermost

AVX2 = "+sse4.2,+ssse3,+popcnt,+movbe,+lzcnt,+f16c,+bmi,+bmi2,+fma,+avx,+avx2"
AVX512 = f"{AVX2},+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl"

PROGRAM = """
import sys
from numba import njit, types
from fastconv.cpu.tile import ROWS_OF, accumulate

numbers = types.CPointer(getattr(types, sys.argv[1]))
integers, number, flag = types.CPointer(types.int64), types.intp, types.boolean
sources = numbers, integers, *4 * (number,), numbers, number
signature = types.void(*sources, numbers, numbers, number, flag, flag, number)

@njit(signature, error_model="numpy")
def call(x, table, rows, count, steps, depth, panel, pitch, across, out, to, add, relu, cols):
    accumulate(
        x, table, rows, count, steps, depth, panel, pitch, None, across, out, to, add, relu, cols
    )

asking = types.void(*signature.args, numbers, number, number)

@njit(asking, error_model="numpy")
def ask(
    x, table, rows, count, steps, depth, panel, pitch, across, out, to, add, relu, cols,
    place, ahead, lines
):
    factors = x, table, rows, count, steps, depth, panel, pitch
    asked = place, ahead, lines
    accumulate(*factors, None, across, out, to, add, relu, cols, False, asked)

print(*(2 * rows * cols for cols, rows in ROWS_OF.items()))
for function in (call, ask):
    print("listing", *function.inspect_asm().values())
"""

LABEL = re.compile(r"^(\.LBB\w+):", re.MULTILINE)
JUMP = re.compile(r"^\s+j\w+\s+(\.LBB\w+)", re.MULTILINE)
ON_STACK = re.compile(r"\(%rsp\).*%[xyz]mm|%[xyz]mm.*\(%rsp\)")


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="other machine code")
@pytest.mark.parametrize(
    ("processor", "features", "dtype"),
    [
        ("haswell", AVX2, "float32"),
        ("alderlake", AVX2, "float64"),
        ("znver3", AVX2, "float32"),
        ("skylake-avx512", AVX512, "float64"),
        ("sapphirerapids", AVX512, "float32"),
        ("znver4", AVX512, "float32"),
    ],
)
def test_tiles_stay_in_registers(processor, features, dtype):
    """Two steps in a loop went to the stack and back with 16 registers: 1.7 times the time.

    So they did with 32, where a line was asked for before them and not between: 2.5 times.
    """
    numbers, *listings = python(
        "-c", PROGRAM, dtype, NUMBA_CPU_NAME=processor, NUMBA_CPU_FEATURES=features
    ).split("\nlisting")
    tiles = sorted(map(int, numbers.split()))
    assert tiles == ([12, 24, 36, 48] if features == AVX512 else [12, 24, 24])
    assert len(listings) == 2
    for listing, asks in zip(listings, (0, 1), strict=True):
        loops = [listing[slice(*loop)] for loop in innermost(find_loops(listing, LABEL, JUMP))]
        loops = [loop for loop in loops if "vfmadd" in loop]
        copies = len(loops) // len(tiles)  # one more where LLVM pastes the micro-kernel
        assert sorted(loop.count("vfmadd") for loop in loops) == sorted(copies * tiles)
        for loop in loops:
            assert not ON_STACK.search(loop), loop
            assert loop.count("prefetch") == asks
