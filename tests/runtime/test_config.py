"""What a server may be told, in a file and by flags."""

from __future__ import annotations

from pathlib import Path

import pytest

from presplit.cli.serve import _config
from presplit.core.errors import SpecError
from presplit.runtime.serving.config import TEMPLATE, Config, Secure, config_from, read_config


def test_the_template_is_all_defaults_and_knows_every_key(tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(TEMPLATE)
    assert read_config(file, {}) == Config()
    # What is commented out is right too, as it stands there.
    lines = [line.removeprefix("#") for line in TEMPLATE.splitlines()[1:]]
    file.write_text("\n".join(lines))
    found = read_config(file, {})
    for name in Config.__struct_fields__:
        assert any(line.startswith((f"{name} = ", f"[{name}]")) for line in lines), name
    assert found.secure.tls_cert is not None and found.http == 8080


def test_flags_win_over_the_file_and_leave_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(
        'bundles = ["a"]\nport = 1\nthreads = 2\n[secure]\ntls_cert = "c"\ntls_key = "k"\n'
    )
    found = _config(file, port=0, threads=None, secure={"tls_key": "other"}, bundles=())
    assert (found.bundles, found.port, found.threads) == (("a",), 0, 2)
    assert found.secure == Secure(tls_cert="c", tls_key="other")
    assert _config(file, bundles=("b",)).bundles == ("b",)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("prot = 1", r"serve.toml: unknown key 'prot' \(nearest: port\)"),
        ("[secure]\ntoken = 1", r"unknown key 'secure.token' \(nearest: tokens\)"),
        ("[secure]\ntokens = 1", "secure.tokens: expected `str`, got 1"),
        ('port = "1"', "port: expected `int`, got '1'"),
        ("port = 70000", "port: expected `int` <= 65535, got 70000"),
        ("drain_s = nan", "drain_s: expected"),
        ("drain_s = -1", "drain_s: expected `float` >= 0.0, got -1"),
        ('bundles = "a"', "bundles: expected `array`, got 'a'"),
        ("bundles = [1]", "bundles.*: expected `str`"),
        ('log = "loud"', "log: expected one of text, json, none, got 'loud'"),
        ('engine = "triton"', "engine: expected one of own, ray, got 'triton'"),
        ("port =", "serve.toml: not TOML"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(text)
    with pytest.raises(SpecError, match=problem):
        read_config(file, {})


def test_a_missing_file_and_no_table_are_named() -> None:
    with pytest.raises(SpecError, match=r"none.toml: cannot be read"):
        read_config("none.toml", {})
    with pytest.raises(SpecError, match="secure: expected `object`, got 1"):
        config_from({"secure": 1})
