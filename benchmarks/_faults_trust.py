"""Rows of what keeps strangers and damage out: bundles (11, 12, 13), the gate (18), secrets (19).

And what is promised of the supply (20).
"""

from __future__ import annotations

import importlib.util
import os
import random
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from benchmarks._faults import ONE_THREAD, Row, Rows
from benchmarks._faults_hostile import hostile
from benchmarks._faults_nets import small_bundle
from benchmarks._faults_who import admitted, leaks
from presplit.bundle import Bundle, read, write
from presplit.core.errors import BundleError

POINTS = 50
"""At so many sizes a disk is full."""
MEMORY_MB, LOAD_S = 2048, 10.0
"""What loading a stranger's bundle may take."""


def _refused(path: Path) -> str:
    """Why the bundle at ``path`` is refused; nothing if it is read."""
    try:
        read(path)
    except BundleError as error:
        return str(error)
    return ""


def _flipped(file: Path, before: bytes, bits: list[int]) -> list[int]:
    """Those of ``bits`` of a file that can be flipped without a refusal."""
    passed: list[int] = []
    for bit in bits:
        raw = bytearray(before)
        raw[bit // 8] ^= 1 << bit % 8
        file.write_bytes(raw)
        if not _refused(file.parent):
            passed.append(bit)
    file.write_bytes(before)
    return passed


def corrupt(quick: bool) -> Iterator[Row]:
    """Flips, cuts, and files that are missing, empty or too many."""
    with tempfile.TemporaryDirectory() as folder:
        small = small_bundle(Path(folder) / "small.bundle")
        files = {file: file.read_bytes() for file in sorted(small.path.iterdir())}
        step = 397 if quick else 1
        passed, tried = 0, 0
        for file, raw in files.items():
            bits = list(range(0, 8 * len(raw), step))
            passed += len(_flipped(file, raw, bits))
            tried += len(bits)
        which = f"every {step}th" if quick else "every"
        yield Row(11, f"{which} bit of a small bundle flipped", f"{passed} read", tried, not passed)

        real = small_bundle(Path(folder) / "real.bundle", slow=1)
        rng, passed, tried = random.Random(0), 0, 500 if quick else 10_000
        held = {file: file.read_bytes() for file in sorted(real.path.iterdir())}
        drawn = rng.choices(list(held), [len(raw) for raw in held.values()], k=tried)
        for file in drawn:
            passed += len(_flipped(file, held[file], [rng.randrange(8 * len(held[file]))]))
        size = sum(map(len, held.values())) / 2**20
        yield Row(11, f"a bit of {size:.0f} MiB flipped", f"{passed} read", tried, not passed)
        yield from _cut(small, files)


def _cut(small: Bundle, files: dict[Path, bytes]) -> Iterator[Row]:
    """Files cut short, gone, empty, and one too many."""
    passed, tried = 0, 0
    for file, raw in files.items():
        for length in {0, 1, len(raw) // 2, len(raw) - 1, *range(1024, len(raw), 1024)}:
            file.write_bytes(raw[:length])
            passed += not _refused(small.path)
            tried += 1
        file.unlink()
        passed += not _refused(small.path)
        file.write_bytes(raw)
        tried += 1
    for name in ("extra.onnx", "segment-00.onnx.bak", ".hidden"):
        (small.path / name).write_bytes(b"")
        passed += not _refused(small.path)
        (small.path / name).unlink()
        tried += 1
    yield Row(11, "files cut at each KiB, gone, too many", f"{passed} read", tried, not passed)
    (small.path / ".DS_Store").write_bytes(b"x")
    (small.path / "Thumbs.db").write_bytes(b"x")
    whole = not _refused(small.path)
    yield Row(11, "what file managers leave is no damage", "read" if whole else "not", 2, whole)


def contained(quick: bool) -> Iterator[Row]:
    """Bundles that are rightly hashed and mean ill, read by a process that is watched."""
    with tempfile.TemporaryDirectory() as folder:
        found = list(hostile(Path(folder)).items())
    taken = [name for name, each in found if not each.refused]
    ran = [f"{name}: {', '.join(each.acts)}" for name, each in found if each.acts]
    most_mb = max(each.memory_mb for _, each in found)
    most_s = max(each.seconds for _, each in found)
    n = len(found)
    yield Row(12, "hostile bundles refused", f"taken: {', '.join(taken) or 'none'}", n, not taken)
    yield Row(12, "no code run, no file written", "; ".join(ran) or "none", n, not ran)
    yield Row(
        12,
        f"each within {MEMORY_MB} MiB and {LOAD_S:.0f} s",
        f"{most_mb:.0f} MiB, {most_s:.1f} s at most",
        n,
        most_mb <= MEMORY_MB and most_s <= LOAD_S,
    )
    yield from _signatures()


def _signatures() -> Iterator[Row]:
    """What is unsigned, signed by another, altered or older."""
    from presplit.bundle import Trust, sign_bundle
    from presplit.bundle.sign import make_keys, private_key_in, public_key_in
    from presplit.core.private import NewFiles

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        bundle = small_bundle(place / "small.bundle")
        for who in ("ours", "theirs"):
            with NewFiles(place / who) as new:
                make_keys(new)
        ours, theirs = (private_key_in(place / who / "signing.key") for who in ("ours", "theirs"))
        trust = Trust((public_key_in(place / "ours" / "signing.pub"),), place / "state.json")
        tried: dict[str, bool] = {}

        def refused(what: str) -> None:
            try:
                read(bundle.path, trust=trust)
            except BundleError:
                tried[what] = True
            else:
                tried[what] = False

        refused("unsigned")
        sign_bundle(bundle.path, theirs)
        refused("wrong key")
        sign_bundle(bundle.path, ours, serial=2)
        read(bundle.path, trust=trust)
        manifest = bundle.path / "manifest.json"
        before = manifest.read_bytes()
        manifest.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        refused("altered")
        manifest.write_bytes(before)
        sign_bundle(bundle.path, ours, serial=1)
        refused("older")
        passed = [what for what, was in tried.items() if not was]
        yield Row(
            12,
            f"bundles that are {', '.join(tried)}, where a key is pinned",
            f"taken: {', '.join(passed) or 'none'}",
            len(tried),
            not passed,
        )


FULL = """
import json, resource, signal, sys
from presplit.bundle import read, write
from presplit.core.errors import BundleError
new, target, limits = sys.argv[1], sys.argv[2], map(int, sys.argv[3:])
found = read(new)
files = {name: found._files[name] for name in found.manifest.files}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
for limit in limits:
    if limit >= 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    said = "written"
    try:
        write(target, found.manifest, files)
    except BundleError as error:
        said = str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    print(said, flush=True)
    if limit >= 0:
        sys.stdin.readline()
"""


def full(quick: bool) -> Iterator[Row]:
    """A disk that is full at many points while a bundle is saved over another."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        old = small_bundle(place / "old.bundle", seed=1)
        new = small_bundle(place / "new.bundle", seed=2)
        most = max(file.stat().st_size for file in new.path.iterdir())
        limits = [most * point // POINTS for point in range(POINTS)]
        harms = _saved(old, new.path, limits)
        words = f"files that end at {POINTS} lengths"
        seen = harms[0] if harms else "the old bundle whole, nothing left behind, said clearly"
        yield Row(13, words, seen, POINTS, not harms)
        yield from _small_disks(place, old, new, quick)
        yield _synced(old, new)


def _saved(old: Bundle, new: Path, limits: list[int]) -> list[str]:
    """What is wrong after saving over ``old`` where files may have so many bytes."""
    command = [sys.executable, "-c", FULL, str(new), str(old.path), *map(str, limits)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **ONE_THREAD},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        harms: list[str] = []
        for _ in limits:
            harms.append(_harm(old, process.stdout.readline()))
            process.stdin.write("\n")
            process.stdin.flush()
    return [harm for harm in harms if harm]


def _harm(old: Bundle, said: str) -> str:
    if "cannot be written (" not in said:
        return f"said: {said.strip()[:200]!r}"
    if read(old.path).manifest.sha256 != old.manifest.sha256:
        return "the old bundle is another"
    left = [name for name in os.listdir(old.path.parent) if name.startswith(".")]
    return f"left behind: {left}" if left else ""


DISK = """
set -e
mount -t tmpfs -o size={size}k none {place}
cp -r {old} {place}/b.bundle
before=$(sha256sum {place}/b.bundle/* | sha256sum)
{python} -c "$PROGRAM" {new} {place}/b.bundle -1
test "$before" = "$(sha256sum {place}/b.bundle/* | sha256sum)" && echo whole
ls -A {place}
"""


def _small_disks(place: Path, old: Bundle, new: Bundle, quick: bool) -> Iterator[Row]:
    """Disks of their own, each a page larger, where the system lets us have some."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        return
    (place / "disk").mkdir()
    used = sum(-(-file.stat().st_size // 4096) * 4 for file in old.path.iterdir()) + 4
    harms, tried = [], 0
    for more in range(0, used, max(4, used // (4 if quick else 50) // 4 * 4)):
        script = DISK.format(
            size=used + more + 4,
            place=place / "disk",
            old=old.path,
            new=new.path,
            python=sys.executable,
        )
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", script],
            capture_output=True,
            text=True,
            env={**os.environ, **ONE_THREAD, "PROGRAM": FULL},
        )
        lines = done.stdout.splitlines()
        if lines[:1] == ["written"]:
            break
        tried += 1
        if len(lines) != 3 or lines[1:] != ["whole", "b.bundle"] or "No space" not in lines[0]:
            harms.append(f"{lines[:4]} {done.stderr[-100:]}")
    seen = harms[0] if harms else "the old bundle whole, nothing left behind, said clearly"
    yield Row(13, "disks that are full", seen, tried, not harms and tried > 0)


def _synced(old: Bundle, new: Bundle) -> Row:
    """What the system is told on a save, in its order."""
    told: list[str] = []
    sync, rename = os.fsync, os.rename

    def fsync(handle: int) -> None:
        told.append("folder" if Path(f"/proc/self/fd/{handle}").is_dir() else "file")
        sync(handle)

    files = {name: new._files[name] for name in new.manifest.files}
    os.fsync = fsync
    try:
        write(old.path.with_name("third.bundle"), new.manifest, files)
    finally:
        os.fsync, os.rename = sync, rename
    expected = ["file"] * (len(files) + 1) + ["folder", "folder"]
    seen = f"{told.count('file')} files, their folder, the folder around it"
    return Row(13, "what is on the disk before it counts", seen, len(told), told == expected)


def who(quick: bool) -> Iterator[Row]:
    """Everybody against everything that a server answers."""
    yield from admitted(quick)


def secrets(quick: bool) -> Iterator[Row]:
    """Where a token, a key and a tensor's values show."""
    yield from leaks(quick)


def supply(quick: bool) -> Iterator[Row]:
    """What comes from others: floors for what had holes, no install scripts, nothing unlisted."""
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"]]
    named += [word for extra in project["optional-dependencies"].values() for word in extra]
    foreign = [word for word in named if not word.startswith("presplit[")]
    loose = [word for word in foreign if not re.search(r">=\d", word)]
    seen = f"without: {', '.join(loose) or 'none'}"
    yield Row(20, "every library has a least release", seen, len(foreign), not loose)
    if importlib.util.find_spec("pip_audit") is None:
        yield Row(20, "known holes of releases", "not looked for: make audit does", 0, True)
        return
    command = [sys.executable, "-m", "pip_audit", "--skip-editable", "--progress-spinner", "off"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    said = " ".join((done.stdout + done.stderr).split())[:160]
    yield Row(20, "known holes of releases", said, 1, not done.returncode)


PARTS: dict[int, Rows] = {
    11: corrupt,
    12: contained,
    13: full,
    18: who,
    19: secrets,
    20: supply,
}
