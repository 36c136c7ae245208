"""What `suggest` takes, and every number of it that a person may want to change."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias

from pydantic import Field

from patchword.config.base import Option, Settings, Source, option_of
from patchword.config.label import LabelSettings
from patchword.config.shared import (
    PHOTOS,
    AsJson,
    ClassesValue,
    CommandLine,
    Devices,
    ExecutorOption,
    Preset,
    Quiet,
    TextModel,
    check_executor,
)

if TYPE_CHECKING:
    SuggestValues: TypeAlias = "SuggestSettings | Mapping[str, Any] | None"
else:
    SuggestValues = Any


class SuggestSettings(Settings):
    """Settings of the proposal of a class list; every default is chosen by us."""

    sample: int = Field(
        500,
        ge=1,
        description="Photographs that are looked at at most, spread evenly over the folder, 1 or more; more find rarer "
        "classes and take longer",
    )
    minimum_share: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Share of the photographs that a class has to be seen in, one of them at least, 0 to 1; less finds "
        "rarer classes and lets more mistakes in",
    )
    limit_classes: int = Field(
        60, ge=1, description="Classes that are proposed at most, 1 or more; those in the fewest photographs go first"
    )
    near_margin: float = Field(
        0.02,
        ge=0,
        le=2,
        description="Nouns that a crop likes less than its best by at most this in cosine are near, 0 to 2; a crop "
        "whose noun drops out votes for the next of them; more merges more",
    )
    fold_share: float = Field(
        0.8,
        ge=0,
        le=1,
        description="A class whose crops have a plainer or one more frequent class near in at least this share goes "
        "into that class, 0 to 1; less merges more",
    )
    examples: int = Field(6, ge=1, le=50, description="Thumbnails of a class on the page at most, 1 to 50")
    thumbnail_size: int = Field(128, ge=16, le=512, description="Longer side of a thumbnail in pixels, 16 to 512")
    crops: LabelSettings = Field(
        default_factory=LabelSettings,
        description="Settings of the labelling of which `grids`, `overlap`, `crop_size`, `crop_batch`, "
        "`minimum_crops` and `minimum_share` count: the crops, and how many make a class seen in a photograph",
    )


class SuggestConfig(Devices):
    """No class list yet? Propose one from the photographs."""

    COMMAND: ClassVar[str] = "suggest"
    SOURCE: ClassVar[Source] = PHOTOS
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "patchword suggest photos/ -o classes.txt",
        "patchword suggest photos/ -o classes.txt --page classes.html --nouns nouns.txt",
    )
    PARTS: ClassVar[Mapping[str, type[Settings]]] = {"settings": SuggestSettings}
    SHORT_CUTS: ClassVar[Mapping[str, Mapping[str, str | None]]] = {
        "settings": {"sample": "N", "minimum_share": "SHARE", "limit_classes": "N"}
    }

    out: Annotated[str | Path | None, Option("Class list to write.", "FILE", short="-o")] = None
    page: Annotated[str | Path | None, Option("HTML page to write, with examples of every class.", "FILE")] = None
    nouns: Annotated[
        ClassesValue | None, Option("Nouns to choose from, as a class list; by default 850 everyday ones.", "FILE")
    ] = None
    preset: Preset = "balanced"
    image_text: Annotated[TextModel | None, Option("CLIP: hub name, name@revision or folder.", "NAME")] = None
    settings: Annotated[SuggestValues, Option("Numbers of the proposal.")] = None
    executor: ExecutorOption = "local"
    overwrite: Annotated[bool, Option("Replace files that exist.")] = False
    quiet: Quiet = False
    command: CommandLine = ""

    def check(self) -> None:
        check_executor(self.executor)
        _ = self.numbers

    @cached_property
    def numbers(self) -> SuggestSettings:
        """All numbers."""
        return SuggestSettings.of(self.settings)


class SuggestCommand(SuggestConfig):
    """No class list yet? Propose one from the photographs."""

    out: Annotated[str | Path, option_of(SuggestConfig.model_fields["out"])]
    as_json: AsJson = False
