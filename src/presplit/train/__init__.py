"""Training in PyTorch: sparsify, add exits, fit, evaluate, export.

The only room that knows torch.
"""

# ruff: noqa: E402 - a missing library is said in one sentence before anything imports it
from presplit.core.errors import library

library("torch", need="training", extra="train")

from presplit.core.recipe import RECIPES, Recipe
from presplit.train.export import export
from presplit.train.fitting import checkpoint
from presplit.train.fitting.checkpoint import restore, save
from presplit.train.fitting.fit import fit, initialise
from presplit.train.fitting.resume import Epoch, State
from presplit.train.fitting.trainer import Trainer
from presplit.train.judging.evaluate import accuracies, evaluate, route
from presplit.train.judging.thresholds import choose_thresholds, temperature
from presplit.train.layers.convolution import SparseConv1d, SparseConv2d
from presplit.train.layers.linear import SparseLinear
from presplit.train.nets.add_exits import add_exits, exit_macs
from presplit.train.nets.allocate import allocate, layer_times
from presplit.train.nets.decide import Decision, decide
from presplit.train.nets.exits import MultiExit
from presplit.train.nets.sparsify import moved, sparsify
from presplit.train.nets.summary import LayerSummary, Summary, count_weights, summary
from presplit.train.nets.to_onnx import to_onnx

__all__ = [
    "RECIPES",
    "Decision",
    "Epoch",
    "LayerSummary",
    "MultiExit",
    "Recipe",
    "SparseConv1d",
    "SparseConv2d",
    "SparseLinear",
    "State",
    "Summary",
    "Trainer",
    "accuracies",
    "add_exits",
    "allocate",
    "checkpoint",
    "choose_thresholds",
    "count_weights",
    "decide",
    "evaluate",
    "exit_macs",
    "export",
    "fit",
    "initialise",
    "layer_times",
    "restore",
    "moved",
    "route",
    "save",
    "sparsify",
    "summary",
    "temperature",
    "to_onnx",
]
