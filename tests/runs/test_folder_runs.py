"""What the folder engine promises, over every command that runs on it: the same bytes, whatever happened on the way."""

from __future__ import annotations

import gc
import os
import pickle
import random
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "labeling"))
sys.path.insert(0, str(Path(__file__).parent.parent / "segmentation"))
sys.path.insert(0, str(Path(__file__).parent.parent / "evaluation"))

from label_fakes import ColourClip, RegionSam
from label_fakes import picture as colours
from local_segmenter import NAMES, LocalSegmenter
from local_segmenter import picture as brightness
from scored_folder import CLASSES, RedSegmenter, make_folder, photograph_of
from scored_folder import files_of as evaluation_files

from interruptions import at_write
from patchword.config.evaluate import ScoredRun
from patchword.config.inputs import choose_images
from patchword.config.label import LabelSettings
from patchword.data.image_files import find_images
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.evaluation.api import evaluate
from patchword.evaluation.masks import MaskRule, folder_task
from patchword.evaluation.predictors import SegmenterPredictor
from patchword.evaluation.run import evaluate_task, merge_evaluations
from patchword.labeling.folder import merge_labels
from patchword.labeling.image import LabelParts
from patchword.labeling.run import label_folder
from patchword.runs.pipeline import Chunk, Work, Written, do_chunk
from patchword.runs.records import read_sessions
from patchword.runs.shards import Shard
from patchword.segmentation.folder import merge_segmentations
from patchword.segmentation.run import segment_folder
from patchword.segmentation.video import VIDEO_SUFFIXES
from small_world import state_of


@dataclass
class User:
    """A command that runs on the engine, on data of its own, with models that know colours or brightness alone.

    Attributes:
        data: holds `photos/`.
        manifest: the file of lines.
        merge: puts shards together.
        others: options of a run that must not go on with the first one's folder, and what is said.
        has_failures: whether photographs may fail without the end of the run.
    """

    data: Path
    manifest: str
    merge: Callable[..., Any]
    others: list[tuple[dict[str, Any], str]] = field(default_factory=list)
    has_failures: bool = True

    def run(self, out: str, *, photos: str = "photos", stop_after: int | None = None, **options: Any) -> Any:
        """Run into a folder; interrupted after so many images."""
        raise NotImplementedError

    def change(self, name: str = "") -> str:
        """Make another photograph of one; its name."""
        raise NotImplementedError

    def files(self, out: str) -> dict[str, bytes]:
        """What must be the same, by path."""
        folder = self.data / out
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert files.pop("runs.jsonl")
        return files

    def differences(self, one: str, other: str) -> list[str]:
        """Names of the files that two folders do not have alike."""
        first, second = self.files(one), self.files(other)
        return sorted(name for name in first | second if first.get(name) != second.get(name))


class Stopping(RegionSam):
    """Is interrupted after so many photographs."""

    def __init__(self, after: int | None) -> None:
        super().__init__()
        self.left = -1 if after is None else after

    def embed(self, images: Sequence[Any]) -> Any:
        if 0 <= self.left < len(images):
            raise KeyboardInterrupt
        self.left -= len(images) if self.left > 0 else 0
        return super().embed(images)


class Labels(User):
    def run(
        self,
        out: str,
        *,
        photos: str = "photos",
        stop_after: int | None = None,
        classes: str = "red, blue, yellow",
        clip: ColourClip | None = None,
        **options: Any,
    ) -> Any:
        sam = Stopping(stop_after)
        sam.device = torch.device(options.pop("device", "cpu"))
        parts = LabelParts.of(clip or ColourClip(), mask_generator=sam, vocabulary=Vocabulary.of(classes))
        settings = options.pop("settings", LabelSettings(image_batch=2))
        root = self.data / photos
        return label_folder(
            find_images(root), root=root, out=self.data / out, parts=parts, settings=settings, quiet=True, **options
        )

    def change(self, name: str = "a.png") -> str:
        Image.fromarray(colours([["yellow", "blue"]], scale=16)).save(self.data / "photos" / name)
        return name


class Masks(User):
    def run(
        self, out: str, *, photos: str = "photos", stop_after: int | None = None, radius: int = 2, **options: Any
    ) -> Any:
        segmenter = LocalSegmenter(radius=radius)
        segmenter.fail_after = stop_after
        described = {**segmenter.describe(), "radius": radius, **options.pop("described", {})}
        segmenter.describe = lambda: described  # type: ignore[method-assign]
        root = self.data / photos
        chosen = {
            "classes": NAMES,
            "settings": {"batch": 2, "large_megapixels": 0.006, "tile": 48, "overlap": 8},
            "folder_settings": {"rle": True},
            **options,
        }
        images = choose_images(root, out=self.data / out, also=VIDEO_SUFFIXES).images
        return segment_folder(images, root=root, segmenter=segmenter, out=self.data / out, quiet=True, **chosen)

    def change(self, name: str = "a.png") -> str:
        Image.fromarray(brightness(33, 41, seed=77)).save(self.data / "photos" / name)
        return name


