"""The bundled digits: 1,797 grey images of 8 x 8.

They are shipped with scikit-learn, so nothing is downloaded.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI (1998), test part.
Every fifth image is the test set.
"""

from __future__ import annotations

import numpy as np

from presplit.core.errors import library
from presplit.core.preparation import Preparation
from presplit.train.data.samples import Dataset, Samples


def digits() -> Dataset:
    """Images float32 ``(n, 1, 8, 8)`` in 0..1; 1,437 to train, 360 to test.

    >>> digits().train.x.shape
    (1437, 1, 8, 8)
    """
    bundled = library("sklearn.datasets", need="the digits data set", extra="train").load_digits()
    x = (bundled.images / 16.0).astype(np.float32)[:, None]
    test = np.arange(len(x)) % 5 == 0
    train_part, test_part = (Samples(x[part], bundled.target[part]) for part in (~test, test))
    how = Preparation(8, 8, grey=True, how="exact")
    return Dataset("digits", train_part, test_part, tuple("0123456789"), preparation=how)
