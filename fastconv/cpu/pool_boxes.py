"""Boxes of pixels and of windows: where they lie, and as vectors of channels in scratch memory.

``which`` is IMAGE or RESULT, the fields of ``size`` that say where an array's numbers lie; pitches
are distances (d, h, w, vector of channels).
"""

from .kernel import device
from .panels import pack_lanes, unpack_lanes
from .pool_blocks import BLOCK_TABLE, BLOCKS, BOX, CHANNELS, GROUP_TABLE, GROUPS, NEAR, OUTPUTS, ROW
from .simd import element, lanes, pointer


@device
def part_of(task, size, table):
    """Of a task: its image, first channel, number of channels, and where its block's row is."""
    rest, block = divmod(task, size[BLOCKS])
    n, group = divmod(rest, size[GROUPS])
    first = element(table, size[GROUP_TABLE] + group)
    used = element(table, size[GROUP_TABLE] + group + 1) - first
    return n, first, used, size[BLOCK_TABLE] + block * ROW


@device
def channels_at(array, size, which, n, first):
    """Where in the image (``which`` is IMAGE) or in the result (RESULT) some channels begin."""
    return pointer(array, n * size[which] + first * size[which + 1])


@device
def is_near(size, which, used, width):
    """Whether the vectors of ``used`` channels can be read or written where they lie."""
    return size[which + NEAR] == 1 and used % width == 0


@device
def box_of(table, row):
    """Corner and extents of a box."""
    return (
        (table[row], table[row + 1], table[row + 2]),
        (table[row + 3], table[row + 4], table[row + 5]),
    )


@device
def offset(point, pitches):
    """Offset of a pixel or a window (d, h, w)."""
    return point[0] * pitches[0] + point[1] * pitches[1] + point[2] * pitches[2]


@device
def own_pitches(size, which, width):
    """Distances (d, h, w, vector of channels) in the image or the result."""
    return size[which + 2], size[which + 3], size[which + 4], width


@device
def packed_pitches(extents, width):
    """The same where vectors of a box follow one another."""
    planes, lines, line = extents
    return lines * line * width, line * width, width, planes * lines * line * width


@device
def copy_pitches(size, width):
    """The same in a copy of pixels, which has room for the largest box."""
    return packed_pitches((size[BOX], size[BOX + 1], size[BOX + 2]), width)


@device
def found_at(work, size, n, first, used):
    """Where the indices of the largest numbers of all windows are kept, and their pitches.

    As many as there are numbers: (n, vector of channels, d, h, w, lane), of the last vector only
    the lanes that are used.
    """
    outputs = size[OUTPUTS], size[OUTPUTS + 1], size[OUTPUTS + 2]
    windows = outputs[0] * outputs[1] * outputs[2]
    start = pointer(work, (n * size[CHANNELS] + first) * windows)
    return start, packed_pitches(outputs, min(used, lanes(work)))


@device
def pack_box(source, own, distance, box, used, target, pitches):
    """Copy a box of pixels or windows, of at most a vector of channels ``distance`` apart.

    ``own`` and ``pitches`` are those of the source and of the copy.
    """
    corner, (planes, lines, line) = box
    if pitches[1] == line * pitches[2] and own[1] == line * own[2]:
        lines, line = 1, lines * line  # one long line
    for d in range(planes):
        for h in range(lines):
            pack_lanes(
                pointer(source, offset((corner[0] + d, corner[1] + h, corner[2]), own)),
                own[2],
                distance,
                used,
                line,
                pointer(target, d * pitches[0] + h * pitches[1]),
                pitches[2],
            )


@device
def unpack_box(source, pitches, box, used, target, own, distance):
    """The way back from ``pack_box``."""
    corner, (planes, lines, line) = box
    if pitches[1] == line * pitches[2] and own[1] == line * own[2]:
        lines, line = 1, lines * line
    for d in range(planes):
        for h in range(lines):
            unpack_lanes(
                pointer(source, d * pitches[0] + h * pitches[1]),
                pitches[2],
                line,
                pointer(target, offset((corner[0] + d, corner[1] + h, corner[2]), own)),
                own[2],
                distance,
                used,
            )
