"""What `label`, its dry run and its preview share: what a user may pass, read and checked before a model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.config.inputs import Classes, check_limit, choose_images, label_settings, read_vocabulary, root_of
from patchword.data.vocabulary import Vocabulary
from patchword.models.registry import find_preset
from patchword.models.sources import Loader, ModelName, Named, check_part, name_of

if TYPE_CHECKING:
    from patchword.config.label import LabelSettings
    from patchword.labeling.image import LabelParts
    from patchword.models.protocols import ImageTextEncoder, MaskGenerator, PatchEncoder
    from patchword.runs.shards import Shard


@dataclass(frozen=True)
class LabelRequest:
    """A labelling that was asked for.

    Attributes:
        images: all photographs, sorted by name.
        root: folder that their names are relative to.
        vocabulary, settings: what to label with.
        image_text, mask_proposer, encoder: names, folders or loaded models; no encoder where none takes part.
        limit: how many of the photographs are wanted; all by default.
        shard: which part of those; all by default.
        preset: its name.
        named_encoder: the vision encoder that was named, which a later `align` goes by, whether or not it takes part.
    """

    images: tuple[Path, ...]
    root: Path
    vocabulary: Vocabulary
    settings: LabelSettings
    image_text: Named | ImageTextEncoder
    mask_proposer: Named | MaskGenerator
    encoder: Named | PatchEncoder | None
    limit: int | None
    shard: Shard | None
    preset: str
    named_encoder: str | None

    @classmethod
    def read(
        cls,
        photos: str | Path,
        *,
        classes: Classes,
        out: str | Path,
        preset: str = "balanced",
        image_text: str | Path | ImageTextEncoder | None = None,
        mask_proposer: str | Path | MaskGenerator | None = None,
        encoder: str | Path | PatchEncoder | None = None,
        background: Sequence[str] | None = None,
        generator: str | None = None,
        settings: LabelSettings | Mapping[str, Any] | None = None,
        limit: int | None = None,
        shard: str | Shard | None = None,
    ) -> LabelRequest:
        """Read the arguments of `patchword.label`; see there."""
        from patchword.runs.shards import Shard

        check_limit(limit)
        part = Shard.parse(shard) if isinstance(shard, str) else shard
        images = tuple(choose_images(photos, out=out))
        vocabulary = read_vocabulary(classes, background=background)
        chosen = label_settings(settings, preset=preset, generator=generator)
        names = find_preset(preset)
        check_part(image_text, kind="image-text")
        check_part(mask_proposer, kind="mask")
        check_part(encoder, kind="patch")
        return cls(
            images=images,
            root=root_of(photos),
            vocabulary=vocabulary,
            settings=chosen,
            image_text=image_text or names.image_text,
            mask_proposer=mask_proposer or names.mask_proposer,
            encoder=(encoder or names.patch_encoder) if chosen.needs_encoder else None,
            limit=limit,
            shard=part,
            preset=preset,
            named_encoder=None if encoder is None else str(name_of(encoder)),
        )

    def portion(self) -> list[tuple[str, Path]]:
        """Name and path of the photographs that are wanted, sorted by name."""
        from patchword.runs.shards import chunks_of

        named = {path.relative_to(self.root).as_posix(): path for path in self.images}
        names = sorted(named)[: self.limit]
        chunks = chunks_of(names, size=self.settings.image_batch, shard=self.shard)
        return [(name, named[name]) for chunk in chunks for name in chunk]

    def models(self) -> dict[str, ModelName]:
        """The names of the models that take part, by role."""
        parts = {"image-text": self.image_text, "mask generator": self.mask_proposer, "vision encoder": self.encoder}
        return {role: name_of(part) for role, part in parts.items() if part is not None}

    def load(self, *, device: str = "auto", dtype: str = "auto") -> LabelParts:
        """Load the models and encode the vocabulary.

        Raises:
            PatchwordError: when a model cannot be had or used.
        """
        from patchword.labeling.image import LabelParts

        loader = Loader(device=device, dtype=dtype)
        return LabelParts.of(
            loader.image_text(self.image_text, dense=self.settings.dense),
            mask_proposer=loader.mask_proposer(self.mask_proposer),
            vocabulary=self.vocabulary,
            patch_encoder=None if self.encoder is None else loader.patch_encoder(self.encoder),
        )
