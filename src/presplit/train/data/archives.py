"""Data sets that are one zip file of images or sounds by class.

No address gives these very files, so they are found and not fetched: photographs of clothes, by A.
Grigorev and others (CC0), scaled to a shorter side of 160 pixels; and spoken digits, by Z. Jackson
and others (CC BY-SA 4.0), recordings 0 to 4 of each speaker and digit as the test part, as they
advise. A zip is taken only with its checksum. Whoever has the originals lays them out as a folder.
"""

from __future__ import annotations

from presplit.core.errors import DataError
from presplit.train.data.files import checked_file, folders, is_file
from presplit.train.data.tree import Labelled, Zip, labelled

ARCHIVES = {
    "clothing": (
        "clothing-160.zip",
        "0967d28494e6677ef685db153c33e664d5d6e8e5b66d438db3b09eff8cbacc0b",
        "https://github.com/alexeygrigorev/clothing-dataset-small has the photographs: its train/ "
        "and test/ in one folder",
    ),
    "fsdd": (
        "fsdd.zip",
        "d0b5492f1f9cff4b4fd7649854932490f42e02866ba1599c68a7832b2668904f",
        "https://github.com/Jakobovski/free-spoken-digit-dataset has the recordings: of "
        "recordings/DIGIT_SPEAKER_NN.wav, NN below 5 as test/DIGIT/NAME.wav, the others as "
        "train/DIGIT/NAME.wav",
    ),
}
"""Of each data set: its file, the file's SHA-256, and where the originals are."""


def archive(name: str) -> Labelled:
    """The files of the data set ``name`` of `ARCHIVES`.

    Raises `DataError` if its zip is in none of the places of `presplit.train.data.files`.
    """
    file, sha256, originals = ARCHIVES[name]
    for place in folders():
        if is_file(place / file):
            found = Zip(checked_file(place / file, sha256), where=str(place / file))
            found.name = name
            return labelled(found)
    tried = ", ".join(str(place) for place in folders())
    raise DataError(
        f"{file} is not in {tried}, and is not offered for download; {originals}, which "
        "data.name then names"
    )
