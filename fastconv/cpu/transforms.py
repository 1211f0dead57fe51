"""The small transforms of Winograd's algorithm, on vectors: a lane is a channel.

The product of two polynomials is found from its values at points, one product each. Turned around,
that gives m outputs of a correlation with r taps from m+r-1 products instead of m*r. Here these are
6, at the points 0, 1, -1, 2, -2 and infinity; over two axes

    y = A' [(G w G') * (B' x B)] A          6x6 products for 4x4 outputs of 3x3 taps: 36, not 144

with * element by element and ' the transpose, from A. Lavin and S. Gray, "Fast algorithms for
convolutional neural networks", arXiv:1509.09308. B depends on m+r-1 alone: ``grad_weight``, which
has 3x3 outputs of 4x4 taps, shares it.

Each function below multiplies column ``j`` of the tile ``a`` by its matrix and writes the product
to *row* ``j`` of ``b``: twice over all columns, and both axes are done.
"""

from .kernel import inline
from .simd import load, store, tile, where_positive

POINTS = 6
OUTPUTS = 4  # of the forward map along an axis; taps of grad_weight
TAPS = 3  # of the forward map along an axis; outputs of grad_weight


@inline
def image(a, j, b):
    """B': 6 pixels to 6 points."""
    even, odd = a[4, j] - 4.0 * a[2, j], a[3, j] - 4.0 * a[1, j]
    even_two, odd_two = a[4, j] - a[2, j], 2.0 * (a[3, j] - a[1, j])
    b[j, 0] = 4.0 * a[0, j] - 5.0 * a[2, j] + a[4, j]
    b[j, 1] = even + odd
    b[j, 2] = even - odd
    b[j, 3] = even_two + odd_two
    b[j, 4] = even_two - odd_two
    b[j, 5] = 4.0 * a[1, j] - 5.0 * a[3, j] + a[5, j]


@inline
def three_taps(a, j, b):
    """G: 3 taps to 6 points."""
    even, odd = (-1.0 / 6.0) * (a[0, j] + a[2, j]), (-1.0 / 6.0) * a[1, j]
    even_two, odd_two = (1.0 / 24.0) * a[0, j] + (1.0 / 6.0) * a[2, j], (1.0 / 12.0) * a[1, j]
    b[j, 0] = 0.25 * a[0, j]
    b[j, 1] = even + odd
    b[j, 2] = even - odd
    b[j, 3] = even_two + odd_two
    b[j, 4] = even_two - odd_two
    b[j, 5] = a[2, j]


@inline
def four_taps(a, j, b):
    """G: 4 taps to 6 points."""
    even, odd = (-1.0 / 6.0) * (a[0, j] + a[2, j]), (-1.0 / 6.0) * (a[1, j] + a[3, j])
    even_two = (1.0 / 24.0) * a[0, j] + (1.0 / 6.0) * a[2, j]
    odd_two = (1.0 / 12.0) * a[1, j] + (1.0 / 3.0) * a[3, j]
    b[j, 0] = 0.25 * a[0, j]
    b[j, 1] = even + odd
    b[j, 2] = even - odd
    b[j, 3] = even_two + odd_two
    b[j, 4] = even_two - odd_two
    b[j, 5] = a[3, j]


@inline
def four_outputs(a, j, b):
    """A': 6 points to 4 outputs."""
    even, odd = a[1, j] + a[2, j], a[1, j] - a[2, j]
    even_two, odd_two = a[3, j] + a[4, j], a[3, j] - a[4, j]
    b[j, 0] = a[0, j] + even + even_two
    b[j, 1] = odd + 2.0 * odd_two
    b[j, 2] = even + 4.0 * even_two
    b[j, 3] = odd + 8.0 * odd_two + a[5, j]


@inline
def three_outputs(a, j, b):
    """A': 6 points to 3 outputs."""
    even, odd = a[1, j] + a[2, j], a[1, j] - a[2, j]
    even_two, odd_two = a[3, j] + a[4, j], a[3, j] - a[4, j]
    b[j, 0] = a[0, j] + even + even_two
    b[j, 1] = odd + 2.0 * odd_two
    b[j, 2] = even + 4.0 * even_two + a[5, j]


@inline
def transform(matrix, before, after, source, rows, cols, bias, relu, target, to_rows, to_cols):
    """Apply one of the above to both axes of ``before x before`` vectors.

    Element (i, j) lies ``i * rows + j * cols`` numbers from ``source``; of the ``after x after``
    results, to which ``bias`` is added, ``i * to_rows + j * to_cols`` from ``target``; with
    ``relu``, 0 for those below it.
    """
    a, half, b = tile(source, 6, 6), tile(source, 6, 6), tile(source, 6, 6)
    for i in range(before):
        for j in range(before):
            a[i, j] = load(source, i * rows + j * cols)
    for j in range(before):
        matrix(a, j, half)
    for j in range(after):
        matrix(half, j, b)
    for i in range(after):
        for j in range(after):
            total = bias + b[i, j]
            store(
                target, i * to_rows + j * to_cols, where_positive(total, total) if relu else total
            )
