"""The command ``fastconv info``: what there is, for a report of a fault."""

import argparse
import platform
from typing import TYPE_CHECKING

import numba

from . import __version__
from .caching import cache_directory
from .config import caching_enabled
from .dispatch import cuda_backend
from .host import L1_BYTES, L2_BYTES, VECTOR_BITS, VECTOR_REGISTERS

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

PACKAGES = ("numpy", "numba", "llvmlite", "numba-cuda", "cupy", "torch", "ml_dtypes", "tbb")


def add_parser(commands: "Commands") -> None:
    """Add ``info`` to the command line."""
    parser = commands.add_parser(
        "info",
        help="print versions, the processor, threads, cache and device",
        description="Print what a report of a fault should say of the machine.",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print it, a line each."""
    for name, value in _facts().items():
        print(f"{name:<18}{value}")
    return 0


def _facts() -> dict[str, str]:
    from .bench.machine import versions
    from .cpu import team

    threads = team.threads()
    facts = {"fastconv": __version__, **versions(PACKAGES)}
    facts["system"] = f"{platform.system()} {platform.release()} {platform.machine()}"
    facts["vectors"] = f"{VECTOR_BITS} bits, {VECTOR_REGISTERS} registers"
    facts["blocks fill"] = f"{L1_BYTES // 1024} KiB and {L2_BYTES // 1024} KiB of cache"
    facts["threads"] = f"{threads} ({numba.threading_layer()})"
    facts["compiled kernels"] = _cache()
    facts["CUDA device"] = _device()
    return facts


def _cache() -> str:
    if not caching_enabled():
        return "kept in memory only: FASTCONV_CACHE=0"
    files = [file for file in cache_directory().glob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    return f"{size / 1e6:.1f} MB in {cache_directory()}"


def _device() -> str:
    try:
        name, capability = cuda_backend().device()
    except ModuleNotFoundError:
        return "none: numba-cuda is not installed"
    except RuntimeError:
        return "none answers"
    return f"{name}, compute capability {capability}"
