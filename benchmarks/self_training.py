"""Does a round of self-training help? A trained segmenter relabels its own photographs, and another is trained on that.

    patchword demo -o demo
    python benchmarks/self_training.py demo

Three ways to relabel are compared with the first labels, all trained alike. "snapped" is the segmenter's own map with
each mask of the labelling named as a whole, where most of it is of one class with confidence; "trusted" keeps a label
where the snapped map agrees, and fills unlabelled pixels where it is sure; "agreed" keeps a label only where the map
agrees. Exact masks are opened only to judge.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import patchword as pw
from patchword.alignment.data import AlignmentData, AlignmentItem
from patchword.segmentation.result import SegmentationResult
from patchword.toytown import miniatures
from patchword.toytown.classes import SEEN
from patchword.toytown.demo import ALIGN_SETTINGS
from patchword.versions import versions

LEAST_IOU, LEAST_SHARE, SURE = 0.8, 0.5, 0.6
VARIANTS = ("snapped", "trusted", "agreed")

Indices = NDArray[np.int64]


def snap(result: SegmentationResult, segments: tuple[pw.Segment, ...]) -> tuple[Indices, NDArray[np.float32]]:
    """The map (h, w) and its confidence (h, w), each sure mask given the one class that most of it has."""
    indices, confidence = result.label_map.indices.astype(np.int64), result.confidence.copy()
    for segment in sorted(segments, key=lambda each: -each.area):
        mask = segment.mask()
        votes = np.bincount(result.label_map.indices[mask], weights=result.confidence[mask], minlength=len(SEEN))
        share = float(votes.max() / mask.sum())
        if segment.predicted_iou >= LEAST_IOU and share > LEAST_SHARE:
            indices[mask], confidence[mask] = votes.argmax(), share
    return indices, confidence


def relabel(first: pw.LabelMap, result: SegmentationResult, segments: tuple[pw.Segment, ...]) -> dict[str, Indices]:
    """New label maps (h, w) by variant."""
    ignore = first.ignore
    said = first.indices.astype(np.int64)
    snapped, confidence = snap(result, segments)
    filled = np.where(confidence > SURE, snapped, ignore)
    return {
        "snapped": snapped,
        "trusted": np.where(said == ignore, filled, np.where(said == snapped, said, ignore)),
        "agreed": np.where(said == result.label_map.indices, said, ignore),
    }


def judge(segmenter: pw.Segmenter, demo: Path) -> str:
    """mIoU on unseen scenes of both styles, in per cent."""
    scores = [
        pw.evaluate(demo / style, masks=demo / "truth" / style / "seen", classes=SEEN, model=segmenter, quiet=True).miou
        for style in ("day", "dusk")
    ]
    return "   ".join(f"{100 * (score or 0):5.1f}" for score in scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="folder that `patchword demo` made")
    parser.add_argument("--seed", type=int, default=0, help="of the trainings")
    arguments = parser.parse_args()
    demo: Path = arguments.demo
    labels = pw.LabelledDataset.open(demo / "labels")
    model = pw.load(demo / "model", device="cpu")
    settings = ALIGN_SETTINGS.model_copy(update={"seed": arguments.seed})
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        for item in labels.items:
            first = pw.LabelMap.load(item.label_map, names=SEEN)
            result = model.segment(item.image, classes=labels.vocabulary)
            for variant, indices in relabel(first, result, item.segments()).items():
                pw.LabelMap(indices, SEEN).save(work / variant / f"{item.record.name}.png")
        print("trained on      day    dusk   (mIoU of unseen scenes, per cent)")
        for variant in ("first labels", *VARIANTS):
            data = labels
            if variant in VARIANTS:
                items = (AlignmentItem(i.image, work / variant / f"{i.record.name}.png") for i in labels.items)
                data = AlignmentData(tuple(items), labels.vocabulary)
            trained = pw.align(
                data,
                out=work / "model",
                encoder=miniatures.DINO,
                text_encoder=miniatures.CLIP,
                settings=settings,
                cache=work / "features",
                device="cpu",
                overwrite=True,
                quiet=True,
            )
            print(f"{variant:13s} {judge(trained, demo)}", flush=True)
    print(json.dumps(versions(), sort_keys=True))


if __name__ == "__main__":
    main()
