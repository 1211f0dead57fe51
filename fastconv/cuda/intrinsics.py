"""Instructions that Numba has no word for, and what stands for them in the simulator."""

from numba import cuda

from .kernel import SIMULATED

if SIMULATED:

    @cuda.jit(device=True)
    def load4(x, i):
        if i % 4:
            raise IndexError(f"elements from {i} on are not aligned")
        return x[i], x[i + 1], x[i + 2], x[i + 3]

else:
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    @intrinsic
    def load4(typingctx, x, i):
        """``x[i], x[i+1], x[i+2], x[i+3]`` at once; the first lies at a multiple of 16 bytes."""
        four = types.UniTuple(types.float32, 4)

        def codegen(context, builder, sig, args):
            start = args[0]
            if isinstance(x, types.Array):
                start = context.make_array(x)(context, builder, start).data
            index = context.cast(builder, args[1], i, types.intp)
            address = builder.bitcast(
                builder.gep(start, [index]), ir.VectorType(ir.FloatType(), 4).as_pointer()
            )
            vector = builder.load(address, align=16)
            lanes = [builder.extract_element(vector, ir.IntType(32)(j)) for j in range(4)]
            return context.make_tuple(builder, four, lanes)

        return four(x, i), codegen
