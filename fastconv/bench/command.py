"""The command ``fastconv bench``: its options, and what it prints and writes."""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from itertools import chain, product
from pathlib import Path
from typing import TYPE_CHECKING

import numba

from ..progress import progress
from . import cuda, machine, plot, report
from .contestant import Contestant
from .peers import PEERS, load_peers
from .results import Record, Results
from .runner import LEAST_ROUNDS, Runner, ours
from .suites import MAPS, SUITES, Layer, layers_of
from .variants import NEEDS, SAME_WORK, VARIANTS
from .ways import PEER, Variant

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

EXTRA = 'pip install "fastconv[bench]"'
BACKENDS = ("cpu", "cuda")


def add_parser(commands: "Commands") -> None:
    """Add ``bench`` to the command line."""
    parser = commands.add_parser(
        "bench",
        help="time layers of known networks beside other libraries",
        description="Time convolution layers of known networks, each beside other libraries in the"
        " same process, check every result, and compare with what the processor can do.",
    )
    add = parser.add_argument
    names, more = ", ".join(SUITES), ", ".join(VARIANTS)
    add(
        "--suite",
        type=_names([*SUITES, *VARIANTS]),
        action="extend",
        nargs="+",
        metavar="NAME",
        help=f"layers to time, by default all: {names}; or, beside PyTorch alone: {more}",
    )
    maps, peers = ",".join(MAPS), ",".join(PEERS)
    add("--map", type=_names(MAPS), metavar="MAP,...", help=f"by default {maps}")
    add("--against", type=_names(PEERS), metavar="PEER,...", help=f"by default {peers}")
    add("--backend", type=_names(BACKENDS), default=[], metavar="NAME,...", help=_BACKEND_HELP)
    add("--algorithms", action="store_true", help='also time each algorithm that "auto" chooses of')
    add("--rounds", type=_rounds, default=7, metavar="N", help="interleaved rounds (default 7)")
    add("--seconds", type=_seconds, default=5.0, metavar="S", help=_SECONDS_HELP)
    add("--threads", type=_threads, metavar="N", help="cores to use, by default all")
    add("--quick", action="store_true", help="the cheapest layer of each suite in 3 rounds")
    add("--load", type=_results, metavar="FILE", help="report what --json wrote, measure nothing")
    add("--json", type=_file, metavar="FILE", help="write everything measured")
    add("--markdown", type=_file, metavar="FILE", help="write the report")
    add("--plot", type=_file, metavar="FILE", help="draw the roofline and the ratios")
    parser.set_defaults(run=run)


_BACKEND_HELP = (
    '"cuda" also times our CUDA path, on device arrays and with copies; the CPU always takes part'
)
_SECONDS_HELP = (
    "what all rounds of one contestant may take on one layer and map (default 5): slower ones are"
    f" timed in fewer rounds, never fewer than {LEAST_ROUNDS}"
)


def run(arguments: argparse.Namespace) -> int:
    """Measure, report, write."""
    lacking = [name for name in ("rich", "tqdm") if find_spec(name) is None]
    if arguments.plot and find_spec("matplotlib") is None:
        print(f"fastconv bench: --plot needs matplotlib: {EXTRA}", file=sys.stderr)
        return 1
    if lacking:
        print(f"Plain output, without {' and '.join(lacking)}: {EXTRA}", file=sys.stderr)
    if numba.config.DISABLE_JIT:
        print("fastconv bench: NUMBA_DISABLE_JIT leaves nothing to be timed", file=sys.stderr)
        return 1
    try:
        paths = cuda.paths() if "cuda" in arguments.backend else []
    except (ModuleNotFoundError, RuntimeError) as error:
        print(f"fastconv bench: {error}", file=sys.stderr)
        return 1
    suites = list(dict.fromkeys(chain(*arguments.suite))) if arguments.suite else list(SUITES)
    if not arguments.load and (trouble := _trouble(arguments, suites)):
        print(f"fastconv bench: {trouble}", file=sys.stderr)
        return 1
    results = arguments.load or _measure(arguments, suites, paths)
    if results is None:
        print("fastconv bench: interrupted before anything was measured", file=sys.stderr)
        return 130
    _show(results)
    if arguments.json:
        results.save(arguments.json)
    if arguments.markdown:
        arguments.markdown.write_text(report.markdown(results), encoding="utf-8")
    if arguments.plot:
        plot.save(results, arguments.plot)
    return 0


def _trouble(arguments: argparse.Namespace, suites: Sequence[str]) -> str:
    """Why these suites cannot be measured, if they cannot."""
    for suite in suites:
        lacking = [package for package in NEEDS.get(suite, ()) if find_spec(package) is None]
        if lacking:
            return f"the suite {suite} needs {' and '.join(lacking)}, which is not installed"
    if not _todo(arguments, suites):
        return f"{', '.join(suites)} have no layers with the maps {', '.join(arguments.map)}"
    return ""


