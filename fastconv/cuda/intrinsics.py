"""Instructions that Numba has no word for, and what stands for them in the simulator."""

import numpy as np
from numba import cuda
from numba.cuda import types

from ..plan.cuda import THREADS
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

    @cuda.jit(device=True)
    def tf32(x):
        bits = np.float32(x).view(np.uint32)
        if np.isfinite(x):
            bits += np.uint32(1 << 12)
        return (bits & np.uint32(0xFFFFE000)).view(np.float32)

    @cuda.jit(device=True)
    def bits_of(x):
        return np.float32(x).view(np.uint32)

    @cuda.jit(device=True)
    def single_of(bits):
        return np.uint32(bits).view(np.float32)

    @cuda.jit(device=True)
    def mma(c0, c1, c2, c3, a0, a1, a2, a3, b0, b1):
        held = cuda.shared.array((THREADS // 32, 32, 10), types.float32)
        sums = cuda.shared.array((THREADS // 32, 16, 8), types.float32)
        warp, lane = divmod(cuda.threadIdx.x, 32)
        held[warp, lane] = c0, c1, c2, c3, a0, a1, a2, a3, b0, b1
        cuda.syncthreads()
        if lane == 0:
            # By thread 4*g + t, of which the rows of operands and sums are made.
            c, a, b = (held[warp, :, part].T.reshape(-1, 8, 4) for part in _PARTS)
            if (_truncated(a) != a).any() or (_truncated(b) != b).any():
                raise ValueError("operands are not rounded to TF32")
            rows = np.block([[a[0], a[2]], [a[1], a[3]]])
            cols = np.hstack([b[0], b[1]])
            sums[warp] = np.block([[_pairs(c[0], c[1])], [_pairs(c[2], c[3])]]) + rows @ cols.T
        cuda.syncthreads()
        g, t = divmod(lane, 4)
        return (
            sums[warp, g, 2 * t],
            sums[warp, g, 2 * t + 1],
            sums[warp, 8 + g, 2 * t],
            sums[warp, 8 + g, 2 * t + 1],
        )

    _PARTS = slice(0, 4), slice(4, 8), slice(8, 10)

    def _truncated(x):
        return (x.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)

    def _pairs(even, odd):
        return np.stack([even, odd], axis=2).reshape(8, 8)

else:
    from llvmlite import ir
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

    @intrinsic
    def tf32(typingctx, x):
        """``x`` rounded to the nearest number of TF32, a float32 whose last 13 bits are zeros."""

        def codegen(context, builder, sig, args):
            kind = ir.FunctionType(ir.IntType(32), [ir.FloatType()])
            rounded = ir.InlineAsm(kind, "cvt.rna.tf32.f32 $0, $1;", "=r,f")
            return builder.bitcast(builder.call(rounded, args), ir.FloatType())

        return types.float32(types.float32), codegen

    @intrinsic
    def bits_of(typingctx, x):
        """The bits of a float32."""

        def codegen(context, builder, sig, args):
            return builder.bitcast(args[0], ir.IntType(32))

        return types.uint32(types.float32), codegen

    @intrinsic
    def single_of(typingctx, bits):
        """The float32 of these bits."""

        def codegen(context, builder, sig, args):
            return builder.bitcast(args[0], ir.FloatType())

        return types.float32(types.uint32), codegen

    @intrinsic
    def mma(typingctx, c0, c1, c2, c3, a0, a1, a2, a3, b0, b1):
        """A thread's part in ``c += a @ b.T`` by a warp, 16 x 8 x 8: see ``tensor.py``."""

        def codegen(context, builder, sig, args):
            sums, operands = args[:4], [builder.bitcast(x, ir.IntType(32)) for x in args[4:]]
            result = ir.LiteralStructType([ir.FloatType()] * 4)
            parameters = [ir.IntType(32)] * 6 + [ir.FloatType()] * 4
            instruction = ir.InlineAsm(
                ir.FunctionType(result, parameters),
                "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"
                " {$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};",
                "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f",
            )
            lanes = builder.call(instruction, [*operands, *sums])
            values = [builder.extract_value(lanes, i) for i in range(4)]
            return context.make_tuple(builder, FOUR, values)

        return FOUR(*[types.float32] * 10), codegen
