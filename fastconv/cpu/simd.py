"""Vectors as values: the words that the kernels are written in.

Numba's arrays live in memory, so an accumulator kept in one is written back at every step of a
loop. Here a *vector* is an LLVM value of ``lanes(x)`` numbers and a *tile* is a small matrix of
vectors on the stack, which LLVM keeps in registers once the loops over it are unrolled: a kernel
stays a readable loop nest and compiles to one fused multiply-add per vector.

Memory is addressed by ``(x, i)``: the ``i``-th element counted from the first element of an array
or from a pointer. Nothing is checked and nothing wraps around: offsets may well be negative.
"""

import operator
from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from ..host import LINE, VECTOR_BITS

# Vectors in a cache line.
LINE_VECTORS = LINE * 8 // VECTOR_BITS

I32 = ir.IntType(32)
I64 = ir.IntType(64)


class Vector(types.Type):
    """Numba type of a register full of floating-point numbers."""

    def __init__(self, scalar: types.Float) -> None:
        self.scalar = scalar
        self.lanes = VECTOR_BITS // scalar.bitwidth
        super().__init__(name=f"vector({scalar} x {self.lanes})")

    @property
    def llvm(self) -> ir.VectorType:
        element = ir.FloatType() if self.scalar.bitwidth == 32 else ir.DoubleType()
        return ir.VectorType(element, self.lanes)

    @property
    def suffix(self) -> str:
        """How LLVM names intrinsics of this type, such as ``v16f32``."""
        return f"v{self.lanes}f{self.scalar.bitwidth}"


class Tile(types.Type):
    """Numba type of a matrix of vectors or pointers on the stack, or rather in registers."""

    def __init__(self, kind: Vector | types.CPointer, rows: int, cols: int) -> None:
        self.kind = kind
        self.rows = rows
        self.cols = cols
        super().__init__(name=f"tile({kind}, {rows} x {cols})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vector) -> None:
        super().__init__(dmm, fe_type, fe_type.llvm)


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Tile) -> None:
        element = dmm.lookup(fe_type.kind).get_value_type()
        matrix = ir.ArrayType(element, fe_type.rows * fe_type.cols)
        super().__init__(dmm, fe_type, matrix.as_pointer())


def _address(context: Any, builder: Any, memory: types.Type, x: Any, i: Any) -> Any:
    """Address of element ``i`` of an array or a pointer."""
    array = isinstance(memory, types.Array)
    base = context.make_array(memory)(context, builder, x).data if array else x
    return builder.gep(base, [i])


def _vector_address(context: Any, builder: Any, memory: types.Type, x: Any, i: Any) -> Any:
    element = _address(context, builder, memory, x, i)
    return builder.bitcast(element, Vector(memory.dtype).llvm.as_pointer())


def _call(builder: Any, name: str, result: Any, args: Sequence[Any]) -> Any:
    kind = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def splat(builder: Any, scalar: Any, lanes: int) -> Any:
    """A number in every lane, for the definitions of such words."""
    undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, scalar, I32(0))
    return builder.shuffle_vector(
        first, undefined, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
    )


def _first(builder: Any, count: Any, lanes: int) -> Any:
    """Mask of the lanes below ``count``."""
    index = ir.Constant(ir.VectorType(I64, lanes), list(range(lanes)))
    return builder.icmp_signed("<", index, splat(builder, count, lanes))


@intrinsic
def lanes(typingctx, x):
    """Numbers in one vector of ``x``'s dtype: a constant to the compiler."""
    return types.intp(x), lambda context, builder, sig, args: I64(Vector(x.dtype).lanes)


@intrinsic
def pointer(typingctx, x, i):
    """Pointer to element ``i`` of ``x``."""

    def codegen(context, builder, sig, args):
        return _address(context, builder, x, *args)

    return types.CPointer(x.dtype)(x, types.intp), codegen


def pointer_to(kind: types.Integer) -> Any:
    """Make the word ``f(x)`` for a pointer to the bits at ``x`` as such integers."""

    @intrinsic
    def integers(typingctx, x):
        def codegen(context, builder, sig, args):
            return builder.bitcast(args[0], ir.IntType(kind.bitwidth).as_pointer())

        return types.CPointer(kind)(x), codegen

    return integers


@intrinsic
def element(typingctx, x, i):
    """The number ``x[i]``."""

    def codegen(context, builder, sig, args):
        return builder.load(_address(context, builder, x, *args))

    return x.dtype(x, types.intp), codegen


