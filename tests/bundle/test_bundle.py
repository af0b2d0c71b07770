"""A bundle is read back as it was written, or refused.

No damage passes, and no failed write harms what was there.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from presplit.bundle import Bundle, Manifest, digest, read, write, write_plan
from presplit.bundle.files import MANIFEST
from presplit.bundle.manifest import FORMAT, Part, Port, Validation, Way
from presplit.codecs import CODECS
from presplit.core.encoding import Seen
from presplit.core.errors import BundleError, SpecError
from presplit.core.plans import Estimate, Plan, PlanTable, Row
from presplit.core.types import Boundary, Exit, Net

MOST_FLIPS = 500
NAMES = ("float32", "float16", "int8")

NET = Net(
    tuple(Boundary(f"b{k}", (k + 2,)) for k in range(3)),
    (Exit("early", 1, 2), Exit("final", 2, 2)),
)


def row(plan: Plan) -> Row:
    return Row(plan, edge_s=0.01, asked=0.5, up_bytes=100, tail_s=0.001, accuracy=0.9)


def npy(array: np.ndarray) -> bytes:
    np.save(held := io.BytesIO(), array)
    return held.getvalue()


def contents(filling: bytes = b"") -> dict[str, bytes]:
    """The files of a small bundle; pieces are what is joined, so any bytes do."""
    return {
        "segment-00.onnx": b"first" + filling,
        "segment-01.onnx": b"second",
        "exit-00.onnx": b"exit",
        "scores.npy": npy(np.array([[0.5, 0.9], [1.0, 0.7]], np.float32)),
        "hits.npy": npy(np.array([[True, False], [True, True]])),
    }


def manifest(files: dict[str, bytes], **changes: object) -> Manifest:
    encodings = {name: CODECS[name].calibrate(Seen(0, 1), (2,)) for name in NAMES}
    entries = [{name: f"in{number}{name}".encode() for name in NAMES} for number in range(3)]
    ports = tuple(
        Port(entry, f"out{number}".encode(), encodings) for number, entry in enumerate(entries)
    )
    made = Manifest(
        format=FORMAT,
        name="small",
        net=NET,
        header=b"header",
        segments=(Part("segment-00.onnx", 10, 5), Part("segment-01.onnx", 20, 6)),
        exits={"early": Part("exit-00.onnx", 3, 2)},
        ports=ports,
        files=digest(files),
        versions={"presplit": "1"},
        created="2026-01-01",
        labels=("no", "yes"),
        validation=Validation("confidence", 2, "scores.npy", "hits.npy"),
    )
    return msgspec.structs.replace(made, **changes)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write(tmp_path / "small.bundle", manifest(contents()), contents())


def files_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


texts = st.text(max_size=8)
plans = st.builds(
    Plan,
    split=st.integers(0, 2),
    codec=st.sampled_from(NAMES),
    deadline_s=st.none() | st.floats(1e-3, 10),
    expected=st.none() | st.builds(Estimate, *(st.floats(0, 1),) * 8, how=texts),
)


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(
    filling=st.binary(max_size=50),
    plan=st.none() | plans,
    labels=st.lists(texts).map(tuple),
    spec=st.none()
    | st.dictionaries(texts, st.none() | st.integers(-9, 9) | texts | st.lists(st.booleans())),
    versions=st.dictionaries(texts, texts),
)
def test_what_was_written_is_read_back(
    tmp_path: Path,
    filling: bytes,
    plan: Plan | None,
    labels: tuple,
    spec: dict | None,
    versions: dict,
) -> None:
    files = contents(filling)
    made = manifest(files, plan=plan, labels=labels, spec=spec, versions=versions)
    written = write(tmp_path / "any.bundle", made, files)
    found = read(tmp_path / "any.bundle")
    assert found == written
    assert msgspec.structs.replace(found.manifest, sha256="") == made
    assert found.net == NET and found.plan == plan
    assert {name: raw for name, raw in files_of(found.path).items() if name != MANIFEST} == files


def flips(bundle: Bundle) -> Iterator[tuple[str, int]]:
    """Every bit of every file, or a fixed sample of them."""
    every = [
        (name, bit)
        for name, raw in sorted(files_of(bundle.path).items())
        for bit in range(8 * len(raw))
    ]
    yield from every if len(every) <= MOST_FLIPS else random.Random(0).sample(every, MOST_FLIPS)


def test_every_flipped_bit_is_refused(bundle: Bundle) -> None:
    before = files_of(bundle.path)
    for name, bit in flips(bundle):
        raw = bytearray(before[name])
        raw[bit // 8] ^= 1 << bit % 8
        (bundle.path / name).write_bytes(raw)
        with pytest.raises(BundleError, match=name):
            read(bundle.path)
        (bundle.path / name).write_bytes(before[name])
    assert read(bundle.path) == bundle


def test_damage_is_refused_before_anything_is_parsed(bundle: Bundle) -> None:
    """Evidence that numpy cannot read is refused when it is used.

    Damage to it is refused by its hash, before that.
    """
    files = contents() | {"scores.npy": b"not an array"}
    found = write(bundle.path, manifest(files), files)
    with pytest.raises(BundleError, match="scores.npy: cannot be read"):
        found.evidence()
    (bundle.path / "scores.npy").write_bytes(b"not an arraz")
    with pytest.raises(BundleError, match="scores.npy: damaged: its SHA-256 is not the manifest's"):
        read(bundle.path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_every_file_cut_short_or_made_longer_is_refused(bundle: Bundle, share: float) -> None:
    for name, raw in files_of(bundle.path).items():
        for wrong in (raw[: int(share * len(raw))], raw + b"\0", raw + b" "):
            (bundle.path / name).write_bytes(wrong)
            with pytest.raises(BundleError, match=f"{name}: damaged"):
                read(bundle.path)
        (bundle.path / name).write_bytes(raw)


def test_a_missing_file_is_refused(bundle: Bundle) -> None:
    for name, raw in files_of(bundle.path).items():
        (bundle.path / name).unlink()
        with pytest.raises(BundleError, match=f"{name}: (is missing|missing, or not a plain file)"):
            read(bundle.path)
        (bundle.path / name).write_bytes(raw)


@pytest.mark.parametrize("name", ["extra.onnx", ".hidden", "segment-02.onnx"])
def test_a_file_that_the_manifest_does_not_list_is_refused(bundle: Bundle, name: str) -> None:
    (bundle.path / name).write_bytes(b"")
    with pytest.raises(BundleError, match=f"{name}: is not in the manifest; copy or export"):
        read(bundle.path)


@pytest.mark.parametrize("name", [MANIFEST, "segment-00.onnx"])
def test_a_link_a_folder_or_a_pipe_in_the_place_of_a_file_is_refused(
    bundle: Bundle, name: str, tmp_path: Path
) -> None:
    file = bundle.path / name
    file.rename(tmp_path / "moved")
    for make in (
        lambda: file.symlink_to(tmp_path / "moved"),
        lambda: file.symlink_to(tmp_path / "nowhere"),
        file.mkdir,
        lambda: os.mkfifo(file),
    ):
        make()
        with pytest.raises(BundleError, match=f"{name}: missing, or not a plain file"):
            read(bundle.path)
        file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink()


def test_a_bundle_of_another_format_is_refused_by_its_number(bundle: Bundle) -> None:
    raw = (bundle.path / MANIFEST).read_bytes()
    (bundle.path / MANIFEST).write_bytes(raw.replace(b'"format":%d' % FORMAT, b'"format":7'))
    with pytest.raises(
        BundleError, match=f"bundle format 7, this presplit reads {FORMAT}; export the bundle again"
    ):
        read(bundle.path)


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.replace(b'"name":"small"', b'"name":"small","name":"small"'),
        lambda raw: raw.replace(b'"name":"small"', b'"name": "small"'),
        lambda raw: raw.replace(b'"name":"small"', b'"name":"other"'),
        lambda raw: raw.replace(b'"name":"small"', b'"extra":1,"name":"small"'),
        lambda raw: raw.replace(b'"name":"small"', b'"name":"../up"'),
        lambda raw: b"[" * 100_000,
        lambda raw: b"{}",
        lambda raw: b"\xff\xfe",
        lambda raw: b'{"format":%d}' % FORMAT,
        lambda raw: b'{"format":true}',
    ],
)
def test_a_manifest_that_is_not_as_it_was_written_is_refused(
    bundle: Bundle, change: object
) -> None:
    raw = (bundle.path / MANIFEST).read_bytes()
    (bundle.path / MANIFEST).write_bytes(change(raw))  # type: ignore[operator]
    with pytest.raises(BundleError, match="manifest.json: damaged"):
        read(bundle.path)


def sealed_json(path: Path, change: Callable[[dict], object]) -> None:
    """Write the manifest in ``path`` again as a version with other fields would have."""
    held = msgspec.json.decode((path / MANIFEST).read_bytes())
    change(held)
    held["sha256"] = ""
    held["sha256"] = hashlib.sha256(msgspec.json.encode(held)).hexdigest()
    (path / MANIFEST).write_bytes(msgspec.json.encode(held))


def test_a_bundle_from_before_a_field_with_a_default_is_read(bundle: Bundle) -> None:
    plan = Plan(1, {"early": 0.5})
    table = PlanTable((row(plan), row(Plan(2))))
    write(bundle.path, manifest(contents(), plan=plan, table=table), contents())
    now = read(bundle.path)

    def older(held: dict) -> None:
        for each in (held["plan"], *(line["plan"] for line in held["table"]["rows"])):
            del each["planned_for"]

    sealed_json(bundle.path, older)
    found = read(bundle.path)
    assert (found.plan, found.table) == (now.plan, now.table)
    assert found.manifest.model_hash == now.manifest.model_hash
    # Its plan may be changed, which writes it as of today.
    write_plan(found, plan)
    assert read(bundle.path).plan == plan


def test_a_whole_bundle_with_fields_of_another_version_is_not_called_damaged(
    bundle: Bundle,
) -> None:
    def newer(held: dict) -> None:
        held["versions"] = {"presplit": "9.1"}
        held["mood"] = "good"

    sealed_json(bundle.path, newer)
    with pytest.raises(
        BundleError, match=r"whole, but made by presplit 9\.1, which .*`mood`.*; export the bundle"
    ):
        read(bundle.path)


@pytest.mark.parametrize(
    "changes",
    [
        {"segments": (Part("segment-00.onnx", 1, 1),)},
        {"exits": {}},
        {"exits": {"other": Part("exit-00.onnx", 1, 1)}},
        {"ports": ()},
        {"validation": None},
        {"validation": Validation("confidence", 2, "scores.npy", "scores.npy")},
    ],
)
def test_a_sealed_manifest_whose_parts_do_not_fit_is_refused(tmp_path: Path, changes: dict) -> None:
    with pytest.raises(
        BundleError, match="segments, ports, exits and files do not belong to its net"
    ):
        write(tmp_path / "odd.bundle", manifest(contents(), **changes), contents())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../up.onnx", "Upper.onnx", ".hidden", "a/b", "", "a\n"])
def test_a_file_name_that_leaves_the_bundle_is_refused(bundle: Bundle, name: str) -> None:
    with pytest.raises(SpecError, match=r"Manifest\.files: expected `str` matching regex"):
        manifest(contents() | {name: b""})
    raw = (bundle.path / MANIFEST).read_bytes()
    (bundle.path / MANIFEST).write_bytes(raw.replace(b"hits.npy", json.dumps(name)[1:-1].encode()))
    with pytest.raises(BundleError, match=r"manifest\.json: damaged"):
        read(bundle.path)


def test_contents_that_the_manifest_does_not_describe_are_refused(bundle: Bundle) -> None:
    for wrong in (contents(b"!"), {}, contents() | {"more.onnx": b""}):
        with pytest.raises(BundleError, match="the manifest lists .*, the contents are"):
            write(bundle.path, manifest(contents()), wrong)
    assert read(bundle.path) == bundle


def test_what_is_not_there_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for name in ("nowhere", "file"):
        with pytest.raises(
            BundleError,
            match=f"{name}: no such bundle .a bundle is a directory with a manifest.json",
        ):
            read(tmp_path / name)
    with pytest.raises(BundleError, match="manifest.json: missing, or not a plain file"):
        read(tmp_path)


def test_writing_again_replaces_the_bundle_and_leaves_nothing_else(bundle: Bundle) -> None:
    files = contents(b"new")
    newer = write(bundle.path, manifest(files, name="newer"), files)
    assert read(bundle.path) == newer and newer.manifest.model_hash != bundle.manifest.model_hash
    assert os.listdir(bundle.path.parent) == ["small.bundle"]


@pytest.mark.parametrize("made", ["empty", "full", "file"])
def test_what_is_not_a_bundle_is_never_overwritten(tmp_path: Path, made: str) -> None:
    path = tmp_path / "precious"
    if made == "file":
        path.write_text("letters")
    else:
        path.mkdir()
        if made == "full":
            (path / "letters.txt").write_text("letters")
    with pytest.raises(
        BundleError, match="precious: exists and is not a bundle; choose another path or remove it"
    ):
        write(path, manifest(contents()), contents())
    assert os.listdir(tmp_path) == ["precious"]
    assert made == "empty" or "letters" in (
        path.read_text() if made == "file" else (path / "letters.txt").read_text()
    )


LIMITED = """if True:
    import resource, signal
    from runpy import run_path
    from presplit.bundle import read, write, write_plan
    from presplit.core.errors import BundleError
    from presplit.core.plans import Plan
    tests = run_path({tests!r})
    files = tests["contents"](b"!" * 99)
    manifest, bundle = tests["manifest"](files), read({path!r})
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
    try:
        {statement}
    except BundleError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("write(bundle.path, manifest, files)", "cannot be written"),
        ("write(bundle.path.parent / 'new.bundle', manifest, files)", "cannot be written"),
        ("write_plan(bundle, Plan(1))", "the plan cannot be written"),
    ],
)
def test_a_full_disk_leaves_the_old_bundle_whole_and_no_temporary(
    bundle: Bundle, statement: str, said: str
) -> None:
    program = LIMITED.format(tests=__file__, path=str(bundle.path), statement=statement)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert said in done.stdout and os.strerror(errno.EFBIG) in done.stdout
    assert read(bundle.path) == bundle
    assert os.listdir(bundle.path.parent) == ["small.bundle"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_leaves_the_old_bundle_whole(bundle: Bundle) -> None:
    bundle.path.parent.chmod(0o500)
    try:
        with pytest.raises(
            BundleError, match="cannot be written .Permission denied.; what was there is unchanged"
        ):
            write(bundle.path, manifest(contents(b"!")), contents(b"!"))
        assert read(bundle.path) == bundle
    finally:
        bundle.path.parent.chmod(0o700)


@settings(max_examples=20, suppress_health_check=list(HealthCheck))
@given(plan=st.none() | plans)
def test_a_plan_changes_the_manifest_and_nothing_that_computes(
    tmp_path: Path, plan: Plan | None
) -> None:
    bundle = write(tmp_path / "small.bundle", manifest(contents()), contents())
    before = files_of(bundle.path)
    planned = write_plan(bundle, plan)
    assert planned.plan == plan and read(bundle.path) == planned
    assert planned.manifest.model_hash == bundle.manifest.model_hash
    assert {name for name, raw in files_of(bundle.path).items() if raw != before[name]} <= {
        MANIFEST
    }
    table = PlanTable((row(Plan(2)), row(plan or Plan(0))))
    chosen = write_plan(planned, plan, table=table)
    assert (chosen.plan, chosen.table) == (plan, table) and read(bundle.path) == chosen
    assert chosen.manifest.model_hash == bundle.manifest.model_hash
    assert write_plan(chosen, None) == bundle
    assert os.listdir(tmp_path) == ["small.bundle"]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(3), r"plan: split must be in 0\.\.2, got 3"),
        (Plan(0, {"early": 0.5}), "plan: thresholds: no exit 'early' at or before split 0"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(bundle: Bundle, plan: Plan, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        write_plan(bundle, plan)
    with pytest.raises(BundleError, match=message):
        write(bundle.path, manifest(contents(), plan=plan), contents())
    table, message = PlanTable((row(Plan(2)), row(plan))), message.replace("plan:", "table: row 1:")
    with pytest.raises(BundleError, match=message):
        write_plan(bundle, None, table=table)
    with pytest.raises(BundleError, match=message):
        write(bundle.path, manifest(contents(), table=table), contents())
    assert read(bundle.path) == bundle


def test_a_plan_for_a_model_that_was_replaced_is_refused(bundle: Bundle) -> None:
    newer = write(bundle.path, manifest(contents(b"new")), contents(b"new"))
    with pytest.raises(BundleError, match="holds another model since it was read; read it again"):
        write_plan(bundle, Plan(1))
    assert read(bundle.path) == newer


def test_the_model_hash_covers_all_that_computes(bundle: Bundle) -> None:
    base = bundle.manifest
    other = manifest(contents(b"!"))
    changed = [
        msgspec.structs.replace(base, header=b"other"),
        msgspec.structs.replace(base, ports=base.ports[::-1]),
        msgspec.structs.replace(base, segments=base.segments[::-1]),
        msgspec.structs.replace(base, net=Net(NET.boundaries, (Exit("early", 0, 2), NET.exits[1]))),
        other,
    ]
    assert len({base.model_hash, *(each.model_hash for each in changed)}) == 6
    same = msgspec.structs.replace(
        base, name="x", created="", labels=(), spec={}, versions={}, validation=None
    )
    assert same.model_hash == base.model_hash
    assert base.model_name(1, "int8") == f"small-{base.model_hash[:12]}.from-1-int8"
    assert base.model_name(1, "float32") == f"small-{base.model_hash[:12]}.from-1"


def test_segments_join_in_their_order(bundle: Bundle) -> None:
    assert bundle.segment(0, 2) == b"headerin0float32firstsecondout2"
    assert bundle.segment(1, 2, codec="int8") == b"headerin1int8secondout2"
    assert bundle.segment(0, 1, exits=["early"]) == b"headerin0float32firstexitout1"
    assert bundle.segment(0, 1, exits=["early", "early"]) == bundle.segment(0, 1, exits=["early"])
    assert bundle.segment(1, 1, exits=["early"]) == b"headerin1float32exit"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (((1, 1), {}), r"a segment runs from 0 <= start to start < stop <= 2, got 1, 1"),
        (((2, 1), {}), "got 2, 1"),
        (((-1, 1), {}), "got -1, 1"),
        (((0, 3), {}), "got 0, 3"),
        (
            ((0, 2), {"codec": "int4"}),
            "boundary 0 has no codec 'int4'; there are: float16, float32, int8",
        ),
        (((0, 2), {"exits": ["late"]}), "no exit 'late' between boundaries 0 and 2"),
        (((0, 2), {"exits": ["final"]}), "no exit 'final' between boundaries 0 and 2"),
        (((0, 0), {"exits": ["early"]}), "no exit 'early' between boundaries 0 and 0"),
        (((2, 2), {"exits": ["early"]}), "no exit 'early' between boundaries 2 and 2"),
    ],
)
def test_a_segment_that_does_not_exist_is_refused(
    bundle: Bundle, asked: tuple, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        bundle.segment(*asked[0], **asked[1])


def test_an_exit_or_encoding_that_does_not_exist_is_refused(bundle: Bundle) -> None:
    for name in ("late", "final"):
        with pytest.raises(SpecError, match=f"no exit '{name}'"):
            bundle.segment(1, 1, exits=[name])
    with pytest.raises(SpecError, match="boundary 1 has no codec 'int4'; there are"):
        bundle.encoding(1, "int4")
    for boundary in (-1, 3):
        with pytest.raises(SpecError, match=rf"boundary must be in 0\.\.2, got {boundary}"):
            bundle.encoding(boundary, "int8")


def test_evidence_of_another_shape_or_type_is_refused(tmp_path: Path) -> None:
    for wrong in (np.zeros((2, 3), np.float32), np.zeros((2, 2)), np.zeros(4, np.float32)):
        files = contents() | {"scores.npy": npy(wrong)}
        found = write(tmp_path / "small.bundle", manifest(files), files)
        with pytest.raises(BundleError, match=r"scores.npy: expected float32 \(2, 2\)"):
            found.evidence()


def test_a_bundle_behind_a_link_is_written_where_the_link_leads(tmp_path: Path) -> None:
    far, link = tmp_path / "far", tmp_path / "near" / "net.bundle"
    far.mkdir()
    link.parent.mkdir()
    link.symlink_to(far / "net.bundle")
    write(link, manifest(contents()), contents())
    write(link, manifest(contents(b"!")), contents(b"!"))
    write_plan(link, Plan(1))
    assert read(link).plan == read(far / "net.bundle").plan == Plan(1)
    assert link.is_symlink()
    assert [entry.name for entry in tmp_path.rglob("*.bundle*")] == ["net.bundle", "net.bundle"]
    assert sorted(entry.name for entry in (far / "net.bundle").iterdir()) == sorted(
        [MANIFEST, *contents(b"!")]
    )


def test_links_that_lead_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.bundle").symlink_to(tmp_path / "b.bundle")
    (tmp_path / "b.bundle").symlink_to(tmp_path / "a.bundle")
    with pytest.raises(BundleError, match=r"a\.bundle: .*(circle|Too many levels)"):
        write(tmp_path / "a.bundle", manifest(contents()), contents())


def test_what_file_browsers_leave_does_no_harm(bundle: Bundle) -> None:
    for name in (".DS_Store", "Thumbs.db", ".manifest.json.123"):
        (bundle.path / name).write_bytes(b"?")
    assert read(bundle.path) == bundle


def test_what_a_codec_costs_is_weighed_for_all_samples(tmp_path: Path) -> None:
    files = contents() | {"carried.npy": npy(np.array([[False]]))}
    held = Validation(
        "confidence", 2, "scores.npy", "hits.npy", "carried.npy", (Way(0, "int8"),), judged=1
    )
    found = write(tmp_path / "net.bundle", manifest(files, validation=held), files)
    assert found.worth(0, "float32").tolist() == [1, 1]
    assert found.worth(0, "int8").mean() == 0  # the one sample that was judged stands for both
    with pytest.raises(BundleError, match="what int8 costs at boundary 1 was not measured"):
        found.worth(1, "int8")


def test_what_a_codec_gains_on_few_samples_is_not_promised(tmp_path: Path) -> None:
    hits = npy(np.array([[True, False], [True, False]]))
    files = contents() | {"hits.npy": hits, "carried.npy": npy(np.array([[True, True]]))}
    held = Validation(
        "confidence", 2, "scores.npy", "hits.npy", "carried.npy", (Way(0, "int8"),), judged=2
    )
    found = write(tmp_path / "net.bundle", manifest(files, validation=held), files)
    assert found.worth(0, "int8").tolist() == found.worth(0, "float32").tolist() == [1, 0]


def test_a_plan_by_a_codec_that_its_boundary_lacks_is_not_written(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="plan: codec: boundary 1 has no 'int4'; there are"):
        write_plan(bundle, Plan(1, codec="int4"))
    assert read(bundle.path).plan == bundle.plan
