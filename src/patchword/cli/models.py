"""`patchword models` and `patchword encoders`: which checkpoints there are, which are here, how to get them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from patchword.cli.build import add_command
from patchword.cli.terminal import FAILED, PatchwordGroup, print_columns, print_json, say
from patchword.config.others import CheckConfig, EncodersConfig, FetchConfig, ListConfig
from patchword.errors import PatchwordError

if TYPE_CHECKING:
    from patchword.models.catalog import CheckedModel, ListedModel
    from patchword.models.registry import Kind, ModelName

models_app = typer.Typer(
    help="List, check and fetch the foundation models.", cls=PatchwordGroup, no_args_is_help=True, rich_markup_mode=None
)


def list_checkpoints(_: None, config: ListConfig) -> None:
    """Print the known checkpoints."""
    from patchword.models.catalog import list_models

    listed = list_models()
    if config.as_json:
        print_json([asdict(model) for model in listed])
    else:
        _print_list(listed)


def check(names: list[str] | None, config: CheckConfig) -> None:
    """Load checkpoints, and compare them where that is asked."""
    from patchword.models.catalog import check_model, list_models
    from patchword.models.registry import ModelName

    chosen = _chosen(names, config.preset)
    if not chosen:
        chosen = [ModelName(model.checkpoint.name) for model in list_models() if model.cached]
    if not chosen:
        say("no known checkpoint is on this machine; `patchword models fetch --preset fast` gets three")
    results = [check_model(model.name, revision=model.revision) for model in chosen]
    if config.reference:
        _check_against_reference(chosen, results, config)
        return
    if config.as_json:
        print_json([asdict(result) for result in results])
    else:
        for result in results:
            typer.echo(f"{result.name}: {result.problem or f'loads ({_kind(result.kind)})'}")
    if any(result.problem for result in results):
        raise typer.Exit(FAILED)


def _check_against_reference(chosen: list[ModelName], results: list[CheckedModel], config: CheckConfig) -> None:
    from patchword.models.published import PUBLISHED, compare_with_published
    from patchword.models.reference import Comparison, compare_with_reference
    from patchword.models.registry import FAMILIES

    picture = None if config.picture is None else Path(config.picture)
    if picture is not None:
        wanted = sorted({each.picture for each in PUBLISHED if each.checkpoint in {model.name for model in chosen}})
        if len(wanted) > 1:
            raise PatchwordError(f"--picture is one picture, but these models need {len(wanted)}: {'; '.join(wanted)}")
    problems, rows = list[tuple[str, str]](), list[tuple[str, Comparison]]()
    for model, result in zip(chosen, results, strict=True):
        problem = result.problem
        if not problem and result.kind is not None:
            try:
                asked: dict[str, Any] = {"revision": model.revision, "device": config.device, "dtype": config.dtype}
                family = next((each for each in FAMILIES if result.record and each.name == result.record.family), None)
                for kind in family.kinds if family else (result.kind,):
                    found = compare_with_reference(model.name, kind=kind, **asked)
                    rows += [(model.name, each) for each in found]
                published, missed = compare_with_published(model.name, picture=picture, **asked)
                rows += [(model.name, each) for each in published]
                for line in missed:
                    say(f"{model.name}: {line}")
            except PatchwordError as error:
                problem = str(error)
        if problem:
            problems.append((model.name, problem))
            say(f"{model.name}: {problem}")
    if config.as_json:
        compared = [{"model": name, **asdict(each), "passes": each.passes} for name, each in rows]
        print_json([*compared, *({"model": name, "problem": why, "passes": False} for name, why in problems)])
    elif rows:
        table = [(name, each.what, f"{each.difference:.1e}", f"{each.allowed:.0e}") for name, each in rows]
        verdicts = ["passes" if each.passes else "FAILS" for _, each in rows]
        heading = ("model", "quantity", "difference", "allowed", "result", "against")
        sources = [each.against for _, each in rows]
        print_columns([heading, *((*row, *ends) for row, *ends in zip(table, verdicts, sources, strict=True))])
    if problems or not all(each.passes for _, each in rows):
        raise typer.Exit(FAILED)


def fetch(names: list[str] | None, config: FetchConfig) -> None:
    """Fetch, and say where to."""
    from patchword.models.catalog import fetch_models

    chosen = _chosen(names, config.preset)
    if not chosen:
        raise PatchwordError("nothing to fetch; name checkpoints, or pass --preset fast, balanced or thorough")
    revision = chosen[0].revision if len(chosen) == 1 else None
    pinned = [str(model) for model in chosen if model.revision]
    if len(chosen) > 1 and pinned:
        raise PatchwordError(f"{pinned[0]} has a revision; a revision works with one model at a time")
    to = None if config.to is None else Path(config.to)
    fetched = fetch_models([model.name for model in chosen], revision=revision, to=to)
    if config.as_json:
        print_json([{**asdict(model), "folder": str(model.folder)} for model in fetched])
        return
    for model in fetched:
        typer.echo(f"{model.name}: {model.size / 1e6:,.0f} MB in {model.folder}")


def encoders(_: None, config: EncodersConfig) -> None:
    """Print the vision encoders and text spaces to choose from."""
    from patchword.models.catalog import HEADINGS, encoder_row, list_encoders

    listed = list_encoders()
    if config.as_json:
        print_json([asdict(facts) for facts in listed])
        return
    print_columns([HEADINGS, *(encoder_row(facts) for facts in listed)])
    say("others: any checkpoint of these families, by hub name or folder; docs/encoders.md says what the features are")


def _kind(kind: Kind | None) -> str:
    """The kind in the words of the options: "patch" is what `--encoder` takes."""
    return "encoder" if kind == "patch" else str(kind)


def _chosen(names: list[str] | None, preset: str | None) -> list[ModelName]:
    from patchword.models.registry import ModelName, find_preset

    of_preset = find_preset(preset).names if preset else ()
    return [ModelName.parse(name) for name in dict.fromkeys([*(names or []), *of_preset])]


def _print_list(listed: tuple[ListedModel, ...]) -> None:
    rows = [("name", "kind", "million weights", "licence", "presets", "here")]
    for model in listed:
        facts = model.checkpoint
        licence = f"{facts.licence} (gated)" if facts.gated else facts.licence
        here = "yes" if model.cached else "no"
        rows.append(
            (facts.name, _kind(model.kind), f"{facts.parameters:,.0f}", licence, ", ".join(model.presets), here)
        )
    print_columns(rows)


add_command(models_app, ListConfig, list_checkpoints)
add_command(models_app, CheckConfig, check)
add_command(models_app, FetchConfig, fetch)
