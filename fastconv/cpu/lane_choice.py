"""More words for kernels: choosing between vectors lane by lane, and integers carried in vectors.

Beside the largest number so far, a kernel keeps the index where it was found. That is an integer as
wide as the numbers, and travels in the bits of a vector of them, with which nothing is computed.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .simd import I64, Vector, splat


def _narrow(builder: Any, scalar: types.Float, n: Any) -> Any:
    """A 64-bit integer as one of ``scalar``'s width."""
    return n if scalar.bitwidth == 64 else builder.trunc(n, ir.IntType(scalar.bitwidth))


def _bits(builder: Any, vector: Vector, value: Any) -> Any:
    return builder.bitcast(value, ir.VectorType(ir.IntType(vector.scalar.bitwidth), vector.lanes))


@intrinsic
def lowest(typingctx, x):
    """A vector of ``-inf`` of ``x``'s dtype."""
    vector = Vector(x.dtype)

    def codegen(context, builder, sig, args):
        return ir.Constant(vector.llvm, [float("-inf")] * vector.lanes)

    return vector(x), codegen


@intrinsic
def larger(typingctx, a, b, if_larger, otherwise):
    """``if_larger`` where ``a > b``, or where a is NaN and b is not; elsewhere ``otherwise``."""

    def codegen(context, builder, sig, args):
        first, second, yes, no = args
        more = builder.fcmp_unordered(">", first, second)  # or one of them is NaN
        number = builder.fcmp_ordered("ord", second, second)
        return builder.select(builder.and_(more, number), yes, no)

    return a(a, a, a, a), codegen


@intrinsic
def largest(typingctx, a, b):
    """The larger one, a NaN if there is one: what ``larger`` takes of ``a`` and ``b``."""

    def codegen(context, builder, sig, args):
        first, second = args
        more = builder.fcmp_ordered(">", first, second)
        number = builder.select(more, first, second)  # one instruction
        return builder.select(builder.fcmp_unordered("uno", first, first), first, number)

    return a(a, a), codegen


@intrinsic
def carry(typingctx, x, n):
    """An integer in every lane of a vector of ``x``'s dtype."""
    vector = Vector(x.dtype)

    def codegen(context, builder, sig, args):
        number = _narrow(builder, x.dtype, args[1])
        return builder.bitcast(splat(builder, number, vector.lanes), vector.llvm)

    return vector(x, types.intp), codegen


@intrinsic
def moved(typingctx, carrier, n):
    """Carried integers, each plus ``n``."""

    def codegen(context, builder, sig, args):
        number = splat(builder, _narrow(builder, carrier.scalar, args[1]), carrier.lanes)
        return builder.bitcast(builder.add(_bits(builder, carrier, args[0]), number), carrier.llvm)

    return carrier(carrier, types.intp), codegen


@intrinsic
def where_same(typingctx, first, second, value):
    """``value`` where two vectors carry the same integer, elsewhere 0."""

    def codegen(context, builder, sig, args):
        a, b = (_bits(builder, first, carrier) for carrier in args[:2])
        nothing = ir.Constant(first.llvm, [0.0] * first.lanes)
        return builder.select(builder.icmp_signed("==", a, b), args[2], nothing)

    return first(first, first, first), codegen


@intrinsic
def carried(typingctx, number):
    """The integer that a number carries."""

    def codegen(context, builder, sig, args):
        bits = builder.bitcast(args[0], ir.IntType(number.bitwidth))
        return bits if number.bitwidth == 64 else builder.sext(bits, I64)

    return types.int64(number), codegen


@intrinsic
def put_carried(typingctx, integers, i, carrier):
    """``integers[i], integers[i+1], ... =`` those that a vector carries, in 64 bits."""

    def codegen(context, builder, sig, args):
        bits, wide = _bits(builder, carrier, args[2]), ir.VectorType(I64, carrier.lanes)
        if carrier.scalar.bitwidth < 64:
            bits = builder.sext(bits, wide)
        address = builder.bitcast(builder.gep(args[0], [args[1]]), wide.as_pointer())
        builder.store(bits, address, align=8)
        return context.get_dummy_value()

    return types.void(integers, types.intp, carrier), codegen


@intrinsic
def divide(typingctx, a, n):
    """A vector divided by an integer."""

    def codegen(context, builder, sig, args):
        number = builder.sitofp(args[1], a.llvm.element)
        return builder.fdiv(args[0], splat(builder, number, a.lanes))

    return a(a, types.intp), codegen
