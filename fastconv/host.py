"""What the kernels need to know of this processor: vector width, registers, caches."""

import platform
from pathlib import Path
from typing import Any

import numpy as np
from numba.core.registry import cpu_target

KIB = 1024
LINE = 64  # bytes of a cache line, and of the widest vector

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")  # on Linux


def _codegen() -> Any:
    """What Numba compiles with, which knows the processor or what the environment says of it."""
    return cpu_target.target_context.codegen()


def _features() -> str:
    """LLVM's feature string, the one Numba compiles for (``NUMBA_CPU_FEATURES`` included)."""
    return str(_codegen()._tm_features)


def _vector_bits(features: str) -> int:
    if "+avx512f" in features:
        return 512
    if "+avx" in features:
        return 256
    return 128  # SSE2 and NEON, which every x86-64 and every 64-bit ARM has


def _cache_bytes(level: int, default: int, folder: Path = CACHES) -> int:
    """Size of a data cache of the first core, or ``default`` where the system does not say."""
    for cache in sorted(folder.glob("index*")):
        try:
            facts = {name: (cache / name).read_text().strip() for name in ("level", "type", "size")}
        except OSError:
            continue
        size = facts["size"].removesuffix("K")
        if facts["level"] == str(level) and facts["type"] != "Instruction" and size.isdigit():
            return int(size) * KIB
    return default


VECTOR_BITS = _vector_bits(_features())

# Whether such vectors pass through the processor in two halves, so that a core multiplies and adds
# one in a cycle and not two.
VECTOR_HALVES = VECTOR_BITS == 512 and _codegen()._get_host_cpu_name() == "znver4"
VECTOR_REGISTERS = 32 if VECTOR_BITS == 512 or platform.machine() in ("aarch64", "arm64") else 16
# Of the second-level cache, the half that blocks may fill: the other half is for what passes
# through it, or for a second thread of the core. With all of 1 MiB, 3x3 layers of 56x56 pixels took
# 0.92 of the time, those of 224x224 pixels 1.10. The defaults are sizes that nearly all have.
L1_BYTES = _cache_bytes(1, 32 * KIB)
L2_BYTES = _cache_bytes(2, 1024 * KIB) // 2
# Of the third level no more than this: a virtual machine is told of all the cache of a processor,
# 300 MiB, where its 2 cores have others for neighbours. Results of 16 to 77 MB written past that
# cache (``cpu/far.py``) took 0.25 to 0.95 of the time there, though it would hold them.
MOST_L3_BYTES = 32 * 1024 * KIB
L3_BYTES = min(_cache_bytes(3, MOST_L3_BYTES), MOST_L3_BYTES)


def lanes_of(dtype: np.dtype[Any]) -> int:
    """Numbers in a vector."""
    return VECTOR_BITS // 8 // dtype.itemsize
