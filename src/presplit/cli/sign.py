"""``presplit sign``: sign a bundle, so that devices know whose it is."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from presplit.cli.options import Json, show


def sign(
    bundle: Annotated[Path, typer.Argument(help="A bundle directory.")],
    key: Annotated[
        Path,
        typer.Option(metavar="FILE", help="signing.key, as presplit keys FOLDER --signing makes."),
    ],
    serial: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="A number that only grows: devices refuse a bundle of this name with a lower one "
            "than they have taken. The seconds since 1970, if it is not given.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Sign a bundle; what was signed before is signed anew, and a new plan must be signed again."""
    from presplit.bundle import sign_bundle
    from presplit.bundle.sign import private_key_in

    statement = sign_bundle(bundle, private_key_in(key), serial=serial)
    show(
        {"bundle": str(bundle), "name": statement.name, "serial": statement.serial},
        f"{bundle}: signed as {statement.name}, serial {statement.serial}\nNext: presplit serve "
        f"{quote(str(bundle))} --trust-key {quote(str(key.with_suffix('.pub')))}",
        as_json=json,
    )
