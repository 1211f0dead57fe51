"""Every layer, map and contestant as a benchmark of its own; one group for each layer and map.

So are the ways to compute what is more than convolutions of float32 numbers.
"""

from contextlib import ExitStack
from importlib.util import find_spec

import numba
import pytest

from fastconv.bench.contestant import Operands
from fastconv.bench.peers import PEERS, Torch, load_peers
from fastconv.bench.runner import ours
from fastconv.bench.suites import MAPS, SUITES, layers_of
from fastconv.bench.variants import NEEDS, VARIANTS

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


WAYS = [
    pytest.param(variant, way, id=f"{suite}-{variant.name}-{variant.map_name}-{way}")
    for suite, variants in VARIANTS.items()
    if all(map(find_spec, NEEDS[suite]))
    for variant in variants
    for way in variant.ways
]


@pytest.mark.parametrize(("variant", "name"), WAYS)
def test_variant(variant, name, benchmark):
    benchmark.group = f"{variant.suite} {variant.name} {variant.map_name}: {variant.shape}"
    benchmark.extra_info.update(
        network=variant.network, flops=variant.flops, bytes=variant.bytes, contestant=name
    )
    with Torch(numba.get_num_threads()).active():
        _, ways = variant.prepare()
        call = next(way.call for way in ways if way.name == name)
        call()  # compiles
        benchmark(call)
