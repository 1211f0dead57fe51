"""The threads that run parallel loops: who may use them, and when.

Numba has three libraries for them ("threading layers"). With its own, "workqueue", a process dies
when two Python threads run parallel loops at the same time. With OpenMP, a forked process dies at
its first parallel loop, and a pool of such processes waits for ever. So here

- jobs that run in parallel take turns, whatever the library: a job has all threads for itself,
  and the next one waits. Small jobs, which run on the thread that calls, wait for nobody;
- a process forked from one that has this module loaded computes on one thread. That is also what
  several of them on the same cores want;
- whoever runs several calls at a time on threads of their own, as Dask does, has each computed by
  the thread that calls (``calling_thread``): it needs no turn and wakes nobody.
"""

import functools
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import numba

from ..config import brief_spinning

_turn = threading.Lock()
_forked = False


class _Caller(threading.local):
    alone = False


_caller = _Caller()


def turn() -> AbstractContextManager[bool]:
    """A context in which no other thread runs a parallel loop of ours."""
    return _turn


@contextmanager
def calling_thread() -> Iterator[None]:
    """A context in which calls made by this thread are computed by this thread alone."""
    before, _caller.alone = _caller.alone, True
    try:
        yield
    finally:
        _caller.alone = before


def threads() -> int:
    """Threads that a large call uses: Numba's setting (``numba.set_num_threads``)."""
    if _forked or _caller.alone:
        return 1
    _launch_threads()
    return int(numba.get_num_threads())


@functools.cache
def _launch_threads() -> None:
    with brief_spinning():
        numba.get_num_threads()  # loads the threading layer


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
