"""`podfence completion`: what a shell has to read to complete podfence's commands, options and names."""

from __future__ import annotations

from typing import Literal

import click

from podfence.complete import SHELLS, VARIABLE


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.option("-o", "--output", "form", type=click.Choice(["text", "json", "yaml"]), default="text", show_default=True)
def command(shell: str, form: Literal["text", "json", "yaml"]) -> int:
    """Print a script that completes commands, options, files, and the names of pods and policies.

    They come from the files given on the line, or without any from the cluster that it means.

    \b
    bash: source <(podfence completion bash)
    zsh:  source <(podfence completion zsh)       after compinit
    fish: podfence completion fish | source
    """
    from click.shell_completion import get_completion_class

    from podfence.main import podfence
    from podfence.output import show

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(podfence, {}, "podfence", VARIABLE).source()
    if form == "text":
        click.echo(script)
    else:
        show(form, {"shell": shell, "script": script}, lambda: ())
    return 0