def _measure(
    arguments: argparse.Namespace, suites: Sequence[str], paths: Sequence[Contestant]
) -> Results | None:
    if arguments.threads:
        numba.set_num_threads(arguments.threads)
    threads = numba.get_num_threads()
    layers = [name for name in suites if name in SUITES]
    asked = (arguments.against or list(PEERS)) if layers else []
    contestants, left_out = load_peers(asked, threads)
    for peer, reason in left_out.items():
        print(f"{peer} is left out: {reason}")
    versions_of = [*asked, PEER] if len(layers) < len(suites) else asked
    packages = dict.fromkeys(package for peer in versions_of for package in PEERS[peer][0])
    found = machine.measure(tuple(packages))
    rounds = LEAST_ROUNDS if arguments.quick else arguments.rounds
    taking_part = [*ours(arguments.algorithms), *paths, *contestants]
    runner = Runner(taking_part, threads, rounds, arguments.seconds)
    todo = _todo(arguments, suites)
    records: list[Record] = []
    try:
        for what, map_name in progress(todo, "map", lambda each: f"{each[0].name} {each[1]}"):
            if isinstance(what, Variant):
                records.append(runner.measure_variant(what))
            else:
                records.append(runner.measure(what, map_name, layers))
    except KeyboardInterrupt:
        print(f"interrupted after {len(records)} of {len(todo)} measurements", file=sys.stderr)
        if not records:
            return None
    took_part = {timing.peer for record in records for timing in record.timings}
    present = [peer for peer in asked if peer not in left_out]
    present += [peer for peer in (PEER, SAME_WORK) if peer in took_part and peer not in present]
    return Results(
        found.measured_again(),
        rounds,
        arguments.seconds,
        runner.reference,
        tuple(present),
        left_out,
        tuple(records),
        tuple(path.name for path in paths),
    )


def _todo(
    arguments: argparse.Namespace, suites: Sequence[str]
) -> list[tuple[Layer | Variant, str]]:
    """What the options ask for: layers and variants, each with a map."""
    maps, quick = arguments.map or MAPS, arguments.quick
    layers = _layers([suite for suite in suites if suite in SUITES], quick)
    variants = _variants([suite for suite in suites if suite in VARIANTS], maps, quick)
    return [*product(layers, maps), *((variant, variant.map_name) for variant in variants)]


def _layers(suites: Sequence[str], quick: bool) -> list[Layer]:
    if not quick:
        return layers_of(suites)
    cheapest = [min(SUITES[suite], key=lambda layer: layer.flops) for suite in suites]
    return list(dict.fromkeys(cheapest))


def _variants(suites: Sequence[str], maps: Sequence[str], quick: bool) -> list[Variant]:
    chosen = [[v for v in VARIANTS[suite] if v.map_name in maps] for suite in suites]
    if quick:
        chosen = [[min(vs, key=lambda v: v.flops)] for vs in chosen if vs]
    return list(chain(*chosen))


def _show(results: Results) -> None:
    print("\n".join(report.machine_lines(results.machine)))
    report.layer_table(results).show()
    report.roofline_table(results).show()
    if results.compared:
        report.mean_table(results).show()
    if results.peers:
        losses = report.loss_lines(results)
        print(f"Losses: {len(losses)}")
        print("\n".join(f"  {line}" for line in losses))
    for title, lines in report.details(results).items():
        print(f"{title}: {len(lines)}")
        print("\n".join(f"  {line}" for line in lines))
    for note in report.notes(results):
        print(note)


# What an option's value becomes, or the message that argparse shows for it.


def _names(choices: Iterable[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",")]
        for name in names:
            if name not in choices:
                raise argparse.ArgumentTypeError(f"{name!r} is not among {', '.join(choices)}")
        return list(dict.fromkeys(names))

    return parse


def _rounds(text: str) -> int:
    return _integer(text, LEAST_ROUNDS, sys.maxsize)


def _threads(text: str) -> int:
    return _integer(text, 1, int(numba.config.NUMBA_NUM_THREADS))


def _integer(text: str, least: int, most: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        limits = f"at least {least}" if most == sys.maxsize else f"between {least} and {most}"
        raise argparse.ArgumentTypeError(f"must be an integer, {limits}, got {text!r}")
    return number


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number, got {text!r}")
    return number


def _results(text: str) -> Results:
    try:
        return Results.load(Path(text))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _file(text: str) -> Path:
    """A file that can be written: found out before the run, not after it."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no directory {str(path.parent)!r}")
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a directory")
    return path
