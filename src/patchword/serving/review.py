"""The routes of the review."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, HTTPException, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from patchword.config.serve import ServeConfig
from patchword.data.run_lengths import run_lengths
from patchword.errors import PatchwordError
from patchword.labeling.review import Action, Decision
from patchword.labeling.reviewed import change_of
from patchword.serving.job_queue import JobQueue
from patchword.serving.jobs import jobs_router
from patchword.serving.retrain import Trainer
from patchword.serving.review_desk import ConflictError, Listed, MissingError, ReviewDesk

Order = Literal["worst", "disagreement", "name"]
ReviewState = Literal["open", "started", "done"]
_UNCERTAIN = 1.0  # the score of a photograph that has none: last


class NewDecision(BaseModel):
    """A decision, and what the person had seen when making it."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"image": "a.jpg", "action": "rename", "mask": "0", "class_name": "cat"}]},
    )

    image: str
    action: Action
    mask: str | None = Field(None, max_length=24, description='Position of a mask, or "+N" of an added one.')
    class_name: str | None = None
    rle: dict[str, Any] | None = Field(None, description="COCO run lengths of the whole photograph.")
    undoes: int | None = None
    seen: int = Field(0, ge=0, description="Number of the last decision that the person knew of.")
    reviewer: str = Field("", max_length=80)


class Click(BaseModel):
    """A point in pixels of the photograph, inside the thing or outside of it."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    x: float
    y: float
    inside: bool = True


class MaskQuestion(BaseModel):
    """Where a person points at one thing."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={"examples": [{"image": "a.jpg", "points": [{"x": 12, "y": 30}]}]},
    )

    image: str
    points: list[Click] = Field(default_factory=list, max_length=64)
    box: tuple[float, float, float, float] | None = Field(None, description="x0, y0, x1, y1 in pixels.")


def work_routers(config: ServeConfig) -> tuple[list[APIRouter], Callable[[], None]]:
    """The routes of review and jobs, and what has to be called when the server ends."""
    queue = JobQueue(config.root) if config.root is not None else None
    desk = trainer = None
    if config.labels is not None:
        desk = ReviewDesk(config.labels, mask_generator=config.mask_generator, device=config.device, dtype=config.dtype)
        before = Path(config.model[0]) if config.model and Path(config.model[0]).is_dir() else None
        trainer = Trainer(desk, queue, before, config.device, config.dtype)
    return [review_router(desk, trainer), jobs_router(queue)], queue.close if queue is not None else lambda: None


