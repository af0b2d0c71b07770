"""The catalogue: several bundles behind one server, which come and go while it runs.

A bundle on disk that is new or has changed is read, checked, warmed and proved before it takes the
place of the one that was there; that one is let go of after its last request. A broken one changes
nothing. Model names carry the hash of what computes, so two versions of a net stand side by side.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from presplit.bundle import Bundle, read
from presplit.bundle.files import MANIFEST
from presplit.core.errors import BundleError, PresplitError
from presplit.runtime.hosted import Array, Contract, Hosted, Layer, Reply, UnknownModel

T = TypeVar("T")
Source = Bundle | str | Path
Stamp = tuple[tuple[str, int, int, int], ...]
"""What a folder holds: name, time of the last change, size and number of every file."""
Kind = Literal["loaded", "replaced", "gone", "kept", "broken", "double"]

SUFFIX = ".bundle"
"""A folder of this name is a bundle, or a damaged one."""


@dataclass(frozen=True)
class Change:
    """What became of a bundle on disk; ``text`` says it to people."""

    kind: Kind
    path: Path
    text: str
    error: PresplitError | None = None


Make = Callable[[Bundle], Hosted]
"""A bundle, ready to serve: warmed and proved. Raises `PresplitError` if it cannot be."""


class Entry(Layer):
    """One bundle that is served, and how many requests are in it."""

    def __init__(self, bundle: Bundle, inner: Hosted) -> None:
        super().__init__(inner)
        self.bundle = bundle
        self.key = key_of(bundle)
        self._lock = threading.Condition()
        self._inside = 0
        self._let_go = False

    def enter(self) -> bool:
        """Count one more inside; False if this bundle has been let go of."""
        with self._lock:
            if self._let_go:
                return False
            self._inside += 1
            return True

    def leave(self) -> None:
        """Count one less inside."""
        with self._lock:
            self._inside -= 1
            self._lock.notify_all()

    def retire(self) -> None:
        """Close it after its last request, on a thread of its own."""

        def closing() -> None:
            with self._lock:
                self._lock.wait_for(lambda: not self._inside)
                self._let_go = True
            self.close()

        # No thread of its pool may wait for the pool; and one that hangs must not hold the process.
        threading.Thread(target=closing, name="retire", daemon=True).start()


@dataclass(frozen=True)
class _State:
    """What is served at one moment: swapped as a whole, so that no lock is needed to look."""

    by_path: Mapping[Path, Entry] = field(default_factory=dict[Path, Entry])
    by_key: Mapping[str, Entry] = field(default_factory=dict[str, Entry])


class Catalogue:
    """Every bundle in ``sources``, `Hosted` as one; nothing is read before `refresh`.

    A source is a bundle, its path, or the path of a folder of bundles. ``reads`` reads
    one, ``make`` hosts it, and ``taken`` is told of one that is about to be served: it may still
    raise `BundleError`. A request is at most ``most_bytes`` long: what is left at None is found
    in the first refresh.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        make: Make,
        *,
        most_bytes: int | None = None,
        reads: Callable[[Path], Bundle] = read,
        taken: Callable[[Bundle], None] | None = None,
    ) -> None:
        self._sources, self._make, self._most_bytes = sources, make, most_bytes
        self._reads, self._taken = reads, taken
        self._state = _State()
        self._refreshing = threading.Lock()
        self._stamps: dict[Path, Stamp] = {}
        self._seen: dict[Path, Stamp] = {}
        self.broken: dict[Path, PresplitError] = {}
        """The bundles on disk that cannot be served as they are, and why."""

    @property
    def bundles(self) -> dict[str, Bundle]:
        """What is served: bundles by the first part of their models' names, NAME-HASH12."""
        return {key: entry.bundle for key, entry in self._state.by_key.items()}

    @property
    def named(self) -> list[Path]:
        """The paths that were asked for by name."""
        given = self._sources
        return [each.path if isinstance(each, Bundle) else Path(each) for each in given]

    @property
    def most_bytes(self) -> int:
        """The largest request that any model takes, in bytes of its array."""
        if self._most_bytes is not None:
            return self._most_bytes
        return max((entry.most_bytes for entry in self._state.by_key.values()), default=0)

    def names(self) -> Iterator[str]:
        """The names of all models."""
        for bundle in self.bundles.values():
            yield from names_of(bundle)

    def contract(self, name: str) -> Contract:
        """The contract of the model ``name``; raises `UnknownModel`."""
        return self._find(name).contract(name)

    def warm(self, name: str) -> Future[None]:
        """Done when the model ``name`` is ready to run; raises as `Hosted` says."""
        return self._within(name, lambda entry: entry.warm(name))

    def run(
        self, name: str, array: Array, *, until: float | None, client: str = ""
    ) -> Future[Reply]:
        """What the model ``name`` gives for ``array``; raises as `Hosted` says."""
        return self._within(name, lambda entry: entry.run(name, array, until=until, client=client))

    def close(self) -> None:
        """Finish what is running and let go of every bundle."""
        with self._refreshing:
            state, self._state = self._state, _State()
            for entry in state.by_path.values():
                entry.close()

    def refresh(self, *, settled: bool = False) -> list[Change]:
        """Serve what is on disk now; what changed, in words.

        If only what is ``settled`` counts, a folder that still differs from what it was at the
        last look waits: a copy may be under way. Otherwise what was broken is tried again too.
        """
        with self._refreshing:
            seen = dict(_found(self._sources))
            if not settled:
                for path in self.broken:
                    self._stamps.pop(path, None)
            changes = list[Change]()
            for path, stamp in seen.items():
                if self._stamps.get(path) == stamp:
                    continue
                if settled and self._seen.get(path) != stamp:
                    continue
                self._stamps[path] = stamp
                changes.append(self._load(path))
            gone = self._stamps.keys() - seen.keys()
            if settled:
                gone -= self._seen.keys()
            changes += [self._lose(path) for path in sorted(gone)]
            self._seen = seen
            return changes

    def _load(self, path: Path) -> Change:
        """Read the bundle at ``path`` and serve it in place of what was read from there before."""
        try:
            given = [each for each in self._sources if isinstance(each, Bundle)]
            same = [each for each in given if each.path == path]
            bundle = same[0] if same else self._reads(path)
            self._check_size(bundle)
            entry = self._proved(bundle)
        except PresplitError as error:
            self.broken[path] = error
            still = "; what was read from there before goes on" if path in self._paths else ""
            return Change("broken", path, f"{error}{still}", error)
        self.broken.pop(path, None)
        other = self._state.by_key.get(entry.key)
        old = self._swap({**self._paths, path: entry}, path)
        if other is not None and other is not old:
            return Change(
                "double", path, f"{path} holds the same net as {other.bundle.path}: {entry.key}"
            )
        if old is None:
            return Change("loaded", path, f"{entry.key} is served from {path}")
        if old.key == entry.key:
            return Change("replaced", path, f"{entry.key} is read anew from {path}")
        return Change("replaced", path, f"{entry.key} takes the place of {old.key} from {path}")

    def _proved(self, bundle: Bundle) -> Entry:
        """``bundle``, ready to serve."""
        entry = Entry(bundle, self._make(bundle))
        try:
            if self._taken is not None:
                self._taken(bundle)
        except BaseException:
            entry.close()
            raise
        return entry

    def _lose(self, path: Path) -> Change:
        """Stop serving what is no longer at ``path``, unless it was asked for by name."""
        del self._stamps[path]
        self.broken.pop(path, None)
        if path in self.named:
            return Change("kept", path, f"{path} is gone; what was read from there goes on")
        paths = dict(self._paths)
        paths.pop(path, None)
        old = self._swap(paths, path)
        if old is None:
            return Change("gone", path, f"{path} is gone; it was not served")
        other = self._state.by_key.get(old.key)
        if other is not None:
            there = f"{old.key} is still served from {other.bundle.path}"
            return Change("gone", path, f"{path} is gone; {there}")
        return Change("gone", path, f"{path} is gone; {old.key} is served no more")

    def _swap(self, paths: Mapping[Path, Entry], path: Path) -> Entry | None:
        """Serve what ``paths`` hold; the entry that was at ``path`` is let go of, and given."""
        by_key = dict[str, Entry]()
        for each in sorted(paths):
            by_key.setdefault(paths[each].key, paths[each])
        old = self._paths.get(path)
        self._state = _State(dict(paths), by_key)
        if old is not None:
            old.retire()
        return old

    @property
    def _paths(self) -> Mapping[Path, Entry]:
        return self._state.by_path

    def _check_size(self, bundle: Bundle) -> None:
        """Raise `BundleError` if not even one sample fits into the largest request."""
        if self._most_bytes is None:
            return
        shapes = bundle.net.boundaries[: bundle.net.last]
        needed = max(boundary.nbytes for boundary in shapes)
        if needed > self._most_bytes:
            raise BundleError(
                f"{bundle.path}: one sample may have {needed} bytes, and this server takes "
                f"requests of {self._most_bytes}: start it with a larger --most-mb (most_mb)"
            )

    def fix_size(self) -> None:
        """From now on `most_bytes` stays as it is: what listens was told."""
        self._most_bytes = self.most_bytes

    def _find(self, name: str) -> Entry:
        """The bundle that hosts the model ``name``."""
        by_key = self._state.by_key
        entry = by_key.get(name.rpartition(".from-")[0])
        if entry is None:
            hosted = ", ".join(f"{key}.from-0" for key in sorted(by_key)[:8])
            raise UnknownModel(f"no model {name[:128]!r} here; hosted: {hosted or 'none'}")
        return entry

    def _within(self, name: str, begin: Callable[[Entry], Future[T]]) -> Future[T]:
        """What ``begin`` gives in the bundle that hosts ``name``, which stays until it is over."""
        entry = self._find(name)
        while not entry.enter():  # it was replaced since it was found
            entry = self._find(name)
        try:
            future = begin(entry)
        except BaseException:
            entry.leave()
            raise
        future.add_done_callback(lambda _: entry.leave())
        return future


