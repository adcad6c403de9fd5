"""Kinds of options: in groups, so that the help of fifty stays readable; and numbers that are numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import click


class GroupedOption(click.Option):
    """An option that is listed under the heading `group`."""

    def __init__(self, *args: Any, group: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


class FiniteRange(click.FloatRange):
    """A range of numbers without NaN, which is in every range as no comparison with it holds, and infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class GroupedCommand(click.Command):
    """Lists each group of options under its own heading, in the order of the first option of each."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(parameter, "group", "Options"), []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def group(heading: str) -> Callable[..., Callable[[Callable[..., Any]], Callable[..., Any]]]:
    """`click.option` for the options of one group."""

    def option(*declarations: str, **attributes: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return click.option(*declarations, cls=GroupedOption, group=heading, **attributes)

    return option
