"""Convolve images larger than memory may be, in chunks, on threads and on worker processes.

    python -m bench.dask_large --gigabytes 3.2 --limit 1.5 --workers -1 0 1 2

Images are drawn chunk by chunk, the same for the same seed, and nowhere kept as a whole. 0 workers
are the threads of one process, 1 and more are processes of one thread each, and -1 stands for calls
on an image that fits. Each of these runs in a process of its own. The system refuses all workers
together more memory than the limit (``RLIMIT_DATA``). Throughput counts the operations of the
definition, and leaves out the time in which images are drawn, but not that in which results are
added up.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from math import isqrt
from typing import Any

import dask
import dask.array as da
import numpy as np
from distributed import Client, LocalCluster

import fastconv

GB = 10**9
PADDING = {"padding": 1}

# Dask has its workers give back free memory beyond 64 KiB at once, so that every array of the size
# of a chunk is paged in anew. This keeps up to 1 GiB, of arrays of up to 32 MiB each.
ENVIRONMENT = "distributed.nanny.pre-spawn-environ"
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": 2**30, "MALLOC_MMAP_THRESHOLD_": 2**25}


def images(arguments: argparse.Namespace) -> Any:
    """One image (1, C, H, W) of float32, as high as it is wide and a whole number of chunks."""
    pixels = arguments.gigabytes * GB / 4 / arguments.channels
    side = -(-isqrt(int(pixels)) // arguments.chunk[0]) * arguments.chunk[0]
    shape = 1, arguments.channels, side, side
    chunks = 1, arguments.channels, *arguments.chunk
    rng = da.random.default_rng(arguments.seed)
    return rng.random(shape, dtype=np.float32, chunks=chunks) - np.float32(0.5)


def filters(arguments: argparse.Namespace) -> Any:
    shape = arguments.channels, arguments.channels, 3, 3
    return np.random.default_rng(arguments.seed).standard_normal(shape).astype(np.float32)


def best_of(repeats: int, call: Callable[[], object]) -> float:
    """Seconds of the fastest one: other programs only ever add."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def check(x: Any, w: Any, y: Any) -> None:
    """See that pixels where chunks meet are those of a call without chunks."""
    middle = [min(sizes[0], sum(sizes) // 2) for sizes in x.chunks[2:]]
    inside = tuple(slice(pixel - 9, pixel + 7) for pixel in middle)
    around = tuple(slice(pixel - 10, pixel + 8) for pixel in middle)
    exact = fastconv.conv2d(x[..., *around].compute(), w)
    got = y[..., *inside].compute()
    if not np.allclose(got, exact, rtol=0, atol=1e-4 * np.abs(exact).max()):
        raise RuntimeError("results differ from those of a call without chunks")


def set_limit(gigabytes: float) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (int(gigabytes * GB),) * 2)


def peak_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GB


def in_chunks(arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds, memory, and operations a second for one number of workers."""
    workers = arguments.only
    x, w = images(arguments), filters(arguments)
    y = fastconv.conv2d(x, w, **PADDING)
    dw = fastconv.conv2d_grad_weight(y, x, w.shape, **PADDING)
    with ExitStack() as stack:
        if workers:
            share = arguments.limit / workers
            options = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
            if arguments.keep_memory:
                kept = {**dask.config.get(ENVIRONMENT), **KEEP_MEMORY}
                stack.enter_context(dask.config.set({ENVIRONMENT: kept}))
            cluster = LocalCluster(**options, memory_limit=int(share * GB))
            client = stack.enter_context(Client(stack.enter_context(cluster)))
            client.run(set_limit, share)
        else:
            set_limit(arguments.limit)
            stack.enter_context(dask.config.set(scheduler="threads"))
        check(x, w, y)
        # Kernels are compiled, or loaded, before times are taken.
        corner = (..., *[slice(2 * pixels) for pixels in x.chunksize[2:]])
        fastconv.conv2d_grad_weight(y[corner], x[corner], w.shape, **PADDING).compute()
        drawn, forward, both = (
            best_of(arguments.repeats, array.compute) for array in (x.sum(), y.sum(), dw)
        )
        peak = sum(client.run(peak_memory).values()) if workers else peak_memory()
    work = operations(x, arguments) / GB
    return {
        "workers": workers,
        "images GB": x.nbytes / GB,
        "blocks": y.npartitions,
        "drawn s": drawn,
        "forward s": forward,
        "both s": both,
        "forward GF/s": work / (forward - drawn),
        "grad_weight GF/s": work / (both - forward),
        "peak GB": peak,
    }


def eager(arguments: argparse.Namespace) -> dict[str, float]:
    """Operations a second of calls without chunks, the best of six, on all threads."""
    small = argparse.Namespace(**{**vars(arguments), "gigabytes": arguments.limit / 8})
    x, w = images(small).compute(), filters(arguments)
    y = fastconv.conv2d(x, w, **PADDING)
    calls = {
        "forward GF/s": lambda: fastconv.conv2d(x, w, **PADDING),
        "grad_weight GF/s": lambda: fastconv.conv2d_grad_weight(y, x, w.shape, **PADDING),
    }
    work = operations(x, arguments) / GB
    rates = {name: work / best_of(6, call) for name, call in calls.items()}
    return {"images GB": x.nbytes / GB, **rates, "peak GB": peak_memory()}


def operations(x: Any, arguments: argparse.Namespace) -> int:
    return int(2 * x.size * arguments.channels * 9)


def alone(*changes: str) -> dict[str, float]:
    """What one measurement gives, in a process of its own."""
    command = [sys.executable, "-m", "bench.dask_large", *sys.argv[1:], *changes]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


COLUMNS = (
    "images GB",
    "blocks",
    "drawn s",
    "forward s",
    "both s",
    "forward GF/s",
    "grad_weight GF/s",
    "peak GB",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--gigabytes", type=float, default=3.2, help="of images")
    add("--limit", type=float, default=1.5, help="gigabytes of memory of all processes together")
    add("--channels", type=int, default=64, help="and filters, of 3x3 taps")
    add("--chunk", type=int, nargs=2, default=[256, 256], help="pixels; -1: all along that axis")
    add("--workers", type=int, nargs="+", default=[-1, 0, 1, 2], metavar="N", help="see above")
    add("--keep-memory", action="store_true", help="have workers keep freed memory")
    add("--repeats", type=int, default=2, help="of which the fastest counts")
    add("--seed", type=int, default=0)
    add("--only", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only is not None:
        measured = eager(arguments) if arguments.only < 0 else in_chunks(arguments)
        print(json.dumps(measured))
        return
    print(f"| | {' | '.join(COLUMNS)} |")
    print("|---|" + "--:|" * len(COLUMNS))
    for workers in arguments.workers:
        name = {-1: "no chunks", 0: "threads", 1: "1 worker"}.get(workers, f"{workers} workers")
        measured = alone("--only", str(workers))
        cells = [f"{measured[column]:.3g}" if column in measured else "" for column in COLUMNS]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
