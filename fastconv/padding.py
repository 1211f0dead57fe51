"""What stands around an image: zeros, or pixels of its own.

Along an axis of n pixels, ``before`` + n + ``after`` positions show pixels, in three segments:

    reflect      before, ..., 2, 1         0, 1, ..., n-1    n-2, n-3, ...
    replicate    0, ..., 0, 0              0, 1, ..., n-1    n-1, n-1, ...
    circular     n-before, ..., n-1        0, 1, ..., n-1    0, 1, ...

Each is an arithmetic progression: from three numbers follow the pixel that a position shows, and
the positions that show a pixel, of which the gradient with respect to that pixel is the sum.
"""

Ints = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]

MODES = ("zeros", "reflect", "replicate", "circular")


def check_mode(mode: str) -> None:
    """Raise ValueError unless this is the name of a padding mode."""
    if mode not in MODES:
        raise ValueError(f"padding_mode must be one of {', '.join(MODES)}, got {mode!r}")


def check_signs(mode: str, pairs: Pairs, image: str = "") -> None:
    """Raise ValueError if there are negative numbers where padding shows pixels of ``image``."""
    if mode != "zeros" and min(map(min, pairs)) < 0:
        raise ValueError(
            f'padding must not be negative with padding_mode="{mode}", got {pairs}{image}'
        )


def check_pairs(mode: str, pairs: Pairs, extents: Ints, name: str) -> None:
    """Raise ValueError unless the image called ``name`` has pixels for so much padding."""
    if mode == "zeros":
        return
    check_signs(mode, pairs, f" for {name} of extents {extents}")
    most = [n - 1 if mode == "reflect" else n for n in extents]
    if mode != "replicate" and any(max(pair) > n for pair, n in zip(pairs, most, strict=True)):
        rule = "less than" if mode == "reflect" else "at most"
        raise ValueError(
            f'padding must be {rule} the extent of each axis with padding_mode="{mode}", got'
            f" {pairs} for {name} of extents {extents}"
        )


def segments(mode: str, n: int, before: int, after: int) -> Ints:
    """Length, first pixel and step of the three segments of an axis: nine numbers.

    >>> segments("reflect", 5, before=2, after=1)
    (2, 2, -1, 5, 0, 1, 1, 3, -1)
    """
    first, last, step = {
        "reflect": (before, n - 2, -1),
        "replicate": (0, n - 1, 0),
        "circular": (n - before, 0, 1),
    }[mode]
    return (before, first, step, n, 0, 1, after, last, step)
