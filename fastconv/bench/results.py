"""What a run found: times of every contestant on every layer and map, kept as JSON."""

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .machine import Machine
from .suites import MAPS, SUITES

OURS = "fastconv"
FORMAT = 2


def our_name(algorithm: str = "auto", channels_last: bool = False) -> str:
    """Under which name we take part."""
    name = f"{OURS} channels_last" if channels_last else OURS
    return name if algorithm == "auto" else f"{name} {algorithm}"


# With the algorithm that is taken by default, in either layout.
OUR_NAMES = (our_name(), our_name(channels_last=True))

# Another algorithm of ours may be faster than "auto" by this factor, which noise alone reaches.
AUTO_TOLERANCE = 1.10

# And so may either layout.
LAYOUT_TOLERANCE = 1.10

# Operations from which on a map is long enough for what begins and ends it not to count.
LARGE = 10**9


@dataclass(frozen=True)
class Timing:
    """Seconds of one contestant.

    Attributes
    ----------
    name, peer : str
        The contestant, and the library that it belongs to.
    best, median : float
        Seconds of one call, over the rounds.
    rounds : int
        Rounds timed; fewer than the others' where the calls would take too long.
    calls : int
        Calls in a round, of which the mean is taken.
    error : float
        Relative L2 error against the same computation in float64.
    algorithm : str
        What computed it, if it is ours.
    """

    name: str
    peer: str
    best: float
    median: float
    rounds: int
    calls: int
    error: float
    algorithm: str = ""


@dataclass(frozen=True)
class Record:
    """One map of one layer.

    Attributes
    ----------
    flops, bytes : int
        Multiplications and additions of the definition; least memory traffic.
    timings : tuple of Timing
        Ours first.
    failed : dict
        Contestants that raised an error instead, and the error.
    dtype : str
        Of the arrays.
    peak : float
        ``Machine.peak`` as it was in the same rounds; 0 if it was not measured there.
    """

    layer: str
    network: str
    shape: str
    suites: tuple[str, ...]
    map_name: str
    flops: int
    bytes: int
    timings: tuple[Timing, ...]
    failed: dict[str, str] = field(default_factory=dict)
    dtype: str = "float32"
    peak: float = 0.0

    @property
    def ours(self) -> Timing:
        """Ours in the faster one of our layouts, as peers take part with the best of theirs."""
        return min((t for t in self.timings if t.name in OUR_NAMES), key=lambda t: t.best)

    @property
    def channels_last(self) -> bool:
        """Whether that is the one with channels last."""
        return self.ours.name == our_name(channels_last=True)

    @property
    def gflops(self) -> float:
        """Billions of operations of the definition a second, in the best round."""
        return self.flops / self.ours.best / 1e9

    def timing(self, name: str) -> Timing | None:
        """That of one contestant."""
        return next((t for t in self.timings if t.name == name), None)

    def best_of(self, peer: str) -> Timing | None:
        """The fastest contestant of a peer, if any took part."""
        timings = [t for t in self.timings if t.peer == peer]
        return min(timings, key=lambda t: t.best, default=None)

    def ratio(self, peer: str, ours: str | None = None) -> float | None:
        """Best time of a peer over our best time, or over that of one of ours.

        Above 1 we are faster.
        """
        theirs, mine = self.best_of(peer), self.timing(ours) if ours else self.ours
        return None if theirs is None or mine is None else theirs.best / mine.best

    @property
    def layouts(self) -> float | None:
        """Our best time with channels last over that with channels first, if both took part."""
        first, last = map(self.timing, OUR_NAMES)
        return None if first is None or last is None else last.best / first.best

    def ways(self, peer: str) -> list[Timing]:
        """Those of a peer that took part in other ways than its two layouts, the fastest first."""
        timings = sorted((t for t in self.timings if t.peer == peer), key=lambda t: t.best)
        plain = {peer, f"{peer} channels_last"}
        return timings if {t.name for t in timings} - plain else []

    def faster_algorithms(self) -> list[tuple[Timing, Timing]]:
        """Ours with "auto", and one by name in the same layout that is clearly faster."""
        return [
            (auto, other)
            for auto in filter(None, map(self.timing, OUR_NAMES))
            for other in self.timings
            if other.name == f"{auto.name} {other.algorithm}"
            and other.algorithm != auto.algorithm
            and other.best * AUTO_TOLERANCE < auto.best
        ]


@dataclass(frozen=True)
class Loss:
    """A layer and map where a peer is faster."""

    record: Record
    peer: str
    ratio: float


