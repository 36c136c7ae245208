"""Segmentation with whatever gives unit patch vectors in a text space: the way that all segmenters here share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from patchword.alignment.compiled import Compiled
from patchword.data.images import to_tensor
from patchword.data.masks import LabelMap
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError, warn
from patchword.models.batching import Batches, is_out_of_memory
from patchword.models.pixels import resize, resize_uint8
from patchword.models.protocols import MaskProposer
from patchword.runs.records import COMPUTED_ON
from patchword.segmentation.geometry import AnyImage, as_rgb
from patchword.segmentation.pixels import hold_back
from patchword.segmentation.refine.apply import refine_pixels, refine_scores
from patchword.segmentation.result import SegmentationResult
from patchword.segmentation.scores import PixelScores
from patchword.segmentation.settings import SegmentSettings
from patchword.segmentation.sliding_window import FeatureJoin, LogitJoin, SeenImage, share_batches
from patchword.segmentation.windows import check_window, plan_seeing
from patchword.segmentation.words import Classes, ClassWords, WordEncoder, check_background


class AnySegmenter(Protocol):
    """`Segmenter`, `DenseSegmenter`, and whatever else answers in the same way."""

    def segment(
        self,
        image: AnyImage,
        *,
        classes: Classes | None = None,
        background: Sequence[str] | None = None,
        settings: SegmentSettings | Mapping[str, Any] | None = None,
    ) -> SegmentationResult:
        """Give every pixel one of the classes."""

    def segment_batch(
        self,
        images: Sequence[AnyImage],
        *,
        classes: Classes | None = None,
        background: Sequence[str] | None = None,
        settings: SegmentSettings | Mapping[str, Any] | None = None,
    ) -> list[SegmentationResult | PatchwordError]:
        """Segment several images; in place of one that cannot be, its error."""

    def vocabulary_of(self, classes: Classes | None = None, *, background: Sequence[str] | None = None) -> Vocabulary:
        """The vocabulary that `segment` makes of these arguments."""

    def describe(self) -> dict[str, Any]:
        """What a person must know to repeat a segmentation, as JSON can hold it."""


class DenseFeatures(Protocol):
    """Whatever turns images into patch vectors in a text space.

    Attributes:
        patch_size: side of a patch in pixels.
        image_size: side in pixels of the square that has as many pixels as the image that it sees by default.
        device: that images are resized on.
    """

    @property
    def patch_size(self) -> int: ...

    @property
    def image_size(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def __call__(self, images: Tensor) -> Tensor:
        """Images (b, 3, h, w), sides whole patches -> unit patch vectors (b, d, h/patch, w/patch)."""

    def describe(self) -> dict[str, Any]:
        """The models and numbers that the vectors depend on, as JSON can hold them."""


class DensePath:
    """Everything that turns images and class names into label maps.

    Args:
        encode: images (b, 3, h, w), sides multiples of the patch -> unit patch vectors (b, d, h/patch, w/patch).
        words: class names -> text vectors.
        patch_size: side of a patch in pixels.
        image_size: side in pixels of the square that has as many pixels as the image that `encode` sees; the default.
        temperature: of the softmax that the confidence is taken from; the default.
        device: that images are resized on.
        mask_proposer: what snaps edges where the setting `refine` is "sam"; kept as `refiner`, which may be set later.
    """

    def __init__(
        self,
        *,
        encode: Callable[[Tensor], Tensor],
        words: WordEncoder,
        patch_size: int,
        image_size: int,
        temperature: float,
        device: torch.device,
        mask_proposer: MaskProposer | None = None,
    ) -> None:
        self.encode = encode
        self.words = words
        self.patch_size = patch_size
        self.image_size = image_size
        self.temperature = temperature
        self.device = device
        self.refiner = mask_proposer
        self._compiled = Compiled(encode, goes_on="segmenting")
        self._batches = Batches()

    def describe(self) -> dict[str, Any]:
        """The numbers that a segmentation depends on, and the mask proposer where there is one."""
        numbers: dict[str, Any] = {
            COMPUTED_ON: self.device.type,
            "image_size": self.image_size,
            "temperature": self.temperature,
        }
        if self.refiner is None:
            return numbers
        record = self.refiner.record
        return {**numbers, "mask_proposer": {"name": record.name, "fingerprint": record.fingerprint}}

    def segment(
        self,
        image: AnyImage,
        *,
        classes: Classes | None,
        background: Sequence[str] | None,
        settings: SegmentSettings | Mapping[str, Any] | None,
    ) -> SegmentationResult:
        """Segment one image; arguments and result as `Segmenter.segment` has them."""
        vocabulary = self.words.vocabulary_of(classes, background=background)
        remark = check_background(vocabulary, settings=SegmentSettings.of(settings), level=3)
        if remark and (self.words.trained is None or vocabulary.names != self.words.trained.names):
            warn(f"{vocabulary.spoken()}: {remark}", level=3)
        (found,) = self.segment_batch([image], classes=classes, background=background, settings=settings)
        if isinstance(found, PatchwordError):
            raise found
        return found

    @torch.no_grad()
    def segment_batch(
        self,
        images: Sequence[AnyImage],
        *,
        classes: Classes | None,
        background: Sequence[str] | None,
        settings: SegmentSettings | Mapping[str, Any] | None,
    ) -> list[SegmentationResult | PatchwordError]:
        """Segment several images; arguments and result as `Segmenter.segment_batch` has them."""
        chosen = SegmentSettings.of(settings)
        check_window(chosen, patch_size=self.patch_size)
        words = self.words(classes, background=background)
        looked = [self._look(image, chosen) for image in images]
        found: dict[int, SegmentationResult | PatchwordError] = {
            place: one for place, one in enumerate(looked) if isinstance(one, PatchwordError)
        }
        seen = {place: one for place, one in enumerate(looked) if isinstance(one, SeenImage)}
        for places in share_batches(seen, most=chosen.batch):
            found |= self._segment_together({place: seen[place] for place in places}, words, chosen)
        return [found[place] for place in range(len(images))]

    def _look(self, image: AnyImage, settings: SegmentSettings) -> SeenImage | PatchwordError:
        try:
            pixels = as_rgb(image)
        except PatchwordError as error:
            return error
        size = (pixels.shape[0], pixels.shape[1])
        plan = plan_seeing(size, settings=settings, image_size=self.image_size, patch_size=self.patch_size)
        return SeenImage(pixels, plan)

    def _segment_together(
        self, seen: dict[int, SeenImage], words: ClassWords, settings: SegmentSettings
    ) -> dict[int, SegmentationResult | PatchwordError]:
        """Segment images whose windows have one size; where one fails, each is on its own."""
        try:
            joined = self._encode_windows(list(seen.values()), words, settings)
            return {
                place: self._decide(image, join.scores(image.size), words, settings)
                for (place, image), join in zip(seen.items(), joined, strict=True)
            }
        except PatchwordError as error:
            if len(seen) == 1:
                return dict.fromkeys(seen, error)
        apart = [self._segment_together({place: image}, words, settings) for place, image in seen.items()]
        return {place: found for each in apart for place, found in each.items()}

    def _resized(self, image: SeenImage, settings: SegmentSettings) -> Tensor:
        """The image at the size that it is seen at, (1, 3, h, w)."""
        size = image.plan.size
        try:
            if settings.resize == "uint8":
                return to_tensor(resize_uint8(image.pixels, size=size)).to(self.device)
            pixels = to_tensor(image.pixels).to(self.device)
            if settings.resize == "plain":
                return resize(pixels, size=size, mode="bilinear", antialias=False)
            return resize(pixels, size=size)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            (height, width), (high, wide) = image.size, size
            raise PatchwordError(
                f"memory does not suffice to see {height} x {width} pixels as {high} x {wide}; allowed are a smaller "
                "shorter_side or image_size, or a longest_side"
            ) from error

    def _encode_windows(
        self, images: Sequence[SeenImage], words: ClassWords, settings: SegmentSettings
    ) -> list[FeatureJoin | LogitJoin]:
        """Encode the windows of images in batches and join each image's again."""
        score = partial(words.scores, over=settings.softmax_over)
        stretched = settings.partial_patches == "stretch"
        by_logits = settings.join == "logits" and (settings.window is not None or stretched)
        joined = [
            LogitJoin(image.plan, score=score)
            if by_logits
            else FeatureJoin(image.plan, score=score, patch_size=self.patch_size)
            for image in images
        ]
        model = self._compiled if settings.compile else self.encode
        resized = [self._resized(image, settings) for image in images]
        patch_size = self.patch_size if stretched else 1
        windows = [(owner, place) for owner, image in enumerate(images) for place in range(len(image.plan))]

        def encode(start: int, stop: int) -> None:
            asked = windows[start:stop]
            crops = [images[owner].plan.crop(resized[owner], place, patch_size=patch_size) for owner, place in asked]
            patches = model(torch.cat(crops)).float()  # (b, d, h, w)
            _check_finite(patches)
            for (owner, place), one in zip(asked, patches, strict=True):
                joined[owner].add(place, one)

        height, width = images[0].plan.window
        what = f"windows of {height} x {width} pixels"
        try:
            self._batches.run(encode, count=len(windows), size=settings.batch, what=what)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise PatchwordError(
                f"memory does not suffice for one of {what}; allowed are a smaller image_size, or a window"
            ) from error
        return joined

    def _decide(
        self, image: SeenImage, scores: PixelScores, words: ClassWords, settings: SegmentSettings
    ) -> SegmentationResult:
        classes, decision = words.decision(settings, temperature=self.temperature)
        scores = refine_scores(scores, image=image.pixels, settings=settings)
        as_seen = settings.refine == "pamr" and settings.pamr.guide == "seen"
        found = refine_pixels(
            scores,
            decision=decision,
            image=image.pixels,
            seen=self._resized(image, settings) if as_seen else None,
            settings=settings,
            proposer=self.refiner,
        )
        found = hold_back(found, decision=decision)
        return SegmentationResult(
            LabelMap(found.indices, classes.names, classes.colours),
            found.confidence,
            image.pixels,
            scores=scores,
            class_of=decision.class_of,
            temperature=decision.temperature,
        )


def _check_finite(patches: Tensor) -> None:
    if not torch.isfinite(patches).all():
        raise PatchwordError(
            "the model gives features that are not finite; allowed are types with more room, float32 or bfloat16"
        )
