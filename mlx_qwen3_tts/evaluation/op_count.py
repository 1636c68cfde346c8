"""How many operations a computation launches: the nodes of its graph, counted as a GPU would run them.

Views (reshapes, slices, transposes, ...) move no data and launch nothing. The functions of mx.fast are one kernel each
on a GPU, but are spelled out on the CPU back end; while counting, stand-ins of one node take their places.
"""

import io
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import mlx.core as mx

VIEWS = {
    "AsStrided", "Broadcast", "BroadcastAxes", "Depends", "ExpandDims", "Flatten", "NumberOfElements", "Reshape",
    "Slice", "Split", "Squeeze", "StopGradient", "Transpose", "Unflatten", "View",
}  # fmt: skip
NODE = re.compile(r'label ="(\w+)", shape=rectangle')


def count_nodes(function: Callable[[], object]) -> tuple[int, int]:
    """All nodes of the graph of what `function` returns, a tree of arrays not evaluated yet; and those that launch.

    What `function` compiles must not have been traced before.
    """
    text = io.StringIO()
    with fast_functions_as_one_node():
        outputs = function()
        arrays = [leaf for leaf in _leaves(outputs) if isinstance(leaf, mx.array)]
        mx.export_to_dot(text, *arrays)
    nodes = Counter(NODE.findall(text.getvalue()))
    total = sum(nodes.values())
    return total, total - sum(nodes[name] for name in VIEWS)


def can_compile() -> bool:
    """Whether mx.compile joins operations here; on the CPU it needs a C++ compiler, and is the plain path without."""
    mx.eval(x := mx.zeros(1))
    joined = mx.compile(lambda x: mx.sin(x) + 1)
    return count_nodes(lambda: joined(x))[1] == 1


@contextmanager
def fast_functions_as_one_node() -> Iterator[None]:
    """Stand-ins for the functions of mx.fast, of the same shapes and inputs; their results mean nothing."""

    def one(x: mx.array, *inputs: object) -> mx.array:
        node = mx.cumsum(x, axis=-1)  # an operation of its own, which mx.compile joins with no other
        others = [array for array in inputs if isinstance(array, mx.array)]
        return mx.depends([node], others)[0] if others else node

    def rms_norm(x: mx.array, weight: mx.array | None, _eps: float) -> mx.array:
        return one(x, weight)

    def layer_norm(x: mx.array, weight: mx.array | None, bias: mx.array | None, _eps: float) -> mx.array:
        return one(x, weight, bias)

    def rope(x: mx.array, _dims: int, *, offset: int | mx.array, **_options: object) -> mx.array:
        return one(x, offset)

    def attention(
        q: mx.array, k: mx.array, v: mx.array, *, mask: mx.array | str | None = None, **_: object
    ) -> mx.array:
        return one(q, k, v, mask)

    stand_ins = {
        "rms_norm": rms_norm, "layer_norm": layer_norm, "rope": rope, "scaled_dot_product_attention": attention,
    }  # fmt: skip
    with mock.patch.multiple(mx.fast, **stand_ins):
        yield


def _leaves(tree: object) -> Iterator[object]:
    if isinstance(tree, list | tuple):
        for part in tree:
            yield from _leaves(part)
    else:
        yield tree
