"""A folder of photographs in, a folder of pseudo labels out; stops anywhere and goes on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from patchword.errors import PatchwordError
from patchword.folders import Manifest, prepare_output, write_json
from patchword.images import read_image, to_tensor
from patchword.label.dataset import LabelledDataset, label_map_path, read_manifest, segments_path
from patchword.label.detect import Detection, crop_side
from patchword.label.image import ImageLabels, LabelParts, label_image
from patchword.label.records import MANIFEST_FILE, MARKER, Counts, ImageRecord
from patchword.label.resume import begin, keep_done
from patchword.label.settings import LabelSettings
from patchword.label.stream import Pixels, decoded
from patchword.progress import Progress


def label_folder(
    images: Sequence[Path],
    *,
    root: Path,
    out: Path,
    parts: LabelParts,
    settings: LabelSettings | None = None,
    resume: bool = False,
    overwrite: bool = False,
    forget_missing: bool = False,
    command: str = "",
    ahead: int = 2,
    quiet: bool = False,
) -> LabelledDataset:
    """Label photographs one after the other and write a data set of pseudo masks.

    A photograph that cannot be read or labelled is written down in the manifest, with the reason, and the run goes on.
    A run that was stopped goes on with `resume` where it stopped; photographs that failed are tried again. Masks,
    segments and `dataset.json` then have the same bytes as after a run that was not stopped.

    Args:
        images: photographs, all inside `root`; where `out` is inside `root` too, the label maps in it are left out.
        root: folder that names are relative to.
        out: folder of the data set.
        parts: models and vocabulary.
        settings: numbers of stage 1; the defaults when none are given.
        resume: go on in a folder that an earlier run left.
        overwrite: empty such a folder first.
        forget_missing: with resume, drop the labels of photographs that no longer exist, which are an error else.
        command: what the user typed, for the record.
        ahead: photographs that wait decoded, 1 or more; costs memory, saves time.
        quiet: whether to show no progress.

    Returns:
        the data set; `failed` in it lists what could not be labelled.

    Raises:
        PatchwordError: for no photographs, one outside `root`, photographs inside `out`, a folder that is neither
            resumed nor overwritten, a resume with another vocabulary, other models or settings or without
            photographs that were labelled, or a file that cannot be written.
    """
    settings = settings or LabelSettings()
    named = _name_images(images, root=root, out=out)
    _check_parts(parts, settings)
    folder = prepare_output(out, resume=resume, overwrite=overwrite, marker=MARKER)
    record = begin(folder, root=root, parts=parts, settings=settings, command=command)
    manifest = Manifest(folder / MANIFEST_FILE)
    done = keep_done(folder, root=root, manifest=manifest, names=named.keys(), forget_missing=forget_missing)
    waiting = {path: name for name, path in named.items() if name not in done}
    job = _Job(folder, parts, settings, manifest)
    with Progress(len(named), "labelling", "images", quiet=quiet) as progress, manifest:
        progress.advance(len(done))
        for path, pixels in decoded(list(waiting), read=read_image, ahead=ahead):
            job.label(waiting[path], pixels)
            progress.advance()
    manifest.finish()
    counts = Counts.of(read_manifest(manifest).values(), names=parts.vocabulary.names)
    record.model_copy(update={"complete": True, "counts": counts}).save(folder)
    return LabelledDataset.open(folder, photos=root)


@dataclass(frozen=True)
class _Job:
    """What it takes to label one photograph and to write down what came of it."""

    folder: Path
    parts: LabelParts
    settings: LabelSettings
    manifest: Manifest

    def label(self, name: str, pixels: Pixels | PatchwordError) -> None:
        """Label a decoded photograph; the manifest's line comes last, so that it vouches for the files."""
        started = time.monotonic()
        found = self._try(pixels)
        if isinstance(found, ImageLabels):
            found.label_map.save(label_map_path(self.folder, name))
            write_json(segments_path(self.folder, name), _segments_record(name, found))
        else:  # of an earlier run whose photograph could still be read
            label_map_path(self.folder, name).unlink(missing_ok=True)
            segments_path(self.folder, name).unlink(missing_ok=True)
        record = _image_record(name, found, settings=self.settings, seconds=time.monotonic() - started)
        self.manifest.append(record.model_dump(mode="json"))

    def _try(self, pixels: Pixels | PatchwordError) -> ImageLabels | PatchwordError:
        if isinstance(pixels, PatchwordError):
            return pixels
        try:
            return label_image(to_tensor(pixels), parts=self.parts, settings=self.settings)
        except PatchwordError as error:
            return error


