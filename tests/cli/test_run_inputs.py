"""``presplit run`` answers what people have: photos, folders, lines of JSON, videos, requests."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from presplit.runtime.feeding.ledger import Ledger

Command = Callable[..., tuple[int, str, str]]


def lines(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "presplit", "run", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight photos of the net's size and an array of the same, seven bad files, and others."""
    folder = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 8), np.uint8)
    (folder / "more").mkdir()
    for number, image in enumerate(pixels):
        place = folder / "more" if number > 5 else folder
        Image.fromarray(image).save(place / f"{number}.png")
    np.save(folder / "more" / "array.npy", pixels[:, None])
    raw = (folder / "0.png").read_bytes()
    for name, bad in (("a.png", b""), ("b.jpg", b"text"), ("c.bmp", raw[:40]), ("d.heic", b"x")):
        (folder / name).write_bytes(bad)
    Image.new("L", (9, 8)).save(folder / "e.png")
    (folder / "f.npy").write_bytes(b"\x93NUMPY")
    (folder / "g.webp").symlink_to("nowhere")
    for name in (".DS_Store", "Thumbs.db", "._0.png", "notes.txt", "more/list.csv"):
        (folder / name).write_bytes(b"no sample")
    return folder


def test_a_folder_of_photos_is_answered_and_its_bad_files_are_lines(
    command: Command, bundle: Path, photos: Path
) -> None:
    code, out, problem = command("run", bundle, photos, "--streams", 3)
    assert code == 4
    found = lines(out)
    assert [line["sample"] for line in found] == list(range(8 + 8 + 7))
    bad = {Path(line["file"]).name: line["error"] for line in found if "error" in line}
    assert [*bad] == ["a.png", "b.jpg", "c.bmp", "d.heic", "e.png", "f.npy", "g.webp"]
    assert "it is empty" in bad["a.png"] and "no PNG, JPEG, BMP, WEBP" in bad["b.jpg"]
    assert "convert it" in bad["d.heic"] and "8 x 8 pixels" in bad["e.png"]
    assert "0x" not in str(bad)
    good = [line for line in found if "error" not in line]
    by_file = {Path(line["file"]).stem: line["label"] for line in good[:8]}
    assert [by_file[str(k)] for k in range(8)] == [line["label"] for line in good[8:]]
    assert all(line["class"] == str(line["label"]) for line in good)
    assert "16 answers in" in problem and "7 bad samples" in problem
    assert "passed over, no samples by their names: 1 .txt, 1 .csv" in problem
    code, out, problem = command("run", bundle, photos, "--strict")
    assert (code, len(lines(out))) == (4, 7) and "--strict: stopped" in problem
    code, out, _ = command("run", bundle, photos / "0.png", photos / "more" / "7.png")
    assert code == 0 and [line["label"] for line in lines(out)] == [by_file["0"], by_file["7"]]


def test_links_to_folders_are_followed_once_and_what_is_hidden_is_passed_over(
    command: Command, bundle: Path, photos: Path, tmp_path: Path
) -> None:
    shown, card = tmp_path / "shown", tmp_path / "card"
    for folder in (shown / ".git", card):
        folder.mkdir(parents=True)
    for place in (shown / ".git" / "1.png", shown / ".2.png", card / "3.png", shown / "4.png"):
        place.write_bytes((photos / "0.png").read_bytes())
    (shown / "sd").symlink_to(card)
    (card / "round").symlink_to(shown)
    code, out, problem = command("run", bundle, shown)
    assert code == 0
    assert [Path(line["file"]).name for line in lines(out)] == ["4.png", "3.png"]
    assert "1 hidden" in problem


def test_what_names_no_sample_is_refused_before_the_first_answer(
    command: Command, bundle: Path, photos: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "Thumbs.db").write_bytes(b"x")
    np.save(tmp_path / "none.npy", np.zeros((0, 1, 8, 8), np.float32))
    np.save(tmp_path / "nan.npy", np.full((1, 8, 8), np.nan, np.float32))
    good = photos / "0.png"
    for words, part in (
        ([empty], "empty: holds no image (.png"),
        ([good, tmp_path / "none.npy"], "none.npy: expected at least one sample, got an array"),
        ([good, tmp_path / "no.jpg"], "no.jpg: no such file or folder"),
        ([good, photos / "notes.txt"], "notes.txt: expected an image"),
        ([tmp_path / "x.mp4"], "x.mp4: no such file"),
        ([], "or --http PORT, got neither"),
        ([good, "--http", 0], "or --http PORT, got both"),
        (["-", "-"], "read once"),
        ([good, "--ledger", photos / "0.png"], "0.png: cannot be a ledger"),
    ):
        code, out, problem = command("run", bundle, *words)
        assert (code, out) == (2, "") and part in problem, problem
    code, out, _ = command("run", bundle, tmp_path / "nan.npy", good)  # one sample alone
    assert code == 4 and ["error" in line for line in lines(out)] == [True, False]


