"""How many steps, how large and at what rate: the default of `align` beside others, for few photographs and for many.

    patchword demo -o D --seed 97 --scenes 200
    python benchmarks/align_schedule.py D [--images N ...] [--steps N ...] [--rates R ...] [--batches N ...]

Trains on that many of the scenes that the demo has labelled, and measures the mIoU of patches, not of pixels, on its
unseen scenes by day. Use another seed than that of reported numbers. For more images than the demo has, new scenes are
drawn into D, with exact masks of which 30 % of the regions get a wrong name.
"""

from __future__ import annotations

import argparse
import time
from itertools import product
from pathlib import Path

import torch

from patchword.ablation.run import wrong_names
from patchword.alignment.data import AlignmentData, hash_items, label_items
from patchword.alignment.estimate import prepare_features
from patchword.alignment.losses import IGNORED
from patchword.alignment.schedule import schedule_for
from patchword.alignment.trainer import TrainingResult, TrainingSet, train
from patchword.config.align import AlignSettings
from patchword.data.masks import LabelMap
from patchword.data.vocabulary import Vocabulary
from patchword.evaluation.confusion import ConfusionMatrix
from patchword.models.loading import load_image_text, load_patch_encoder
from patchword.models.text_embeddings import encode_vocabulary
from patchword.toytown import miniatures
from patchword.toytown.classes import SEEN
from patchword.toytown.demo_scenes import SIZE, draw

WRONG = 0.3
FIRST = 9_800_000  # of the scenes that are drawn here


class Bench:
    """What all trainings share: models, text vectors, features."""

    def __init__(self, folder: Path) -> None:
        self.vocabulary = Vocabulary.of(SEEN)
        self.settings = AlignSettings(image_size=SIZE, patch_sample=1024)
        self.encoder = load_patch_encoder(str(miniatures.DINO), device="cpu")
        words = load_image_text(str(miniatures.CLIP), device="cpu")
        self.text = encode_vocabulary(words, vocabulary=self.vocabulary).class_vectors().float()
        self.cache = folder / "features"

    def read(self, photos: Path, *, masks: Path, count: int | None = None) -> TrainingSet:
        """All photographs, or `count` of them, drawn; those without a labelled patch are left out."""
        data = AlignmentData.from_folders(photos, masks=masks, vocabulary=self.vocabulary)
        order = torch.randperm(len(data.items), generator=torch.Generator().manual_seed(0))
        chosen = tuple(data.items[position] for position in sorted(order[:count].tolist()))
        items = hash_items(AlignmentData(chosen, self.vocabulary), skipped={}, quiet=True)
        photographs = [(item.key, item.image) for item in items]
        features, _ = prepare_features(
            photographs, encoder=self.encoder, settings=self.settings, cache=self.cache, quiet=True
        )
        used, labels = label_items(items, data, features=features, settings=self.settings, skipped={}, quiet=True)
        known = (labels != IGNORED).flatten(1).any(dim=1)
        keys = tuple(item.key for item, keep in zip(used, known.tolist(), strict=True) if keep)
        return TrainingSet(features, keys, labels[known], self.text)

    @torch.no_grad()
    def miou(self, trained: TrainingResult, test: TrainingSet) -> float:
        """Of patches, in [0, 1]."""
        matrix = ConfusionMatrix(len(self.text))
        for position, key in enumerate(test.keys):
            aligned = trained.module(test.features.read([key]).float())[0]  # (d, h, w)
            found = torch.einsum("dhw,cd->hwc", aligned, self.text).argmax(dim=-1)
            labels = test.labels[position].long()
            matrix.update(found.numpy(), labels.masked_fill(labels == IGNORED, 255).numpy())
        return matrix.mean_iou() or 0.0


def many(folder: Path, *, count: int) -> tuple[Path, Path]:
    """Photographs and label maps of drawn scenes, some regions named wrongly."""
    place = draw(folder / f"many-{count}", "scenes", purpose="label", count=count, first=FIRST, style="day")
    noisy = folder / f"many-{count}" / "noisy"
    for path in sorted(place.seen.iterdir()):
        exact = LabelMap.load(path, names=SEEN)
        wrong_names(exact, share=WRONG, seed=int(path.name[:5])).save(noisy / path.name)
    return place.photos, noisy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="folder that `patchword demo` made")
    parser.add_argument("--images", type=int, nargs="+", default=[20, 50, 200])
    parser.add_argument("--steps", type=int, nargs="+", default=[], help="beside the default's")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3], help="learning rates of those")
    parser.add_argument("--batches", type=int, nargs="+", default=[4], help="images a step of those")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(asked.demo)
    test = bench.read(asked.demo / "day", masks=asked.demo / "truth" / "day" / "seen")
    labelled = len(list((asked.demo / "scenes").iterdir()))
    print("| images | steps | images a step | learning rate | mIoU of patches, per cent | seconds of one core |")
    print("|---|---|---|---|---|---|")
    for count in asked.images:
        own = count <= labelled
        photos, masks = (
            (asked.demo / "scenes", asked.demo / "labels" / "masks") if own else many(asked.demo, count=count)
        )
        data = bench.read(photos, masks=masks, count=count)
        others = [
            {"steps": steps, "learning_rate": rate, "batch_size": batch}
            for steps, rate, batch in product(asked.steps, asked.rates, asked.batches)
        ]
        for values in ({}, {"schedule": "paper"}, *others):
            settings = AlignSettings(**{**bench.settings.model_dump(), **values})
            schedule = schedule_for(len(data.keys), settings=settings)
            started = time.process_time()
            score = bench.miou(train(data, settings=settings), test)
            seconds = time.process_time() - started
            name = f"{schedule.steps:,}" if values else f"**{schedule.steps:,}** (default)"
            row = f"| {count:,} | {name} | {schedule.batch_size} | {schedule.learning_rate:g} "
            print(f"{row}| {100 * score:.1f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
