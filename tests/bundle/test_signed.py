"""A device that pins a key takes what its owner signed last, and nothing else."""

from __future__ import annotations

import base64
import os
import shutil
from pathlib import Path
from runpy import run_path

import pytest

from presplit.bundle import Bundle, Trust, read, sign_bundle, write, write_plan
from presplit.bundle.files import MANIFEST, SIGNATURE
from presplit.bundle.sign import make_keys, private_key_in, public_key_in, signed, verified
from presplit.core.errors import BundleError, SpecError
from presplit.core.plans import Plan
from presplit.core.private import NewFiles
from presplit.runtime.authority import Authority

made = run_path(str(Path(__file__).with_name("test_bundle.py")))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    files = made["contents"]()
    return write(tmp_path / "small.bundle", made["manifest"](files), files)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes, bytes]:
    """Ours, its public half, and another's public half."""
    place = tmp_path_factory.mktemp("signing")
    for who in ("ours", "theirs"):
        with NewFiles(place / who) as new:
            make_keys(new)
    with pytest.raises(SpecError, match="signing.key: is there already"):
        make_keys(NewFiles(place / "ours"))
    assert (place / "ours" / "signing.key").stat().st_mode & 0o777 == 0o600
    ours = private_key_in(place / "ours" / "signing.key")
    public = [public_key_in(place / who / "signing.pub") for who in ("ours", "theirs")]
    return ours, public[0], public[1]


def test_a_signed_bundle_is_read_and_every_other_is_refused(
    bundle: Bundle, keys: tuple[bytes, bytes, bytes]
) -> None:
    key, public, other = keys
    with pytest.raises(BundleError, match="is not signed, and only signed bundles are taken"):
        read(bundle.path, trust=Trust((public,)))
    sign_bundle(bundle.path, key)
    assert read(bundle.path, trust=Trust((other, public))) == bundle == read(bundle.path)
    with pytest.raises(BundleError, match="manifest.sig: is no signature by a key that is trusted"):
        read(bundle.path, trust=Trust((other,)))
    with pytest.raises(BundleError, match="no signature by a key"):
        read(bundle.path, trust=Trust(()))
    write_plan(bundle, Plan(1))
    with pytest.raises(BundleError, match="is not signed"):
        read(bundle.path, trust=Trust((public,)))
    sign_bundle(bundle.path, key)
    assert read(bundle.path, trust=Trust((public,))).plan == Plan(1)
    assert sorted(os.listdir(bundle.path.parent)) == ["small.bundle"]


def test_no_bit_of_manifest_or_signature_can_change(
    bundle: Bundle, keys: tuple[bytes, bytes, bytes]
) -> None:
    """Refused by the signature, before anything is parsed."""
    key, public, _ = keys
    sign_bundle(bundle.path, key)
    trust = Trust((public,))
    for name in (MANIFEST, SIGNATURE):
        file = bundle.path / name
        before = file.read_bytes()
        for bit in range(0, 8 * len(before), 7 if name == SIGNATURE else 997):
            raw = bytearray(before)
            raw[bit // 8] ^= 1 << bit % 8
            file.write_bytes(raw)
            with pytest.raises(BundleError, match="no signature by a key|is not what was signed"):
                read(bundle.path, trust=trust)
        file.write_bytes(before)
    assert read(bundle.path, trust=trust) == bundle


def test_an_older_bundle_does_not_come_back(
    bundle: Bundle, keys: tuple[bytes, bytes, bytes], tmp_path: Path
) -> None:
    key, public, _ = keys
    trust = Trust((public,), tmp_path / "state" / "bundles.json")
    sign_bundle(bundle.path, key, serial=7)
    old = Path(shutil.copytree(bundle.path, tmp_path / "old.bundle"))
    read(old, trust=trust)
    sign_bundle(bundle.path, key, serial=8)
    assert read(bundle.path, trust=trust, remember=False).statement is not None
    read(old, trust=trust)
    read(bundle.path, trust=trust)
    read(bundle.path, trust=trust)
    with pytest.raises(BundleError, match="is older than what this device has taken .serial 7,"):
        read(old, trust=trust)
    assert read(old, trust=Trust((public,))) is not None
    assert trust.state is not None
    trust.state.write_text("{")
    with pytest.raises(BundleError, match="does not say any more which bundles"):
        read(bundle.path, trust=trust)


def test_what_a_key_signed_for_something_else_signs_no_bundle(
    bundle: Bundle, keys: tuple[bytes, bytes, bytes]
) -> None:
    key, public, _ = keys
    raw = (bundle.path / MANIFEST).read_bytes()
    signature = signed(raw, "another", key)
    (bundle.path / SIGNATURE).write_bytes(signature)
    with pytest.raises(BundleError, match="was signed as 'another', is 'small'"):
        read(bundle.path, trust=Trust((public,)))
    from cryptography.hazmat.primitives.asymmetric import ed25519

    own = ed25519.Ed25519PrivateKey.from_private_bytes(key)
    for text in (b"", b"{}", b'{"purpose":"mail"}', b"\xff" * 90):
        with pytest.raises(BundleError, match="signs something else than a bundle"):
            verified(own.sign(text) + text, (public,), Path("x"))


def test_the_halves_of_a_key_and_other_files_are_told_apart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with NewFiles(tmp_path) as new:
        make_keys(new)
        Authority.found(new)
    ours, public, junk = tmp_path / "signing.key", tmp_path / "signing.pub", tmp_path / "junk"
    assert private_key_in(ours) != public_key_in(public)
    with pytest.raises(SpecError, match="signing.pub: holds a public key, which signs nothing"):
        private_key_in(public)
    with pytest.raises(SpecError, match="signing.key: holds a private key, which belongs only"):
        public_key_in(ours)
    junk.write_bytes(base64.b64encode(bytes(32)))
    for file in (junk, tmp_path / "ca.key", tmp_path / "ca.pem"):
        with pytest.raises(SpecError, match="expected a private Ed25519 key in PEM"):
            private_key_in(file)
    for file in (junk, tmp_path / "ca.pem"):
        with pytest.raises(SpecError, match="expected a public Ed25519 key in PEM"):
            public_key_in(file)
    assert not caplog.records
    ours.chmod(0o644)
    private_key_in(ours)
    assert "signing.key: others may read it (mode 644)" in caplog.text


def test_a_strangers_bundle_has_no_files_that_are_also_elsewhere(
    bundle: Bundle, tmp_path: Path
) -> None:
    os.link(bundle.path / "exit-00.onnx", tmp_path / "elsewhere")
    assert read(bundle.path) == bundle
    with pytest.raises(BundleError, match="exit-00.onnx: has other names too"):
        read(bundle.path, strict=True)


def test_a_folder_with_too_many_names_is_refused_soon(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("presplit.bundle.files.MOST_NAMES", 5)
    with pytest.raises(BundleError, match="expected at most 5 files, got more"):
        read(bundle.path)
