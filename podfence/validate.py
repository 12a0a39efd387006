"""`podfence validate`: every problem of the given manifests at once, one a line."""

from __future__ import annotations

import click

from podfence.options import files_option, format_option, recursive_option
from podfence.output import Form, show


@click.command("validate")
@files_option
@recursive_option
@format_option
def command(paths: tuple[str, ...], recursive: bool, form: Form) -> int:
    """Check manifests as the API server would.

    \b
    Prints one problem a line: FILE:LINE: KIND NAMESPACE/NAME: FIELD: what is wrong, what is expected.
    Ends with 1 where there is one, with 4 where a file cannot be parsed at all.
    """
    from podfence.inputs import read

    loaded = read(paths, recursive)
    problems = loaded.problems
    show(form, {"files": len(loaded.files), "problems": problems}, lambda: map(str, problems))
    if form == "text" and not problems:
        click.echo(f"{len(loaded.files)} files, {len(loaded.cluster.policies)} policies: nothing wrong", err=True)
    return 1 if problems else 0
