"""A folder of photographs in, a proposed class list out."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from patchword.config.label import LabelSettings
from patchword.config.suggest import SuggestSettings
from patchword.data.images import read_image, to_tensor
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.labeling.clip_crops import best_words, crop_side, crops_needed, finite, take_crops
from patchword.models.batching import Batches, is_out_of_memory
from patchword.models.protocols import ImageTextEncoder
from patchword.models.text_embeddings import TextVectors, encode_vocabulary
from patchword.runs.pipeline import Chunk, Executor, InThreads, Photograph, Pixels, Written
from patchword.runs.progress import Progress, photograph_count
from patchword.runs.records import LineRecord
from patchword.suggestion.result import Example, Proposed, Suggestion, narrowed
from patchword.suggestion.votes import ClassRankings, SelectedClass, Selection, select_classes


def plainer_names(names: Sequence[str]) -> dict[int, frozenset[int]]:
    """For each name those that are a word of it: "toy car" has "car", "car" has none.

    Returns:
        position -> positions; names without any are left out.
    """
    position_of = {name.casefold(): position for position, name in enumerate(names)}
    found = {}
    for position, name in enumerate(names):
        inner = {position_of[word] for word in name.casefold().split() if word in position_of} - {position}
        if inner:
            found[position] = frozenset(inner)
    return found


_JPEG_QUALITY = 80


@dataclass(frozen=True, eq=False)
class CropScores:
    """The crops of a photograph.

    Attributes:
        cosines: (crops, candidates) with each class (its best word), then with each background word.
        boxes: (crops, 4) as x0, y0, x1, y1, shares of the photograph's width and height.
    """

    cosines: NDArray[np.float32]
    boxes: NDArray[np.float64]

    def leads(self) -> NDArray[np.float32]:
        """By how much each crop's best candidate leads its second, (crops,)."""
        best = np.partition(self.cosines, -2, axis=1)
        lead: NDArray[np.float32] = best[:, -1] - best[:, -2]
        return lead


@torch.no_grad()
def score_crops(
    pixels: NDArray[np.uint8],
    *,
    encoder: ImageTextEncoder,
    text: TextVectors,
    batches: Batches,
    settings: LabelSettings,
) -> CropScores:
    """Compare every crop of a photograph with every candidate, as labelling does for its vote.

    Args:
        pixels: (h, w, 3).
        encoder: sees the crops.
        text: unit vectors of the candidates' words.
        batches: of crops; they shrink where memory runs out.
        settings: the crops.
    """
    crops = take_crops(to_tensor(pixels), encoder=encoder, settings=settings)

    def encode(start: int, stop: int) -> Tensor:
        return encoder.encode_images(crops.pixels[start:stop])

    parts = batches.run(encode, count=len(crops.pixels), size=settings.crop_batch, what="crops")
    tokens = torch.cat(parts)  # (crops, d)
    cosines = finite(best_words(tokens @ text.words.to(tokens).T, text=text), encoder)  # (crops, candidates)
    height, width = crops.size
    return CropScores(cosines.float().cpu().numpy(), crops.boxes.numpy() / np.array([width, height, width, height]))


