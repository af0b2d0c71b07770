"""``python -m benchmarks NAME [--quick] [--json FILE]``: run one benchmark.

Without a name, list them.

Exit code 0: all checks hold; 1: one does not; 2: it could not run as asked.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from benchmarks import runner
from presplit.cli.console import every_character_printable
from presplit.core.errors import PresplitError
from presplit.core.tables import columns_of, table


def main(arguments: list[str]) -> int:
    """Run what ``arguments`` ask for and give the exit code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command does
    with every_character_printable():
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    """What `main` does once the console can print anything."""
    names = runner.names()
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: python -m benchmarks NAME [--quick] [--json FILE]\n")
        listed = [{"name": name, "question": runner.question(name)} for name in names]
        print(table(listed, columns_of(listed)))
        return 0
    name, *rest = arguments
    if name not in names:
        print(f"no benchmark named {name!r}; there are: {', '.join(names)}", file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {name}", description=runner.question(name)
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer repetitions: does it work, not how fast is it"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")
    runner.declare_options(parser, name)
    options = vars(parser.parse_args(rest))
    file: Path | None = options.pop("json")
    try:
        result = runner.run(name, **options)
        print(runner.text(result))
        if file is not None:
            file.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except (PresplitError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    return 0 if all(check["ok"] for check in result["checks"]) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
