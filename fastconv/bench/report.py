"""Results as tables of text: for the terminal and, in Markdown, for the repository."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from .machine import Machine
from .results import LAYOUT_TOLERANCE, OURS, Record, Results, geometric_mean, our_name
from .suites import MAPS

NOTHING = "-"

# What float32 sums, and ours all the more, should stay below.
WORST_ERROR = 1e-4
OUR_WORST_ERROR = 1e-5
# Results that are rounded to 11 and 8 bits as they are stored.
STORED_ERRORS = {"float16": 5e-4, "bfloat16": 4e-3}


@dataclass(frozen=True)
class Table:
    """Rows of text under a title; the first ``words`` columns are words, the others numbers."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int

    def markdown(self) -> str:
        """A Markdown table, without the title."""
        line = [":--" if i < self.words else "--:" for i in range(len(self.header))]
        return "\n".join(f"| {' | '.join(row)} |" for row in (self.header, line, *self.rows))

    def plain(self) -> str:
        """Columns aligned by blanks under the title."""
        lines = (self.header, *self.rows)
        widths = [max(len(row[i]) for row in lines) for i in range(len(self.header))]
        text = [self.title]
        for row in lines:
            cells = [
                cell.ljust(width) if i < self.words else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            text.append("  ".join(cells).rstrip())
        return "\n".join(text)

    def show(self) -> None:
        """Print, in a terminal with ``rich`` where that is installed."""
        if find_spec("rich") is None or not sys.stdout.isatty():
            print(f"\n{self.plain()}\n")
            return
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table as RichTable

        table = RichTable(title=self.title, title_justify="left", box=SIMPLE_HEAD)
        for i, name in enumerate(self.header):
            table.add_column(name, justify="left" if i < self.words else "right", overflow="fold")
        for row in self.rows:
            table.add_row(*(_coloured(cell) for cell in row))
        console = Console(highlight=False)
        # Better that the terminal breaks lines than that every column is broken.
        needed = Console(width=1000).measure(table).maximum
        console.width = max(console.width, needed)
        console.print(table)


def _coloured(cell: str) -> str:
    """Ratios below 1 in red."""
    try:
        lost = cell.endswith("x") and float(cell[:-1]) < 1
    except ValueError:
        lost = False
    return f"[red]{cell}[/red]" if lost else cell


def _ratio(ratio: float | None) -> str:
    if ratio is None:
        return NOTHING
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.0f}x"


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}" if seconds < 1 else f"{1e3 * seconds:.0f}"


def layer_table(results: Results, shapes: bool = False) -> Table:
    """Every layer and map: our time and speed, and the ratio of each peer's best time to it."""
    header = ["layer", *(["shape"] if shapes else []), "map", "channels", "algorithm"]
    words = len(header)
    header += ["best ms", "median ms", "GFLOP/s", "roofline", "error", *results.compared]
    rows = []
    for r in results.records:
        layout = "last" if r.channels_last else "first"
        row = [
            r.layer,
            *([r.shape] if shapes else []),
            r.map_name,
            layout,
            r.ours.algorithm or NOTHING,
        ]
        row += [
            _milliseconds(r.ours.best),
            _milliseconds(r.ours.median),
            f"{r.gflops:.1f}",
            f"{results.of_roofline(r):.0%}",
            f"{r.ours.error:.0e}",
        ]
        row += [_peer_cell(r, name) for name in results.compared]
        rows.append(tuple(row))
    title = "Every layer and map (last columns: the peer's best time / ours)"
    return Table(title, tuple(header), tuple(rows), words)


def _peer_cell(record: Record, peer: str) -> str:
    if (ratio := record.ratio(peer)) is not None:
        return _ratio(ratio)
    failed = any(f"{name} ".startswith(f"{peer} ") for name in record.failed)
    return "failed" if failed else NOTHING


# The second of two columns for a peer: our time without the choice of a layout.
FIRST = ", ours channels first"


