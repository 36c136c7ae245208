"""Training again on reviewed labels, and what the new model decides otherwise than the one before."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patchword.data.images import read_image
from patchword.errors import PatchwordError
from patchword.models.registry import checkpoint_of
from patchword.runs.records import Record
from patchword.serving.job_queue import JobQueue
from patchword.serving.review_desk import ReviewDesk

_COMPARED = 12  # photographs


class ModelChange(Record):
    """What training again has changed, on a few photographs of the labels: those that were reviewed, then the worst.

    Attributes:
        photographs: how many were compared, and `names` which.
        changed: share of their pixels that the new model gives another class; none without an earlier model.
        agreement_before, agreement_after: share of the pixels with a reviewed label that the models give the same
            class. The new model has learned from these labels, so that this says what it took up, not how good it is.
    """

    photographs: int
    names: tuple[str, ...]
    changed: float | None
    agreement_before: float | None
    agreement_after: float


@dataclass
class Trainer:
    """What the review needs to train again.

    Attributes:
        desk: the labels.
        queue: whose jobs train; none where the server has no root folder.
        before: the model that was served at start, if it is a folder of `align`.
        device, dtype: of the models that are compared.
    """

    desk: ReviewDesk
    queue: JobQueue | None
    before: Path | None
    device: str = "auto"
    dtype: str = "auto"

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], ModelChange] = {}

    def proposal(self) -> dict[str, Any]:
        """The options of an `align` job on these labels and the id of the last one; or why there can be none."""
        if self.queue is None:
            return {"why_not": "start the server with --root FOLDER, a folder that holds the labels"}
        root, labels = self.queue.root, self.desk.dataset.folder.resolve()
        if not labels.is_relative_to(root) or labels == root:
            return {"why_not": "the labels are not inside the folder of --root"}
        taken = {str(job.options.get("out")) for job in self.queue.jobs()}
        names = ("model", *(f"model-{number}" for number in range(2, 10_000)))
        out = next(name for name in names if name not in taken and not (root / name).exists())
        before = self._as_before()
        if before is None:
            return {"why_not": "the vision encoder of the model is neither published nor inside the folder of --root"}
        name = labels.relative_to(root).as_posix()
        trained = (job for job in self.queue.jobs() if job.command == "align" and job.options.get("labels") == name)
        last = next(trained, None)
        return {"options": {"labels": name, "out": out, **before}, "last": last.id if last is not None else None}

    def changes(self, job_id: str) -> ModelChange:
        """Compare the model of a finished job with the one before it."""
        if self.queue is None:
            raise PatchwordError("this server runs no jobs")
        job = self.queue.job(job_id)
        if job.command != "align" or job.state != "done":
            raise PatchwordError("only a training that is done can be compared")
        after = self.queue.root / str(job.options["out"])
        earlier = [
            self.queue.root / str(each.options["out"])
            for each in self.queue.jobs()
            if each.command == "align" and each.state == "done" and (each.ended or "") < (job.ended or "")
        ]
        before = next(iter(earlier), self.before)
        key = (str(before), str(after))
        with self._lock:
            if key not in self._known:
                self._known[key] = self._compare(before, after)
            return self._known[key]

    def _as_before(self) -> dict[str, Any] | None:
        """The models and settings of the model that was served, so that nothing changes but the labels.

        The image-text model is the one that the labels name.
        """
        if self.before is None or self.queue is None:
            return {}
        from patchword.alignment.artifact import read_config

        try:
            config = read_config(self.before)
        except PatchwordError:
            return {}
        found: dict[str, Any] = {"settings": config.settings.model_dump(mode="json", exclude_defaults=True)}
        found["settings"].pop("tracker", None)
        name = config.encoder.name
        if checkpoint_of(name) is not None:
            return {"encoder": name, **found}
        folder = Path(name).resolve()
        if not folder.is_dir() or not folder.is_relative_to(self.queue.root):
            return None
        return {"encoder": folder.relative_to(self.queue.root).as_posix(), **found}

    def _chosen(self) -> Sequence[str]:
        listed = sorted(
            self.desk.listed(), key=lambda each: (each.state == "open", each.score if each.score is not None else 1.0)
        )
        return [each.name for each in listed[:_COMPARED]]

    def _compare(self, before: Path | None, after: Path) -> ModelChange:
        import patchword

        dataset = self.desk.dataset.reviewed()
        models = [patchword.load(path, device=self.device, dtype=self.dtype) for path in (before, after) if path]
        names, pixels, labelled, changed = [], 0, 0, 0
        agreed = [0] * len(models)
        for name in self._chosen():
            item = dataset[self.desk.item(name).record.name]
            try:
                image = read_image(item.image)
            except PatchwordError:
                continue
            truth = item.labels()
            answers = []
            for model in models:
                (answer,) = model.segment_batch([image], classes=dataset.vocabulary, background=[])
                if isinstance(answer, PatchwordError):
                    raise answer
                answers.append(answer.label_map.indices)
            has_label = truth.indices != truth.ignore
            names.append(name)
            pixels += truth.indices.size
            labelled += int(np.count_nonzero(has_label))
            changed += int(np.count_nonzero(answers[0] != answers[-1]))
            for at, indices in enumerate(answers):
                agreed[at] += int(np.count_nonzero(has_label & (indices == truth.indices)))
        if not names:
            raise PatchwordError("none of the photographs can be read")
        shares = [count / max(labelled, 1) for count in agreed]
        return ModelChange(
            photographs=len(names),
            names=tuple(names),
            changed=changed / pixels if before else None,
            agreement_before=shares[0] if before else None,
            agreement_after=shares[-1],
        )
