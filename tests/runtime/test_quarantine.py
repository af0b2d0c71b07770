"""A stranger's bundle is tried where it can do no harm."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from presplit.bundle import Bundle, digest, read, write
from presplit.core.errors import BundleError
from presplit.runtime.quarantine import try_out


def with_segment(bundle: Bundle, path: object, change: object) -> Bundle:
    """The bundle with its last segment changed, rightly hashed."""
    files = {name: (bundle.path / name).read_bytes() for name in bundle.manifest.files}
    last = bundle.manifest.segments[-1].file
    piece = onnx.ModelProto.FromString(files[last])
    change(piece)  # type: ignore[operator]
    files[last] = piece.SerializeToString()
    manifest = msgspec.structs.replace(bundle.manifest, files=digest(files), sha256="")
    return write(path, manifest, files)  # type: ignore[arg-type]


def test_an_honest_bundle_is_tried_and_taken(bundle: Bundle) -> None:
    try_out(read(bundle.path, strict=True))


def test_what_needs_more_memory_than_a_stranger_may_have_is_not_loaded(
    bundle: Bundle, tmp_path: object
) -> None:
    """Each step is within its bound; only running it shows what they make together."""

    def growing(piece: onnx.ModelProto) -> None:
        source = piece.graph.node[0].input[0]
        for step, shape in enumerate(([2**10, 1, 1], [2**20, 1, 1, 1])):
            sizes = numpy_helper.from_array(np.array(shape), f"sizes{step}")
            piece.graph.initializer.append(sizes)
            node = helper.make_node("Expand", [source, f"sizes{step}"], [f"grown{step}"])
            piece.graph.node.insert(step, node)
            source = f"grown{step}"
        piece.graph.initializer.append(numpy_helper.from_array(np.array([0, 1]), "axes"))
        back = helper.make_node("ReduceMax", [source, "axes"], ["back"], keepdims=0)
        piece.graph.node.insert(2, back)
        piece.graph.node[3].input[0] = "back"

    found = with_segment(bundle, f"{tmp_path}/n.bundle", growing)
    with pytest.raises(BundleError, match="not loaded here|ONNX Runtime failed: .*alloc"):
        try_out(read(found.path, strict=True))


def test_a_piece_that_hides_the_next_one_is_refused(bundle: Bundle, tmp_path: object) -> None:
    """The whole net is as it was; one that is entered behind the first piece holds a loop."""
    graph = helper.make_graph([helper.make_node("Loop", ["n", "c"], ["o"])], "", [], [])
    loop = onnx.ModelProto(graph=graph).SerializeToString()
    files = {name: (bundle.path / name).read_bytes() for name in bundle.manifest.files}
    first, second = (part.file for part in bundle.manifest.segments[:2])
    files[first] += b"\xa2\x06" + bytes([len(loop)])
    files[second] = loop + files[second]
    manifest = msgspec.structs.replace(bundle.manifest, files=digest(files), sha256="")
    found = write(f"{tmp_path}/h.bundle", manifest, files)
    with pytest.raises(BundleError, match="a field is longer than what holds it"):
        read(found.path, strict=True)
