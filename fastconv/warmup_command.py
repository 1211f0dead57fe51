"""The command ``fastconv warmup``: compile kernels before the layers that take them are called."""

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from .config import caching_enabled
from .explain import explain
from .explain_command import axes, extents
from .progress import progress

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

KEYS = ("stride", "padding", "dilation", "groups")


def add_parser(commands: "Commands") -> None:
    """Add ``warmup`` to the command line."""
    from .bench.suites import SUITES

    parser = commands.add_parser(
        "warmup",
        help="compile the kernels of given layers into the cache",
        description="Compile what the three maps of given layers need, so that no process waits for"
        " it later. Without a layer or suite: those of all suites.",
    )
    add = parser.add_argument
    add(
        "--layer",
        type=_layer,
        action="append",
        default=[],
        metavar="X,WEIGHT[,stride=2,...]",
        help="such as 16x64x56x56,64x64x3x3,padding=1,padding_mode=reflect; may be given again",
    )
    names = ", ".join(SUITES)
    add("--suite", choices=SUITES, nargs="+", default=[], metavar="NAME", help=names)
    add("--dtype", choices=("float32", "float64"), default="float32")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compile, and say how long it took."""
    from .bench.suites import SUITES, layers_of
    from .cpu import driver, padding

    layers = list(arguments.layer)
    suites = arguments.suite or ([] if layers else SUITES)
    for layer in layers_of(suites):
        options = {key: getattr(layer, key) for key in KEYS}
        layers.append((layer.x_shape, layer.weight_shape, options))
    start = time.perf_counter()
    driver.compile_for(arguments.dtype)
    for x, weight, options in progress(layers, "layer", lambda layer: f"{layer[0]} {layer[1]}"):
        try:
            told = explain(x, weight, **options, dtype=arguments.dtype)  # makes the plans
        except (TypeError, ValueError) as error:
            print(f"fastconv warmup: {error}", file=sys.stderr)
            return 1
        if told.geometry.padding_mode != "zeros":
            padding.make_block.address(told.dtype)  # of which explain makes no plan
    seconds = time.perf_counter() - start
    kept = "kept for later processes" if caching_enabled() else "lost again: FASTCONV_CACHE=0"
    print(f"kernels of {len(layers)} layers, {arguments.dtype}, in {seconds:.1f} s, {kept}")
    return 0


def _layer(text: str) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    try:
        x, weight, *rest = text.split(",")
        options = dict(part.split("=") for part in rest)
        if not options.keys() <= {*KEYS, "padding_mode"}:
            raise ValueError
        values: dict[str, Any] = {
            key: value if key == "padding_mode" else axes(value) for key, value in options.items()
        }
        return extents(x), extents(weight), values
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be like 16x64x56x56,64x64x3x3,stride=2,padding=1, got {text!r}"
        ) from None
