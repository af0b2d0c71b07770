"""Batches: requests for one model that come close together may be computed together.

For now each is passed on alone; this is the place where they will be joined.
"""

from __future__ import annotations

from presplit.runtime.hosted import Hosted


def batched(hosted: Hosted) -> Hosted:
    """``hosted``, each request by itself."""
    return hosted