@dataclass(frozen=True)
class Results:
    """A whole run.

    Attributes
    ----------
    rounds : int
        Interleaved rounds asked for.
    seconds : float
        What all rounds of one contestant may take on one layer and map.
    reference : str
        What computed the float64 results that all others are compared with.
    peers : tuple of str
        Those that took part.
    left_out : dict
        Peers asked for that did not, and why.
    paths : tuple of str
        Other ways of ours to compute, which took part beside the CPU's.
    """

    machine: Machine
    rounds: int
    seconds: float
    reference: str
    peers: tuple[str, ...]
    left_out: dict[str, str]
    records: tuple[Record, ...]
    paths: tuple[str, ...] = ()

    @property
    def compared(self) -> tuple[str, ...]:
        """All that our times on the CPU are compared with."""
        return (*self.peers, *self.paths)

    @property
    def suites(self) -> list[str]:
        """The suites run, in their usual order."""
        run = dict.fromkeys(name for r in self.records for name in r.suites)
        usual = [name for name in SUITES if name in run]
        return list(dict.fromkeys([*usual, *run]))

    @property
    def dtypes(self) -> str:
        """Of all arrays, in words."""
        return ", ".join(dict.fromkeys(r.dtype for r in self.records))

    @property
    def maps(self) -> list[str]:
        return [name for name in MAPS if any(name == r.map_name for r in self.records)]

    def of_roofline(self, record: Record, timing: Timing | None = None) -> float:
        """Speed as a fraction of what the machine could reach: ours, or another's."""
        least = self.machine.roofline(record.flops, record.bytes, record.peak)
        return least / (timing or record.ours).best

    def by_bound(self) -> dict[tuple[str, str], list[Record]]:
        """Records by the algorithm that computed ours, and by what bounds them."""
        found: dict[tuple[str, str], list[Record]] = {}
        for r in self.records:
            bound = "memory"
            if not self.machine.is_bound_by_memory(r.flops, r.bytes, r.peak):
                bound = "arithmetic, a GFLOP and more" if r.flops >= LARGE else "arithmetic, less"
            found.setdefault((r.ours.algorithm, bound), []).append(r)
        return dict(sorted(found.items()))

    def select(self, suite: str | None = None, map_name: str | None = None) -> list[Record]:
        """Records of one suite, or one map, or both."""
        return [
            r
            for r in self.records
            if (suite is None or suite in r.suites) and map_name in (None, r.map_name)
        ]

    def mean_ratio(
        self,
        peer: str,
        suite: str | None = None,
        map_name: str | None = None,
        ours: str | None = None,
    ) -> float | None:
        """Geometric mean of ``Record.ratio`` over the records selected."""
        ratios = (r.ratio(peer, ours) for r in self.select(suite, map_name))
        return geometric_mean([ratio for ratio in ratios if ratio is not None])

    def losses(self, peers: Sequence[str] | None = None) -> list[Loss]:
        """Where we are slower than a peer, the worst first."""
        found = [
            Loss(record, peer, ratio)
            for record in self.records
            for peer in (self.peers if peers is None else peers)
            if (ratio := record.ratio(peer)) is not None and ratio < 1
        ]
        return sorted(found, key=lambda loss: loss.ratio)

    def slower_last(self) -> list[tuple[Record, float]]:
        """Where ours is clearly slower with channels last, and how many times, the worst first."""
        found = [
            (record, times)
            for record in self.records
            if (times := record.layouts) is not None and times > LAYOUT_TOLERANCE
        ]
        return sorted(found, key=lambda pair: -pair[1])

    def save(self, path: Path) -> None:
        """Write everything as JSON, each record on a line of its own."""
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        records = ",\n".join(json.dumps(record) for record in content.pop("records"))
        text = json.dumps(content, indent=1).removesuffix("\n}")
        path.write_text(f'{text},\n "records": [\n{records}\n ]\n}}\n', encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Results":
        """Read what ``save`` wrote.

        Raises
        ------
        ValueError
            If the file is of another format.
        """
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise ValueError(f"{path} does not hold results in format {FORMAT}")
        return cls(
            **{
                **content,
                "machine": Machine(**content["machine"]),
                "peers": tuple(content["peers"]),
                "paths": tuple(content.get("paths", ())),
                "records": tuple(_record(record) for record in content["records"]),
            }
        )


def _record(content: dict[str, Any]) -> Record:
    timings = tuple(Timing(**timing) for timing in content["timings"])
    return Record(**{**content, "suites": tuple(content["suites"]), "timings": timings})


def geometric_mean(numbers: Iterable[float]) -> float | None:
    """Geometric mean, or None of nothing."""
    logarithms = [math.log(number) for number in numbers]
    return math.exp(math.fsum(logarithms) / len(logarithms)) if logarithms else None
