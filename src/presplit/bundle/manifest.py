"""What a bundle says of itself.

It lists the net, every file with its SHA-256, the ports, the plan and its table, the spec and the
versions.

The manifest is written as canonical JSON and carries the SHA-256 of itself with that field empty,
so that one atomic replacement changes a plan. It is read if decoding and encoding it again gives
the same bytes, which refuses duplicate keys. A field with a default may be missing then: an older
version did not know it. `Manifest.model_hash` covers only what computes: it
stays when the plan changes.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from presplit.core.encoding import Encoding
from presplit.core.errors import SpecError
from presplit.core.plans import Plan, PlanTable
from presplit.core.preparation import Preparation
from presplit.core.spec import Name
from presplit.core.types import Net, canonical_json
from presplit.core.value import NonNegative, Value

FORMAT = 4
"""Version of the bundle format that this code writes and reads."""

FileName = Annotated[str, Meta(pattern=r"\A[a-z0-9_][a-z0-9_.-]{0,99}\Z")]
Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Count = Annotated[int, Meta(ge=0, le=2**53)]


class File(Value, frozen=True):
    """One file of the bundle besides the manifest."""

    bytes: Count
    sha256: Sha256


class Part(Value, frozen=True):
    """A piece of the graph, in a file of its own.

    ``macs`` are the multiply-accumulates of one sample, ``weights`` are without biases.
    """

    file: FileName
    macs: Count
    weights: Count


class Port(Value, frozen=True):
    """How a boundary is entered and left, as fragments of ONNX protobuf.

    `presplit.bundle.read` joins them to the segments.

    ``entry`` maps a portable codec to the fragment that declares the graph input ``boundary`` and
    decodes it; what is in ``encodings`` alone is native. ``leave`` is the fragment that declares
    the boundary as a graph output; ``encodings`` says what the edge must send; ``refused`` names
    the codecs that are not offered here, with the reason.
    """

    entry: dict[str, bytes]
    leave: bytes
    encodings: dict[str, Encoding]
    refused: dict[str, str] = {}


class Form(Value, frozen=True):
    """The net in a form besides float32: its own pieces, and how boundaries lead into them.

    ``enter[k]`` and ``leave[k]`` are fragments of ONNX protobuf from boundary k in float32 to what
    the pieces hand on there, and back; nothing where they hand on float32.
    """

    header: bytes
    segments: tuple[Part, ...]
    exits: dict[str, Part]
    enter: tuple[bytes, ...]
    leave: tuple[bytes, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """Every piece: the segments, then the exits, in their order."""
        return (*self.segments, *self.exits.values())


class Way(Value, frozen=True):
    """A boundary, a codec by which it travels, and the forms of what is before it and after it.

    Where a payload's length varies with the sample, ``mean_bytes`` and ``p99_bytes`` are those of
    the samples on which codecs are judged; else they are None, and the encoding tells.
    """

    boundary: Count
    codec: str
    form: str = "float32"
    server_form: str = "float32"
    mean_bytes: NonNegative | None = None
    p99_bytes: NonNegative | None = None


class Marks(Value, frozen=True):
    """How every exit did on held-out samples: files of float32 and bool ``(exits, samples)``."""

    scores: FileName
    hits: FileName


class Validation(Value, frozen=True):
    """Held-out evidence for planning.

    ``scores`` and ``hits`` are those of float32 (see `Marks`), ``forms`` those of other forms.
    ``carried`` is a file of bool ``(ways, judged)``: whether the net's own classifier is right in
    each of ``ways``, on ``judged`` of the samples, spread evenly.
    """

    policy: str
    samples: Count
    scores: FileName
    hits: FileName
    carried: FileName | None = None
    ways: tuple[Way, ...] = ()
    judged: Count = 0
    forms: dict[str, Marks] = {}

    @property
    def marks(self) -> dict[str, Marks]:
        """How the exits did in each form, float32 too."""
        return {"float32": Marks(self.scores, self.hits), **self.forms}

    @property
    def files(self) -> set[str]:
        """The names of all files that it speaks of."""
        names = {name for marks in self.marks.values() for name in (marks.scores, marks.hits)}
        return names if self.carried is None else {*names, self.carried}


class Manifest(Value, frozen=True):
    """Everything about a bundle except the weights."""

    format: int
    name: Name
    net: Net
    header: bytes
    segments: tuple[Part, ...]
    exits: dict[str, Part]
    ports: tuple[Port, ...]
    files: dict[FileName, File]
    versions: dict[str, str]
    created: str
    forms: dict[str, Form] = {}
    """The forms besides float32."""
    refused_forms: dict[str, str] = {}
    """Forms that were asked for and are not there, with the reason."""
    labels: tuple[str, ...] = ()
    validation: Validation | None = None
    plan: Plan | None = None
    table: PlanTable | None = None
    """Plans among which the edge chooses while it runs."""
    spec: dict[str, Any] | None = None
    whole_input: bool = False
    """The input is whole numbers: ids, or bytes that the net scales itself."""
    preparation: Preparation | None = None
    """What an image file goes through before the net takes it; None if nobody said."""
    sha256: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        how, wanted = self.preparation, self.net.boundaries[0].shape
        if how is not None and how.shape != wanted:
            raise SpecError(
                f"Manifest.preparation: the net takes samples of shape {wanted}, and images "
                f"prepared so have {how.shape}"
            )

    @property
    def model_hash(self) -> str:
        """SHA-256, in hex, of all that computes.

        That is the header, ports, segments and exits, in their order, and those of each form.
        """
        parts = [*self.segments, *self.exits.values()]
        parts += [part for form in self.forms.values() for part in form.parts]
        seen = (
            self.net,
            self.header,
            self.ports,
            self.forms,
            [(part.file, self.files[part.file].sha256) for part in parts],
        )
        return hashlib.sha256(canonical_json(seen)).hexdigest()

    def model_name(self, split: int, codec: str, form: str = "float32") -> str:
        """The name under which a server hosts the tail from ``split`` in a form.

        It is ``NAME-HASH12.from-K``, ``..-CODEC``, and for another form ``...in-FORM`` after it.
        """
        suffix = "" if codec == "float32" else f"-{codec}"
        suffix += "" if form == "float32" else f".in-{form}"
        return f"{self.name}-{self.model_hash[:12]}.from-{split}{suffix}"

    def sealed(self) -> Manifest:
        """The same manifest with its own SHA-256 filled in."""
        empty = msgspec.structs.replace(self, sha256="")
        return msgspec.structs.replace(
            self, sha256=hashlib.sha256(canonical_json(empty)).hexdigest()
        )