class Scores(User):
    def run(
        self, out: str, *, photos: str = "photos", stop_after: int | None = None, executor: Any = None, **options: Any
    ) -> Any:
        model = RedSegmenter(stop_at=None if stop_after is None else stop_after + 1)
        described = {**model.describe(), **options.pop("described", {})}
        model.describe = lambda: described  # type: ignore[method-assign]
        scoring = options.pop("scoring", {"worst": 3, "resamples": 20})
        if executor is None:
            folders = {"masks": self.data / "masks", "classes": CLASSES, "out": self.data / out}
            settings = options.pop("settings", {"batch": 2})
            shard = options.pop("shard", None)
            asked = {"model": model, "settings": settings, "scoring": scoring, "shard": shard, **options}
            return evaluate(self.data / photos, **folders, quiet=True, **asked)
        task = folder_task(self.data / photos, masks=self.data / "masks", rule=MaskRule(CLASSES))
        predictor = SegmenterPredictor.of(model, truth=task.truth, settings={"batch": 2})
        run = ScoredRun(out=self.data / out, scoring=scoring, quiet=True, **options)
        return evaluate_task(task, predictor=predictor, run=run, executor=executor)

    def change(self, name: str = "0/2.png") -> str:
        Image.fromarray(photograph_of(np.full((24, 30), 2))).save(self.data / "photos" / name)
        return name

    def files(self, out: str) -> dict[str, bytes]:
        return evaluation_files(self.data / out)


def _labels(data: Path) -> User:
    photos = data / "photos"
    (photos / "sub").mkdir(parents=True)
    tones = ["red", "blue", "yellow", "white"]
    for number, name in enumerate(("a.png", "b.png", "sub/c.png", "d.png", "é f.png", "sub/g.png")):
        Image.fromarray(colours([[tones[number % 4], tones[number % 3]]], scale=16)).save(photos / name)
    (photos / "broken.jpg").write_bytes(b"no picture")
    shutil.copy(photos / "b.png", photos / "again.png")
    bfloat16 = ColourClip()
    bfloat16.dtype = torch.bfloat16  # type: ignore[attr-defined]
    others: list[tuple[dict[str, Any], str]] = [
        ({"settings": LabelSettings(image_batch=2, margin=0.5)}, r"setting `margin` was 0\.02, now 0\.5"),
        ({"classes": "red, green"}, "the class list was 'red', .*, now 'red', 'green'; resume with what it was"),
        ({"clip": ColourClip("1" * 64)}, "the image-text model was 000.*, now 111"),
        ({"clip": bfloat16}, "the dtype of the image-text model was float32, now bfloat16; go on with --device cpu"),
        ({"device": "cuda:1"}, "the device of the mask .* was cpu, now cuda; go on with --device cpu"),
        ({"shard": Shard(1, 2)}, "the shard was none, now 1/2"),
    ]
    return Labels(data, "manifest.jsonl", merge_labels, others)


