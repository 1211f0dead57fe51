"""Taking the times: all contestants in one process, one after the other, in several rounds."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ..plan import cpu as plan
from .contestant import Array, Call, Contestant, Fastconv, Operands
from .machine import multiply_adds
from .peers import Torch, missing_packages
from .results import OUR_NAMES, Record, Timing
from .suites import SUITES, Layer
from .ways import Variant, Way

LEAST_ROUNDS = 3

# Below this, a call follows an untimed one of the same contestant: what the one before left in the
# caches, and waking sleeping threads (some 50 us), would be a visible part of it.
SHORT_CALL = 0.010

# Short calls are repeated in a round until they take this long together. Of 2 ms, less than another
# program takes at a time, calls of 10 us were 0.7 or 1.2 times as fast as a peer's, run by run.
ROUND_SECONDS = 0.010
# How long they take is the median of so many: the first, which finds nothing in the caches, took up
# to 10 times as long as those that follow, and one that another program holds up takes as long.
TRIAL_CALLS = 20
MOST_CALLS = 1000


@dataclass
class _Entry:
    """A way to compute while it is timed."""

    way: Way
    error: float
    rounds: int = 0
    calls: int = 1
    short: bool = False
    times: list[float] = field(default_factory=list)

    def schedule(self, rounds: int, seconds: float) -> None:
        """Choose calls and rounds from the time of a call, so that they take ``seconds``."""
        once = _seconds(self.way.call, 1)
        self.short = once < SHORT_CALL
        if self.short:
            once = statistics.median(_seconds(self.way.call, 1) for _ in range(TRIAL_CALLS))
        self.calls = min(MOST_CALLS, max(1, round(ROUND_SECONDS / once)))
        affordable = int(seconds / (once * (self.calls + self.short)))
        self.rounds = min(rounds, max(LEAST_ROUNDS, affordable))

    def time(self) -> None:
        if self.short:
            self.way.call()
        self.times.append(_seconds(self.way.call, self.calls))
        time.sleep(self.way.settle)

    def timing(self) -> Timing:
        name, peer, algorithm = self.way.name, self.way.peer, self.way.algorithm
        best, median = min(self.times), statistics.median(self.times)
        return Timing(name, peer, best, median, self.rounds, self.calls, self.error, algorithm)


def _seconds(call: Call, calls: int) -> float:
    """Mean time of some calls, their results thrown away at once."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Runner:
    """Measures layers.

    Parameters
    ----------
    contestants : sequence of Contestant
        Ours and the peers', in the order of the calls.
    threads : int
        For what computes the float64 results that all others are compared with.
    rounds : int
        Rounds in which every contestant has its turn.
    seconds : float
        What all rounds of one contestant may take on one layer and map; slower ones are timed in
        fewer rounds, though never fewer than 3.
    """

    def __init__(
        self, contestants: Sequence[Contestant], threads: int, rounds: int, seconds: float
    ) -> None:
        self._contestants = contestants
        self._rounds = rounds
        self._seconds = seconds
        self._multiply_adds, self._operations = multiply_adds(threads)
        self._multiply_adds()  # compiles it
        self._oracle: Contestant
        if missing_packages("torch"):
            self._oracle = Fastconv("reference")
            self.reference = 'fastconv, algorithm="reference", in float64'
        else:
            self._oracle = Torch(threads)
            self.reference = "PyTorch in float64"

    def measure(self, layer: Layer, map_name: str, suites: Iterable[str] = SUITES) -> Record:
        """Time every contestant on one map of one layer."""
        operands = Operands.random(layer)
        expected = self._expected(layer, map_name, operands)
        failed: dict[str, str] = {}
        with ExitStack() as contexts:
            for contestant in self._contestants:
                contexts.enter_context(contestant.active())
            makers = {
                contestant.name: partial(_way, contestant, layer, map_name, operands)
                for contestant in self._contestants
                if contestant.supports(layer, map_name)
            }
            entries = self._entries(makers, expected, failed)
            peak = self._time(entries)
        return Record(
            layer.name,
            layer.network,
            layer.shape,
            tuple(suite for suite in suites if layer in SUITES[suite]),
            map_name,
            layer.flops,
            layer.bytes,
            tuple(entry.timing() for entry in entries),
            failed,
            peak=peak,
        )

    def measure_variant(self, variant: Variant) -> Record:
        """Time every way to compute a variant; PyTorch must be installed."""
        failed: dict[str, str] = {}
        with self._oracle.active():
            expected, ways = variant.prepare()
            makers = {way.name: partial(_itself, way) for way in ways}
            entries = self._entries(makers, expected, failed)
            peak = self._time(entries)
        return Record(
            variant.name,
            variant.network,
            variant.shape,
            (variant.suite,),
            variant.map_name,
            variant.flops,
            variant.bytes,
            tuple(entry.timing() for entry in entries),
            failed,
            variant.dtype,
            peak,
        )

    def _time(self, entries: Sequence[_Entry]) -> float:
        """Time all rounds; returns the operations a second of multiply-adds alone in them."""
        fastest = math.inf
        with _no_garbage_collection():
            for number in range(self._rounds):
                for entry in entries:
                    if number < entry.rounds:
                        entry.time()
                fastest = min(fastest, _seconds(self._multiply_adds, 1))
        return self._operations / fastest

    def _expected(self, layer: Layer, map_name: str, operands: Operands) -> Array:
        with self._oracle.active():
            result = self._oracle.prepare(layer, map_name, operands.double())()
            return self._oracle.to_numpy(result, layer, map_name)

    def _entries(
        self, makers: Mapping[str, Callable[[], Way]], expected: Array, failed: dict[str, str]
    ) -> list[_Entry]:
        """Ways that work, compiled, warmed up and their results checked."""
        entries = []
        for name, make in makers.items():
            try:
                way = make()
                result = way.to_numpy(way.call())
            except Exception as error:
                if name in OUR_NAMES:
                    raise
                # A peer may fail at what it claims to do; the others' times are worth having.
                failed[name] = f"{type(error).__name__}: {error}"
                continue
            entry = _Entry(way, relative_error(result, expected))
            entry.schedule(self._rounds, self._seconds)
            entries.append(entry)
        return entries


def _itself(way: Way) -> Way:
    return way


def _way(contestant: Contestant, layer: Layer, map_name: str, operands: Operands) -> Way:
    """A contestant's way to compute a map of a layer."""
    return Way(
        contestant.name,
        contestant.peer,
        contestant.prepare(layer, map_name, operands),
        partial(contestant.to_numpy, layer=layer, map_name=map_name),
        contestant.choice(layer, map_name),
        contestant.settle,
    )


def relative_error(result: Array, expected: Array) -> float:
    """L2 norm of the difference over that of ``expected``."""
    if result.shape != expected.shape:
        raise ValueError(f"the result has shape {result.shape}, not {expected.shape}")
    return float(np.linalg.norm(result - expected) / np.linalg.norm(expected))


def ours(by_name: bool = False) -> list[Contestant]:
    """Us in both layouts; also with every algorithm by its name, but for the slow reference."""
    names = [name for name in plan.ALGORITHMS if name not in ("auto", "reference")]
    return [
        Fastconv(algorithm, channels_last)
        for algorithm in ("auto", *(names if by_name else ()))
        for channels_last in (False, True)
    ]
