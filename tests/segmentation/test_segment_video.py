"""Videos frame by frame: reading them, and a folder run over them."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from local_segmenter import NAMES, LocalSegmenter, picture
from PIL import Image
from videos import decode, make_video, turn

from patchword.config.inputs import choose_images
from patchword.config.segment import SegmentConfig
from patchword.data.masks import LabelMap
from patchword.errors import PatchwordError
from patchword.runs.records import read_sessions
from patchword.runs.shards import Shard
from patchword.segmentation.api import SegmentRequest
from patchword.segmentation.folder import merge_segmentations
from patchword.segmentation.records import SegmentedFolder
from patchword.segmentation.run import segment_folder
from patchword.segmentation.video import VIDEO_SUFFIXES, FrameCount, VideoFrame, frames_told, read_frames
from small_world import state_of

av = pytest.importorskip("av")


def read(path: Path, *, wanted: Any = lambda number: True) -> tuple[list[VideoFrame], FrameCount]:
    count = FrameCount()
    return list(read_frames(path, wanted=wanted, count=count)), count


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "mpeg4"), ("a.mp4", "libx264"), ("a.mkv", "ffv1"), ("a.avi", "mpeg4")]
)
def test_frames_come_in_order_with_their_times(tmp_path: Path, name: str, codec: str) -> None:
    video = make_video(tmp_path / name, codec=codec)
    frames, count = read(video)
    assert [frame.number for frame in frames] == list(range(10))
    assert [frame.second for frame in frames] == pytest.approx([number / 10 for number in range(10)], abs=0.002)
    assert (count.frames, count.cut_off) == (10, None)
    for frame, expected in zip(frames, decode(video), strict=True):
        np.testing.assert_array_equal(frame.pixels, expected)
    assert frames_told(video) == 10


def test_only_what_is_wanted_is_turned_into_pixels(tmp_path: Path) -> None:
    frames, count = read(make_video(tmp_path / "a.mp4"), wanted=lambda number: number % 4 == 1)
    assert [frame.number for frame in frames] == [1, 5, 9]
    assert count.frames == 10


def test_uneven_times_are_kept(tmp_path: Path) -> None:
    frames, count = read(make_video(tmp_path / "a.mp4", frames=4, times=[0, 10, 70, 75]))
    assert [frame.second for frame in frames] == pytest.approx([0, 0.1, 0.7, 0.75])
    assert count.cut_off is None


def test_a_video_from_an_upright_telephone_is_turned(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", frames=2, size=(48, 64))
    stored = decode(video)
    turn(video)
    frames, _ = read(video)
    for frame, expected in zip(frames, stored, strict=True):
        np.testing.assert_array_equal(frame.pixels, np.rot90(expected, -1))


@pytest.mark.parametrize(
    "matrix",
    [
        (1, 0, 0, 1),
        (0, 1, -1, 0),
        (-1, 0, 0, -1),
        (0, -1, 1, 0),
        (-1, 0, 0, 1),
        (1, 0, 0, -1),
        (0, 1, 1, 0),
        (0, -1, -1, 0),
    ],
)
def test_a_video_is_turned_and_mirrored_as_its_display_matrix_says(
    matrix: tuple[int, int, int, int], tmp_path: Path
) -> None:
    video = make_video(tmp_path / "a.mp4", frames=1, size=(32, 48))
    (stored,) = decode(video)
    turn(video, matrix)
    ((frame,), _) = read(video)
    a, b, c, d = matrix
    height, width, _ = stored.shape
    shown = {(a * p + c * q, b * p + d * q): stored[q, p] for q in range(height) for p in range(width)}
    left, top = min(x for x, _ in shown), min(y for _, y in shown)
    assert frame.pixels.shape[:2] == ((height, width) if a else (width, height))
    for (x, y), colour in shown.items():
        np.testing.assert_array_equal(frame.pixels[y - top, x - left], colour)


def test_a_video_that_is_cut_off_says_where(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", frames=20)
    data = video.read_bytes()
    video.write_bytes(data[: len(data) // 2])
    frames, count = read(video)
    assert 3 <= len(frames) < 20
    assert count.cut_off is not None
    assert count.cut_off.startswith("ends at ")
    assert "\n" not in count.cut_off


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "mpeg4"), ("a.mp4", "libx264")])
def test_frames_that_cannot_be_decoded_are_told_in_their_place(tmp_path: Path, name: str, codec: str) -> None:
    video = make_video(tmp_path / name, frames=6, codec=codec)
    with av.open(str(video)) as container:
        packets = [(packet.pts, packet.time_base, bytes(packet)) for packet in container.demux(video=0) if packet.size]
    ticks, base, payload = packets[2]
    second = float(ticks * base)
    video.write_bytes(video.read_bytes().replace(payload, b"\xff" * len(payload)))
    frames, count = read(video)
    assert count.frames == 6
    assert [frame.second for frame in frames] == pytest.approx([number / 10 for number in range(6)], abs=0.002)
    (bad,) = (frame for frame in frames if isinstance(frame.pixels, PatchwordError))
    assert bad.second == pytest.approx(second)
    assert "cannot be decoded" in str(bad.pixels)


def test_what_is_no_video_is_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "a.mp4"
    for data in (b"", b"no video" * 100, picture(8, 8).tobytes()):
        bad.write_bytes(data)
        with pytest.raises(PatchwordError, match=r"cannot read .*a\.mp4: ") as error:
            read(bad)
        assert "\n" not in str(error.value)
        assert frames_told(bad) == 0
    with pytest.raises(PatchwordError, match="cannot read"):
        read(tmp_path / "absent.mp4")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    make_video(folder / "clips/clip.mp4", frames=7)
    make_video(folder / "z.mkv", frames=5, codec="ffv1")
    for name, side in (("a.png", 40), ("q.png", 45)):
        Image.fromarray(picture(side, side, seed=side)).save(folder / name)
    return folder


def run(photos: Path, segmenter: LocalSegmenter | None = None, **options: Any) -> SegmentedFolder:
    arguments: dict[str, Any] = {
        "classes": NAMES,
        "out": photos.parent / "out",
        "settings": {"batch": 2},
        "quiet": True,
        **options,
    }
    images = choose_images(photos, out=arguments["out"], also=VIDEO_SUFFIXES).images
    return segment_folder(images, root=photos, segmenter=segmenter or LocalSegmenter(), **arguments)


def contents(folder: Path) -> dict[str, bytes]:
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert files.pop("runs.jsonl")
    return files


def lines(folder: Path) -> dict[str, dict[str, Any]]:
    return {line["name"]: line for line in map(json.loads, (folder / "results.jsonl").read_text().splitlines())}


def test_each_frame_has_a_mask_and_a_line_and_the_video_one_too(photos: Path) -> None:
    done = run(photos)
    names = [f"clips/clip.mp4/{number:06d}" for number in range(7)] + [f"z.mkv/{number:06d}" for number in range(5)]
    assert sorted(done.names) == sorted([*names, "a.png", "q.png"])
    assert done.failed == {}
    told = lines(done.folder)
    assert list(told) == sorted(told)
    content = hashlib.sha256((photos / "clips/clip.mp4").read_bytes()).hexdigest()
    assert told["clips/clip.mp4"] == {"name": "clips/clip.mp4", "status": "ok", "frames": 7, "content": content}
    for number, pixels in enumerate(decode(photos / "clips/clip.mp4")):
        expected = LocalSegmenter().segment(pixels, classes=NAMES)
        name = f"clips/clip.mp4/{number:06d}"
        mask = LabelMap.load(done.folder / "masks" / f"{name}.png", names=NAMES)
        np.testing.assert_array_equal(mask.indices, expected.label_map.indices)
        assert told[name]["second"] == pytest.approx(number / 10)
        assert (done.folder / "overlays" / f"{name}.jpg").is_file()
    counts = json.loads((done.folder / "segment.json").read_text())["counts"]
    assert (counts["images"], counts["ok"], counts["failed"]) == (14, 14, 0)


def test_every_third_frame(photos: Path) -> None:
    done = run(photos, folder_settings={"every": 3})
    assert [name for name in done.names if "clip" in name] == [f"clips/clip.mp4/{number:06d}" for number in (0, 3, 6)]
    assert lines(done.folder)["clips/clip.mp4"]["frames"] == 3


@pytest.mark.parametrize("after", [0, 1, 2, 5, 8])
@pytest.mark.parametrize("every", [1, 2])
def test_a_stopped_run_goes_on_by_frame(photos: Path, tmp_path: Path, after: int, every: int) -> None:
    how = {"every": every, "overlay_video": True}
    whole = run(photos, out=tmp_path / "whole", folder_settings=how)
    stopping = LocalSegmenter()
    stopping.fail_after = after
    with pytest.raises(KeyboardInterrupt):
        run(photos, stopping, folder_settings=how)
    rest = LocalSegmenter()
    resumed = run(photos, rest, resume=True, folder_settings=how)
    assert contents(resumed.folder) == contents(whole.folder)
    assert len(rest.seen) <= len(whole.names) - after // 2 * 2
    idle = LocalSegmenter()
    assert run(photos, idle, resume=True, folder_settings=how).names == whole.names
    assert idle.seen == []
    assert read_sessions(resumed.folder)[-1].kept == len(whole.names)


@pytest.mark.parametrize("count", [2, 3])
def test_shards_take_frames_in_turn_and_merge(photos: Path, tmp_path: Path, count: int) -> None:
    (photos / "broken.mp4").write_bytes(b"no video")
    whole = run(photos, out=tmp_path / "whole", settings={"batch": 1})
    shards = [tmp_path / f"{index}" for index in range(1, count + 1)]
    sizes = []
    for index, shard in enumerate(shards, start=1):
        sizes.append(len(run(photos, out=shard, shard=Shard(index, count), settings={"batch": 1}).names))
    assert max(sizes) - min(sizes) <= 3
    merged = merge_segmentations(shards, out=tmp_path / "merged", quiet=True)
    assert contents(merged.folder) == contents(whole.folder)
    assert merged.names == whole.names
    assert set(merged.failed) == {"broken.mp4"}


def test_broken_videos_and_frames_end_nothing(photos: Path) -> None:
    (photos / "broken.mp4").write_bytes(b"no video")
    whole = (photos / "clips/clip.mp4").read_bytes()
    (photos / "clips/clip.mp4").write_bytes(whole[: len(whole) // 2])
    done = run(photos)
    assert done.failed["broken.mp4"].startswith("cannot read broken.mp4: ")
    assert done.failed["clips/clip.mp4"].startswith("ends at ")
    assert {"a.png", "q.png", "z.mkv/000004", "clips/clip.mp4/000000"} < set(done.names)
    idle = LocalSegmenter()
    again = run(photos, idle, resume=True)
    assert (again.failed, idle.seen) == (done.failed, [])
    (photos / "clips/clip.mp4").write_bytes(whole)
    (photos / "broken.mp4").unlink()
    mended = run(photos, resume=True, retry_failed=True)
    assert mended.failed == {}
    assert "clips/clip.mp4/000006" in mended.names


def test_another_film_of_the_same_name_is_refused(photos: Path) -> None:
    done = run(photos)
    before = state_of(done.folder)
    make_video(photos / "clips/clip.mp4", frames=3)
    with pytest.raises(PatchwordError, match=r"video clips/clip\.mp4 changed since it was segmented; pass --overwrite"):
        run(photos, resume=True)
    assert state_of(done.folder) == before


def test_an_overlay_video_shows_what_the_masks_say_when_the_video_does(tmp_path: Path) -> None:
    video = make_video(tmp_path / "photos/a.mp4", frames=5, times=[0, 10, 20, 90, 100], size=(48, 200), still=True)
    done = run(video.parent, folder_settings={"overlay_video": True})
    assert not list((done.folder / "overlays").rglob("*.jpg"))
    with av.open(str(done.folder / "overlays/a.mp4.mp4")) as container:
        frames = list(container.decode(video=0))
    assert [frame.time for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.9, 1.0], abs=0.002)
    shown = frames[2].to_ndarray(format="rgb24")
    assert shown.shape[0] > 48  # a legend stands below
    assert shown.shape[1] >= 200
    assert shown.shape[0] % 2 == shown.shape[1] % 2 == 0
    pixels = decode(video)[2]
    expected = np.asarray(LocalSegmenter().segment(pixels, classes=NAMES).overlay(legend=False))
    assert np.abs(shown[:48, :200].astype(int) - expected).mean() < 12


def test_an_overlay_video_and_shards_do_not_go_together(photos: Path) -> None:
    with pytest.raises(PatchwordError, match="needs all its frames"):
        run(photos, shard=Shard(1, 2), folder_settings={"overlay_video": True})


def test_videos_of_a_folder_have_to_be_asked_for(photos: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"out": tmp_path / "out", "method": "maskclip", "image_text": "somewhere"}
    request = SegmentRequest.read(photos, SegmentConfig(**asked))
    assert ([path.name for path in request.images], request.left_out) == (["a.png", "q.png"], 2)
    request = SegmentRequest.read(photos, SegmentConfig(**asked, video=True))
    assert [path.name for path in request.images] == ["a.png", "clip.mp4", "q.png", "z.mkv"]
    request = SegmentRequest.read(photos / "z.mkv", SegmentConfig(**asked))
    assert ([path.name for path in request.images], request.left_out) == (["z.mkv"], 0)
    with pytest.raises(PatchwordError, match="but a video; pass --video"):
        SegmentRequest.read(photos / "clips", SegmentConfig(**asked))


def test_without_the_extra_there_is_one_line(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(PatchwordError, match=r'pip install "patchword\[video\]"'):
        SegmentRequest.read(
            photos / "z.mkv", SegmentConfig(out=tmp_path / "out", method="maskclip", image_text="somewhere")
        )
