"""The network of ``fastconv demo``, trained by several processes: data-parallel, over MPI.

    pip install "fastconv[demo,mpi]"
    mpiexec -n 2 python examples/train_mpi.py

Every rank has the whole network and takes its share of each batch. The gradient of a batch is the
sum of its images' gradients, so ranks add theirs up, and all take the same step: the weights stay
the same on all, bit by bit. They are those of one rank but for the rounding of sums. Adam's first
steps magnify that where a gradient is zero but for rounding: losses are 1e-16 apart in float64, and
3e-5 to 1e-2 in the first epoch in float32. All that is random is drawn by every rank for the whole
batch, from the same seed.
"""

import argparse
import hashlib
import math
import os
import sys
import traceback
from dataclasses import dataclass
from time import perf_counter, sleep

import numba
import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from fastconv.demo import data
from fastconv.demo.network import Dropout, Network, digit_network
from fastconv.demo.training import Adam, cross_entropy, predict
from fastconv.distributed import allreduce_gradients


@dataclass(frozen=True)
class Share:
    """The images of a batch that a rank takes."""

    batch: int
    images: slice

    @property
    def part(self) -> float:
        return (self.images.stop - self.images.start) / self.batch


def share_of(batch: int, comm: MPI.Comm) -> Share:
    """Equal shares, or nearly."""
    first, last = (batch * rank // comm.size for rank in (comm.rank, comm.rank + 1))
    return Share(batch, slice(first, last))


class SharedDropout(Dropout):
    """Draws for the whole batch on every rank, so that the ranks' shares fit together."""

    share: Share

    def forward(self, x: NDArray) -> NDArray:
        if not self.training:
            return x
        drawn = self.rng.integers(0, 2, (self.share.batch, *x.shape[1:]))
        self.factors = 2 * drawn[self.share.images].astype(x.dtype)
        return x * self.factors


def train(comm: MPI.Comm, arguments: argparse.Namespace) -> None:
    """The loop of ``fastconv.demo.training``, with batches shared out and gradients added up."""
    digits = data.load("digits", arguments.seed)
    rng = np.random.default_rng(arguments.seed)
    network = digit_network(digits.size, rng, dtype=arguments.dtype)
    dropout = network.layers["dropout"] = SharedDropout(rng)
    images, labels = digits.train_images.astype(arguments.dtype), digits.train_labels
    adam = Adam(network)
    batches = math.ceil(len(images) / arguments.batch_size)
    steps = arguments.epochs * batches
    start = perf_counter()
    for epoch in range(arguments.epochs):
        order = rng.permutation(len(images))
        losses = np.zeros(batches)
        network.train(True)
        for i in range(batches):
            batch = order[i * arguments.batch_size :][: arguments.batch_size]
            dropout.share = share_of(len(batch), comm)
            taken = batch[dropout.share.images]
            scores = network.forward(images[taken])
            # Means over the share: its part of the batch makes them terms of means over the batch.
            loss, gradient = cross_entropy(scores, labels[taken]) if len(taken) else (0, scores)
            losses[i] = loss * dropout.share.part
            network.backward(gradient * dropout.share.part)
            allreduce_gradients(network.layers.values(), comm)
            adam.step(arguments.rate * (1 + math.cos(math.pi * adam.steps / steps)) / 2)
        losses = comm.allreduce(losses)
        if not np.isfinite(losses).all():
            raise FloatingPointError("the loss is no longer finite; try a lower --rate")
        check_equal(network, comm)
        accuracy = held_out_accuracy(network, digits, comm)
        report(
            comm,
            f"epoch {epoch + 1}/{arguments.epochs}  loss {losses.mean():.9f}"
            f"  held-out accuracy {accuracy:.2%}",
        )
    report(comm, f"{comm.size} ranks, weights equal on all: {perf_counter() - start:.1f} s")


def check_equal(network: Network, comm: MPI.Comm) -> None:
    """See that all ranks have the same weights, bit by bit."""
    weights = b"".join(parameter.tobytes() for parameter in network.parameters())
    digests = comm.allgather(hashlib.sha256(weights).hexdigest())
    if len(set(digests)) > 1:
        raise RuntimeError(f"weights differ: their digests are, rank by rank, {digests}")


def held_out_accuracy(network: Network, digits: data.Digits, comm: MPI.Comm) -> float:
    """The part of the held-out images that is read right, each rank reading its share."""
    count = len(digits.test_labels)
    mine = share_of(count, comm).images
    right = 0
    if mine.start < mine.stop:
        images = digits.test_images[mine].astype(network.parameters()[0].dtype)
        right = (predict(network, images) == digits.test_labels[mine]).sum()
    return comm.allreduce(int(right)) / count


def report(comm: MPI.Comm, line: str) -> None:
    """Print, once."""
    if comm.rank == 0:
        print(line, flush=True)


def set_threads(comm: MPI.Comm, threads: int | None) -> None:
    """Use the cores of each machine once: as many threads as there are cores to a rank."""
    if threads is None:
        ranks_here = comm.Split_type(MPI.COMM_TYPE_SHARED).size
        threads = max(1, len(os.sched_getaffinity(0)) // ranks_here)
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    threadpool_limits(threads)  # of matrix products


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def parse(comm: MPI.Comm) -> argparse.Namespace:
    """The options, read by one rank, which alone complains of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=positive, default=30, metavar="N")
    parser.add_argument("--batch-size", type=positive, default=64, metavar="N", help="of all ranks")
    parser.add_argument("--rate", type=float, default=0.003, metavar="R")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--threads", type=positive, metavar="N", help="of a rank")
    found: argparse.Namespace | int | str | None = None
    if comm.rank == 0:
        try:
            found = parser.parse_args()
        except SystemExit as stopped:
            found = stopped.code
    found = comm.bcast(found)
    if not isinstance(found, argparse.Namespace):
        sys.exit(found)
    return found


def main() -> None:
    comm = MPI.COMM_WORLD
    arguments = parse(comm)
    try:
        set_threads(comm, arguments.threads)
        # A loss that overflows is reported once, not by NumPy's warnings.
        with np.errstate(over="ignore", invalid="ignore"):
            train(comm, arguments)
    except Exception as error:
        # The other ranks wait for this one, for ever if they were not stopped.
        traceback.print_exc()
        print(f"rank {comm.rank} of {comm.size}: {error!r}", file=sys.stderr, flush=True)
        # mpiexec passes these words on, but may end at an Abort before it has: once none arrived.
        sleep(1)
        comm.Abort(1)


if __name__ == "__main__":
    main()
