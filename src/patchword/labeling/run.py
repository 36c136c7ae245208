"""A folder of photographs in, a folder of pseudo labels out; stops anywhere and goes on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from patchword.data.folders import Manifest, prepare_output, sole_use
from patchword.data.images import to_tensor
from patchword.errors import PatchwordError
from patchword.labeling.dataset import LabelledDataset
from patchword.labeling.detect import crop_side
from patchword.labeling.files import write_result
from patchword.labeling.finish import finish
from patchword.labeling.image import ImageClaims, ImageLabels, LabelParts, claim_images, settle
from patchword.labeling.quality.assess import assess
from patchword.labeling.quality.file import QUALITY_FILE, append_quality
from patchword.labeling.records import MANIFEST_FILE, MARKER
from patchword.labeling.resume import CORRECTIONS, begin, refuse_corrections
from patchword.labeling.settings import LabelSettings
from patchword.runs.names import name_images, why_unread
from patchword.runs.progress import Progress, say
from patchword.runs.sessions import Session
from patchword.runs.shards import Shard, chunks_of
from patchword.runs.stream import Photograph, decoded
from patchword.runs.writer import Writer


def label_folder(
    images: Sequence[Path],
    *,
    root: Path,
    out: Path,
    parts: LabelParts,
    settings: LabelSettings | None = None,
    limit: int | None = None,
    shard: Shard | None = None,
    resume: bool = False,
    overwrite: bool = False,
    overwrite_corrections: bool = False,
    forget_missing: bool = False,
    retry_failed: bool = False,
    command: str = "",
    ahead: int = 2,
    threads: int = 2,
    quiet: bool = False,
) -> LabelledDataset:
    """Label photographs and write a data set of pseudo masks; decoding, models and writing work side by side.

    A photograph that cannot be read or labelled is written down in the manifest, with the reason, and the run goes on.
    A run that was stopped, in whatever way, goes on with `resume` where it stopped. What it leaves then, but for
    `runs.jsonl`, has the same bytes as after a run that was not stopped. Photographs go to the models in chunks of
    `settings.image_batch` by their place among all names; a chunk of which a part is missing is done anew as a whole.

    Args:
        images: all photographs, inside `root`; where `out` is inside `root` too, the label maps in it are left out.
        root: folder that names are relative to.
        out: folder of the data set.
        parts: models and vocabulary.
        settings: numbers of stage 1; the defaults when none are given.
        limit: take the first so many photographs by name, at least 1; None for all.
        shard: take one of several parts of them.
        resume: go on in a folder that an earlier run left.
        overwrite: empty such a folder first, unless it holds labels that a person corrected.
        overwrite_corrections: empty it even then.
        forget_missing: with resume, drop the labels of photographs that no longer exist, which are an error else.
        retry_failed: with resume, try again what failed; else it is kept as failed.
        command: what the user typed, for the record.
        ahead: photographs that wait decoded, and that wait to be written, 1 or more; costs memory, saves time.
        threads: photographs that are decoded at once, 1 or more.
        quiet: whether to show no progress.

    Returns:
        the data set; `failed` in it lists what could not be labelled.
    """
    settings = settings or LabelSettings()
    named = name_images(images, root=root, out=out, verb="label")
    names = sorted(named)[:limit]
    chunks = chunks_of(names, size=settings.image_batch, shard=shard)
    _check_parts(parts, settings)
    if overwrite and not overwrite_corrections:
        refuse_corrections(out, instead=CORRECTIONS)
    overwrite = overwrite or overwrite_corrections
    folder = prepare_output(out, resume=resume, overwrite=overwrite, marker=MARKER)
    with sole_use(folder):
        part = None if shard is None else shard.record(names)
        manifest = Manifest(folder / MANIFEST_FILE)
        wanted = {name for chunk in chunks for name in chunk}
        begun = begin(
            folder,
            root=root,
            names=wanted,
            parts=parts,
            settings=settings,
            manifest=manifest,
            shard=part,
            forget_missing=forget_missing,
            retry_failed=retry_failed,
            quiet=quiet,
        )
        for note in begun.notes:
            say(note, quiet=quiet)
        begun.write(folder, manifest=manifest)
        kept = begun.kept
        missing = [chunk for chunk in chunks if not kept.names.issuperset(chunk)]
        already = len(wanted) - sum(map(len, missing))
        options = {"device": str(parts.mask_proposer.device), "limit": limit, "ahead": ahead, "threads": threads}
        session = Session(folder, command=command, options=options, kept=already, failed_before=kept.failed)
        progress = Progress(len(wanted), "labelling", "images", already=already, quiet=quiet)
        with session:
            with progress, manifest, Manifest(folder / QUALITY_FILE) as quality:
                job = _Job(folder, parts, settings, manifest, quality, session, progress)
                job.label([[(name, named[name]) for name in chunk] for chunk in missing], ahead=ahead, threads=threads)
            finish(folder, record=begun.record, manifest=manifest)
    return LabelledDataset.open(folder, photos=root)


@dataclass(frozen=True)
class _Claimed:
    """A photograph that the models have seen, without its pixels."""

    name: str
    content: str | None
    claims: ImageClaims | PatchwordError


@dataclass(frozen=True)
class _Job:
    """What it takes to label photographs and to write down what came of them."""

    folder: Path
    parts: LabelParts
    settings: LabelSettings
    manifest: Manifest
    quality: Manifest
    session: Session
    progress: Progress

    def label(self, chunks: Sequence[Sequence[tuple[str, Path]]], *, ahead: int, threads: int) -> None:
        """Decode photographs in threads ahead, ask the models about a chunk here, write in a thread behind."""
        ahead = max(ahead, *map(len, chunks)) if chunks else ahead  # a whole chunk waits while another is asked
        waiting = (photograph for chunk in chunks for photograph in chunk)
        with (
            closing(decoded(waiting, ahead=ahead, threads=threads)) as photographs,
            Writer(self._write, waiting=ahead) as writer,
        ):
            for chunk in chunks:
                for claimed in self._ask(list(islice(photographs, len(chunk)))):
                    writer.put(claimed)

    def _ask(self, photographs: list[Photograph]) -> list[_Claimed]:
        images = [to_tensor(each.pixels) for each in photographs if not isinstance(each.pixels, PatchwordError)]
        answers = iter(claim_images(images, parts=self.parts, settings=self.settings))
        claims = [
            why_unread(each) if isinstance(each.pixels, PatchwordError) else next(answers) for each in photographs
        ]
        return [_Claimed(each.name, each.content, found) for each, found in zip(photographs, claims, strict=True)]

    def _write(self, claimed: _Claimed) -> None:
        """Settle and write what the models claim; the manifest's line comes last, so that it vouches for the files."""
        found = self._settle(claimed.claims)
        record = write_result(self.folder, claimed.name, found, content=claimed.content, settings=self.settings)
        if isinstance(found, ImageLabels) and record.status != "failed":
            append_quality(self.quality, assess(found, name=claimed.name, settings=self.settings))
        self.manifest.append(record.model_dump(mode="json"))
        self.session.count(record.status)
        self.progress.advance()

    def _settle(self, claims: ImageClaims | PatchwordError) -> ImageLabels | PatchwordError:
        if isinstance(claims, PatchwordError):
            return claims
        vocabulary = self.parts.vocabulary
        try:
            return settle(claims, names=vocabulary.names, settings=self.settings, colours=vocabulary.colours)
        except PatchwordError as error:
            return error
        except MemoryError:
            return PatchwordError(f"not enough memory to label {claims.size[0]} x {claims.size[1]} pixels")


def _check_parts(parts: LabelParts, settings: LabelSettings) -> None:
    """Find out before the first photograph what would fail on every one."""
    encoder = parts.image_text
    crop_side(settings, input_size=encoder.record.input_size, patch_size=encoder.record.patch_size)
    if settings.needs_encoder and parts.patch_encoder is None:
        raise PatchwordError("setting 'seeds' is 'encoder', but there is no vision encoder; name one")
    dense = getattr(encoder, "dense", settings.dense)
    if dense != settings.dense:
        raise PatchwordError(f"setting `dense` is {settings.dense!r}, but the encoder was loaded with {dense!r}")
