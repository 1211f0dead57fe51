"""Compiled code that is kept on disk between processes, whatever happens to the files.

Numba's own cache sits beside the sources, breaks the import where it finds no place to write, fails
for ever on a damaged file, and returns the old code after an edit in a file that the cached
function calls into. Here it sits in a per-user directory named after a digest of all the sources,
and what cannot be read or written costs the caching, nothing else. Processes that start together
compile each function once: the first one that misses it locks the directory, the others wait.
"""

import functools
import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import njit, types
from numba.core.caching import CompileResultCacheImpl, FunctionCache

from .config import cache_root, caching_enabled
from .forks import preparing
from .host import L1_BYTES

try:
    import fcntl
except ImportError:  # Windows: processes that start together may compile the same
    fcntl = None  # type: ignore[assignment]

PATIENCE = 120.0  # seconds that a process waits for another to compile a function
KEPT = 30 * 86400.0  # seconds for which kernels of other sources are kept, in case they come back


@functools.cache
def _source_key() -> str:
    """Digest of all that cached code comes from, but for the kind of processor, which Numba asks.

    That is Numba's version, what the kernels are made of, and the cache whose size ``cpu/tile.py``
    reads.
    """
    digest = hashlib.sha256(f"{numba.__version__} {L1_BYTES}".encode())
    package = Path(__file__).parent
    for source in sorted(
        [package / "reference.py", package / "host.py", *package.glob("cpu/*.py")]
    ):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def cache_directory() -> Path:
    """Where the compiled kernels of these sources are kept."""
    return cache_root() / _source_key()


@functools.cache
def _clear_out(directory: Path) -> None:
    """Remove the kernels of other sources in which nothing was compiled for ``KEPT`` seconds."""
    for other in directory.parent.glob("[0-9a-f]" * len(directory.name)):
        with suppress(OSError):
            ours = all(_is_kept(file) for file in other.iterdir())
            if ours and other != directory and time.time() - other.stat().st_mtime > KEPT:
                shutil.rmtree(other, ignore_errors=True)


def _is_kept(file: Path) -> bool:
    return file.name == "lock" or file.suffix in (".nbi", ".nbc")


class _Locator:
    """Tells Numba where a function's compiled code is kept and when it is out of date."""

    def __init__(self, py_func: Callable[..., Any], py_file: str) -> None:
        self._py_file = py_file  # read by Numba for its warnings
        self._directory = cache_directory()

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> "_Locator":
        return cls(py_func, py_file)

    def get_cache_path(self) -> str:
        return str(self._directory)

    def ensure_cache_path(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        _clear_out(self._directory)

    def get_source_stamp(self) -> str:
        return _source_key()

    def get_disambiguator(self) -> str:
        return ""


class _CacheImpl(CompileResultCacheImpl):
    _locator_classes = (_Locator,)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the directory's lock, or do without where that cannot be had in ``PATIENCE`` seconds.

    The system lets go of it when its owner ends, however that happens. A child that is forked
    meanwhile has it too, as an open file: it must be given back, closing it is not enough.
    """
    with ExitStack() as stack:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context((directory / "lock").open("wb"))
        except OSError:  # a directory that cannot be written keeps nothing to wait for
            yield
            return
        deadline = time.monotonic() + PATIENCE
        while fcntl is not None and time.monotonic() < deadline:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.02)
            except OSError:  # a file system without locks
                break
        try:
            yield
        finally:
            if fcntl is not None:
                with suppress(OSError):  # of a file system without locks
                    fcntl.flock(file, fcntl.LOCK_UN)


class _Cache(FunctionCache):
    """A cache that may lose its files, never a call: what cannot be read is compiled anew."""

    _impl_class = _CacheImpl

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        found = self._load(sig, target_context)
        if found is None:
            self.building.enter_context(_locked(Path(self.cache_path)))
            found = self._load(sig, target_context)  # what another process compiled meanwhile
        return found

    def _load(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # a damaged file can raise anything at all while it is unpickled
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError:
            pass  # a directory that cannot be written costs the caching, nothing else
        except Exception:  # a damaged index: replace it
            try:
                self.flush()
                super().save_overload(sig, data)
            except OSError:
                pass


class PerDtype:
    """A function compiled for a dtype when that is first used, once and for good.

    Parameters
    ----------
    function : callable
        What ``numba.njit`` compiles.
    signature : callable
        Numba signature for a scalar type. Being explicit, it serves writeable and read-only arrays
        alike, which Numba would otherwise compile for separately.
    **options
        Of ``numba.njit``.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        signature: Callable[[types.Type], Any],
        **options: Any,
    ) -> None:
        self.__doc__ = function.__doc__
        self._function = function
        self._signature = signature
        self._options = options
        self._compiled: dict[np.dtype[Any], Any] = {}
        self._callable: dict[np.dtype[Any], Callable[..., Any]] = {}

    def __getitem__(self, dtype: np.dtype[Any]) -> Callable[..., Any]:
        """The function for arrays of ``dtype``; plain Python under ``NUMBA_DISABLE_JIT``.

        It takes arguments for what the signature says: nothing else looks at their types, for which
        Numba would take a third of the call.
        """
        return self._callable.get(dtype) or self._prepare(dtype)

    def _prepare(self, dtype: np.dtype[Any]) -> Callable[..., Any]:
        if numba.config.DISABLE_JIT:
            return self._callable.setdefault(dtype, self._function)
        (compiled,) = self._overloads(dtype)
        return self._callable.setdefault(dtype, compiled.entry_point)

    def _overloads(self, dtype: np.dtype[Any]) -> Any:
        # Plans keep addresses of compiled code: there must never be a second copy of it, for which
        # the first is thrown away.
        with preparing:
            if dtype not in self._compiled:
                self._compiled[dtype] = self._compile(dtype)
        return self._compiled[dtype].overloads.values()

    def _compile(self, dtype: np.dtype[Any]) -> Any:
        dispatcher = njit(**self._options)(self._function)
        with ExitStack() as building:
            if caching_enabled():
                dispatcher._cache = _Cache(self._function)
                dispatcher._cache.building = building  # what a cache that misses keeps locked
            dispatcher.compile(self._signature(numba.from_dtype(dtype)))
        dispatcher.disable_compile()
        return dispatcher

    def address(self, dtype: np.dtype[Any]) -> int:
        """Machine address of the function for ``dtype``."""
        (compiled,) = self._overloads(dtype)
        return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name))