def _name_images(images: Sequence[Path], *, root: Path, out: Path) -> dict[str, Path]:
    """Photographs by their name: the path relative to the root, with forward slashes."""
    inner, outer = out.resolve(), root.resolve()
    if outer.is_relative_to(inner):  # overwriting the output would remove the photographs
        raise PatchwordError(f"photographs {root} are inside the output folder {out}; choose another output folder")
    named = {}
    for path in images:
        if not path.is_relative_to(root):
            raise PatchwordError(f"photograph {path} is outside {root}; allowed are photographs inside it")
        name = path.relative_to(root)
        if not (outer / name).is_relative_to(inner):
            named[name.as_posix()] = path
    if not named:
        raise PatchwordError(f"no photographs to label in {root}")
    return named


def _check_parts(parts: LabelParts, settings: LabelSettings) -> None:
    """Find out before the first photograph what would fail on every one."""
    encoder = parts.image_text
    crop_side(settings, input_size=encoder.record.input_size, patch_size=encoder.record.patch_size)
    if settings.needs_encoder and parts.patch_encoder is None:
        raise PatchwordError("setting 'seeds' is 'encoder', but there is no vision encoder; name one")
    dense = getattr(encoder, "dense", settings.dense)
    if dense != settings.dense:
        raise PatchwordError(f"setting `dense` is {settings.dense!r}, but the encoder was loaded with {dense!r}")


def _image_record(
    name: str, found: ImageLabels | PatchwordError, *, settings: LabelSettings, seconds: float
) -> ImageRecord:
    seconds = round(seconds, 3)
    if isinstance(found, PatchwordError):
        return ImageRecord(
            name=name,
            status="failed",
            size=None,
            classes=(),
            segments=0,
            coverage=0,
            seconds=seconds,
            reason=str(found),
        )
    indices, label_map = found.label_map.indices, found.label_map
    counted = np.bincount(indices.ravel(), minlength=label_map.ignore + 1)
    present = tuple(class_name for index, class_name in enumerate(label_map.names) if counted[index])
    return ImageRecord(
        name=name,
        status="ok" if present else "empty",
        size=(indices.shape[0], indices.shape[1]),
        classes=present,
        segments=len(found.segments),
        coverage=1 - int(counted[label_map.ignore]) / indices.size,
        seconds=seconds,
        reason=None if present else _reason_of_emptiness(found, settings),
    )


def _reason_of_emptiness(found: ImageLabels, settings: LabelSettings) -> str:
    detected = found.detected
    if not detected.kept:
        return f"nothing detected: no class won {detected.needed} of {detected.crops} crops"
    if not found.segments:
        return f"no mask reached a predicted IoU of {settings.minimum_predicted_iou}"
    return "every claim is contested by another class"


def _segments_record(name: str, found: ImageLabels) -> dict[str, object]:
    indices = found.label_map.indices
    return {
        "name": name,
        "size": list(indices.shape),
        "detected": _detection_record(found.detected, found.label_map.names),
        "segments": [segment.to_json() for segment in found.segments],
    }


def _detection_record(detected: Detection, names: tuple[str, ...]) -> dict[str, object]:
    return {
        "crops": detected.crops,
        "needed": detected.needed,
        "background_votes": detected.background_votes,
        "entropy": detected.entropy,
        "votes": {name: votes for name, votes in zip(names, detected.votes, strict=True) if votes},
        "kept": [names[index] for index in detected.kept],
    }
