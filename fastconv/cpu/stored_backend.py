"""What the backends for numbers that no kernel is compiled for have in common."""

from math import prod
from typing import Any

from numpy.typing import NDArray

from ..geometry import ConvGeometry, Ints
from ..plan import Choice, check_precision


class Stored:
    """What can say, besides, why an algorithm is taken, and what that costs.

    ``Converted`` is a ``Backend`` of all maps; ``Integers`` has the part of one that takes images
    to images, for they have no gradients.
    """

    def choose(
        self,
        map_name: str,
        geometry: ConvGeometry,
        x: NDArray[Any],
        algorithm: str,
        precision: str,
    ) -> str:
        """The algorithm for a map."""
        check_precision(precision)
        return self.explain_choice(map_name, geometry, algorithm).algorithm

    def explain_choice(self, map_name: str, g: ConvGeometry, algorithm: str) -> Choice:
        """The same, and why."""
        raise NotImplementedError

    def requirements(self, map_name: str, g: ConvGeometry, algorithm: str) -> Ints:
        """Floating-point operations, bytes of scratch memory, and threads of a map."""
        raise NotImplementedError

    def copies(self, g: ConvGeometry) -> int:
        """Numbers in the copies of all arrays."""
        return sum(map(prod, (g.x_shape, g.weight_shape, g.y_shape)))
