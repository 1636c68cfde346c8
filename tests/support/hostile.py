"""Hostile files for the fuzz tests: ways to damage bytes, JSON and safetensors headers, as hypothesis strategies."""

import json
import struct

from hypothesis import strategies as st

DEEP = "[" * 50_000
NUMBERS = st.sampled_from(
    [0, 1, -1, 2, 3, 7, 255, 256, 2**24, 2**24 + 1, 2**31, 2**32, 2**53, 2**63, 2**64, 10**30, 0.5, -0.0, 1e-300, 1e300]
) | st.floats() | st.integers()  # fmt: skip
TEXTS = st.sampled_from(
    ["", "x", "../../etc/passwd", "/dev/zero", "C:\\x", "a/../b", "\0", "\ud800", "\u202e", "x" * 2000, "__import__"]
) | st.text(max_size=20)  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)


def places(tree, path=()):
    """Return the paths of all values in a JSON tree."""
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def put(tree, path, value):
    """Return a copy of the tree with another value at `path`, or without that entry if the value is `put` itself."""
    if not path:
        return None if value is put else value
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    if len(path) == 1 and value is put:
        del copy[path[0]]
    else:
        copy[path[0]] = put(tree[path[0]], path[1:], value)
    return copy


@st.composite
def trees(draw, tree):
    """The tree with one to three values replaced, removed, or repeated many times."""
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(tree))))
        value = draw(st.just(put) | ANYTHING | st.sampled_from([[1] * 5000, {str(i): i for i in range(5000)}]))
        tree = put(tree, path, value)
    return tree


@st.composite
def damaged(draw, data: bytes):
    """Bytes truncated, overwritten, inserted, or replaced by unrelated content."""
    kind = draw(st.sampled_from(["cut", "overwrite", "insert", "other", "deep"]))
    at = draw(st.integers(0, min(len(data), 4096)) | st.integers(0, len(data)))
    noise = draw(
        st.binary(max_size=16) | st.sampled_from([b"\xff" * 8, b"\0" * 8, b'"', b"}", b"[", b"1e999", b"9" * 9])
    )
    if kind == "cut":
        return data[:at]
    if kind == "overwrite":
        return data[:at] + noise + data[at + len(noise) :]
    if kind == "insert":
        return data[:at] + noise + data[at:]
    return draw(st.binary(max_size=200)) if kind == "other" else DEEP.encode()


def json_files(data: bytes):
    """A JSON file with other values, or a damaged one."""
    return trees(json.loads(data)).map(lambda tree: json.dumps(tree).encode()) | damaged(data)


@st.composite
def safetensors_files(draw, data: bytes):
    """A safetensors file with another header, a wrong header length, or damage anywhere."""
    kind = draw(st.sampled_from(["header", "length", "damage", "spare"]))
    size = struct.unpack("<Q", data[:8])[0]
    if kind == "header":
        header = json.dumps(draw(trees(json.loads(data[8 : 8 + size])))).encode()
        return struct.pack("<Q", len(header)) + header + data[8 + size :]
    if kind == "length":
        length = draw(
            st.sampled_from([0, 1, size - 1, size + 1, 10**8, 2**32, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
        )
        return struct.pack("<Q", length) + data[8:]
    return draw(damaged(data)) if kind == "damage" else data + draw(st.binary(min_size=1, max_size=9))
