"""Which algorithm computes a call."""

import numba

ALGORITHMS = ("auto", "direct", "reference")


def choose(algorithm: str) -> str:
    """The algorithm behind a name.

    Raises
    ------
    ValueError
        If there is no such algorithm.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm must be one of {', '.join(ALGORITHMS)}, got {algorithm!r}")
    if numba.config.DISABLE_JIT:
        if algorithm == "direct":
            raise ValueError(
                'algorithm "direct" needs Numba\'s compiler, which NUMBA_DISABLE_JIT turns off'
            )
        return "reference"
    return "direct" if algorithm == "auto" else algorithm
