"""What the tests of products with constant weights share: a weight, an activation, and the comparison."""

import numpy as np
import onnx

from tests.helpers import decoded, nodes, plain, random, relative_error, rewrite, run, with_weights

# Error of a row's int8 activation, relative: the row's peak, three deviations, over 127 steps of uniform error
# (3 / 127 / sqrt(12) = 0.7 %), twice. Four-bit weights err by 10 %: what was not encoded, or encoded along the
# wrong axis, is far outside.
ACTIVATION = 0.015
BITS = 4
K, N = 40, 24
W, B = random(K, N, seed=1), random(N, seed=2)
X = random(3, K, seed=3)

# Query, key and value.
THREE = """g (float[b, s, 40] x) => (float[b, s, 24] q, float[b, s, 24] k, float[b, s, 24] v) {
    %s
}"""
BIASED = """q0 = MatMul(x, wq) q = Add(q0, bq) k0 = MatMul(x, wk) k = Add(bk, k0)
    v0 = MatMul(x, wv) v = Add(v0, bv)"""
WEIGHTS = {f"w{c}": random(K, N, seed=i) for i, c in enumerate("qkv")}
BIASES = {f"b{c}": random(N, seed=10 + i) for i, c in enumerate("qkv")}


def multiplications(proto: onnx.ModelProto) -> int:
    return sum(node.op_type in ("MatMulIntegerToFloat", "MatMulNBits", "MatMul") for node in nodes(plain(proto).graph))


def check(source, folder, feeds, transposed=False, names=("w",), tolerance=ACTIVATION, **options):
    """Rewrite, and hold the answers, with optimizations and without, to those of the decoded weights."""
    options = {"bits": BITS, **options}
    result = rewrite(source, folder, **options)
    weights = {t.name: onnx.numpy_helper.to_array(t) for g in [source.graph] for t in g.initializer if t.name in names}
    lowering = options.get("lowering", "dense")
    turn = np.transpose if transposed else np.asarray
    replaced = {name: turn(decoded(turn(w), options["bits"], lowering=lowering)) for name, w in weights.items()}
    expected = run(with_weights(source, **replaced), **feeds)
    for optimize in (False, True):
        for output, reference in zip(run(result.proto, optimize, **feeds), expected, strict=True):
            assert output.dtype == reference.dtype
            assert output.shape == reference.shape
            assert relative_error(output, reference) < tolerance
    return result