@intrinsic
def put(typingctx, x, i, value):
    """``x[i] = value`` for one number."""

    def codegen(context, builder, sig, args):
        builder.store(args[2], _address(context, builder, x, *args[:2]))
        return context.get_dummy_value()

    return types.void(x, types.intp, x.dtype), codegen


@intrinsic
def load(typingctx, x, i):
    """The vector ``x[i], x[i+1], ...``."""
    vector = Vector(x.dtype)

    def codegen(context, builder, sig, args):
        address = _vector_address(context, builder, x, *args)
        return builder.load(address, align=x.dtype.bitwidth // 8)

    return vector(x, types.intp), codegen


@intrinsic
def store(typingctx, x, i, value):
    """``x[i], x[i+1], ... = value`` for a vector."""

    def codegen(context, builder, sig, args):
        address = _vector_address(context, builder, x, *args[:2])
        builder.store(args[2], address, align=x.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(x, types.intp, Vector(x.dtype)), codegen


@intrinsic
def store_far(typingctx, x, i, value):
    """Like ``store`` to a place that ``is_aligned``, past the caches: nothing is read for it."""

    def codegen(context, builder, sig, args):
        address = _vector_address(context, builder, x, *args[:2])
        written = builder.store(args[2], address, align=VECTOR_BITS // 8)
        written.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))
        return context.get_dummy_value()

    return types.void(x, types.intp, Vector(x.dtype)), codegen


@intrinsic
def is_aligned(typingctx, x):
    """Whether ``x[0]`` lies at the beginning of a cache line."""

    def codegen(context, builder, sig, args):
        offset = builder.and_(builder.ptrtoint(args[0], I64), I64(LINE - 1))
        return builder.icmp_unsigned("==", offset, I64(0))

    return types.boolean(x), codegen


@intrinsic
def load_even(typingctx, x, i):
    """The vector ``x[i], x[i+2], ...``; reads one number more."""
    vector = Vector(x.dtype)

    def codegen(context, builder, sig, args):
        align = x.dtype.bitwidth // 8
        beyond = builder.add(args[1], I64(vector.lanes))
        low = builder.load(_vector_address(context, builder, x, *args), align=align)
        high = builder.load(_vector_address(context, builder, x, args[0], beyond), align=align)
        even = ir.Constant(ir.VectorType(I32, vector.lanes), [2 * i for i in range(vector.lanes)])
        return builder.shuffle_vector(low, high, even)

    return vector(x, types.intp), codegen


@intrinsic
def store_even(typingctx, x, i, value):
    """``x[i], x[i+2], ... = value`` for a vector; nothing between them is written."""
    vector = Vector(x.dtype)

    def codegen(context, builder, sig, args):
        align = I32(x.dtype.bitwidth // 8)
        name = f"llvm.masked.store.{vector.suffix}.p0"
        mask = ir.Constant(ir.VectorType(ir.IntType(1), vector.lanes), [1, 0] * (vector.lanes // 2))
        for half in (0, vector.lanes // 2):
            twice = [half + i // 2 for i in range(vector.lanes)]
            lanes = ir.Constant(ir.VectorType(I32, vector.lanes), twice)
            wide = builder.shuffle_vector(args[2], args[2], lanes)
            start = builder.add(args[1], I64(2 * half))
            address = _vector_address(context, builder, x, args[0], start)
            _call(builder, name, ir.VoidType(), [wide, address, align, mask])
        return context.get_dummy_value()

    return types.void(x, types.intp, vector), codegen


def _prefetch(builder: Any, address: Any, locality: int) -> None:
    read, data = I32(0), I32(1)
    address = builder.bitcast(address, ir.IntType(8).as_pointer())
    _call(builder, "llvm.prefetch.p0", ir.VoidType(), [address, read, I32(locality), data])


@intrinsic
def prefetch(typingctx, x, i):
    """Ask for the cache line of ``x[i]``, which need not exist."""

    def codegen(context, builder, sig, args):
        _prefetch(builder, _address(context, builder, x, *args), 3)
        return context.get_dummy_value()

    return types.void(x, types.intp), codegen


@intrinsic
def prefetch_nearby(typingctx, x, i):
    """Like ``prefetch``, into the second-level cache and not the first."""

    def codegen(context, builder, sig, args):
        _prefetch(builder, _address(context, builder, x, *args), 2)
        return context.get_dummy_value()

    return types.void(x, types.intp), codegen


@intrinsic
def rolled(typingctx):
    """Keeps LLVM from unrolling the loop that it stands in: for loops of a few steps.

    Their copies of 2 or 8 steps would never run, and were half of what a kernel took to compile.
    """

    def codegen(context, builder, sig, args):
        kind = ir.FunctionType(ir.VoidType(), [])
        nothing = ir.InlineAsm(kind, "", "", side_effect=True)
        builder.call(nothing, [], attrs=("convergent",))
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def opaque(typingctx, number):
    """The same integer, of which LLVM knows nothing: it unrolls no loop that takes one each step.

    Unlike ``rolled`` it lets numbers of an array be read once, before the loop.
    """

    def codegen(context, builder, sig, args):
        kind = ir.FunctionType(args[0].type, [args[0].type])
        same = ir.InlineAsm(kind, "", "=r,0")
        return builder.call(same, args, attrs=("convergent", "readnone"))

    return number(number), codegen


@intrinsic
def load_first(typingctx, x, i, count):
    """Like ``load`` for the first ``count`` lanes; the others are zero and are not read."""
    vector = Vector(x.dtype)

    def codegen(context, builder, sig, args):
        address = _vector_address(context, builder, x, *args[:2])
        mask = _first(builder, args[2], vector.lanes)
        align = I32(x.dtype.bitwidth // 8)
        zero = ir.Constant(vector.llvm, [0.0] * vector.lanes)
        name = f"llvm.masked.load.{vector.suffix}.p0"
        return _call(builder, name, vector.llvm, [address, align, mask, zero])

    return vector(x, types.intp, types.intp), codegen


@intrinsic
def load_or(typingctx, x, i, condition, other):
    """Like ``load`` where ``condition`` holds; otherwise ``other``, and nothing is read."""
    vector = Vector(x.dtype)

    def codegen(context, builder, sig, args):
        address = _vector_address(context, builder, x, *args[:2])
        mask = splat(builder, builder.trunc(args[2], ir.IntType(1)), vector.lanes)
        align = I32(x.dtype.bitwidth // 8)
        name = f"llvm.masked.load.{vector.suffix}.p0"
        return _call(builder, name, vector.llvm, [address, align, mask, args[3]])

    return vector(x, types.intp, types.boolean, vector), codegen


@intrinsic
def store_first(typingctx, x, i, value, count):
    """Like ``store`` for the first ``count`` lanes; the others are not written."""
    vector = Vector(x.dtype)

    def codegen(context, builder, sig, args):
        address = _vector_address(context, builder, x, *args[:2])
        mask = _first(builder, args[3], vector.lanes)
        align = I32(x.dtype.bitwidth // 8)
        name = f"llvm.masked.store.{vector.suffix}.p0"
        _call(builder, name, ir.VoidType(), [args[2], address, align, mask])
        return context.get_dummy_value()

    return types.void(x, types.intp, vector, types.intp), codegen


@intrinsic
def broadcast(typingctx, x, i):
    """The number ``x[i]`` in every lane."""
    vector = Vector(x.dtype)

    def codegen(context, builder, sig, args):
        return splat(builder, builder.load(_address(context, builder, x, *args)), vector.lanes)

    return vector(x, types.intp), codegen


@intrinsic
def zero(typingctx, x):
    """A vector of zeros of ``x``'s dtype."""
    vector = Vector(x.dtype)

    def codegen(context, builder, sig, args):
        return ir.Constant(vector.llvm, [0.0] * vector.lanes)

    return vector(x), codegen


@intrinsic
def fma(typingctx, a, b, c):
    """``a * b + c``, fused where the processor can (never a call to a library's ``fma``)."""

    def codegen(context, builder, sig, args):
        return _call(builder, f"llvm.fmuladd.{a.suffix}", a.llvm, args)

    return a(a, a, a), codegen


@intrinsic
def where_positive(typingctx, a, b):
    """The numbers of ``a`` where those of ``b`` are above 0 or NaN; 0 elsewhere."""

    def codegen(context, builder, sig, args):
        zero = ir.Constant(b.llvm, [0.0] * b.lanes)
        return builder.select(builder.fcmp_ordered("<=", args[1], zero), zero, args[0])

    return a(a, b), codegen


@intrinsic
def sum_lanes(typingctx, a):
    """Sum of the numbers in a vector, added in pairs."""

    def codegen(context, builder, sig, args):
        name = f"llvm.vector.reduce.fadd.{a.suffix}"
        start = ir.Constant(a.llvm.element, -0.0)
        kind = ir.FunctionType(a.llvm.element, [a.llvm.element, a.llvm])
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(function, [start, args[0]], fastmath=("reassoc",))

    return a.scalar(a), codegen


class _VectorArithmetic(AbstractTemplate):
    """``a + b`` and ``a - b`` for vectors, ``s * a`` for a number and a vector."""

    def generic(self, args, kws):
        a, b = args
        if self.key is operator.mul:
            if isinstance(a, types.Float) and isinstance(b, Vector):
                return signature(b, b.scalar, b)
        elif isinstance(a, Vector) and a == b:
            return signature(a, a, a)


for _operator in (operator.add, operator.sub, operator.mul):
    infer_global(_operator)(type("Vector" + _operator.__name__, (_VectorArithmetic,), {}))


# "contract" lets LLVM fuse a product into the sum that takes it, "nsz" drop a zero that is added.
@lower_builtin(operator.add, Vector, Vector)
def _lower_add(context, builder, sig, args):
    return builder.fadd(*args, flags=("contract", "nsz"))


@lower_builtin(operator.sub, Vector, Vector)
def _lower_sub(context, builder, sig, args):
    return builder.fsub(*args, flags=("contract", "nsz"))


@lower_builtin(operator.mul, types.Float, Vector)
def _lower_scale(context, builder, sig, args):
    factor = splat(builder, args[0], sig.return_type.lanes)
    return builder.fmul(factor, args[1], flags=("contract", "nsz"))


def _allocate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return cgutils.alloca_once(builder, context.get_value_type(sig.return_type).pointee)


@intrinsic(prefer_literal=True)
def tile(typingctx, x, rows, cols):
    """A ``rows x cols`` tile of vectors of ``x``'s dtype, undefined; both sizes are literals."""
    if not (isinstance(rows, types.IntegerLiteral) and isinstance(cols, types.IntegerLiteral)):
        return None
    kind = Tile(Vector(x.dtype), rows.literal_value, cols.literal_value)
    return kind(x, rows, cols), _allocate


@intrinsic
def square_tile(typingctx, x):
    """A ``lanes x 1`` tile of ``x``'s dtype, as many numbers wide as high; its values undefined."""
    vector = Vector(x.dtype)
    return Tile(vector, vector.lanes, 1)(x), _allocate


@intrinsic(prefer_literal=True)
def pointers(typingctx, x, count):
    """A ``count x 1`` tile of pointers to numbers like those of ``x``, undefined; a literal."""
    if not isinstance(count, types.IntegerLiteral):
        return None
    return Tile(types.CPointer(x.dtype), count.literal_value, 1)(x, count), _allocate


def _slot(builder: Any, kind: Tile, place: Any, index: Any) -> Any:
    i, j = cgutils.unpack_tuple(builder, index)
    flat = builder.add(builder.mul(i, I64(kind.cols)), j)
    return builder.gep(place, [I64(0), flat], inbounds=True)


@infer_global(operator.getitem)
class _GetElement(AbstractTemplate):
    def generic(self, args, kws):
        if isinstance(args[0], Tile):
            return signature(args[0].kind, args[0], types.UniTuple(types.intp, 2))


@infer_global(operator.setitem)
class _SetElement(AbstractTemplate):
    def generic(self, args, kws):
        if isinstance(args[0], Tile):
            index = types.UniTuple(types.intp, 2)
            return signature(types.none, args[0], index, args[0].kind)


@lower_builtin(operator.getitem, Tile, types.UniTuple)
def _lower_get(context, builder, sig, args):
    return builder.load(_slot(builder, sig.args[0], *args))


@lower_builtin(operator.setitem, Tile, types.UniTuple, Vector)
@lower_builtin(operator.setitem, Tile, types.UniTuple, types.CPointer)
def _lower_set(context, builder, sig, args):
    builder.store(args[2], _slot(builder, sig.args[0], *args[:2]))
    return context.get_dummy_value()


@intrinsic
def transpose(typingctx, square):
    """Transpose a ``lanes x 1`` tile in place: number j of vector i and number i of vector j swap.

    Each of log2(lanes) rounds swaps the off-diagonal halves of all blocks of one size.
    """
    size = square.kind.lanes

    def codegen(context, builder, sig, args):
        slots = [builder.gep(args[0], [I64(0), I64(i)], inbounds=True) for i in range(size)]
        rows = [builder.load(slot) for slot in slots]
        half = size // 2
        while half:
            low = [lane if not lane & half else size + lane - half for lane in range(size)]
            high = [lane + half if not lane & half else size + lane for lane in range(size)]
            low, high = (ir.Constant(ir.VectorType(I32, size), mask) for mask in (low, high))
            for i in range(size):
                if not i & half:
                    a, b = rows[i], rows[i + half]
                    rows[i] = builder.shuffle_vector(a, b, low)
                    rows[i + half] = builder.shuffle_vector(a, b, high)
            half //= 2
        for slot, row in zip(slots, rows, strict=True):
            builder.store(row, slot)
        return context.get_dummy_value()

    return types.void(square), codegen
