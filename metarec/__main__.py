"""``metarec COMMAND``: the same as ``python -m metarec.COMMAND``, and what helps to write a spec."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

import metarec
from metarec.cli import compare, predict, serve, specs, study, study_jobs
from metarec.cli.command import new_app, run_command

__all__ = ["main"]


class _Commands(TyperGroup):
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command of these words: the word after ``study`` is a further command, such as worker, or a spec."""
        further: Any = get_command(study_jobs.app)
        if args[:1] == ["study"] and args[1:2] and args[1] in further.commands:
            return "study", further, args[1:]
        return super().resolve_command(ctx, args)


app = new_app(cls=_Commands, add_completion=True)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"metarec {metarec.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def commands(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """metarec learns how to combine recommenders. metarec COMMAND --help lists the options of a command."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


for command in (study.study, compare.compare, predict.predict, serve.serve, specs.specs, specs.keys):
    app.command()(command)


def main() -> None:
    """Run the command that the first argument names; the others are its arguments."""
    run_command(app, "metarec")


if __name__ == "__main__":
    main()
