"""Count the kernels that a computation launches on Metal: the nodes of its graph, by Metal's rules.

    function ─ graph of its outputs, functions of mx.fast as one node each ─ nodes by kind ─ launches

Views (reshapes, slices, transposes, ...) move no data and launch nothing. A concatenation is one copy for each input. A
slice update at a position that is an array needs another kernel for the position (mlx/backend/metal/slicing.cpp).
Not counted are the copies that MLX makes of inputs that are not contiguous and of buffers that are still in use, and
three more kernels in the sort of the talker's 3,072 logits, which takes two blocks.
"""

import io
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mlx.core as mx

VIEWS = {
    "AsStrided", "Broadcast", "BroadcastAxes", "Depends", "ExpandDims", "Flatten", "NumberOfElements", "Reshape",
    "Slice", "Split", "Squeeze", "StopGradient", "Transpose", "Unflatten", "View",
}  # fmt: skip
NODE = re.compile(r'(\d+) \[label ="(\w+)", shape=rectangle')
EDGE = re.compile(r'"?(\w+)"? -> (\d+)')
# Operations that no model here uses, that launch one kernel each, and that mx.compile joins with no other. They stand
# in for the functions of mx.fast, which are one kernel on a GPU and several operations on the CPU back end. None of
# them makes numbers grow fast, so that a model computes nonsense with them, but finite nonsense.
STAND_INS = {
    "rms_norm": mx.cummax, "layer_norm": mx.cummin, "rope": mx.logcumsumexp, "scaled_dot_product_attention": mx.cumsum,
}  # fmt: skip


def count_launches(function: Callable[[], object]) -> tuple[int, int]:
    """Return the number of nodes in the graph of a function's result, and of the kernels that Metal launches for it.

    function: returns a tree of arrays that are not evaluated yet. Its compiled functions must not have been traced.
    """
    nodes = count_by_kind(function)
    return sum(count for count, _ in nodes.values()), sum(launches for _, launches in nodes.values())


def count_by_kind(function: Callable[[], object]) -> dict[str, tuple[int, int]]:
    """Return the number of nodes and of launches for each kind of node; see `count_launches`."""
    text = io.StringIO()
    with fast_functions_as_one_node():
        arrays = [leaf for leaf in _leaves(function()) if isinstance(leaf, mx.array)]
        mx.export_to_dot(text, *arrays)
    graph = text.getvalue()
    kinds = dict(NODE.findall(graph))
    inputs = Counter(target for _, target in EDGE.findall(graph))
    nodes: Counter[str] = Counter()
    launches: Counter[str] = Counter()
    for node, label in kinds.items():
        kind = "Compiled" if label.startswith("Compiled") else label
        nodes[kind] += 1
        launches[kind] += _launches(kind, inputs[node])
    return {kind: (count, launches[kind]) for kind, count in nodes.most_common()}


def _launches(kind: str, inputs: int) -> int:
    if kind in VIEWS:
        return 0
    if kind == "Concatenate":
        return inputs
    if kind == "DynamicSliceUpdate":
        return 2
    return 1


@contextmanager
def fast_functions_as_one_node() -> Iterator[None]:
    """On the CPU back end, replace the functions of mx.fast by stand-ins of the same shapes and inputs.

    The results mean nothing, and functions that were compiled meanwhile must be dropped afterwards. Use it on the MLX
    thread, so that no other request runs meanwhile. On a GPU nothing is replaced, since each function is one node
    there.
    """
    if mx.default_device().type != mx.cpu:
        yield
        return
    originals = {name: getattr(mx.fast, name) for name in STAND_INS}
    for name, operation in STAND_INS.items():
        setattr(mx.fast, name, _stand_in(operation))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(mx.fast, name, original)


def _stand_in(operation: Callable[..., mx.array]) -> Callable[..., mx.array]:
    def stand_in(x: mx.array, *inputs: object, **options: object) -> mx.array:
        node = operation(x, axis=-1)
        others = [value for value in (*inputs, *options.values()) if isinstance(value, mx.array)]
        if not others:
            return node
        return mx.depends([node], others)[0]

    return stand_in


def _leaves(tree: object) -> Iterator[object]:
    if isinstance(tree, list | tuple):
        for part in tree:
            yield from _leaves(part)
    else:
        yield tree
