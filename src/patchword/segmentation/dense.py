"""Segmentation with whatever gives unit patch vectors in a text space: the way that all segmenters here share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from patchword.alignment.module import Compiled
from patchword.config.segment import SegmentSettings
from patchword.data.images import read_image, to_tensor
from patchword.data.masks import LabelMap
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError, warn
from patchword.models.batching import Batches, is_out_of_memory
from patchword.models.pixels import resize, resize_uint8
from patchword.models.protocols import MaskGenerator
from patchword.runs.records import COMPUTED_ON
from patchword.segmentation.pixels import apply_thresholds
from patchword.segmentation.refine.apply import refine_pixels, refine_scores
from patchword.segmentation.result import SegmentationResult
from patchword.segmentation.scores import FeatureJoin, LogitJoin, PixelScores, SeenImage, share_batches
from patchword.segmentation.sliding_window import check_window, inference_windows
from patchword.segmentation.words import Classes, ClassWords, WordEncoder, check_background

AnyImage = str | Path | Image.Image | NDArray[np.uint8] | Tensor


def as_rgb(image: AnyImage) -> NDArray[np.uint8]:
    """Bring an image in any form to 8-bit RGB.

    Args:
        image: path of a photograph; Pillow image; array (h, w, 3) uint8; tensor (3, h, w) or (1, 3, h, w), uint8 or
            floating with values in [0, 1].

    Returns:
        (h, w, 3) uint8.
    """
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Image.Image):
        return _from_pillow(image)
    if isinstance(image, Tensor):
        return _from_tensor(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise PatchwordError(
                f"image is {image.dtype} of shape {image.shape}; it must be uint8 of shape (height, width, 3)"
            )
        return image if image.flags.writeable else image.copy()  # torch takes no array that cannot be written
    kind = type(image).__name__
    raise PatchwordError(f"image is a {kind}; it must be a path, a Pillow image, an array or a tensor")


def _from_pillow(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode == "F" or image.mode.startswith("I"):
        raise PatchwordError(f"Pillow image has mode {image.mode}; use an 8-bit mode, or pass the path of its file")
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:  # over white, as photographs from files are
        transparent = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), transparent)
    return np.array(upright.convert("RGB"))


def _from_tensor(image: Tensor) -> NDArray[np.uint8]:
    pixels = image[0] if image.ndim == 4 and len(image) == 1 else image
    if pixels.ndim != 3 or pixels.shape[0] != 3 or pixels.numel() == 0:
        raise PatchwordError(
            f"image has shape {tuple(image.shape)}; it must be (3, height, width) or (1, 3, height, width)"
        )
    if pixels.is_floating_point():
        if not (float(pixels.min()) >= 0 and float(pixels.max()) <= 1):
            raise PatchwordError("image has values outside [0, 1]; use floats in [0, 1], or uint8")
        pixels = (pixels.detach().float() * 255).round().to(torch.uint8)
    elif pixels.dtype != torch.uint8:
        raise PatchwordError(f"image is {pixels.dtype}; use floats in [0, 1], or uint8")
    return pixels.permute(1, 2, 0).cpu().numpy()


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


class BaseSegmenter:
    """What all segmenters share: everything that turns images and class names into label maps.

    Args:
        encode: images (b, 3, h, w), sides multiples of the patch -> unit patch vectors (b, d, h/patch, w/patch).
        words: class names -> text embeddings.
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
        mask_proposer: MaskGenerator | None = None,
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
        """The frozen models, the training data and the numbers that a segmentation depends on."""
        numbers: dict[str, Any] = {
            COMPUTED_ON: self.device.type,
            "image_size": self.image_size,
            "temperature": self.temperature,
        }
        if self.refiner is None:
            return numbers
        record = self.refiner.record
        return {**numbers, "mask_proposer": {"name": record.name, "fingerprint": record.fingerprint}}

    def vocabulary_of(self, classes: Classes | None = None, *, background: Sequence[str] | None = None) -> Vocabulary:
        """The vocabulary that `segment` makes of these arguments."""
        return self.words.vocabulary_of(classes, background=background)

    def segment(
        self,
        image: AnyImage,
        *,
        classes: Classes | None = None,
        background: Sequence[str] | None = None,
        settings: SegmentSettings | Mapping[str, Any] | None = None,
    ) -> SegmentationResult:
        """Give every pixel the class whose words are nearest to its patches.

        By default the image is seen once, whole, with its proportions kept (`models.pixels.model_size`).

        Args:
            image: path of a photograph, Pillow image, array (h, w, 3) uint8, or tensor (3, h, w).
            classes: names, `"cat, dog"`, a class list file, or a `Vocabulary`; synonyms follow a name after `;`. Lists
                that state no templates use those of the training. None for the classes of the training.
            background: words for what is none of the classes; where there are any, the label map has one more class,
                the last, named "background". None takes those of the class list, an empty list none.
            settings: how the image is seen and classes are decided, all as `SegmentSettings`, or by name those that
                differ from the defaults. Size and temperature are those of the training where none is given.

        Returns:
            Label map and confidence at the image's own size.

        Raises:
            PatchwordError: when the image cannot be read, or classes or numbers are not as described.

        Source: docs/method.md, stage 3.
        """
        vocabulary = self.words.vocabulary_of(classes, background=background)
        remark = check_background(vocabulary, settings=SegmentSettings.of(settings), level=2)
        if remark and (self.words.trained is None or vocabulary.names != self.words.trained.names):
            warn(f"{vocabulary.spoken()}: {remark}", level=2)
        (found,) = self.segment_batch([image], classes=classes, background=background, settings=settings)
        if isinstance(found, PatchwordError):
            raise found
        return found

    @torch.no_grad()
    def segment_batch(
        self,
        images: Sequence[AnyImage],
        *,
        classes: Classes | None = None,
        background: Sequence[str] | None = None,
        settings: SegmentSettings | Mapping[str, Any] | None = None,
    ) -> list[SegmentationResult | PatchwordError]:
        """Segment several images; those of one seen size share batches.

        Args:
            images: each as of `segment`.
            classes, background, settings: as of `segment`.

        Returns:
            for each image its result, or the error that says why there is none.
        """
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
        plan = inference_windows(size, settings=settings, image_size=self.image_size, patch_size=self.patch_size)
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
                f"not enough memory to resize {height} x {width} pixels to {high} x {wide}; use a smaller "
                "shorter_side or image_size, or set longest_side"
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
                f"not enough memory for one of {what}; use a smaller image_size, or a window"
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
        found = apply_thresholds(found, decision=decision)
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
            "the model gives features that are not finite; use a type with more range, float32 or bfloat16"
        )
