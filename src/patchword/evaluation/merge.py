"""Shards of one evaluation become the evaluation that one run would have made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from patchword.data.folders import Manifest, prepare_output, sole_use
from patchword.errors import PatchwordError
from patchword.evaluation.failure_cases import WORST_FOLDER, WorstImages
from patchword.evaluation.finish import finish
from patchword.evaluation.records import IMAGES_FILE, MARKER, ImageScore, SetupRecord, read_images
from patchword.evaluation.report import EvaluationReport
from patchword.runs.records import Session, ShardRecord
from patchword.runs.shards import (
    all_names,
    check_apart,
    check_folder,
    check_parts,
    check_shard,
    keep_sessions,
    link_or_copy,
)


def merge_evaluations(
    shards: Sequence[str | Path], *, out: str | Path, overwrite: bool = False, command: str = ""
) -> EvaluationReport:
    """Put the shards of one evaluation together.

    But for the command and the versions in it, `evaluation.json` has the bytes of a run without shards; but for
    `runs.jsonl` and these, so has everything else. Where each shard's photographs and masks lay does not matter.

    Args:
        shards: folders that `evaluate` wrote with `shard`, all of them, in any order.
        out: folder of the evaluation.
        overwrite: empty such a folder first.
        command: what the user typed, for the record.

    Returns:
        the scores over all images.
    """
    parts = [_Part.open(Path(shard)) for shard in shards]
    check_parts(parts)
    _check_same_evaluation(parts)
    names = all_names(parts)
    check_apart([part.folder for part in parts], out=Path(out))
    setup = parts[0].setup.model_copy(update={"shard": None})
    folder = prepare_output(out, overwrite=overwrite, marker=MARKER)
    with sole_use(folder):
        setup.save(folder)
        keep_sessions(parts, into=folder)
        with Session(folder, command=command, options={"shards": len(parts)}):
            with Manifest(folder / IMAGES_FILE) as manifest:
                for part in parts:
                    for image in part.images.values():
                        manifest.append(image.model_dump(mode="json"))
            _take_pictures(parts, into=folder, setup=setup)
            return finish(folder, setup=setup, names=names, command=command)


@dataclass(frozen=True)
class _Part:
    folder: Path
    setup: SetupRecord
    shard: ShardRecord
    images: dict[str, ImageScore]

    @classmethod
    def open(cls, folder: Path) -> _Part:
        check_folder(folder, command="evaluate")
        setup = SetupRecord.load(folder)
        shard = check_shard(setup.shard, folder=folder, command="evaluate")
        return cls(folder, setup, shard, read_images(Manifest(folder / IMAGES_FILE)))

    @property
    def names(self) -> list[str]:
        """Of the images that it has scored, or has failed to."""
        return list(self.images)


def _check_same_evaluation(parts: Sequence[_Part]) -> None:
    first = parts[0]
    for part in parts[1:]:
        for what, one, other in first.setup.differences(part.setup, merging=True):
            raise PatchwordError(
                f"{first.folder} and {part.folder} are not of one evaluation: {what} is {one} and {other}"
            )


def _take_pictures(parts: Sequence[_Part], *, into: Path, setup: SetupRecord) -> None:
    """The pictures of the images that are among the lowest of all."""
    everything = [image for part in parts for image in part.images.values()]
    owner = {name: part for part in parts for name in part.images}
    there = {path for part in parts for path in (part.folder / WORST_FOLDER).rglob("*.jpg")}
    for name in WorstImages(into, setup=setup, known=everything).names():
        old = WorstImages.path(owner[name].folder, name)
        if old in there:
            link_or_copy(old, WorstImages.path(into, name))
