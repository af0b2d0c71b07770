"""How a boundary's values travel: each codec owns its encoding, and its decoder as data.

Most are portable: the tail graph decodes them with standard operators, on whatever server. Native
ones are decoded in front of the engine by our own server; they are entropy-coded, so a payload's
length varies with the sample.
"""

from presplit.codecs.affine import Int
from presplit.codecs.bfloat16 import BFloat16
from presplit.codecs.compressed import Smaller
from presplit.codecs.float16 import Float16
from presplit.codecs.float32 import Float32
from presplit.codecs.integers import Integers
from presplit.codecs.largest import TopK
from presplit.codecs.lz4 import Lz4
from presplit.codecs.picture import Image
from presplit.codecs.zstd import Zstd
from presplit.core.protocols import Codec
from presplit.core.shelf import Shelf

_INTEGERS = (
    Int(8),
    Int(8, by_channel=True),
    Int(4),
    Int(4, by_channel=True),
    Int(2),
    Integers(),
)
_ALL: tuple[Codec, ...] = (
    Float32(),
    Float16(),
    BFloat16(),
    *_INTEGERS,
    *(Smaller(inner, by) for by in (Zstd(), Lz4()) for inner in _INTEGERS),
    *(TopK(percent) for percent in (25, 10)),
    Image(),
    *(Image(quality) for quality in (90, 75, 50)),
)
CODECS: Shelf[Codec] = Shelf("codec", {codec.name: codec for codec in _ALL})

USUAL = (
    *("float32", "float16", "int8", "int4", "int4-channel", "integers"),
    *("int8+zstd", "int4-channel+zstd", "png", "jpeg-90", "jpeg-75"),
)
"""What a bundle offers unless it is told otherwise, where values allow it."""

FINER = {
    "int4": "int8",
    "int4-channel": "int8-channel",
    "int2": "int4",
    "topk-10": "topk-25",
    "jpeg-75": "jpeg-90",
    "jpeg-50": "jpeg-75",
}
"""The codec of the same family that loses less: where it loses too much, so does the other."""
