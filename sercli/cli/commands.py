"""Command classes that print help by headings, and handle errors in printing it."""

from itertools import pairwise
from typing import Any

import click

from sercli.cli.console import fill_streams, printing, reports_errors
from sercli.cli.options import HEADINGS


class Command(click.Command):
    """Command that handles errors in printing help as those in printing results."""

    @reports_errors
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line, and print help or the version if it asks for them."""
        self._refuse_empty(ctx, args)
        with printing():
            return super().parse_args(ctx, args)
        ctx.exit()  # the reader of the help has closed the pipe: exit as if it was printed

    def _refuse_empty(self, ctx: click.Context, args: list[str]) -> None:
        """Raise if a value is empty, as that of an unset variable of the shell."""
        taking = {
            name
            for one in self.get_params(ctx)
            if isinstance(one, click.Option) and not one.is_flag
            for name in one.opts
        }
        for before, arg in pairwise(("", *args)):
            option, equals, value = arg.partition("=")
            if not arg:
                what = before if before in taking else "an argument"
                raise click.UsageError(f"{what} is empty; expected a value.", ctx)
            if option in taking and equals and not value:
                raise click.UsageError(f"{option} is empty; expected a value.", ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the options under their headings, those without one at the end."""
        sections: dict[str, list[tuple[str, str]]] = {}
        rest: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None or not isinstance(parameter, click.Option):
                continue
            heading = HEADINGS.get(parameter)
            (rest if heading is None else sections.setdefault(heading, [])).append(record)
        for heading, records in (*sections.items(), ("Other" if sections else "Options", rest)):
            with formatter.section(heading):
                formatter.write_dl(records)


class Commands(Command, click.Group):
    """Group of the commands of the program."""

    def _refuse_empty(self, ctx: click.Context, args: list[str]) -> None:
        """Leave the values to the command that they belong to."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the options and the commands."""
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program, also with closed standard streams."""
        fill_streams()
        return super().main(*args, **kwargs)