def thumbnail(pixels: NDArray[np.uint8], box: NDArray[np.float64], *, size: int) -> bytes:
    """A crop as a small JPEG.

    Args:
        pixels: (h, w, 3).
        box: x0, y0, x1, y1, shares of width and height.
        size: longer side in pixels at most.
    """
    height, width = pixels.shape[:2]
    x0, y0 = int(box[0] * width), int(box[1] * height)
    x1, y1 = max(x0 + 1, round(box[2] * width)), max(y0 + 1, round(box[3] * height))
    picture = Image.fromarray(np.ascontiguousarray(pixels[y0:y1, x0:x1]))
    picture.thumbnail((size, size))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def suggest_classes(
    images: Sequence[Path],
    *,
    root: Path,
    encoder: ImageTextEncoder,
    nouns: Vocabulary,
    settings: SuggestSettings | None = None,
    examples: bool = False,
    executor: Executor | None = None,
    quiet: bool = False,
) -> Suggestion:
    """Propose a class list: nouns that win enough crops of enough photographs.

    Args:
        images: photographs, of which a sample is looked at.
        root: folder that their names are relative to.
        encoder: compares crops with nouns.
        nouns: the candidates; their background words take part and stay background words.
        settings: all numbers; the defaults when none are given.
        examples: whether to keep thumbnails of the surest crops.
        executor: whoever looks; by default it is done here, reading ahead in threads.
        quiet: whether to show no progress.
    """
    settings = settings or SuggestSettings()
    crop_side(settings.crops, input_size=encoder.record.input_size, patch_size=encoder.record.patch_size)
    chosen = spread(images, count=settings.sample)
    if not chosen:
        raise PatchwordError(f"no photographs to look at in {root}")
    text = _encode(encoder, nouns, quiet=quiet)
    words, classes = text.words.float().cpu().numpy(), text.classes.cpu().numpy()
    work = LookWork(encoder, words, classes, text.count, settings, examples)
    voting = _Voting(encoder.record.name, nouns, settings)
    chunks = [Chunk(((path.relative_to(root).as_posix(), path),), lines=1) for path in chosen]
    early: dict[str, Written] = {}  # votes are counted in the order of the photographs, whoever is done first
    order = iter(chunk.photographs[0][0] for chunk in chunks)
    following = next(order)
    with Progress(len(chosen), "looking", "photographs", quiet=quiet) as progress:

        def done(written: Written) -> None:
            nonlocal following
            early[written.record.name] = written
            while following in early:
                voting.add(following, early.pop(following).result)
                following = next(order, "")
            progress.advance()

        (executor or InThreads()).run(chunks, work=work, done=done)
    return voting.outcome(found=len(images))


