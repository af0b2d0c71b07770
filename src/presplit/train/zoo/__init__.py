"""Own small nets for experiments, tests and the demo; any other `torch.nn.Module` serves as well."""

from presplit.train.zoo.cnn import resnet8, small_cnn
from presplit.train.zoo.mlp import mlp

__all__ = ["mlp", "resnet8", "small_cnn"]
