"""Dense linear layers among sparse ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FeatureMajorLinear(nn.Linear):
    """A dense linear layer after sparse ones.

    It takes their feature-major activations as they are.
    """

    def forward(self, input: Tensor) -> Tensor:
        """``input``: float ``(..., in_features)``."""
        feature_major = input.ndim == 2 and input.stride(0) == 1 < input.stride(1)
        if not feature_major or torch.compiler.is_exporting():
            return F.linear(input, self.weight, self.bias)
        features = input.t()
        y = (
            self.weight @ features
            if self.bias is None
            else torch.addmm(self.bias.view(-1, 1), self.weight, features)
        )
        return y.t()
