"""`config show`, `config diff`, `config schema`."""

from __future__ import annotations

import json

import click

from sno_dist.config.load import differences, dump, flatten, load_config
from sno_dist.config.schema import Config

__all__ = ["config"]


@click.group()
def config() -> None:
    """Show, compare and describe configs."""


@config.command()
@click.option("-c", "--config", "path", metavar="FILE", help="YAML; none: the defaults.")
@click.argument("overrides", nargs=-1, metavar="[SECTION.KEY=VALUE]...")
def show(path: str | None, overrides: tuple[str, ...]) -> None:
    """Print the resolved config, every default spelled out.

    \b
      sno-dist config show -c configs/digits.yaml training.steps=500
    """
    click.echo(dump(load_config(path, overrides)), nl=False)


@config.command()
@click.argument("old", metavar="FILE")
@click.argument("new", metavar="[FILE]", required=False)
def diff(old: str, new: str | None) -> None:
    """Print `key: old -> new` for each setting that differs.

    With one file: from the defaults to that file.

    \b
      sno-dist config diff configs/digits.yaml
      sno-dist config diff configs/digits.yaml runs/digits/config.yaml
    """
    before, after = (
        (load_config(old), load_config(new)) if new else (load_config(), load_config(old))
    )
    for line in differences(flatten(before), flatten(after)):
        click.echo(line)


@config.command()
def schema() -> None:
    """Print the config's JSON schema, for editors and other programs.

    \b
      sno-dist config schema > schema.json
    """
    click.echo(json.dumps(Config.model_json_schema(), indent=2))
