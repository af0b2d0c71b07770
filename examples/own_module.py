"""Any torch.nn.Module: name the layers to make sparse and the submodules to hang exits on.

The module needs no change.
"""

import numpy as np
import torch
from torch import nn

from presplit.core.plans import Plan
from presplit.runtime import Edge
from presplit.train import add_exits, export, fit, sparsify, summary
from presplit.train.data import digits, hold_out


class Net(nn.Module):
    """A user's own classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.neck = nn.Sequential(nn.Linear(16 * 16, 128), nn.ReLU())
        self.head = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x``: float ``(batch, 1, 8, 8)``."""
        return self.head(self.neck(self.body(x).flatten(1)))


train_data, held_out = hold_out(digits().train, 0.2)
model = add_exits(sparsify(Net(), layers={"neck.0": 0.25}), after=["body"])
fit(model, train_data, epochs=4)
for layer in summary(model):
    print(
        f"{layer.name:14} {layer.n_in:4} -> {layer.n_out:4}  density {layer.density:.2f}  "
        f"{layer.form}"
    )

bundle = export(model, held_out, "own.bundle", name="own")
image = np.zeros(bundle.net.boundaries[0].shape, np.float32)
with Edge.open(bundle, plan=Plan(split=bundle.net.last, thresholds={"body": 0.9})) as edge:
    print(edge.answer(image, deadline_s=0.05))
