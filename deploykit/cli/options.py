"""Options and decorators that several commands share."""

from __future__ import annotations

import click

from deploykit.cli.app import App

pass_app = click.make_pass_decorator(App)
as_format = click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", help="Output form.")
