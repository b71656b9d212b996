"""The options that every verb over a pipeline has, and what they resolve to.

Example:
    @click.command()
    @pipeline_options
    def explain(options: PipelineOptions) -> None:
        job = options.load()
        ...job.graph, job.target, options.output
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, Literal, ParamSpec, TypeVar

import click

from penstock.errors import DeclarationError
from penstock.load import load_pipeline
from penstock.pipeline import Graph, Pipeline
from penstock.runtime.mistakes import checked_graph
from penstock.settings import ENGINES, Target, load_settings, resolve

P = ParamSpec("P")
R = TypeVar("R")
Output = Literal["text", "json"]


@dataclass(frozen=True)
class Job:
    """A pipeline with the target it is used on."""

    pipeline: Pipeline
    graph: Graph
    target: Target


@dataclass(frozen=True)
class PipelineOptions:
    """What was typed: nothing is loaded until `load`."""

    pipeline: str
    target: str | None
    engine: str | None
    binds: tuple[str, ...]
    values: tuple[str, ...]
    state: Path | None
    output: Output

    def load(self) -> Job:
        """Import the pipeline, check its declarations and resolve its target.

        Raises:
            DeclarationError: the pipeline cannot be found, or its declarations are wrong.
            SettingsError: the target or a binding is wrong.
        """
        pipeline = load_pipeline(self.pipeline)
        graph = checked_graph(pipeline, self.parameters())
        target = resolve(
            graph,
            load_settings(Path()),
            target=self.target,
            engine=self.engine,
            state=self.state,
            binds=self.binds,
        )
        return Job(pipeline, graph, target)

    def parameters(self) -> dict[str, str]:
        """The values of `--set`."""
        pairs = [value.partition("=") for value in self.values]
        for name, separator, value in pairs:
            if not separator or not name:
                raise DeclarationError(
                    "PS-DECL-015", "--set needs a name and a value", expected="NAME=VALUE", got=name or value
                )
        return {name: value for name, _, value in pairs}


def pipeline_options(command: Callable[Concatenate[PipelineOptions, P], R]) -> Callable[..., R]:
    """Give a command the PIPELINE argument and the common options; it gets them as one `PipelineOptions`.

    Further arguments are declared below this decorator: click takes them from the top down, and PIPELINE is the first.
    """

    @click.argument("pipeline")
    @click.option("--target", metavar="NAME", help="Target of penstock.toml (default: local).")
    @click.option("--engine", type=click.Choice(ENGINES), help="Override the target's engine.")
    @click.option("--bind", "binds", multiple=True, metavar="NAME=URL", help="Bind a source or sink (repeatable).")
    @click.option("--set", "values", multiple=True, metavar="NAME=VALUE", help="Set a parameter (repeatable).")
    @click.option("--state", type=click.Path(path_type=Path), metavar="DIR", help="Override the state folder.")
    @output_option
    @functools.wraps(command)
    def wrapper(
        pipeline: str,
        target: str | None,
        engine: str | None,
        binds: tuple[str, ...],
        values: tuple[str, ...],
        state: Path | None,
        output: Output,
        *rest: P.args,
        **options: P.kwargs,
    ) -> R:
        common = PipelineOptions(pipeline, target, engine, binds, values, state, output)
        return command(common, *rest, **options)

    return wrapper


def output_option(command: Callable[P, R]) -> Callable[P, R]:
    """Give a command `--output text|json`."""
    option = click.option(
        "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Form of the result."
    )
    return option(command)
