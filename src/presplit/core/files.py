"""What files of samples are called, and what file managers leave beside them."""

from __future__ import annotations

import re

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
SOUNDS = (".wav",)
VIDEOS = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v")
_LITTER = (
    r"\.DS_Store|\.localized|\.AppleDouble|\.Spotlight-V100|\.Trashes|\.fseventsd|__MACOSX|Icon\r|"
    r"\._.*|(eh)?thumbs(_vista)?\.db|desktop\.ini|\$RECYCLE\.BIN|System Volume Information|"
    r"\.directory|\.thumbnails|\.Trash-\d+|lost\+found|@eaDir|\.nomedia|\.picasa\.ini|"
    r"\.ipynb_checkpoints"
)
"""What the file managers of macOS, Windows, Linux and cameras put into folders."""


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name was put there by no user, and is no sample.

    >>> [is_litter(name) for name in (".DS_Store", "Thumbs.db", "._cat.png", "cat.png", ".cat.png")]
    [True, True, True, False, False]
    """
    return re.fullmatch(_LITTER, name, re.IGNORECASE | re.DOTALL) is not None
