"""Instructions that Numba has no word for, and what stands for them in the simulator."""

from numba import cuda

from .kernel import SIMULATED

if SIMULATED:

    @cuda.jit(device=True)
    def load4(x, i):
        if i % 4:
            raise IndexError(f"elements from {i} on are not aligned")
        return x[i], x[i + 1], x[i + 2], x[i + 3]

    @cuda.jit(device=True)
    def store4(x, i, a, b, c, d):
        if i % 4:
            raise IndexError(f"elements from {i} on are not aligned")
        x[i], x[i + 1], x[i + 2], x[i + 3] = a, b, c, d

else:
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    FOUR = types.UniTuple(types.float32, 4)

    def _address(context, builder, x, start, index, i):
        """Of the vector from element ``i`` of an array, or from a pointer."""
        if isinstance(x, types.Array):
            start = context.make_array(x)(context, builder, start).data
        place = builder.gep(start, [context.cast(builder, i, index, types.intp)])
        return builder.bitcast(place, ir.VectorType(ir.FloatType(), 4).as_pointer())

    @intrinsic
    def load4(typingctx, x, i):
        """``x[i], x[i+1], x[i+2], x[i+3]`` at once; the first lies at a multiple of 16 bytes."""

        def codegen(context, builder, sig, args):
            address = _address(context, builder, x, args[0], i, args[1])
            vector = builder.load(address, align=16)
            lanes = [builder.extract_element(vector, ir.IntType(32)(j)) for j in range(4)]
            return context.make_tuple(builder, FOUR, lanes)

        return FOUR(x, i), codegen

    @intrinsic
    def store4(typingctx, x, i, a, b, c, d):
        """``x[i], x[i+1], x[i+2], x[i+3] = a, b, c, d`` at once, likewise."""

        def codegen(context, builder, sig, args):
            address = _address(context, builder, x, args[0], i, args[1])
            vector = ir.Constant(ir.VectorType(ir.FloatType(), 4), ir.Undefined)
            for j in range(4):
                vector = builder.insert_element(vector, args[2 + j], ir.IntType(32)(j))
            builder.store(vector, address, align=16)
            return context.get_dummy_value()

        return types.void(x, i, *[types.float32] * 4), codegen
