"""What the server is told at start: models, labels, where it listens, and its limits."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from patchword.config.base import Option, Settings
from patchword.config.others import NOTHING
from patchword.config.shared import Background, Devices, MaskModel, Quiet, TextModel, VisionModel
from patchword.errors import PatchwordError

if TYPE_CHECKING:
    ServeValues: TypeAlias = "ServeSettings | Mapping[str, Any] | None"
else:
    ServeValues = Any


class ServeSettings(Settings):
    """Limits of the server. Each bounds memory or time, whoever asks."""

    queue: int = Field(64, ge=1, description="Requests that may wait for the models; more are answered with 429.")
    batch: int = Field(8, ge=1, description="Waiting requests that go through a model together, at most.")
    deadline: float = Field(
        30.0, gt=0, description="Seconds after which a request that still waits is answered with 503."
    )
    megabytes: float = Field(32.0, gt=0, description="Size of a request, in megabytes (1e6 bytes), at most.")
    megapixels: float = Field(
        24.0, gt=0, description="Pixels of an image, in millions, at most; known before it is decoded."
    )
    longest_side: int = Field(16_384, ge=1, description="Pixels of an image's longer side, at most.")
    classes: int = Field(250, ge=1, le=65_534, description="Class names, synonyms and background words of a request.")
    largest_image_size: int = Field(
        1024, ge=1, description="Pixels, 1 and more: the setting image_size of a request, at most."
    )
    sessions: int = Field(32, ge=1, description="Uploaded images that are remembered; the oldest are forgotten.")
    session_megabytes: float = Field(
        512.0, gt=0, description="Memory of those images and their features, in megabytes, at most."
    )
    upload_seconds: float = Field(
        60.0, gt=0, description="Seconds in which a request's body has to arrive; slower ones are answered with 408."
    )
    uploads: int = Field(512, ge=1, description="Requests that are worked on at once; more are answered with 429.")
    stop_seconds: int = Field(30, ge=1, description="Seconds that requests in flight have to finish at the end.")


def _several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Several = BeforeValidator(_several)


class ServerOptions(Devices):
    """What every server is told."""

    SOURCE = NOTHING
    PARTS: ClassVar[Mapping[str, type[Settings]]] = {"settings": ServeSettings}

    image_text: Annotated[TextModel | None, Option("CLIP of --method: hub name, name@revision or folder.", "NAME")] = (
        None
    )
    encoder: Annotated[VisionModel | None, Option("Where the vision encoder is now.", "NAME")] = None
    text_encoder: Annotated[
        TextModel | None,
        Option("Where the text encoder is now, or a file of text embeddings (.npz).", "NAME"),
    ] = None
    mask_generator: Annotated[
        MaskModel | None, Option("SAM: answers clicks, and makes the setting refine=sam work.", "NAME")
    ] = None
    host: Annotated[
        str, Option("Address to listen at; others than this machine's own are open to the network.", "ADDRESS")
    ] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535), Option("Port; 0 takes a free one.", "N")] = 8000
    token: Annotated[
        str | None,
        Option(
            "Secret that requests have to bring along; by default that of the variable PATCHWORD_TOKEN, if any.",
            "TEXT",
            kept=False,
        ),
    ] = None
    settings: Annotated[ServeValues, Option("Limits of the server.")] = None
    quiet: Quiet = False

    def check(self) -> None:
        _ = self.limits

    @cached_property
    def limits(self) -> ServeSettings:
        """The limits."""
        return ServeSettings.of(self.settings)

    @property
    def is_local(self) -> bool:
        """Whether only programs of this machine reach the server."""
        return is_loopback(self.host)


class ServeConfig(ServerOptions):
    """Try a segmenter in the browser, review labels, run jobs, and answer programs."""

    COMMAND: ClassVar[str] = "serve"
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "patchword serve",
        "patchword serve --model model/ --labels labels/ --port 9000",
    )

    model: Annotated[
        tuple[str, ...],
        Several,
        Option(
            "Segmenter that `patchword align` made, or its .onnx file; may be given several times, to compare. By "
            "default Toytown's.",
            "PATH",
            many=True,
        ),
    ] = ()
    method: Annotated[
        tuple[str, ...],
        Several,
        Option("A training-free method beside the models; may be given several times.", "NAME", many=True),
    ] = ()
    labels: Annotated[str | None, Option("Folder of labels to review.", "FOLDER")] = None
    root: Annotated[
        str | None, Option("Folder inside which jobs may read and write; without one there are no jobs.", "FOLDER")
    ] = None


class LabelStudioConfig(ServerOptions):
    """Answer Label Studio: masks to begin with in every task, and a mask where somebody clicks."""

    COMMAND: ClassVar[str] = "label-studio-backend"
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "patchword label-studio-backend --label-studio-url http://localhost:8080",
        "patchword label-studio-backend --model model/ --mask-generator facebook/sam-vit-base --root photos/",
    )

    model: Annotated[
        str | None,
        Option("Segmenter that `patchword align` made, or its .onnx file. By default Toytown's.", "PATH"),
    ] = None
    method: Annotated[str | None, Option("A training-free method instead of a model.", "NAME")] = None
    background: Background = None
    threshold: Annotated[
        float, Field(ge=0, lt=1), Option("Pixels of a lower confidence than this get no label, 0 to 1.", "N")
    ] = 0.0
    label_studio_url: Annotated[
        str | None,
        Option(
            "Address of Label Studio, the only host that pictures are fetched from; by default that of the variable "
            "LABEL_STUDIO_URL, if any.",
            "URL",
        ),
    ] = None
    label_studio_key: Annotated[
        str | None,
        Option(
            "Its access token, sent to that host alone; by default that of the variable LABEL_STUDIO_API_KEY, if any.",
            "TEXT",
            kept=False,
        ),
    ] = None
    root: Annotated[
        str | None, Option("Folder of pictures that tasks name by path, as Label Studio's local files.", "FOLDER")
    ] = None
    port: Annotated[int, Field(ge=0, le=65_535), Option("Port; 0 takes a free one.", "N")] = 9090

    def check(self) -> None:
        super().check()
        if self.model is not None and self.method is not None:
            raise PatchwordError("option 'model' and option 'method' are both given; use one of them")
        url = self.label_studio_url
        try:
            parts = urlsplit(url or "http://localhost")
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
            _ = parts.port
        except ValueError:
            good = False
        if not good:
            raise PatchwordError(
                f"option 'label_studio_url' is {url!r}; it must be an address such as http://localhost:8080"
            )


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
