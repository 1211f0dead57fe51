"""What the kernels need to know of this processor: vector width, registers, caches."""

import os
import platform

from numba.core.registry import cpu_target

KIB = 1024


def _features() -> str:
    """LLVM's feature string, the one Numba compiles for (``NUMBA_CPU_FEATURES`` included)."""
    return str(cpu_target.target_context.codegen()._tm_features)


def _vector_bits(features: str) -> int:
    if "+avx512f" in features:
        return 512
    if "+avx" in features:
        return 256
    return 128  # SSE2 and NEON, which every x86-64 and every 64-bit ARM has


def _cache_bytes(level: str, default: int) -> int:
    """Size of a data cache, or a size nearly every machine has where the system does not say."""
    try:
        return os.sysconf(f"SC_LEVEL{level}_SIZE") or default
    except (AttributeError, OSError, ValueError):
        return default


VECTOR_BITS = _vector_bits(_features())
VECTOR_REGISTERS = 32 if VECTOR_BITS == 512 or platform.machine() in ("aarch64", "arm64") else 16
L1_BYTES = _cache_bytes("1_DCACHE", 32 * KIB)
L2_BYTES = _cache_bytes("2_CACHE", 512 * KIB)