def test_a_net_that_says_nothing_of_images_takes_none(
    command: Command, photos: Path, tmp_path: Path
) -> None:
    import torch

    from presplit.train import export

    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    x = np.zeros((2, 1, 8, 8), np.float32)
    export(flat, x, tmp_path / "b", name="flat")
    for word in (photos, photos / "0.png"):
        code, out, problem = command("run", tmp_path / "b", word)
        assert (code, out) == (2, "") and "or export it with --prepare" in problem
    export(flat, x, tmp_path / "b", name="flat", prepare=["how=stretch", "mean=0.5"])
    assert command("run", tmp_path / "b", photos / "e.png")[0] == 0


def test_lines_of_json_are_samples(
    command: Command,
    bundle: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = (photos / "0.png").read_bytes()
    pixels = np.asarray(Image.open(photos / "0.png"), np.float32) / 255
    said = [
        {"id": "one", "image": str(photos / "0.png")},
        {"id": 2, "values": pixels[None].tolist()},
        {"values": pixels.ravel().tolist()},
        {"id": "four", "base64": base64.b64encode(raw).decode()},
        {"id": "none"},
        {"id": "both", "image": "x", "values": []},
        {"id": "gone", "image": "gone.png"},
        {"id": "flat", "values": [1, 2]},
        {"id": "odd", "values": ["a"]},
        {"id": "b64", "base64": "?"},
        {"id": "more", "imag": "x"},
        {"id": "array", "image": str(photos / "f.npy")},
    ]
    text = "\n\n".join(json.dumps(each) for each in said).encode() + b"\n{broken\n\xff\n[]"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    code, out, problem = command("run", bundle, "-")
    found = lines(out)
    assert (code, len(found)) == (4, len(said) + 3), problem
    assert [line.get("id") for line in found[:4]] == ["one", 2, None, "four"]
    assert len({line["label"] for line in found[:4]}) == 1 and found[2]["line"] == 5
    assert all("error" in line for line in found[4:]) and "label" not in found[4]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    code, out, problem = command("run", bundle, "-")
    assert (code, out) == (2, "") and "standard input gave no sample" in problem


def test_frames_of_a_video_are_samples(
    command: Command, bundle: Path, photos: Path, tmp_path: Path
) -> None:
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (8, 8))
    for value in (0, 100, 200):
        writer.write(np.full((8, 8, 3), value, np.uint8))
    writer.release()
    code, out, problem = command("run", bundle, path)
    assert code == 0, problem
    assert [(line["file"], line["frame"]) for line in lines(out)] == [
        (str(path), number) for number in range(3)
    ]
    path.write_bytes(b"no video")
    code, out, problem = command("run", bundle, path)
    assert (code, out) == (2, "") and "film.avi: not a video that can be opened" in problem
    code, out, problem = command("run", bundle, "camera:/dev/no-such-camera")
    assert (code, out) == (2, "") and "camera:/dev/no-such-camera: not a camera that" in problem


def asked(address: str, body: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    """The status and the answer for one POST."""
    where = address.removeprefix("http://")
    with contextlib.closing(http.client.HTTPConnection(where, timeout=20)) as connection:
        connection.request("POST", "/?id=seven", body, headers)
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())