def mean_table(results: Results) -> Table:
    """Geometric means of the ratios, for every suite and map and over all."""
    names = [name for peer in results.compared for name in (peer, peer + FIRST)]
    rows = []
    for suite in (*results.suites, None):
        for map_name in (*results.maps, None):
            ratios = [_mean(results, name, suite, map_name) for name in names]
            cells = [_ratio(ratio) for ratio in ratios]
            count = len(results.select(suite, map_name))
            if count == 0:
                continue
            rows.append((suite or "all layers", map_name or "all maps", str(count), *cells))
    title = "Geometric means of the peer's best time / ours (above 1: we are faster)"
    return Table(title, ("suite", "map", "count", *names), tuple(rows), words=2)


def _mean(results: Results, name: str, suite: str | None, map_name: str | None) -> float | None:
    peer = name.removesuffix(FIRST)
    return results.mean_ratio(peer, suite, map_name, None if peer == name else our_name())


def roofline_table(results: Results) -> Table:
    """How near ours come to the roofline, and peers on the same maps, by what bounds these."""
    rows = []
    for (algorithm, bound), records in results.by_bound().items():
        shares = [results.of_roofline(r) for r in records]
        cells = [f"{geometric_mean(shares):.0%}", f"{min(shares):.0%}"]
        for peer in results.compared:
            timings = [(r, r.best_of(peer)) for r in records]
            theirs = geometric_mean([results.of_roofline(r, t) for r, t in timings if t])
            cells.append(NOTHING if theirs is None else f"{theirs:.0%}")
        rows.append((algorithm or NOTHING, bound, str(len(records)), *cells))
    header = ("algorithm", "bound by", "count", "ours", "least", *results.compared)
    return Table("Parts of the roofline (geometric means)", header, tuple(rows), words=2)


def summary_table(results: Results, peer: str = "torch") -> Table:
    """Suites down, maps across: geometric means of the ratios to one peer."""
    maps = [name for name in MAPS if name in results.maps]
    rows = []
    for suite in (*results.suites, None):
        ratios = [results.mean_ratio(peer, suite, map_name) for map_name in (*maps, None)]
        ratios.append(results.mean_ratio(peer, suite, ours=our_name()))
        rows.append((suite or "all layers", *(_ratio(ratio) for ratio in ratios)))
    header = ("suite", *maps, "all maps", "ours channels first")
    return Table(f"{peer}'s best time / ours", header, tuple(rows), words=1)


def machine_lines(machine: Machine) -> list[str]:
    """The machine and its software in three sentences."""
    software = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    return [
        f"{machine.cpu}, {machine.cores} cores, {machine.threads} threads"
        f" ({machine.threading_layer}), {machine.vector_bits}-bit vectors; {machine.system};"
        f" {machine.date}.",
        f"Measured: {machine.peak / 1e9:.0f} GFLOP/s of float32 multiply-adds,"
        f" {machine.bandwidth / 1e9:.0f} GB/s of memory traffic.",
        f"Versions: {software}.",
    ]


def _method(results: Results) -> str:
    return (
        f"{results.dtypes}. Best of {results.rounds} rounds in one process, all contestants called"
        " in turn in each round, results checked against"
        f" {results.reference}. All arrays of 256 KiB and more begin at a cache line, as PyTorch's"
        " own and our results do. Times, theirs and ours, are those of the faster layout or"
        " function. The roofline is that of multiply-adds timed in the same rounds, for a"
        " processor's pace changes."
        " Operations are those of the definition, so that an algorithm that needs fewer can exceed"
        " the roofline; of what memory bounds, as it does pooling, the roofline is the time of"
        " reading all operands and writing the result once."
        + (f" {_PATHS}" if results.paths else "")
    )


_PATHS = (
    '"cuda" is the same call on arrays that lie on a device, "cuda+copies" with them copied there'
    " and the result copied back."
)


