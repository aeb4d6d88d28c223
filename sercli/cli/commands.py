"""Commands whose help is printed as what they are asked for is."""

from typing import Any

import click

from sercli.cli.console import fill_streams, printing, reports_errors


class Command(click.Command):
    """A command of which help that cannot be printed is told as figures are that cannot."""

    @reports_errors
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line; where it asks for help or the version, these are printed."""
        with printing():
            return super().parse_args(ctx, args)
        ctx.exit()  # as after all of it, whose reader has seen enough


class Commands(Command, click.Group):
    """Commands of one program."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program, whichever of its streams are open."""
        fill_streams()
        return super().main(*args, **kwargs)
