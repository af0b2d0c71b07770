"""How a boundary's values travel: each codec owns its encoding, and its decoder as data.

All of these are portable: the tail graph decodes them with standard operators.
"""

from presplit.codecs.float16 import Float16
from presplit.codecs.float32 import Float32
from presplit.codecs.int8 import Int8
from presplit.codecs.integers import Integers
from presplit.core.protocols import Codec
from presplit.core.shelf import Shelf

CODECS: Shelf[Codec] = Shelf(
    "codec",
    {"float32": Float32(), "float16": Float16(), "int8": Int8(), "integers": Integers()},
)
