"""ONNX graphs: read, find the boundaries, count, cut, run for reference.

This is the only room that knows onnx.
"""

# ruff: noqa: E402 - a missing onnx is said in one sentence before anything imports it
from presplit.core.errors import library

library("onnx", need="reading ONNX graphs", extra="pack")

from presplit.graph.batch import fixed_batch
from presplit.graph.boundaries import Row, label, row
from presplit.graph.count import count_macs, count_weights
from presplit.graph.cut import Fragment, Fragments, cut, entry, leave
from presplit.graph.file import in_one_piece
from presplit.graph.form import Form, in_int8, to_optimise, to_quantise
from presplit.graph.read import Graph, classes_of, load, needs, read

__all__ = [
    "Form",
    "Fragment",
    "Fragments",
    "Graph",
    "Row",
    "classes_of",
    "count_macs",
    "count_weights",
    "cut",
    "entry",
    "fixed_batch",
    "in_int8",
    "in_one_piece",
    "label",
    "leave",
    "load",
    "needs",
    "read",
    "row",
    "to_optimise",
    "to_quantise",
]
