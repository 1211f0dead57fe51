"""Every layer, map and contestant as a benchmark of its own; one group for each layer and map."""

from contextlib import ExitStack

import numba
import pytest

from fastconv.bench.contestant import Operands
from fastconv.bench.peers import PEERS, load_peers
from fastconv.bench.runner import ours
from fastconv.bench.suites import MAPS, SUITES, layers_of

CONTESTANTS = [*ours(), *load_peers(list(PEERS), numba.get_num_threads())[0]]

CASES = [
    pytest.param(layer, name, contestant, id=f"{layer.name}-{name}-{contestant.name}")
    for layer in layers_of(SUITES)
    for name in MAPS
    for contestant in CONTESTANTS
    if contestant.supports(layer, name)
]


@pytest.mark.parametrize(("layer", "map_name", "contestant"), CASES)
def test_layer(layer, map_name, contestant, benchmark):
    benchmark.group = f"{layer.name} {map_name}: {layer.shape}"
    benchmark.extra_info.update(
        network=layer.network, flops=layer.flops, bytes=layer.bytes, contestant=contestant.name
    )
    with ExitStack() as contexts:
        contexts.enter_context(contestant.active())
        call = contestant.prepare(layer, map_name, Operands.random(layer))
        call()  # compiles
        benchmark(call)