def _masks(data: Path, *, videos: bool = False) -> User:
    photos = data / "photos"
    (photos / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.png", "sub/c.png", "d.png", "large.png", "sub/g.png")):
        side = 90 if name == "large.png" else 40 + number
        Image.fromarray(brightness(side, side, seed=number)).save(photos / name)
    (photos / "broken.jpg").write_bytes(b"no picture")
    if videos:
        pytest.importorskip("av")
        from videos import make_video

        make_video(photos / "clip.mp4", frames=7)
        make_video(photos / "sub" / "z.mkv", frames=4, codec="ffv1")
    others: list[tuple[dict[str, Any], str]] = [
        ({"settings": {"batch": 2, "threshold": 0.5}}, "setting `.*` was .*, now"),
        ({"folder_settings": {}}, "setting `rle` was True, now False"),
        ({"classes": ["dark"]}, "the class list was"),
        ({"radius": 3}, "the segmenter's radius was 2, now 3"),
        ({"described": {"computed_in": "bfloat16"}}, "the segmenter's dtype was none, now bfloat16"),
        ({"shard": Shard(1, 2)}, "the shard was none, now 1/2"),
    ]
    return Masks(data, "results.jsonl", merge_segmentations, others)


def _scores(data: Path) -> User:
    others: list[tuple[dict[str, Any], str]] = [
        ({"settings": {"batch": 3}}, "predicted by: settings batch was 2, now 3"),
        ({"scoring": {"worst": 3, "boundary": False}}, "scoring: boundary was True, now False"),
        ({"described": {"temperature": 0.3}}, r"predicted by: temperature was 0\.1, now 0\.3"),
        ({"described": {"computed_in": "bfloat16"}}, "predicted by: dtype was None, now bfloat16"),
        ({"limit": 4}, "the number of images was 9, now 4"),
        ({"zero_is": "ignore"}, "reading zero is was class, now ignore"),
        ({"shard": Shard(1, 2)}, "the shard was none, now 1/2"),
    ]
    return Scores(make_folder(data), "images.jsonl", merge_evaluations, others, has_failures=False)


USERS: dict[str, Callable[[Path], User]] = {
    "label": _labels,
    "segment": _masks,
    "segment videos": lambda data: _masks(data, videos=True),
    "evaluate": _scores,
}


@pytest.fixture(params=USERS)
def user(request: pytest.FixtureRequest, tmp_path: Path) -> User:
    return USERS[request.param](tmp_path)


def _quietly(merge: Callable[..., Any], shards: list[Path], out: Path) -> None:
    merge(shards, out=out, **({} if merge is merge_evaluations else {"quiet": True}))


@pytest.mark.skipif(sys.platform != "linux", reason="children are forked beside torch")
def test_killed_at_any_write_it_goes_on_to_the_same_bytes(user: User) -> None:
    user.run("whole")
    gc.freeze()  # a child that collects a decoder of this process, whose threads it lacks, would crash
    instants, killed = random.Random(0), 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    while killed < 8:
        instant = instants.randrange(1, 40)
        child = os.fork()
        if not child:
            code = 1
            try:
                at_write(instant, die)()
                user.run("out", resume=True)
                code = 0
            except BaseException:
                traceback.print_exc()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, -signal.SIGKILL)
        killed += code == -signal.SIGKILL
        if not code:  # it came to its end before
            assert user.differences("out", "whole") == []
            shutil.rmtree(user.data / "out")
    gc.unfreeze()
    user.run("out", resume=True)
    assert user.differences("out", "whole") == []
    assert {session.ended for session in read_sessions(user.data / "out")} <= {None, "finished"}


@pytest.mark.parametrize("after", [0, 2, 4])
def test_interrupted_it_writes_what_the_models_have_done_and_goes_on(user: User, after: int) -> None:
    user.run("whole")
    with pytest.raises(KeyboardInterrupt):
        user.run("out", stop_after=after)
    lines = (user.data / "out" / user.manifest).read_bytes() if after else b""
    assert lines.count(b"\n") >= after
    user.run("out", resume=True)
    assert user.differences("out", "whole") == []
    assert [session.ended for session in read_sessions(user.data / "out")] == ["interrupted", "finished"]
    user.run("out", resume=True, stop_after=0)  # nobody is asked about what is done
    assert user.differences("out", "whole") == []


@pytest.mark.parametrize("count", [2, 3])
def test_shards_are_the_folder_of_one_run(user: User, count: int) -> None:
    user.run("whole")
    shards = [user.data / f"shard {index}" for index in range(1, count + 1)]
    for index, shard in enumerate(shards, start=1):
        user.run(shard.name, shard=Shard(index, count))
    before = [user.files(shard.name) for shard in shards]
    _quietly(user.merge, shards[::-1], user.data / "merged")
    assert user.differences("merged", "whole") == []
    assert [user.files(shard.name) for shard in shards] == before
    assert len(read_sessions(user.data / "merged")) == count + 1


def test_shards_of_other_runs_are_refused_by_name(user: User) -> None:
    user.run("1", shard=Shard(1, 2))
    user.run("third", shard=Shard(1, 3))
    user.run("all")
    other, _ = user.others[0]
    user.run("other", shard=Shard(2, 2), **other)
    for shards, said in (
        ([], "no shards to merge"),
        (["1"], "shards are missing: 2/2"),
        (["1", "1"], "are both shard 1/2"),
        (["1", "third"], "photographs in 2 shards .* and .* in 3 shards"),
        (["1", "all"], "all is not a shard"),
        (["1", "other"], "are not of one run: .* is .* and "),
        (["1", "nowhere"], "no such folder"),
    ):
        with pytest.raises(PatchwordError, match=said) as caught:
            _quietly(user.merge, [user.data / shard for shard in shards], user.data / "merged")
        assert "\n" not in str(caught.value)
    assert not (user.data / "merged").exists()


