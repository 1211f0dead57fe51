"""What the processor can do, measured, and what runs on it."""

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numba
import numpy as np

from ..host import VECTOR_BITS
from . import kernels

PACKAGES = ("fastconv", "numpy", "numba", "llvmlite")

# About a millisecond.
FMA_STEPS = 200_000

# Long enough for a moment in which no other program runs: only the fastest call counts.
MEASURE_SECONDS = 1.5

# Each of the three arrays far larger than any cache that two cores get a share of.
STREAM_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Machine:
    """A processor and its software.

    Attributes
    ----------
    peak : float
        Floating-point operations a second of vector multiply-adds on all threads, float32.
    bandwidth : float
        Bytes a second of STREAM's triad or copy, whichever is better, on all threads.
    """

    cpu: str
    cores: int
    threads: int
    vector_bits: int
    peak: float
    bandwidth: float
    threading_layer: str
    system: str
    date: str
    versions: dict[str, str]

    def roofline(self, flops: float, bytes_moved: float, peak: float = 0.0) -> float:
        """Seconds that arithmetic or memory, whichever is slower, needs at least.

        ``peak`` is what was measured beside, if it was, for the pace of a processor changes.
        """
        return max(flops / (peak or self.peak), bytes_moved / self.bandwidth)

    def is_bound_by_memory(self, flops: float, bytes_moved: float, peak: float = 0.0) -> bool:
        """Whether memory is the slower one."""
        return bytes_moved / self.bandwidth > flops / (peak or self.peak)

    def measured_again(self) -> "Machine":
        """With what is better of both measurements: another program can only have slowed one."""
        peak = max(self.peak, measure_peak(self.threads))
        return replace(self, peak=peak, bandwidth=max(self.bandwidth, measure_bandwidth()))


def _fastest(call: Any, *arguments: Any) -> float:
    """Seconds of the fastest of many calls, after one that compiles."""
    call(*arguments)
    best = np.inf
    end = time.perf_counter() + MEASURE_SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        call(*arguments)
        best = min(best, time.perf_counter() - start)
    return best


def multiply_adds(threads: int) -> tuple[Callable[[], None], float]:
    """A call that does nothing but float32 multiply-adds in registers, and its operations."""
    out = np.zeros(threads * kernels.CHAINS * VECTOR_BITS // 32, np.float32)
    factor = np.full(1, 0.5, np.float32)
    call = partial(kernels.multiply_adds, factor, FMA_STEPS, threads, out)
    return call, 2.0 * FMA_STEPS * out.size


def measure_peak(threads: int) -> float:
    """Floating-point operations a second of vector multiply-adds in registers, float32."""
    call, operations = multiply_adds(threads)
    return operations / _fastest(call)


def measure_bandwidth() -> float:
    """Bytes a second of the better of copy and triad, counted as STREAM does.

    A cache line that is read because a part of it is written does not count.
    """
    a, b, c = (np.ones(STREAM_BYTES // 4, np.float32) for _ in range(3))
    return max(
        3 * a.nbytes / _fastest(kernels.triad, a, b, c),
        2 * a.nbytes / _fastest(kernels.copy, a, b),
    )


def cpu_name() -> str:
    """The processor as the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of Python and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # among them: this one, run from its sources
            continue
    return found


def measure(packages: tuple[str, ...] = ()) -> Machine:
    """Measure this machine with Numba's present number of threads."""
    threads = numba.get_num_threads()
    peak, bandwidth = measure_peak(threads), measure_bandwidth()
    return Machine(
        cpu=cpu_name(),
        cores=usable_cores(),
        threads=threads,
        vector_bits=VECTOR_BITS,
        peak=peak,
        bandwidth=bandwidth,
        threading_layer=numba.threading_layer(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        date=date.today().isoformat(),
        versions=versions(PACKAGES + packages),
    )
