"""A small model of every operator: `y`, and `y1`, `y2`, ... for its further outputs, made of `x` and others."""

# Operators that are not run, each with the reason.
NOT_RUN = {
    **dict.fromkeys(("Optional", "OptionalGetElement", "SequenceAt", "SequenceConstruct"), "sequences are no tensors"),
    **{
        f"com.microsoft.{name}": "a whole generation, with models in it"
        for name in ("BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch")
    },
    **{
        f"com.microsoft.{name}": "only training builds have it"
        for name in ("BiasDropout", "BitmaskBiasDropout", "BitmaskDropout")
    },
    "com.microsoft.QLinearReduceMean": "has no kernel for the CPU",
    "com.microsoft.DecoderMaskedMultiHeadAttention": "its caches are buffers that a generation hands on",
}
X, Z = "float[b, s, 12] x", "float[s, 12] z"
IMAGE = "float[b, 4, 6, 6] x"
ROW = "float[12] g, float[12] h"
CODED = "uint8[b, s, 12] x, float o, uint8 c"
BOTH = f"{CODED}, uint8[12] z"
# By operator: inputs, and nodes that make y (and y1, y2, ... of further outputs). Those left out take x, or x and z.
CASES = {
    "And": ("bool[b, s, 12] x, bool[12] z", "y = And(x, z)"),
    "ArgMax": (X, "y = ArgMax<axis = 1>(x)"),
    "ArgMin": (X, "y = ArgMin<axis = -1, keepdims = 0>(x)"),
    "Attention": ("float[b, 2, s, 4] x, float[b, 2, m, 4] k, float[b, 2, m, 5] v", "y = Attention(x, k, v)"),
    "AveragePool": (IMAGE, "y = AveragePool<kernel_shape = [2, 2]>(x)"),
    "BatchNormalization": (
        f"{IMAGE}, float[4] g, float[4] h, float[4] i, float[4] j",
        "j2 = Abs(j) y = BatchNormalization(x, g, h, i, j2)",
    ),
    "BitShift": ("uint8[b, s] x, uint8[s] z", 'y = BitShift<direction = "RIGHT">(x, z)'),
    "BitwiseNot": ("int32[b, s] x", "y = BitwiseNot(x)"),
    **{f"Bitwise{f}": ("int32[b, s] x, int32[s] z", f"y = Bitwise{f}(x, z)") for f in ("And", "Or", "Xor")},
    "Cast": (X, "y = Cast<to = 10>(x)"),
    "CastLike": (f"{X}, float16[1] z", "y = CastLike(x, z)"),
    "Clip": (f"{X}, float z", "y = Clip(x, z)"),
    "Compress": (f"{X}, bool[3] c", "y = Compress<axis = 1>(x, c)"),
    "Concat": (f"{X}, float[b, m, 12] z", "y = Concat<axis = 1>(x, z)"),
    "ConstantOfShape": (X, "d = Shape(x) y = ConstantOfShape(d)"),
    "Conv": (f"{IMAGE}, float[5, 4, 3, 3] w", "y = Conv(x, w)"),
    "ConvInteger": ("uint8[b, 4, 6, 6] x, uint8[5, 4, 3, 3] w", "y = ConvInteger(x, w)"),
    "ConvTranspose": (f"{IMAGE}, float[4, 3, 3, 3] w", "y = ConvTranspose<group = 2>(x, w)"),
    "CumSum": (X, "a = Constant<value_int = 1>() y = CumSum(x, a)"),
    "DepthToSpace": (IMAGE, "y = DepthToSpace<blocksize = 2>(x)"),
    "DequantizeLinear": (CODED, "y = DequantizeLinear(x, o, c)"),
    "Dropout": (X, "y, y1 = Dropout(x)"),
    "DynamicQuantizeLinear": (X, "y, y1, y2 = DynamicQuantizeLinear(x)"),
    "Einsum": (f"{X}, float[12, 2, 5] w", 'y = Einsum<equation = "bsk,khn->bhsn">(x, w)'),
    "Expand": (X, "z = Constant<value_ints = [4, 1, 1, 1]>() y = Expand(x, z)"),
    "EyeLike": ("float[s, 12] x", "y = EyeLike(x)"),
    "Flatten": (X, "y = Flatten<axis = 2>(x)"),
    "GRU": (f"{X}, float[1, 15, 12] w, float[1, 15, 5] r", "y, y1 = GRU<hidden_size = 5>(x, w, r)"),
    "Gather": (f"{X}, int64[m, 2] i", "y = Gather<axis = 1>(x, i)"),
    "GatherElements": (f"{X}, int64[b, s, 4] i", "y = GatherElements<axis = 2>(x, i)"),
    "GatherND": (f"{X}, int64[m, 2] i", "y = GatherND(x, i)"),
    "Gemm": ("float[12, s] x, float[5, 12] w, float[5] c", "y = Gemm<transA = 1, transB = 1>(x, w, c)"),
    "GlobalAveragePool": (IMAGE, "y = GlobalAveragePool(x)"),
    "GlobalMaxPool": (IMAGE, "y = GlobalMaxPool(x)"),
    "GroupNormalization": (f"{IMAGE}, float[4] g, float[4] h", "y = GroupNormalization<num_groups = 2>(x, g, h)"),
    "InstanceNormalization": (f"{IMAGE}, float[4] g, float[4] h", "y = InstanceNormalization(x, g, h)"),
    "LSTM": (f"{X}, float[1, 20, 12] w, float[1, 20, 5] r", "y, y1, y2 = LSTM<hidden_size = 5>(x, w, r)"),
    "LayerNormalization": (f"{X}, {ROW}", "y, y1, y2 = LayerNormalization(x, g, h)"),
    "MatMul": (f"{X}, float[12, 5] w", "y = MatMul(x, w)"),
    "MatMulInteger": ("uint8[b, s, 12] x, int8[12, 5] w", "y = MatMulInteger(x, w)"),
    "MaxPool": (IMAGE, "y, y1 = MaxPool<kernel_shape = [2, 2]>(x)"),
    "Mod": (f"{X}, {Z}", "y = Mod<fmod = 1>(x, z)"),
    "Multinomial": ("float[b, 12] x", "y = Multinomial<sample_size = 9, dtype = 7>(x)"),
    "Not": ("bool[b, s] x", "y = Not(x)"),
    "Or": ("bool[b, s, 12] x, bool[12] z", "y = Or(x, z)"),
    "PRelu": (f"{X}, float[12] z", "y = PRelu(x, z)"),
    "Pad": (X, "p = Constant<value_ints = [0, 1, 0, 0, 2, 0]>() y = Pad(x, p)"),
    "Pow": (f"{X}, float z", "p = Abs(x) y = Pow(p, z)"),
    "QLinearConv": (
        "uint8[b, 4, 6, 6] x, float o, uint8 c, uint8[5, 4, 3, 3] w",
        "y = QLinearConv(x, o, c, w, o, c, o, c)",
    ),
    "QLinearMatMul": (f"{CODED}, uint8[12, 5] w", "y = QLinearMatMul(x, o, c, w, o, c, o, c)"),
    "QuantizeLinear": (f"{X}, float o, int8 c", "y = QuantizeLinear(x, o, c)"),
    "RMSNormalization": (f"{X}, float[12] g", "y = RMSNormalization(x, g)"),
    "RNN": (f"{X}, float[1, 5, 12] w, float[1, 5, 5] r", "y, y1 = RNN<hidden_size = 5>(x, w, r)"),
    "RandomNormal": ("float[1] x", "y = RandomNormal<shape = [2, 9]>()"),
    "RandomUniform": ("float[1] x", "y = RandomUniform<shape = [2, 9]>()"),
    "Range": ("int64[b, s] x", "d = Shape(x) i = Constant<value_int = 1>() n = Gather(d, i) y = Range(i, n, i)"),
    "Reshape": (X, "z = Constant<value_ints = [0, -1, 2, 6]>() y = Reshape(x, z)"),
    "Resize": (IMAGE, "r = Constant<value_floats = [1.0, 1.0, 2.0, 2.0]>() y = Resize(x, , r)"),
    "ReverseSequence": (
        X,
        "l = Constant<value_ints = [2, 1, 1]>() y = ReverseSequence<batch_axis = 1, time_axis = 0>(x, l)",
    ),
    "RotaryEmbedding": (
        "float[b, 2, s, 4] x, float[m, 2] c, float[m, 2] d, int64[b, s] i",
        "y = RotaryEmbedding(x, c, d, i)",
    ),
    "ScatterElements": (f"{X}, int64[1, 1, 4] i, float[1, 1, 4] u", "y = ScatterElements<axis = 1>(x, i, u)"),
    "ScatterND": (f"{X}, int64[1, 1] i, float[1, s, 12] u", "y = ScatterND(x, i, u)"),
    "Shape": (X, "y = Shape<start = 1>(x)"),
    "SimplifiedLayerNormalization": (f"{X}, float[12] g", "y = SimplifiedLayerNormalization(x, g)"),
    "Slice": (
        X,
        "i = Constant<value_ints = [1, -4]>() j = Constant<value_ints = [3, 12]>() a = Constant<value_ints = [1, 2]>()"
        "y = Slice(x, i, j, a)",
    ),
    "SpaceToDepth": (IMAGE, "y = SpaceToDepth<blocksize = 2>(x)"),
    "Split": (X, "z = Constant<value_ints = [5, 7]>() y, y1 = Split<axis = -1>(x, z)"),
    "Squeeze": ("float[b, 1, s, 1] x", "a = Constant<value_ints = [1, -1]>() y = Squeeze(x, a)"),
    "Swish": (X, "y = Swish(x)"),
    "Tile": (X, "r = Constant<value_ints = [1, 2, 3]>() y = Tile(x, r)"),
    "TopK": (X, "k = Constant<value_ints = [4]>() y, y1 = TopK(x, k)"),
    "Transpose": (X, "y = Transpose<perm = [2, 0, 1]>(x)"),
    "Unsqueeze": (X, "a = Constant<value_ints = [0, -1]>() y = Unsqueeze(x, a)"),
    "Where": (f"bool[b, 1, 1] c, {X}, {Z}", "y = Where(c, x, z)"),
    "Xor": ("bool[b, s, 12] x, bool[12] z", "y = Xor(x, z)"),
    "com.microsoft.Attention": (
        f"{X}, float[12, 24] w, float[24] h",
        "y = com.microsoft.Attention<num_heads = 2>(x, w, h)",
    ),
    "com.microsoft.BiasGelu": (f"{X}, float[12] g", "y = com.microsoft.BiasGelu(x, g)"),
    "com.microsoft.DequantizeLinear": (CODED, "y = com.microsoft.DequantizeLinear(x, o, c)"),
    "com.microsoft.DynamicQuantizeLSTM": (
        f"{X}, int8[1, 12, 20] w, int8[1, 5, 20] r, float[1] o, int8[1] c",
        "y, y1, y2 = com.microsoft.DynamicQuantizeLSTM<hidden_size = 5>(x, w, r, , , , , , o, c, o, c)",
    ),
    "com.microsoft.DynamicQuantizeMatMul": (
        f"{X}, int8[12, 5] w, float o",
        "y = com.microsoft.DynamicQuantizeMatMul(x, w, o)",
    ),
    "com.microsoft.EmbedLayerNormalization": (
        "int32[b, s] x, float[9, 12] t, float[9, 12] u, float[9, 12] v, float[12] g, float[12] h",
        "y, y1 = com.microsoft.EmbedLayerNormalization(x, x, t, u, v, g, h, x)",
    ),
    "com.microsoft.FusedConv": (
        f"{IMAGE}, float[5, 4, 3, 3] w",
        'y = com.microsoft.FusedConv<activation = "Relu">(x, w)',
    ),
    "com.microsoft.FusedGemm": (
        "float[s, 12] x, float[12, 5] w, float[5] c",
        'y = com.microsoft.FusedGemm<activation = "Relu">(x, w, c)',
    ),
    "com.microsoft.FusedMatMul": (f"{X}, float[5, 12] w", "y = com.microsoft.FusedMatMul<transB = 1>(x, w)"),
    "com.microsoft.GatherBlockQuantized": (
        "uint8[20, 16] x, int64[b, s] i, float[20, 1] o",
        "y = com.microsoft.GatherBlockQuantized<bits = 4, block_size = 32, quantize_axis = 1>(x, i, o)",
    ),
    "com.microsoft.GroupQueryAttention": (
        "float[b, s, 32] x, float[b, s, 16] k, float[b, s, 16] v",
        "l = Constant<value = int32[2] {2, 2}>() t = Constant<value = int32 {3}>() y, y1, y2 ="
        " com.microsoft.GroupQueryAttention<num_heads = 4, kv_num_heads = 2>(x, k, v, , , l, t)",
    ),
    "com.microsoft.MatMulBnb4": (
        "float[b, s, 32] x, uint8[80] w, float[5] o",
        "y = com.microsoft.MatMulBnb4<K = 32, N = 5, block_size = 32, quant_type = 1>(x, w, o)",
    ),
    "com.microsoft.MatMulIntegerToFloat": (
        "uint8[b, s, 12] x, uint8[12, 5] w, float o",
        "y = com.microsoft.MatMulIntegerToFloat(x, w, o, o)",
    ),
    "com.microsoft.MatMulNBits": (
        "float[b, s, 32] x, uint8[5, 1, 16] w, float[5] o",
        "y = com.microsoft.MatMulNBits<K = 32, N = 5, bits = 4, block_size = 32>(x, w, o)",
    ),
    "com.microsoft.MoE": (
        "float[s, 12] x, float[s, 2] p, float[2, 8, 12] w, float[2, 8] g, float[2, 12, 8] v, float[2, 12] h",
        'y = com.microsoft.MoE<k = 1, activation_type = "relu">(x, p, w, g, v, h)',
    ),
    "com.microsoft.QMoE": (
        "float[s, 32] x, float[s, 2] p, uint8[2, 32, 16] w, float[2, 32] o, uint8[2, 32, 16] v",
        'y = com.microsoft.QMoE<k = 1, activation_type = "relu", expert_weight_bits = 4>(x, p, w, o, , v, o)',
    ),
    "com.microsoft.MultiHeadAttention": (
        "float[b, s, 8] x, float[b, m, 8] k, float[b, m, 6] v",
        "y = com.microsoft.MultiHeadAttention<num_heads = 2>(x, k, v)",
    ),
    "com.microsoft.QAttention": (
        "uint8[b, s, 12] x, int8[12, 24] w, float[24] h, float o",
        "y = com.microsoft.QAttention<num_heads = 2>(x, w, h, o, o)",
    ),
    "com.microsoft.QGemm": (
        "uint8[s, 12] x, float o, uint8 c, uint8[12, 5] w",
        "y = com.microsoft.QGemm(x, o, c, w, o, c)",
    ),
    **{
        f"com.microsoft.QLinear{f}": (BOTH, f"y = com.microsoft.QLinear{f}(x, o, c, z, o, c, o, c)")
        for f in ("Add", "Mul")
    },
    "com.microsoft.QLinearAveragePool": (
        "uint8[b, 4, 6, 6] x, float o, uint8 c",
        "y = com.microsoft.QLinearAveragePool<kernel_shape = [2, 2]>(x, o, c, o, c)",
    ),
    "com.microsoft.QLinearConcat": (CODED, "y = com.microsoft.QLinearConcat<axis = 1>(o, c, x, o, c, x, o, c)"),
    "com.microsoft.QLinearGlobalAveragePool": (
        "uint8[b, 4, 6, 6] x, float o, uint8 c",
        "y = com.microsoft.QLinearGlobalAveragePool(x, o, c, o, c)",
    ),
    "com.microsoft.QLinearLeakyRelu": (CODED, "y = com.microsoft.QLinearLeakyRelu<alpha = 0.1>(x, o, c, o, c)"),
    "com.microsoft.QLinearSigmoid": (CODED, "y = com.microsoft.QLinearSigmoid(x, o, c, o, c)"),
    "com.microsoft.QLinearSoftmax": (CODED, "y = com.microsoft.QLinearSoftmax<opset = 13>(x, o, c, o, c)"),
    "com.microsoft.QLinearWhere": (
        f"bool[b, 1, 1] k, {BOTH}",
        "y = com.microsoft.QLinearWhere(k, x, o, c, z, o, c, o, c)",
    ),
    "com.microsoft.QuantizeLinear": (f"{X}, float o, int8 c", "y = com.microsoft.QuantizeLinear(x, o, c)"),
    "com.microsoft.RotaryEmbedding": (
        "float[b, s, 8] x, int64[b, s] i, float[m, 4] c, float[m, 4] d",
        "y = com.microsoft.RotaryEmbedding<num_heads = 1>(x, i, c, d)",
    ),
    "com.microsoft.SkipLayerNormalization": (
        f"{X}, float[b, s, 12] z, {ROW}",
        "y, m, n, y3 = com.microsoft.SkipLayerNormalization(x, z, g, h)",
    ),
    "com.microsoft.SkipSimplifiedLayerNormalization": (
        f"{X}, float[b, s, 12] z, float[12] g",
        "y, m, n, y3 = com.microsoft.SkipSimplifiedLayerNormalization(x, z, g)",
    ),
}