def test_requests_on_this_machine_are_answered(bundle: Path, photos: Path, tmp_path: Path) -> None:
    process = start(bundle, "--http", 0, "--ledger", tmp_path / "answers.db")
    assert process.stderr is not None
    try:
        address = process.stderr.readline().split("file to ")[1].split(";")[0]
        port = int(address.rpartition(":")[2])
        status, answer = asked(address, (photos / "0.png").read_bytes())
        assert status == 200 and answer["id"] == "seven" and answer["class"]
        row = io.BytesIO()
        np.save(row, np.zeros((1, 8, 8), np.uint8))
        assert asked(address, row.getvalue(), **{"X-Sample-Id": "row"})[1]["id"] == "row"
        for body, headers, wanted in (
            (b"no image", {}, 400),
            (b"", {}, 400),
            (b"x", {"Host": "evil.example"}, 403),
            (b"x", {"Origin": "https://evil.example"}, 403),
            (b"x", {"Origin": "null"}, 403),
            (b"x", {"Origin": "http://["}, 400),
            (b"x", {"Content-Length": "99999999999"}, 413),
            (b"x", {"Content-Length": "-1"}, 400),
        ):
            status, answer = asked(address, body, **headers)
            assert status == wanted and answer["error"], answer
        assert asked(address, b"x", **{"Content-Type": "multipart/form-data; boundary=x"})[0] == 415
        with socket.create_connection(("127.0.0.1", port)) as other:  # a client that goes away
            other.sendall(b"nonsense\r\n\r\n")
            assert b'"error"' in other.recv(1000)
        with socket.socket() as other, pytest.raises(OSError):
            other.settimeout(2)
            other.connect((socket.gethostbyname(socket.gethostname()), port))
            if other.getpeername()[0].startswith("127."):  # a machine without another address
                raise OSError
        assert asked(address, (photos / "1.png").read_bytes())[0] == 200
    finally:
        process.send_signal(signal.SIGTERM)
        out, problem = process.communicate(timeout=30)
    assert process.returncode == 4, problem
    assert len(lines(out)) == 5 and "3 answers in" in problem
    with Ledger(tmp_path / "answers.db") as ledger:
        assert {row["sample"] for row in ledger.answers()} >= {1, 4}
        assert ledger.answered("seven", f"{_model(bundle)}:")


def _model(bundle: Path) -> str:
    from presplit.bundle import read

    return read(bundle).manifest.model_hash[:12]


def test_a_kill_loses_no_answer_that_was_printed_and_doubles_none(
    bundle: Path, tmp_path: Path
) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (300, 1, 8, 8), np.uint8)
    np.save(tmp_path / "x.npy", rows)
    words = (bundle, tmp_path / "x.npy", "--ledger", tmp_path / "answers.db")
    printed = list[dict[str, Any]]()
    process = start(*words, "--streams", 2)
    assert process.stdout is not None
    printed += [json.loads(process.stdout.readline()) for _ in range(40)]
    os.kill(process.pid, signal.SIGKILL)
    printed += lines(process.stdout.read().rpartition("\n")[0])
    process.wait()
    assert process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    with Ledger(tmp_path / "answers.db") as ledger:
        kept = {row["sample"] for row in ledger.answers()}
        assert kept >= {line["sample"] for line in printed} and len(kept) < 300
    process = start(*words)
    out, problem = process.communicate(timeout=60)
    assert process.returncode == 0 and f"{len(kept)} more were answered before" in problem
    last = [line["sample"] for line in lines(out)]
    assert sorted([*kept, *last]) == list(range(300)), "none is lost, none is asked twice"
    with Ledger(tmp_path / "answers.db") as ledger:
        assert len(ledger) == 300


def test_a_photo_that_changed_is_answered_again(
    command: Command, bundle: Path, tmp_path: Path
) -> None:
    photo, kept = tmp_path / "now.png", tmp_path / "answers.db"
    for value, skipped in ((0, False), (0, True), (90, False)):
        Image.new("L", (8, 8), value).save(photo)
        os.utime(photo, ns=(10**18 + value, 10**18 + value))
        code, out, problem = command("run", bundle, photo, "--ledger", kept)
        assert code == 0 and (out == "") == skipped
    assert "holds 1 answers" in problem


def test_samples_of_another_scale_than_the_net_s_are_told_once(
    command: Command, bundle: Path, images: Path, tmp_path: Path
) -> None:
    as_bytes = np.load(images)
    for name, x in (("right", as_bytes / 255), ("large", as_bytes * 1.0), ("bytes", as_bytes)):
        kind = np.uint8 if name == "bytes" else np.float32
        np.save(tmp_path / f"{name}.npy", x.astype(kind))
        code, _, problem = command("run", bundle, tmp_path / f"{name}.npy")
        assert code == 0, problem
        said = "large.npy: the samples reach 255, and those that the bundle was made with 1"
        assert problem.count("the samples reach") == problem.count(said) == (name == "large")
