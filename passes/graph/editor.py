"""The one place where a graph is changed: fresh names, shapes and types of what is new, nodes put where they belong."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx_graphsurgeon.ir.tensor import LazyValues

from ..functions.function import DOMAIN, Function
from .features import FIRST_OPSET, NOTHING, Feature, Lacks
from .follow import find_shapes, follow
from .new import NewConstant, NewNode, PackedValues, fresh_name, in_order
from .phases import Phase, find_phases
from .shapes import Shape
from .walk import scopes, walk

Made = TypeVar("Made")
# Returns an array equal to the one it gets, moved elsewhere perhaps.
Move = Callable[[NDArray[Any]], NDArray[Any]]
# Equal constants up to this size are stored once; larger ones are distinct weights and not worth hashing.
SHARED_BYTES = 4096


class Emitter:
    """Writes nodes at one place of the graph; nodes of one emitter keep the order in which they were written."""

    def __init__(self, editor: Editor, scope: gs.Graph, nodes: list[gs.Node]) -> None:
        """Write into `nodes`, which belong to the graph or body `scope`, taking names from `editor`."""
        self._editor = editor
        self._nodes = nodes
        self.scope = id(scope)

    @property
    def opset(self) -> int:
        """Version of the standard operators."""
        return self._editor.opset

    def has(self, feature: Feature) -> bool:
        """Tell whether nodes may be of a feature: the opset has it, and the runtime."""
        return self._editor.has(feature)

    @property
    def workers(self) -> int:
        """Threads that constants are made with."""
        return self._editor.workers

    def shape(self, tensor: gs.Tensor) -> Shape | None:
        """Return the sizes of a tensor's axes, or None where they are not known."""
        return self._editor.shapes.shape(tensor)

    def proven_shape(self, tensor: gs.Tensor) -> Shape | None:
        """Return `shape`, or None where sizes have a name that several inputs have: no run makes these equal."""
        shape = self.shape(tensor)
        names = {name for size in shape or () for product, _ in size.terms for name in product}
        return None if names & self._editor.shared_names else shape

    @property
    def phase(self) -> Phase | None:
        """What the branch is for that nodes are written into, where the model's own branches part the phases."""
        graph = self._editor.graph
        return self._editor.once(find_phases, lambda: find_phases(graph)).get(self.scope)

    def at_load(self) -> Emitter:
        """Return the emitter for nodes with constant inputs only, which a session computes once."""
        return self._editor.at_load()

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """Return what `make` makes for a key, made once for the whole graph."""
        return self._editor.once(key, make)

    def op(
        self,
        op: str,
        *inputs: gs.Tensor | None,
        name: str,
        output: gs.Variable | None = None,
        dtype: Any = None,
        domain: str | None = None,
        **attrs: Any,
    ) -> gs.Variable:
        """Write a node and return its only output: `output` itself, or a new tensor called `name`."""
        result = output if output is not None else self._editor.variable(name, dtype)
        self.node(op, inputs, [result], domain=domain, **attrs)
        return result

    def node(
        self,
        op: str,
        inputs: Sequence[gs.Tensor | None],
        outputs: Sequence[gs.Variable],
        domain: str | None = None,
        called: str = "",
        **attrs: Any,
    ) -> None:
        """Write a node, called so or after its first output; None stands for an optional input that is left out.

        The outputs get the shapes and types that the table of operators says.
        """
        tensors = [gs.Variable.empty() if tensor is None else tensor for tensor in inputs]
        kind, name = gs.Node if called else NewNode, self._editor.node_name(called or outputs[0].name)
        self._nodes.append(kind(op, name, attrs, tensors, list(outputs), domain))
        follow(self._editor.shapes, self._nodes[-1])

    def call(
        self,
        function: Function,
        *inputs: gs.Tensor,
        name: str,
        node: str = "",
        dtype: Any = None,
        attrs: Mapping[str, Any] | None = None,
    ) -> tuple[gs.Variable, ...]:
        """Write a call of a function, named `node`, and return its outputs, the first of them called `name`.

        Of `attrs`, those are taken that the function has.
        """
        names = [name, *(f"{name}.{output}" for output in function.outputs.split(", ")[1:])]
        outputs = [self._editor.variable(each, dtype) for each in names]
        taken = {name: (attrs or {})[name] for name in function.attributes}
        self.node(function.name, inputs, outputs, domain=DOMAIN, called=node, **taken)
        return tuple(outputs)

    def variable(self, name: str, dtype: Any = None) -> gs.Variable:
        """Return a new tensor, for a node with several outputs."""
        return self._editor.variable(name, dtype)

    def as_type(self, x: gs.Variable, dtype: str, name: str) -> gs.Variable:
        """Return float32 x in the float type called `dtype`."""
        if dtype == "float32":
            return x
        to = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.op("Cast", x, name=f"{name}.{dtype}", dtype=np.dtype(dtype), to=int(to))

    def take(self, node: gs.Node) -> gs.Variable:
        """Detach a node's first output, so that another node can produce it under the same name."""
        output = node.outputs[0]
        output.inputs.clear()
        return output

    def deliver(self, result: gs.Variable, node: gs.Node) -> None:
        """Let the node that computes `result`, which nobody reads yet, produce the output of `node` instead."""
        output = self.take(node)
        output.dtype = result.dtype if output.dtype is None else output.dtype
        result.inputs[0].outputs = [output]

    def constant(self, values: NDArray[Any], name: str) -> gs.Constant:
        """Return an initializer with these values."""
        return self._editor.constant(values, name)

    def exact(self, values: NDArray[Any], name: str) -> gs.Constant:
        """Return an initializer that no later pass stores otherwise."""
        constant = self._editor.constant(values, name)
        self._editor.exact.add(id(constant))
        return constant

    def packed(self, packed: NDArray[np.uint8], kind: int, shape: Sequence[int], name: str) -> gs.Constant:
        """Return an initializer of a packed type (onnx.TensorProto.INT4 or UINT4) from its bytes."""
        return self._editor.named_constant(name, PackedValues(kind, shape, self._editor.move(packed)))


