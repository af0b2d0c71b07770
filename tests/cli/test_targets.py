"""``presplit export --target``: the tails of a bundle for another server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx


def test_a_bundles_tails_are_written_for_another_server(
    command: Any, bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "there"
    some = ("--splits", "1", "--codecs", "float32,int8")
    code, said, problem = command(
        "export", bundle, "--target", "triton", "--out", out, *some, "--json"
    )
    assert code == 0, problem
    facts = json.loads(said)
    assert (facts["target"], facts["path"]) == ("triton", str(out))
    assert facts["largest_difference"] <= 1e-4
    assert "int8+zstd" in facts["left_out"]
    assert [name.partition(".")[2] for name in facts["models"]] == ["from-1", "from-1-int8"]
    for name in facts["models"]:
        model = onnx.load(out / "models" / name / "1" / "model.onnx")
        onnx.checker.check_model(model, full_check=True)
    code, said, problem = command("export", bundle, "--target", "ovms", "--splits", "0")
    beside = bundle.with_suffix(".ovms")
    assert (code, problem) == (0, "")
    assert f"Written: {beside.absolute()}" in said
    assert f"presplit run {bundle}" in (beside / "README.md").read_text()


def test_what_a_target_cannot_be_is_one_sentence(command: Any, bundle: Path, run: Path) -> None:
    def problem(*arguments: object) -> str:
        code, out, said = command("export", *arguments)
        assert (code, out, said.count("\n")) == (2, "", 1)
        return said

    assert "expected one of triton, ovms, kserve, got 'seldon'" in problem(
        bundle, "--target", "seldon"
    )
    assert "a bundle already" in problem(bundle)
    assert "give --target triton" in problem(run, "--splits", "1")
    assert "boundaries such as 0,3, got 'a'" in problem(bundle, "--target", "ovms", "--splits", "a")
    assert "one was given already" in problem(bundle, "--target", "ovms", "--samples", "x.npy")


def test_metadata_of_another_form_is_one_sentence(command: Any, bundle: Path, images: Path) -> None:
    for given, expected in (
        ("application", "expected KEY=VALUE"),
        ("Application=x", "expected a key of a-z"),
        ("authorization=me", "is not the caller's own to set"),
    ):
        code, out, said = command(
            "run", bundle, images, "--server", "127.0.0.1:1", "--split", "1", "--metadata", given
        )
        assert (code, out) == (2, "")
        assert expected in said
