"""How each protocol runs each benchmark: one table, a row for each pair of them.

Numbers from different protocols must not stand in one table: they differ in what the model sees, not only in how well
it sees. Source: the papers and configurations that docs/benchmarks.md names; what is [chosen] says so below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from patchword.config.segment import Resize, SegmentSettings, SoftmaxOver
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.evaluation.benchmarks.lists import Words, templates
from patchword.evaluation.benchmarks.record import BENCHMARKS, Benchmark
from patchword.segmentation.methods import METHODS

ProtocolName = Literal["tcl448", "sclip336", "native", "published"]
PUBLISHED: ProtocolName = "published"  # every training-free method as its authors run it
BackgroundRule = Literal["none", "words", "threshold", "words, threshold"]


@dataclass(frozen=True)
class ProtocolRow:
    """How a protocol runs a benchmark. Lengths in pixels of the image that the model sees; none is the model's own.

    Attributes:
        protocol, benchmark: which row this is.
        shorter_side: length of the resized image's shorter side; none shows it at the model's own size, whole.
        longest_side: bound of the other side, before which the shorter side yields.
        resize: "plain", bilinear without antialiasing, "uint8", the same in OpenCV's whole numbers, or "antialiased".
        window, stride: of square sliding windows, whose upsampled scores are averaged; none shows the image whole.
        templates: prompt templates a word, 7 or 80.
        logit_scale: what cosines are multiplied by before the softmax; none is the model's own.
        softmax_over: "words", of which the best speaks for its class afterwards, or "classes" by their best words.
        background: what makes a pixel background: words of its own, a confidence below the threshold, both, or nothing
            where background is not scored.
        threshold: confidence below which a pixel is background; 0 where there is no such rule.
        words: whose class list is asked for, see `lists.class_list`.
        more: segment settings by name that no other field has and that are not the defaults.
    """

    protocol: ProtocolName
    benchmark: str
    shorter_side: int | None
    longest_side: int | None
    resize: Resize
    window: int | None
    stride: int | None
    templates: int
    logit_scale: float | None
    softmax_over: SoftmaxOver
    background: BackgroundRule
    threshold: float
    words: Words = "proxyclip"
    more: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> SegmentSettings:
        values: dict[str, Any] = {
            "shorter_side": self.shorter_side,
            "longest_side": self.longest_side,
            "resize": self.resize,
            "window": self.window,
            "stride": self.stride,
            "join": "features" if self.window is None else "logits",
            "temperature": None if self.logit_scale is None else 1 / self.logit_scale,
            "softmax_over": self.softmax_over,
            "background_threshold": self.threshold,
            "refine": "none",
        }
        return SegmentSettings(**{**values, **self.more})

    def vocabulary(self, *, count: int | None = None) -> Vocabulary:
        """The class list that a model is asked for; `count` prompt templates instead of the row's, 7 or 80."""
        number = self.templates if count is None else count
        if number not in (7, 80):
            raise PatchwordError(f"templates is {number} (choose from 7, 80, as the protocols have them)")
        benchmark = BENCHMARKS[self.benchmark]
        return benchmark.vocabulary(
            templates=templates(number), background="words" in self.background, words=self.words
        )