class Editor:
    """Changes one graph; what was written is in the graph after `flush`.

    Attributes:
        graph: the graph.
        move: moves the arrays of new constants, see `Move`.
        lacks: features that the runtime does not have, whatever the opset.
        avoided: those that would have been written otherwise.
        workers: threads that constants are made with.
        shapes: what is known of all tensors, those that passes wrote among them.
        exact: ids of constants that stay as they are.
        shared_names: names of axes that several inputs have.
    """

    def __init__(
        self, graph: gs.Graph, move: Move = lambda array: array, workers: int = 1, lacks: Lacks = NOTHING
    ) -> None:
        """Take over `graph`, which nobody else changes meanwhile; new constants are what `move` returns for them."""
        # What outputs say of themselves is the model's to say.
        self._declared = [(x, x.shape, x.dtype) for each in scopes(graph) for x in each.outputs]
        self.graph = graph
        self.move = move
        self.workers = workers
        self.lacks = lacks
        self.avoided: set[Feature] = set()
        self.shapes = find_shapes(graph)
        self.exact: set[int] = set()
        dims = [
            {part for dim in x.shape or () if isinstance(dim, str) for part in dim.split(" + ")} for x in graph.inputs
        ]
        self.shared_names = {name for name, count in Counter(chain.from_iterable(dims)).items() if count > 1}
        self._names = {tensor.name for scope in scopes(graph) for tensor in scope.tensors().values()}
        self._names |= {node.name for _, node in walk(graph)}
        self._called: Counter[str] = Counter()
        self._shared: dict[tuple[str, tuple[int, ...], bytes], gs.Constant] = {}
        self._made: dict[Hashable, Any] = {}
        self._load: list[gs.Node] = []
        self._before: defaultdict[int, list[gs.Node]] = defaultdict(list)
        self._after: defaultdict[int, list[gs.Node]] = defaultdict(list)

    @property
    def opset(self) -> int:
        """Version of the standard operators."""
        return int(self.graph.opset)

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """Return what `make` makes for a key, made once for a graph: only here is known what is written already."""
        if key not in self._made:
            self._made[key] = make()
        made: Made = self._made[key]
        return made

    @property
    def written(self) -> int:
        """How many nodes and tensors were written, in place or not."""
        waiting = chain(self._before.values(), self._after.values())
        return len(self._names) + len(self._load) + sum(map(len, waiting))

    def has(self, feature: Feature) -> bool:
        """Tell whether nodes may be of a feature: the opset has it, and the runtime."""
        if feature in self.lacks:
            self.avoided.add(feature)
            return False
        return self.opset >= FIRST_OPSET.get(feature, 1)

    def at_load(self) -> Emitter:
        """Return an emitter for nodes with constant inputs only, which a session computes once."""
        return Emitter(self, self.graph, self._load)

    def before(self, scope: gs.Graph, node: gs.Node) -> Emitter:
        """Return an emitter for nodes that come just before `node`, which is one of `scope`."""
        return Emitter(self, scope, self._before[id(node)])

    def after(self, scope: gs.Graph, node: gs.Node) -> Emitter:
        """Return an emitter for nodes that come just after `node`, which is one of `scope`."""
        return Emitter(self, scope, self._after[id(node)])

    def variable(self, name: str, dtype: Any = None) -> gs.Variable:
        """Return a new tensor called `name`, or `name.1`, `name.2`, ... where that is taken."""
        return gs.Variable(fresh_name(name, self._names), dtype=dtype)

    def constant(self, values: NDArray[Any], name: str) -> gs.Constant:
        """Return an initializer with these values; small ones with equal values are one initializer."""
        values = np.ascontiguousarray(values).reshape(values.shape)
        if values.nbytes > SHARED_BYTES:
            return self.named_constant(name, self.move(values))
        key = (values.dtype.str, values.shape, values.tobytes())
        if key not in self._shared:
            self._shared[key] = self.named_constant(name, values)
        return self._shared[key]

    def named_constant(self, name: str, values: NDArray[Any] | LazyValues) -> gs.Constant:
        """Return a new initializer."""
        constant = NewConstant(fresh_name(name, self._names), values=values)
        if isinstance(values, LazyValues):
            values.tensor.name = constant.name
        return constant

    def flush(self) -> None:
        """Put the written nodes in place and drop what no output needs any more."""
        for scope in scopes(self.graph):
            scope.nodes = [new for node in scope.nodes for new in self._around(node)]
        # What a later pass writes may read what an earlier one wrote, or decode a constant that this reads.
        self._load[:] = in_order(self._load)
        loading = {id(node) for node in self._load}
        self.graph.nodes = self._load + [node for node in self.graph.nodes if id(node) not in loading]
        self.graph.cleanup()
        self._before, self._after = defaultdict(list), defaultdict(list)

    def node_name(self, name: str) -> str:
        """Return a name for a new node: that of one that it replaces, or another that none has; numbered if taken."""
        self._called[name] += 1
        count = self._called[name]
        return name if count == 1 else fresh_name(f"{name}.{count - 1}", self._names)

    def finish(self) -> None:
        """Leave the graph as it is to be written: outputs say what they said before."""
        self.flush()
        for tensor, shape, dtype in self._declared:
            if isinstance(tensor, gs.Variable):
                tensor.shape, tensor.dtype = shape, dtype

    def _around(self, node: gs.Node) -> list[gs.Node]:
        return [*self._before.get(id(node), ()), node, *self._after.get(id(node), ())]
