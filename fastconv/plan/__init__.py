"""Which algorithm computes a call, and why: rules with the measurements behind them.

On each backend, ``explain_choice`` of ``cpu.py`` or ``cuda.py`` has the last word.
"""

from dataclasses import dataclass

PRECISIONS = ("highest", "high", "medium")


@dataclass(frozen=True)
class Choice:
    """An algorithm, and the reason for it in one sentence."""

    algorithm: str
    why: str


def check_precision(precision: str) -> None:
    """Raise ValueError unless this is the name of a precision."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
