"""Throughput of several processes that compute at the same time, for numbers of threads each.

    python -m bench.processes --processes 1 2 4 8 --threads 1 2

Calls a second of all processes together: forward and both gradients of a layer of ResNet-50, one
image. ``NUMBA_NUM_THREADS`` sets the threads of a spawned process; a forked one has one thread.
"""

import argparse
import os
import time
from multiprocessing import get_context
from typing import Any

import numpy as np

SHAPES = (1, 64, 56, 56), (64, 64, 3, 3)


def _work(ready: Any, seconds: float, done: Any) -> None:
    import fastconv  # here, after the number of threads was set

    x, w = (np.ones(shape, np.float32) for shape in SHAPES)

    def step() -> None:
        y = fastconv.conv2d(x, w, padding=1)
        fastconv.conv2d_backward(y, x, w, padding=1)

    step()
    ready.wait()
    calls, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        step()
        calls += 1
    done.put(calls / seconds)


def throughput(processes: int, threads: int, seconds: float) -> float:
    """Calls a second of ``processes`` spawned processes of ``threads`` threads."""
    os.environ["NUMBA_NUM_THREADS"] = str(threads)  # spawned processes inherit it
    context = get_context("spawn")
    ready, done = context.Barrier(processes), context.Queue()
    workers = [context.Process(target=_work, args=(ready, seconds, done)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    total = sum(done.get() for _ in workers)
    for worker in workers:
        worker.join()
    return float(total)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    print("| processes | " + " | ".join(f"{n} threads each" for n in arguments.threads) + " |")
    print("|--:|" + "--:|" * len(arguments.threads))
    for processes in arguments.processes:
        rates = [throughput(processes, n, arguments.seconds) for n in arguments.threads]
        print(f"| {processes} | " + " | ".join(f"{rate:.0f}" for rate in rates) + " |", flush=True)


if __name__ == "__main__":
    main()