def notes(results: Results) -> list[str]:
    """What a reader has to know beside the figures, one sentence each."""
    lines = [f"{peer} left out: {reason}." for peer, reason in results.left_out.items()]
    for r in results.records:
        where = f"{r.layer} {r.map_name}"
        few = [f"{t.name} ({t.rounds})" for t in r.timings if t.rounds < results.rounds]
        if few:
            lines.append(f"{where}: fewer rounds of {', '.join(few)}.")
        lines += [f"{where}: {name} failed: {reason}" for name, reason in r.failed.items()]
        wrong = [t for t in r.timings if not t.error < _worst_error(t.peer, r.dtype)]
        lines += [f"{where}: {t.name} has a relative error of {t.error:.1e}." for t in wrong]
        for auto, faster in r.faster_algorithms():
            times = auto.best / faster.best
            lines.append(f'{where}: {faster.name} is {times:.2f} times as fast as "auto".')
    return lines


def _worst_error(peer: str, dtype: str) -> float:
    return STORED_ERRORS.get(dtype, OUR_WORST_ERROR if peer == OURS else WORST_ERROR)


def loss_lines(results: Results, peers: Iterable[str] | None = None) -> list[str]:
    """Every layer and map where a peer is faster, the worst first."""
    losses = results.losses(None if peers is None else list(peers))
    return [f"{x.record.layer} {x.record.map_name}: {x.ratio:.2f}x {x.peer}" for x in losses]


def layout_lines(results: Results) -> list[str]:
    """Every layer and map where ours is clearly slower with channels last, the worst first."""
    return [f"{r.layer} {r.map_name}: {times:.2f}x" for r, times in results.slower_last()]


def way_lines(results: Results) -> list[str]:
    """The times of each way of a peer, where these are more than its layouts."""
    lines = []
    for r in results.records:
        for peer in results.peers:
            ways = [f"{t.name} {_milliseconds(t.best)} ms" for t in r.ways(peer)]
            if ways:
                lines.append(f"{r.layer} {r.map_name}: {', '.join(ways)}.")
    return lines


def details(results: Results) -> dict[str, list[str]]:
    """Lists of lines beside the losses, by their titles."""
    percent = round(100 * (LAYOUT_TOLERANCE - 1))
    lists = {
        f"Ours more than {percent}% slower with channels last than first (time / time)": (
            layout_lines(results)
        )
    }
    if ways := way_lines(results):
        lists["Peers with several ways, the fastest of which counts"] = ways
    return lists


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) if lines else "None."


def markdown(results: Results) -> str:
    """The whole report, as kept in the repository."""
    losses = loss_lines(results)
    parts = [
        "# Benchmark",
        _list(machine_lines(results.machine)),
        _method(results),
        f"## {mean_table(results).title}",
        mean_table(results).markdown(),
        f"## {roofline_table(results).title}",
        roofline_table(results).markdown(),
        f"## Losses: {len(losses)}",
        _list(losses),
        f"## {layer_table(results).title}",
        layer_table(results, shapes=True).markdown(),
        *(f"## {title}: {len(x)}\n\n{_list(x)}" for title, x in details(results).items()),
        "## Notes",
        _list(notes(results)),
    ]
    return "\n\n".join(parts) + "\n"


def summary_markdown(results: Results, peer: str = "torch") -> str:
    """For the README: means against one peer, those against the others, and the losses."""
    table = summary_table(results, peer)
    parts = [f"Geometric means of {table.title}:", table.markdown()]
    others = []
    for other in results.peers:
        mean = results.mean_ratio(other, map_name="forward")
        if other != peer and mean is not None:
            others.append(f"{other} {_ratio(mean)}")
    if others:
        parts.append(f"Forward against the others, where they take part: {', '.join(others)}.")
    losses = loss_lines(results, [peer])
    count = sum(r.ratio(peer) is not None for r in results.records)
    parts.append(f"Slower than {peer} in {len(losses)} of {count} cases{':' if losses else '.'}")
    if losses:
        parts.append(_list(losses))
    return "\n\n".join(parts) + "\n"