def key_of(bundle: Bundle) -> str:
    """What the names of all models of ``bundle`` begin with: NAME-HASH12."""
    return bundle.manifest.model_name(0, "float32").removesuffix(".from-0")


def names_of(bundle: Bundle) -> Iterator[str]:
    """The names of all models of ``bundle``."""
    for split, port in enumerate(bundle.manifest.ports[: bundle.net.last]):
        for codec in port.encodings:
            for form in bundle.forms:
                yield bundle.manifest.model_name(split, codec, form)


def _found(sources: Sequence[Source]) -> Iterator[tuple[Path, Stamp]]:
    """Every bundle in ``sources`` with its stamp."""
    for source in sources:
        if isinstance(source, Bundle):
            yield source.path, ()
            continue
        path = Path(source)
        for each in _bundles_in(path):
            stamp = _stamp(each)
            if stamp is not None:
                yield each, stamp


def _bundles_in(path: Path) -> list[Path]:
    """``path`` if it is a bundle or may be a damaged one, else the bundles in that folder."""
    if not path.is_dir() or path.suffix == SUFFIX or (path / MANIFEST).exists():
        return [path]
    try:
        inner = sorted(each for each in path.iterdir() if each.is_dir() and each.name[0] != ".")
    except OSError:  # it went away, or may not be read now: what was read goes on
        return []
    return [each for each in inner if each.suffix == SUFFIX or (each / MANIFEST).exists()]


def _stamp(path: Path) -> Stamp | None:
    """What is at ``path`` now; None if nothing is."""
    try:
        with os.scandir(path) as entries:
            found = [(entry.name, entry.stat()) for entry in entries]
    except OSError:
        return None
    return tuple(sorted((n, s.st_mtime_ns, s.st_size, s.st_ino) for n, s in found))