def spread(images: Sequence[Path], *, count: int) -> list[Path]:
    """At most `count` of the photographs, evenly spread over their order."""
    if len(images) <= count:
        return list(images)
    return [images[(2 * position + 1) * len(images) // (2 * count)] for position in range(count)]


def _encode(encoder: ImageTextEncoder, nouns: Vocabulary, *, quiet: bool) -> TextVectors:
    words = sum(len(entry.words) for entry in nouns.classes) + len(nouns.background)
    with Progress(words, "reading the nouns", "words", quiet=quiet) as progress:
        return encode_vocabulary(encoder, vocabulary=nouns, background=True, done=progress.advance)


@dataclass(frozen=True)
class Look:
    """What was seen in a photograph, and of each noun that leads a crop its surest one as a JPEG, by position."""

    scores: CropScores
    pictures: Mapping[int, tuple[float, bytes]]


@dataclass(frozen=True)
class LookWork:
    """What is done with a photograph; the `Work` of an executor. Its results are what was seen, or why nothing was."""

    encoder: ImageTextEncoder
    words: NDArray[np.float32]  # of `TextVectors`, and its classes; arrays, so that they can be sent
    classes: NDArray[np.int64]
    count: int
    settings: SuggestSettings
    with_examples: bool
    batches: Batches = field(default_factory=Batches)

    def read(self, path: Path) -> Pixels:
        return read_image(path)

    def process(self, photographs: list[Photograph], *, chunk: Chunk) -> Iterator[tuple[str, Look | str]]:
        for each in photographs:
            try:
                yield each.name, self._look(each.pixels)
            except PatchwordError as error:
                yield each.name, str(error)

    def write(self, made: tuple[str, Look | str]) -> Written:
        """Nothing is written."""
        name, seen = made
        return Written(LineRecord(name=name, status="failed" if isinstance(seen, str) else "ok"), result=seen)

    def _look(self, pixels: Pixels | PatchwordError) -> Look:
        if isinstance(pixels, PatchwordError):
            raise pixels
        text = TextVectors(torch.from_numpy(self.words), torch.from_numpy(self.classes), self.count)
        try:
            scores = score_crops(
                pixels, encoder=self.encoder, text=text, batches=self.batches, settings=self.settings.crops
            )
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            height, width = pixels.shape[:2]
            raise PatchwordError(f"not enough memory to look at {height} x {width} pixels") from None
        pictures = {}
        leads, winners = scores.leads(), scores.cosines.argmax(axis=1)
        for candidate in np.unique(winners).tolist() if self.with_examples else ():
            crop = int(np.where(winners == candidate, leads, -1).argmax())
            picture = thumbnail(pixels, scores.boxes[crop], size=self.settings.thumbnail_size)
            pictures[candidate] = (float(leads[crop]), picture)
        return Look(scores, pictures)


@dataclass
class _Voting:
    """Votes of the photographs: rankings, examples and failures so far."""

    model: str
    nouns: Vocabulary
    settings: SuggestSettings
    rankings: ClassRankings = field(init=False)
    failed: dict[str, str] = field(default_factory=dict)
    examples: dict[int, list[Example]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        candidates = len(self.nouns) + len(self.nouns.background)
        self.rankings = ClassRankings(candidates, near_margin=self.settings.near_margin)

    def add(self, name: str, seen: Look | str) -> None:
        """Let a photograph vote, or write down why it cannot."""
        if isinstance(seen, str):
            self.failed[name] = seen
            return
        cosines = seen.scores.cosines
        self.rankings.add(cosines, needed=crops_needed(len(cosines), settings=self.settings.crops))
        for candidate, (lead, picture) in seen.pictures.items():
            kept = self.examples.setdefault(candidate, [])
            kept.append(Example(name, lead, picture))
            kept.sort(key=lambda example: -example.lead)
            del kept[self.settings.examples :]

    def outcome(self, *, found: int) -> Suggestion:
        """Count the votes."""
        if not self.rankings.photographs:
            name, reason = next(iter(self.failed.items()))
            raise PatchwordError(f"none of {photograph_count(len(self.failed))} could be looked at; {name}: {reason}")
        is_class = [*([True] * len(self.nouns)), *([False] * len(self.nouns.background))]
        plainer = plainer_names((*self.nouns.names, *self.nouns.background))
        selection = select_classes(self.rankings, is_class=is_class, settings=self.settings, plainer=plainer)
        classes = [selected for selected in selection.chosen if is_class[selected.candidate]]
        background = [selected for selected in selection.chosen if not is_class[selected.candidate]]
        if not classes:
            raise PatchwordError(self._nothing())
        words = [self._word(selected.candidate) for selected in background]
        return Suggestion(
            vocabulary=narrowed(self.nouns, classes=[selected.candidate for selected in classes], background=words),
            classes=tuple(self._proposed(selected) for selected in classes),
            background=tuple(self._proposed(selected) for selected in background),
            missed=self._missed(selection),
            photographs=self.rankings.photographs,
            found=found,
            crops=self.rankings.crops,
            failed=self.failed,
            model=self.model,
            settings=self.settings,
        )

    def _nothing(self) -> str:
        return (
            f"no noun is seen in {self.settings.minimum_share:.1%} of {photograph_count(self.rankings.photographs)}; "
            "lower minimum_share, or bring nouns of your own"
        )

    def _missed(self, selection: Selection) -> tuple[Proposed, ...]:
        return tuple(self._proposed(selected) for selected in selection.missed if selected.candidate < len(self.nouns))

    def _proposed(self, selected: SelectedClass) -> Proposed:
        near = tuple(self._word(each) for each in selected.near)
        examples = tuple(self.examples.get(selected.candidate, ()))
        return Proposed(self._word(selected.candidate), selected.photographs, selected.crops, near, examples)

    def _word(self, candidate: int) -> str:
        return (*self.nouns.names, *self.nouns.background)[candidate]
