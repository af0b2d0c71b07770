"""Own small nets for experiments, tests and the demo.

Any other `torch.nn.Module` serves as well.
"""

from presplit.train.zoo.audio import log_mel_cnn, spectrogram_cnn, waveform_cnn
from presplit.train.zoo.cnn import resnet, resnet8, small_cnn
from presplit.train.zoo.mlp import mlp
from presplit.train.zoo.mobilenet import mobilenet_v2
from presplit.train.zoo.vgg import vgg
from presplit.train.zoo.vision import mixer, vit

__all__ = [
    "log_mel_cnn",
    "mixer",
    "mlp",
    "mobilenet_v2",
    "resnet",
    "resnet8",
    "small_cnn",
    "spectrogram_cnn",
    "vgg",
    "vit",
    "waveform_cnn",
]
