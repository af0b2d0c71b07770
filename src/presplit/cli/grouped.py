"""Help whose options stand in groups: those of one ``rich_help_panel`` together, under its name."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand


class Grouped(TyperCommand):
    """A command that groups its options without the library that draws panels, which is slow."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the options, those without a group first."""
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                usual = f"{parameter.param_type_name.title()}s"
                panel = getattr(parameter, "rich_help_panel", None) or usual
                groups.setdefault(panel, []).append(record)
        for name, records in groups.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)
