"""What the tests of biases that move share: an activation, and a comparison that counts the additions left."""

import numpy as np

from tests.helpers import K, operators, random, rewrite, run

# float32 sums in another order.
TOLERANCE = 2e-5
X = random(2, 5, K, seed=1) * 8
CENTERED_ROWS = """
 last = Constant <value_ints = [-1]> () m = ReduceMean (x, last) d = Sub(x, m) p = Mul(d, d) q = ReduceMean (p, last)
 e = Constant <value = float {1e-5}> () t = Add(q, e) u = Sqrt(t)
"""
IN_PARTS = f"{CENTERED_ROWS} f = Div(d, u) g = Mul(f, scale) n0 = Add(g, shift) n = Add(n0, more)"
# As TensorFlow computes it.
COMPUTED_BIAS = f"{CENTERED_ROWS} i = Div(scale, u) f = Mul(x, i) g = Mul(m, i) k = Sub(shift, g) n = Add(f, k)"


def check(name, source, folder, adds, replaced, **options):
    """Compare a model before and after the pass `name`; it has `adds` additions afterwards. Return the new one."""
    result = rewrite(source, folder, operators=frozenset({name}), **options)
    for one, other in zip(run(source, x=X), run(result.proto, x=X), strict=True):
        assert np.abs(one - other).max() <= TOLERANCE * max(1, np.abs(one).max())
    assert operators(result.proto).count("Add") == adds
    assert result.replaced.get(name, 0) == replaced
    return result.proto
