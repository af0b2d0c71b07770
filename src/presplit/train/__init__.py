"""Training in PyTorch: sparsify, add exits, fit, evaluate, export.

The only room that knows torch.
"""

# ruff: noqa: E402 - a missing library is said in one sentence before anything imports it
from presplit.core.errors import library

library("torch", need="training", extra="train")

from presplit.train.allocate import allocate, layer_times
from presplit.train.checkpoint import restore, save
from presplit.train.convolution import SparseConv2d
from presplit.train.evaluate import accuracies, evaluate, route
from presplit.train.exits import MultiExit
from presplit.train.export import export, to_onnx
from presplit.train.fit import fit, initialise
from presplit.train.layers import SparseLinear
from presplit.train.placing import add_exits
from presplit.train.recipe import RECIPES, Recipe
from presplit.train.resume import Epoch
from presplit.train.sparsify import sparsify
from presplit.train.summary import LayerSummary, Summary, count_weights, summary
from presplit.train.thresholds import choose_thresholds, temperature

__all__ = [
    "RECIPES",
    "Epoch",
    "LayerSummary",
    "MultiExit",
    "Recipe",
    "SparseConv2d",
    "SparseLinear",
    "Summary",
    "accuracies",
    "add_exits",
    "allocate",
    "choose_thresholds",
    "count_weights",
    "evaluate",
    "export",
    "fit",
    "initialise",
    "layer_times",
    "restore",
    "route",
    "save",
    "sparsify",
    "summary",
    "temperature",
    "to_onnx",
]
