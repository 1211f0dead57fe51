"""Settings read from the environment: the only place where the package looks at it.

=======================  ===========================================================
``FASTCONV_CACHE``       ``0`` keeps compiled kernels in memory only
``FASTCONV_CACHE_DIR``   where compiled kernels are kept; by default a per-user cache
                         directory
=======================  ===========================================================

Numba's own settings hold as well: ``NUMBA_NUM_THREADS``, ``NUMBA_THREADING_LAYER``,
``NUMBA_DISABLE_JIT`` (steps through ``algorithm="reference"`` in a debugger), and
``NUMBA_CPU_NAME`` with ``NUMBA_CPU_FEATURES``, from which the vector width is taken.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def caching_enabled() -> bool:
    """Whether compiled kernels are written to and read from disk."""
    return os.environ.get("FASTCONV_CACHE", "1") != "0"


def cache_root() -> Path:
    """Directory under which every version of the package keeps its compiled kernels."""
    chosen = os.environ.get("FASTCONV_CACHE_DIR")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", "~/AppData/Local"))
    elif sys.platform == "darwin":
        base = Path("~/Library/Caches")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
    return base.expanduser() / "fastconv"


@contextmanager
def brief_spinning() -> Iterator[None]:
    """Have an OpenMP library that is loaded meanwhile put idle threads to sleep soon.

    GNU's spins for milliseconds after every parallel loop, on cores that other libraries and
    processes want: on 2 cores, a matrix product and a small convolution in turn took 11 ms a pair,
    and take 0.25 ms with 1000 turns. A choice of the user's own is left alone.
    """
    chosen = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ)
    if not chosen:
        os.environ["GOMP_SPINCOUNT"] = "1000"
    try:
        yield
    finally:
        if not chosen:
            os.environ.pop("GOMP_SPINCOUNT", None)  # another thread may have been here, too