def review_router(desk: ReviewDesk | None, trainer: Trainer | None) -> APIRouter:
    """The routes.

    Args:
        desk: the labels; none where the server was started without.
        trainer: trains again.
    """
    router = APIRouter(prefix="/v1/review", tags=["review"])

    def there() -> ReviewDesk:
        if desk is None:
            raise HTTPException(404, "this server has no labels to review; start it with --labels FOLDER")
        return desk

    @router.get("")
    def summary() -> dict[str, Any]:
        """The labels: classes, progress, and who answers clicks."""
        if desk is None:
            return {"labels": None}
        colours = desk.dataset.vocabulary.colours.tolist()
        return {
            "labels": desk.dataset.folder.name,
            "classes": [
                {"name": name, "colour": "#" + bytes(colour).hex()}
                for name, colour in zip(desk.dataset.vocabulary.names, colours, strict=True)
            ],
            "has_scores": any(each.score is not None for each in desk.listed()),
            "has_doubts": desk.has_doubts,
            "answers_clicks": desk.answers_clicks,
            "progress": _progress(desk.listed()),
            "last": desk.last_number(),
            "train": trainer.proposal() if trainer is not None else {"why_not": "there are no labels"},
        }

    @router.get("/images")
    def images(
        order: Order = "worst",
        class_name: str | None = Query(None, alias="class"),
        state: ReviewState | None = None,
        above: float = Query(0.0, ge=0, le=1),
        below: float = Query(1.0, ge=0, le=1),
        offset: int = Query(0, ge=0, le=2**31),
        limit: int = Query(100, ge=1, le=1000),
    ) -> dict[str, Any]:
        """Photographs, the worst first, or as they are asked for."""
        listed = there().listed()
        chosen = [
            each
            for each in listed
            if (class_name is None or class_name in each.classes)
            and (state is None or each.state == state)
            and above <= (_UNCERTAIN if each.score is None else each.score) <= below
        ]
        chosen.sort(key=lambda each: (*_rank(each, order), each.name))
        return {
            "total": len(chosen),
            "images": [vars(each) for each in chosen[offset : offset + limit]],
            "progress": _progress(listed),
        }

    @router.get("/images/{name:path}")
    def image(name: str) -> dict[str, Any]:
        """A photograph's masks as they stand now."""
        with _Plain():
            return _image(there(), name)

    @router.get("/pictures/{name:path}", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
    def picture(name: str) -> Response:
        """The photograph."""
        with _Plain():
            return Response(there().picture(name), media_type="image/jpeg", headers={"Cache-Control": "no-cache"})

    @router.get("/results/{name:path}", response_class=Response, responses={200: {"content": {"image/png": {}}}})
    def result(name: str) -> Response:
        """The labels that `align` and `export` would take, in the colours of the classes."""
        with _Plain():
            return Response(there().result(name), media_type="image/png", headers={"Cache-Control": "no-store"})

    @router.post("/decisions", status_code=201)
    def decide(new: NewDecision) -> dict[str, Any]:
        """Write a decision down; when the answer comes it is on disk."""
        with _Plain():
            made, others = there().decide(**new.model_dump())
            return {
                "number": made.number,
                "conflicts": [_decision(each) for each in others],
                "image": _image(there(), new.image),
                "progress": _progress(there().listed()),
            }

    @router.post("/masks")
    def find_mask(question: MaskQuestion) -> dict[str, Any]:
        """A mask where a person clicks, or in a box; nothing is written down."""
        with _Plain():
            mask, sure = there().mask_at(
                question.image,
                points=[(each.x, each.y) for each in question.points],
                labels=[each.inside for each in question.points],
                box=question.box,
            )
            return {"rle": run_lengths(mask), "predicted_iou": round(sure, 4)}

    @router.get("/changes/{job}")
    def changes(job: str) -> dict[str, Any]:
        """What the model of a finished training decides otherwise than the one before."""
        if trainer is None:
            raise HTTPException(404, "this server has no labels to review")
        with _Plain():
            try:
                return trainer.changes(job).model_dump(mode="json")
            except KeyError:
                raise HTTPException(404, "there is no such job") from None

    return router


class _Plain:
    """Turns what a person did wrong into an answer with its reason."""

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, PatchwordError):
            status = 404 if isinstance(error, MissingError) else 409 if isinstance(error, ConflictError) else 422
            raise HTTPException(status, str(error)) from None


def _rank(each: Listed, order: Order) -> tuple[float, ...]:
    score = _UNCERTAIN if each.score is None else each.score
    if order == "name":
        return ()
    return (-(each.doubt or 0.0), score) if order == "disagreement" else (score,)


def _progress(listed: list[Listed]) -> dict[str, int]:
    counted = Counter(each.state for each in listed)
    return {"photographs": len(listed), **{state: counted[state] for state in ("open", "started", "done")}}


def _image(desk: ReviewDesk, name: str) -> dict[str, Any]:
    item, held, doubts = desk.item(name), desk.held(name), desk.mask_doubts(name)
    decided = {(each.mask or f"+{each.number}"): each for each in held if each.action != "done"}
    masks = []
    for mask in desk.masks(name):
        segment = mask.segment
        doubt, instead = doubts.get(mask.key, (None, None))
        masks.append(
            {
                "key": mask.key,
                "class": segment.class_name,
                "status": mask.status,
                "change": change_of(mask),
                "score": round(segment.score, 4) if mask.status == "generated" else None,
                "doubt": doubt,
                "instead": instead,
                "area": segment.area,
                "box": segment.box,
                "rle": segment.rle,
                "decision": _decision(decided[mask.key]) if mask.key in decided else None,
            }
        )
    size = item.record.size or (0, 0)
    done = next((each for each in held if each.action == "done"), None)
    return {
        "name": name,
        "height": size[0],
        "width": size[1],
        "masks": masks,
        "done": _decision(done) if done is not None else None,
        "seen": desk.last_number(),
    }


def _decision(decision: Decision) -> dict[str, Any]:
    return decision.model_dump(mode="json", include={"number", "time", "action", "mask", "class_name", "reviewer"})