def test_another_run_is_refused_by_name_and_changes_nothing(user: User) -> None:
    user.run("out")
    (user.data / "out" / ".patchword-0123456789abcdef.tmp").write_bytes(b"left by a run that was killed")
    before = state_of(user.data / "out")
    for options, said in user.others:
        with pytest.raises(PatchwordError, match=said) as caught:
            user.run("out", resume=True, **options)
        assert "\n" not in str(caught.value)
    assert state_of(user.data / "out") == before
    (user.data / "out" / user.manifest).write_text("{}\n")
    before = state_of(user.data / "out")
    with pytest.raises(PatchwordError, match="not a JSON object with a name"):
        user.run("out", resume=True)
    assert state_of(user.data / "out") == before


def test_a_changed_photograph_is_done_again(user: User) -> None:
    user.run("out")
    user.change()
    user.run("out", resume=True)
    user.run("fresh")
    assert user.differences("out", "fresh") == []
    assert sum(read_sessions(user.data / "out")[-1].done.values()) == 2  # with the one that it goes to the models with


def test_lines_and_files_that_are_lost_are_made_again(user: User) -> None:
    user.run("whole")
    user.run("out")
    lines = user.data / "out" / user.manifest
    lines.write_bytes(b"".join(lines.read_bytes().splitlines(keepends=True)[1:])[:-40])
    for path in sorted((user.data / "out" / "masks").rglob("*.png"))[:2]:
        path.unlink()
    user.run("out", resume=True)
    assert user.differences("out", "whole") == []


def test_what_failed_stays_so_until_it_is_another(user: User) -> None:
    if not user.has_failures:
        pytest.skip("has no results where a photograph fails")
    assert user.run("out").failed
    user.run("out", resume=True)
    session = read_sessions(user.data / "out")[-1]
    assert (session.failed_before, sum(session.done.values())) == (1, 0)
    user.run("out", resume=True, retry_failed=True)
    assert read_sessions(user.data / "out")[-1].done["failed"] == 1
    shutil.copy(user.data / "photos" / "a.png", user.data / "photos" / "broken.jpg")
    assert not user.run("out", resume=True).failed
    user.run("fresh")
    assert user.differences("out", "fresh") == []


def test_the_photographs_may_move_and_others_may_not(user: User, capsys: pytest.CaptureFixture[str]) -> None:
    if not user.has_failures:
        pytest.skip("names its photographs' folder")
    user.run("out", limit=3)
    (user.data / "photos").rename(user.data / "moved")
    user.run("out", photos="moved", resume=True)
    user.run("fresh", photos="moved")
    assert user.differences("out", "fresh") == []
    (user.data / "moved").rename(user.data / "photos")
    user.change()
    before = state_of(user.data / "out")
    with pytest.raises(PatchwordError, match=r"was \.\./moved, now \.\./photos, where 1 of \d+ are not the same, such"):
        user.run("out", resume=True)
    assert state_of(user.data / "out") == before


def test_two_runs_never_work_in_one_folder(user: User) -> None:
    class Meanwhile:
        def run(self, chunks: Sequence[Chunk], *, work: Work[Any], done: Callable[[Written], None]) -> None:
            for options in ({"resume": True}, {"overwrite": True}):
                with pytest.raises(PatchwordError, match="another run is at work in"):
                    user.run("out", **options)
            for chunk in chunks:
                for written in do_chunk(chunk, work=work):
                    done(written)

    user.run("out", executor=Meanwhile())


def test_results_without_their_record_are_not_taken_for_whole(user: User) -> None:
    user.run("out")
    record = {"manifest.jsonl": "dataset.json", "results.jsonl": "segment.json", "images.jsonl": "setup.json"}
    (user.data / "out" / record[user.manifest]).unlink()
    with pytest.raises(PatchwordError, match=rf"it has results but no {record[user.manifest]}"):
        user.run("out", resume=True)


class OutOfOrder:
    """Does the last chunks first, several at once, each from what a message could carry."""

    def run(self, chunks: Sequence[Chunk], *, work: Work[Any], done: Callable[[Written], None]) -> None:
        def elsewhere(message: bytes) -> bytes:
            return pickle.dumps(do_chunk(pickle.loads(message), work=work))

        with ThreadPoolExecutor(2) as pool:
            for answer in pool.map(elsewhere, map(pickle.dumps, reversed(chunks))):
                for written in reversed(pickle.loads(answer)):
                    done(written)


def test_whoever_does_the_chunks_in_whatever_order_the_bytes_are_the_same(user: User) -> None:
    user.run("here")
    user.run("elsewhere", executor=OutOfOrder())
    assert user.differences("elsewhere", "here") == []
