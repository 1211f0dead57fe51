"""The command ``fastconv explain``: its options."""

import argparse
import sys
from typing import TYPE_CHECKING

from .dtypes import COMPLEX, DTYPES, INTEGERS
from .explain import explain
from .padding import MODES
from .plan import PRECISIONS

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

DTYPE_NAMES = ["float16", "bfloat16", *map(str, (*DTYPES, *COMPLEX, *INTEGERS))]


def add_parser(commands: "Commands") -> None:
    """Add ``explain`` to the command line."""
    parser = commands.add_parser(
        "explain",
        help="say what a convolution costs and how it is computed",
        description="Print shapes, costs, and the algorithm taken for each map, with the reason.",
    )
    add = parser.add_argument
    add("x", type=extents, help="shape of the input, such as 16x64x56x56")
    add("weight", type=extents, help="shape of the filters, such as 64x64x3x3")
    for name, default in (("stride", 1), ("padding", 0), ("dilation", 1)):
        add(
            f"--{name}",
            type=axes,
            default=default,
            metavar="N[,N...]",
            help="by default %(default)s",
        )
    add("--padding-mode", choices=MODES, default="zeros", help="by default %(default)s")
    add("--groups", type=int, default=1, metavar="N")
    add(
        "--data-format",
        choices=("channels_first", "channels_last"),
        default="channels_first",
        help="of x, whose shape is given in this order; by default %(default)s",
    )
    add("--dtype", choices=DTYPE_NAMES, default="float32", help="by default %(default)s")
    add("--backend", choices=("cpu", "cuda"), default="cpu", help="by default %(default)s")
    add("--precision", choices=PRECISIONS, default="highest", help="by default %(default)s")
    add("--accumulate-dtype", choices=("float64",), help="of the sums, by default as in conv2d")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the explanation."""
    a = arguments
    options = {
        "padding_mode": a.padding_mode,
        "data_format": a.data_format,
        "dtype": a.dtype,
        "backend": a.backend,
        "precision": a.precision,
        "accumulate_dtype": a.accumulate_dtype,
    }
    if a.dtype == "bfloat16":
        try:
            import ml_dtypes  # noqa: F401  NumPy knows the name from then on
        except ModuleNotFoundError:
            print(
                "fastconv explain: bfloat16 needs ml_dtypes: pip install ml_dtypes", file=sys.stderr
            )
            return 1
    try:
        told = explain(a.x, a.weight, a.stride, a.padding, a.dilation, a.groups, **options)
    except (TypeError, ValueError) as error:
        print(f"fastconv explain: {error}", file=sys.stderr)
        return 1
    print(told)
    return 0


def extents(text: str) -> tuple[int, ...]:
    """``16x64x56x56`` as numbers."""
    return tuple(int(part) for part in text.split("x"))


def axes(text: str) -> int | str | tuple[int, ...]:
    """``2``, ``2,1`` or ``same`` as functions take it."""
    if text in ("same", "valid"):
        return text
    numbers = tuple(int(part) for part in text.split(","))
    return numbers[0] if len(numbers) == 1 else numbers
