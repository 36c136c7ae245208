"""Segmenters: the features of a picture, compared with the words of classes, give every pixel a class."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Protocol

import torch
from torch import Tensor

from patchword.config.segment import SegmentSettings
from patchword.data.masks import LabelMap
from patchword.data.vocabulary import Vocabulary
from patchword.data.vocabulary_words import DEFAULT_TEMPLATES
from patchword.errors import PatchwordError, warn
from patchword.models.batching import Batches, is_out_of_memory
from patchword.models.pixels import compute_type, resize_photograph, resize_uint8, resizing_device, to_floats, upload
from patchword.models.protocols import ImageTextEncoder, MaskGenerator
from patchword.models.registry import Filter
from patchword.precision import matmul_note
from patchword.runs.records import COMPUTED_ON
from patchword.segmentation.encoded import EncodedImage
from patchword.segmentation.jbu import JbuScores
from patchword.segmentation.pixels import PostprocessConfig, apply_thresholds, assign_pixels
from patchword.segmentation.result import SegmentationResult
from patchword.segmentation.scores import PixelScores, patch_scores
from patchword.segmentation.sliding_window import (
    AnyImage,
    FeatureMerge,
    SeenImage,
    WindowMerge,
    as_rgb,
    check_window,
    inference_windows,
    joins_windows_by_logits,
    pixel_scores,
    share_batches,
)
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


class DenseSegmenter:
    """Segments with features that are in a text space already, such as CLIP's own patches, without any training.

    Several threads may call one segmenter at the same time, on any images and classes. What it is made of (`refiner`,
    a module's weights) must not be changed meanwhile, nor may its encoder be exported to ONNX.

    Args:
        text: the image-text model, whose text tower gives the text embeddings of class names.
        encode: images (b, 3, h, w), sides whole patches -> unit patch vectors (b, d, h/patch, w/patch) in its text
            space; None for its own patches.
        patch_size: side of a patch of `encode` in pixels; None for the image-text model's.
        image_size: side in pixels of the square that has as many pixels as the image that `encode` sees, where the
            settings have none; None for the image-text model's input.
        temperature: of the softmax that the confidence is taken from, where the settings have none [chosen; the inverse
            of CLIP's logit scale].
        device: that images are resized on; None for the image-text model's.
        templates: prompt templates of classes that come without templates of their own.
        trained: the classes that are segmented where none are named; None for none.
        mask_generator: what snaps edges where the setting `refine` is "sam"; kept as `refiner`, which may be set later.
        facts: what `encode` is, for the record.
    """

    def __init__(
        self,
        text: ImageTextEncoder,
        *,
        encode: Callable[[Tensor], Tensor] | None = None,
        patch_size: int | None = None,
        image_size: int | None = None,
        temperature: float = 0.01,
        device: torch.device | None = None,
        templates: Sequence[str] = DEFAULT_TEMPLATES,
        trained: Vocabulary | None = None,
        mask_generator: MaskGenerator | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        if not temperature > 0:
            raise PatchwordError(f"temperature is {temperature}; it must be above 0")
        self.text = text
        self.encode_patches = text.encode_patches if encode is None else encode
        self.words = WordEncoder(text, templates=templates, trained=trained)
        self.patch_size = patch_size or text.record.patch_size
        self.image_size = image_size or text.record.input_size
        self.temperature = temperature
        self.device: torch.device = text.device if device is None else device
        self.refiner = mask_generator
        self._facts = {"kind": "dense"} if facts is None else dict(facts)
        self._batches = Batches()

    def describe(self) -> dict[str, Any]:
        """The frozen models, the training data and the numbers that a segmentation depends on."""
        return {**self._facts, "text_encoder": self.text.record.identity(), **self._numbers(self.text)}

    def _numbers(self, computes: object, **facts: Any) -> dict[str, Any]:
        refiner = None if self.refiner is None else self.refiner.record
        named = {} if refiner is None else {"name": refiner.name, "fingerprint": refiner.fingerprint}
        return {
            **({"mask_proposer": named} if named else {}),
            **facts,
            "computed_in": str(compute_type(computes)).removeprefix("torch.") + matmul_note(),
            COMPUTED_ON: self.device.type,
            "image_size": self.image_size,
            "temperature": self.temperature,
        }

    def vocabulary_of(self, classes: Classes | None = None, *, background: Sequence[str] | None = None) -> Vocabulary:
        """The vocabulary that `segment` makes of these arguments."""
        return self.words.vocabulary_of(classes, background=background)

    def segment(
        self,
        image: AnyImage | EncodedImage,
        *,
        classes: Classes | None = None,
        background: Sequence[str] | None = None,
        settings: SegmentSettings | Mapping[str, Any] | None = None,
    ) -> SegmentationResult:
        """Give every pixel the class whose words are nearest to its patches.

        By default the image is seen once, whole, with its proportions kept (`models.pixels.model_size`).

        Args:
            image: path of a photograph, Pillow image, array (h, w, 3) uint8, or tensor (3, h, w); or what `encode` made
                of one, which takes no forward pass and gives the same.
            classes: names, `"cat, dog"`, a class list file, or a `Vocabulary`; synonyms follow a name after `;`. Lists
                that state no templates use those of the training. None for the classes of the training.
            background: words for what is none of the classes; where there are any, the label map has one more class,
                the last, named "background". None takes those of the class list, an empty list none.
            settings: how the image is seen and classes are decided, all as `SegmentSettings`, or by name those that
                differ from the defaults. Size and temperature are those of the training where none is given. An encoded
                image is seen as it was encoded; asking for something else is an error.

        Returns:
            Label map and confidence at the image's own size.

        Source: docs/method.md, stage 3.
        """
        vocabulary = self.vocabulary_of(classes, background=background)
        remark = check_background(vocabulary, settings=SegmentSettings.of(settings), level=2)
        if remark and (self.words.trained is None or vocabulary.names != self.words.trained.names):
            warn(f"{vocabulary.spoken()}: {remark}", level=2)
        (found,) = self.segment_batch([image], classes=vocabulary, settings=settings)
        if isinstance(found, PatchwordError):
            raise found
        return found

    @torch.no_grad()
    def segment_batch(
        self,
        images: Sequence[AnyImage | EncodedImage],
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
        score = partial(words.scores, over=chosen.softmax_over)
        decided, decision = words.decision(chosen, temperature=self.temperature)
        of_pixels = partial(pixel_scores, temperature=decision.temperature)
        found: dict[int, SegmentationResult | PatchwordError] = {}
        seen: dict[int, SeenImage] = {}
        for place, image in enumerate(images):
            try:
                if isinstance(image, EncodedImage):
                    as_encoded = self._settings_of(image, chosen)
                    maps = tuple(score(features) for features in image.features)
                    scores = of_pixels(maps, image=image, settings=as_encoded)
                    alone = SeenImage(image.pixels, image.plan)  # what is copied to a device is not kept
                    found[place] = self._assign(scores, alone, decided, decision, as_encoded)
                else:
                    seen[place] = self._plan(image, chosen)
            except PatchwordError as error:
                found[place] = error

        def segment(places: list[int]) -> None:
            merged = self._encode_windows([seen[place] for place in places], chosen, keep=score)
            for place, maps in zip(places, merged, strict=True):
                scores = of_pixels(maps, image=seen[place], settings=chosen)
                found[place] = self._assign(scores, seen[place], decided, decision, chosen)

        found |= _in_groups(segment, seen, most=chosen.batch)
        return [found[place] for place in range(len(images))]

    @torch.no_grad()
    def encode(self, image: AnyImage, *, settings: SegmentSettings | Mapping[str, Any] | None = None) -> EncodedImage:
        """Let the encoder see an image once; `segment` then takes what this returns, with any words, without a model.

        Args:
            image: path of a photograph, Pillow image, array (h, w, 3) uint8, or tensor (3, h, w).
            settings: as of `segment`; only those of how the image is seen count here.

        Returns:
            the pixels, and the features on the model's device.
        """
        (found,) = self.encode_batch([image], settings=settings)
        if isinstance(found, PatchwordError):
            raise found
        return found

    @torch.no_grad()
    def encode_batch(
        self, images: Sequence[AnyImage], *, settings: SegmentSettings | Mapping[str, Any] | None = None
    ) -> list[EncodedImage | PatchwordError]:
        """Encode several images, each as `encode` does; those of one seen size share batches."""
        chosen = SegmentSettings.of(settings)
        check_window(chosen, patch_size=self.patch_size)
        found: dict[int, EncodedImage | PatchwordError] = {}
        seen: dict[int, SeenImage] = {}
        for place, image in enumerate(images):
            try:
                seen[place] = self._plan(image, chosen)
            except PatchwordError as error:
                found[place] = error

        def encode(places: list[int]) -> None:
            encoded = self._encode_windows([seen[place] for place in places], chosen)
            for place, features in zip(places, encoded, strict=True):
                found[place] = EncodedImage.of(
                    seen[place].pixels,
                    plan=seen[place].plan,
                    features=features,
                    settings=chosen,
                    encoder=self.encode_patches,
                )

        found |= _in_groups(encode, seen, most=chosen.batch)
        return [found[place] for place in range(len(images))]

    def _plan(self, image: AnyImage, settings: SegmentSettings) -> SeenImage:
        pixels = as_rgb(image)
        size = (pixels.shape[0], pixels.shape[1])
        plan = inference_windows(size, settings=settings, image_size=self.image_size, patch_size=self.patch_size)
        return SeenImage(pixels, plan)

    def _settings_of(self, image: EncodedImage, settings: SegmentSettings) -> SegmentSettings:
        if image.encoder is not self.encode_patches:
            raise PatchwordError("the image was encoded by another segmenter; encode it with this one")
        return image.settings_for(settings)

    def _assign(
        self,
        scores: PixelScores,
        image: SeenImage,
        classes: ClassWords,
        decision: PostprocessConfig,
        settings: SegmentSettings,
    ) -> SegmentationResult:
        """Give the pixels of an image classes, by their scores."""
        if settings.refine == "jbu":
            scores = JbuScores(patch_scores(scores), image=image.on(scores.device), settings=settings.jbu)
        if settings.refine == "pamr":
            from patchword.segmentation.pamr import refine_by_pamr

            as_seen = self._resized(image, settings) if settings.pamr.guide == "seen" else None
            pixels = refine_by_pamr(scores, decision=decision, image=image.pixels, seen=as_seen, settings=settings.pamr)
        else:
            pixels = assign_pixels(scores, decision=decision)
        if settings.refine == "sam":
            from patchword.segmentation.snap import CoarseShares, snap

            coarse = CoarseShares.of(scores, decision=decision, cells=settings.sam.cells)
            guide = to_floats(image.on(scores.device))
            pixels = snap(pixels, coarse=coarse, image=guide, mask_generator=self.refiner, settings=settings.sam)
        pixels = apply_thresholds(pixels, decision=decision)
        return SegmentationResult(
            LabelMap(pixels.indices, classes.names, classes.colours),
            pixels.confidence,
            image.pixels,
            scores=scores,
            class_of=decision.class_of,
            temperature=decision.temperature,
        )

    def _resized(self, image: SeenImage, settings: SegmentSettings) -> Tensor:
        """The image at the size that it is seen at, (1, 3, h, w)."""
        size = image.plan.size
        try:
            if settings.resize == "uint8":
                return to_floats(upload(resize_uint8(image.pixels, size=size), device=self.device))
            photograph = image.on(resizing_device(self.device))
            plain = settings.resize == "plain"
            mode: Filter = "bilinear" if plain else "bicubic"
            return resize_photograph(photograph, size=size, mode=mode, antialias=not plain).to(self.device)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            (height, width), (high, wide) = image.size, size
            raise PatchwordError(
                f"not enough memory to resize {height} x {width} pixels to {high} x {wide}; use a smaller "
                "shorter_side or image_size, or set longest_side"
            ) from error

    def _encode_windows(
        self, images: Sequence[SeenImage], settings: SegmentSettings, *, keep: Callable[[Tensor], Tensor] | None = None
    ) -> list[tuple[Tensor, ...]]:
        """Encode the windows of images in batches and merge each image's again; `keep` makes something of features."""
        options = {} if keep is None else {"keep": keep}
        merged = [
            WindowMerge(image.plan, **options)
            if joins_windows_by_logits(settings)
            else FeatureMerge(image.plan, patch_size=self.patch_size, **options)
            for image in images
        ]
        model = self._compiled if settings.compile else self.encode_patches
        resized = [self._resized(image, settings) for image in images]
        patch_size = self.patch_size if settings.partial_patches == "stretch" else 1
        windows = [(owner, place) for owner, image in enumerate(images) for place in range(len(image.plan))]

        def encode(start: int, stop: int) -> None:
            asked = windows[start:stop]
            crops = [images[owner].plan.crop(resized[owner], place, patch_size=patch_size) for owner, place in asked]
            patches = model(torch.cat(crops)).float()  # (b, d, h, w)
            if not torch.isfinite(patches).all():
                raise PatchwordError(
                    "the model gives features that are not finite; use a type with more range, float32 or bfloat16"
                )
            for (owner, place), one in zip(asked, patches, strict=True):
                merged[owner].add(place, one)

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
        return [one.kept() for one in merged]

    @cached_property
    def _compiled(self) -> Callable[[Tensor], Tensor]:
        from patchword.alignment.module import Compiled

        return Compiled(self.encode_patches, goes_on="segmenting")


def _in_groups(
    work: Callable[[list[int]], None], seen: Mapping[int, SeenImage], *, most: int
) -> dict[int, PatchwordError]:
    """Do some work on images that share batches; where it fails, each is on its own, and its error comes back."""
    errors: dict[int, PatchwordError] = {}
    groups = deque(share_batches(seen, most=most))
    while groups:
        places = groups.popleft()
        try:
            work(places)
        except PatchwordError as error:
            if len(places) == 1:
                errors[places[0]] = error
            else:
                groups.extendleft([place] for place in reversed(places))
    return errors