# [chosen] where tcl448 leaves it to the method: 80 templates, the softmax over classes at the model's own temperature,
# and sclip336's thresholds; `background_threshold` is the setting. native is all [chosen]. The words are ProxyCLIP's,
# whose thresholds these are; in tcl448 they are [chosen].
# fmt: off
_Row = ProtocolRow
ROWS = (
    # in the order of the fields of ProtocolRow
    _Row("tcl448",   "voc21",       448, 2048, "plain", 448, 224, 80, None, "classes", "threshold",        0.2),
    _Row("tcl448",   "context60",   448, 2048, "plain", 448, 224, 80, None, "classes", "threshold",        0.15),
    _Row("tcl448",   "coco-object", 448, 2048, "plain", 448, 224, 80, None, "classes", "threshold",        0.25),
    _Row("tcl448",   "voc20",       448, 2048, "plain", 448, 224, 80, None, "classes", "none",             0.0),
    _Row("tcl448",   "context59",   448, 2048, "plain", 448, 224, 80, None, "classes", "none",             0.0),
    _Row("tcl448",   "coco-stuff",  448, 2048, "plain", 448, 224, 80, None, "classes", "none",             0.0),
    _Row("tcl448",   "cityscapes",  448, 2048, "plain", 448, 224, 80, None, "classes", "none",             0.0),
    _Row("tcl448",   "ade20k",      448, 2048, "plain", 448, 224, 80, None, "classes", "none",             0.0),
    _Row("sclip336", "voc21",       336, 2048, "plain", 336, 112, 80, 40.0, "words",   "words, threshold", 0.2),
    _Row("sclip336", "context60",   336, 2048, "plain", 336, 112, 80, 40.0, "words",   "words, threshold", 0.15),
    _Row("sclip336", "coco-object", 336, 2048, "plain", 336, 112, 80, 40.0, "words",   "words, threshold", 0.25),
    _Row("sclip336", "voc20",       336, 2048, "plain", 336, 112, 80, 40.0, "words",   "none",             0.0),
    _Row("sclip336", "context59",   336, 2048, "plain", 336, 112, 80, 40.0, "words",   "none",             0.0),
    _Row("sclip336", "coco-stuff",  336, 2048, "plain", 336, 112, 80, 40.0, "words",   "none",             0.0),
    _Row("sclip336", "cityscapes",  448, 2048, "plain", 224, 112, 80, 40.0, "words",   "none",             0.0),
    _Row("sclip336", "ade20k",      448, 2048, "plain", 336, 112, 80, 40.0, "words",   "none",             0.0),
    _Row("native",   "voc21",       None, None, "antialiased", None, None, 7, None, "classes", "words", 0.0),
    _Row("native",   "context60",   None, None, "antialiased", None, None, 7, None, "classes", "words", 0.0),
    _Row("native",   "coco-object", None, None, "antialiased", None, None, 7, None, "classes", "words", 0.0),
    _Row("native",   "voc20",       None, None, "antialiased", None, None, 7, None, "classes", "none", 0.0),
    _Row("native",   "context59",   None, None, "antialiased", None, None, 7, None, "classes", "none", 0.0),
    _Row("native",   "coco-stuff",  None, None, "antialiased", None, None, 7, None, "classes", "none", 0.0),
    _Row("native",   "cityscapes",  None, None, "antialiased", None, None, 7, None, "classes", "none", 0.0),
    _Row("native",   "ade20k",      None, None, "antialiased", None, None, 7, None, "classes", "none", 0.0),
)
# fmt: on

PROTOCOLS: dict[str, dict[str, ProtocolRow]] = {}
for _row in ROWS:
    PROTOCOLS.setdefault(_row.protocol, {})[_row.benchmark] = _row


def protocol_row(protocol: str, *, benchmark: Benchmark, method: str | None = None) -> ProtocolRow:
    """The row of a protocol and a benchmark; "published" has the settings of a training-free method's authors."""
    if protocol in PROTOCOLS:
        return PROTOCOLS[protocol][benchmark.name]
    if protocol != PUBLISHED:
        raise PatchwordError(f"unknown protocol {protocol!r} (choose from {', '.join((*PROTOCOLS, PUBLISHED))})")
    known = [each.name for each in METHODS.values() if each.published]
    if method not in known:
        given = "a model" if method is None else method
        raise PatchwordError(
            f"the protocol {PUBLISHED} is how a method's authors run it, and is not known for {given} "
            f"(choose from the methods {', '.join(known)})"
        )
    return _row_of_authors(str(method), benchmark)


def _row_of_authors(method: str, benchmark: Benchmark) -> ProtocolRow:
    settings = METHODS[method].published[benchmark.name]
    threshold = settings.background_threshold
    by_words: BackgroundRule = "words, threshold" if threshold else "words"
    row = ProtocolRow(
        protocol=PUBLISHED,
        benchmark=benchmark.name,
        shorter_side=settings.shorter_side,
        longest_side=settings.longest_side,
        resize=settings.resize,
        window=settings.window,
        stride=settings.stride,
        templates=80,
        words=cast(Words, method),
        logit_scale=None if settings.temperature is None else 1 / settings.temperature,
        softmax_over=settings.softmax_over,
        background=by_words if benchmark.scores_background else "none",
        threshold=threshold,
    )
    known = row.settings().model_dump(mode="json")
    theirs = settings.model_dump(mode="json")
    more = {name: value for name, value in theirs.items() if value != known[name] and name != "temperature"}
    return replace(row, more=more)
