"""What the feature cache loses by keeping half precision, measured on Toytown, and what reading it costs.

    python benchmarks/feature_precision.py [--scenes N] [--epochs N] [--json]

Exact masks of drawn scenes are aligned with the miniature DINO's features kept in each type; the same seed, so that the
type is all that differs. Errors of features are relative to float32: of a patch, |x' - x| / |x|.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

import patchword
from patchword.alignment.data import AlignmentData
from patchword.alignment.features import FeatureCache
from patchword.alignment.photographs import content_hash
from patchword.alignment.shards import bytes_held
from patchword.config.align import AlignSettings
from patchword.data.vocabulary import Vocabulary
from patchword.models.loading import load_patch_encoder
from patchword.toytown import miniatures
from patchword.toytown.classes import SEEN
from patchword.toytown.demo_scenes import SIZE, Place, draw

TYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Result:
    """One type of the cache.

    Attributes:
        feature_dtype: the type.
        bytes_an_image: on disk.
        mean_error, largest_error: of a patch's features, relative to float32.
        loss: at the end of the training.
        miou: of the aligned model on other scenes.
        read_milliseconds: to read the features of one image, checked.
        compute_milliseconds: to compute them.
    """

    feature_dtype: str
    bytes_an_image: int
    mean_error: float
    largest_error: float
    loss: float
    miou: float
    read_milliseconds: float
    compute_milliseconds: float


def measure(place: Place, test: Place, *, feature_dtype: str, epochs: int, folder: Path, exact: torch.Tensor) -> Result:
    """Fill a cache, read it, train from it, evaluate the model."""
    settings = AlignSettings(
        image_size=SIZE,
        epochs=epochs,
        batch_size=8,
        learning_rate=2e-3,
        patch_sample=1024,
        feature_dtype=feature_dtype,  # type: ignore[arg-type]
        features="cached",
    )
    encoder = load_patch_encoder(str(miniatures.DINO), device="cpu")
    cache = FeatureCache(folder / "cache", encoder=encoder, settings=settings)
    found = [(content_hash(path), path) for path in sorted(place.photos.glob("*.png"))]
    keys = [key for key, _ in found]
    started = time.perf_counter()
    cache.fill(found)
    computed = time.perf_counter() - started
    started = time.perf_counter()
    features = cache.read(keys).float()
    read = time.perf_counter() - started
    error = (features - exact).norm(dim=1) / exact.norm(dim=1)  # (n, h, w)
    vocabulary = Vocabulary.of(SEEN)
    model = patchword.align(
        AlignmentData.from_folders(place.photos, masks=place.seen, vocabulary=vocabulary),
        out=folder / "model",
        encoder=str(miniatures.DINO),
        text_encoder=str(miniatures.CLIP),
        settings=settings.model_dump(),
        cache=folder / "cache",
        device="cpu",
        quiet=True,
    )
    report = patchword.evaluate(test.photos, masks=test.seen, classes=vocabulary, model=model, quiet=True)
    return Result(
        feature_dtype=feature_dtype,
        bytes_an_image=round(bytes_held(folder / "cache") / len(keys)),
        mean_error=error.mean().item(),
        largest_error=error.max().item(),
        loss=model.config.training.last.total,
        miou=report.miou or 0.0,
        read_milliseconds=1000 * read / len(keys),
        compute_milliseconds=1000 * computed / len(keys),
    )


def exact_features(place: Place) -> torch.Tensor:
    """Features (n, D, h, w) in float32, computed image by image."""
    from patchword.data.images import read_image, to_tensor

    encoder = load_patch_encoder(str(miniatures.DINO), device="cpu")
    return torch.cat([encoder(to_tensor(read_image(path))) for path in sorted(place.photos.glob("*.png"))])


def main() -> None:
    """Print one line a type."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = draw(folder, "train", purpose="label", count=options.scenes, first=0, style="day")
        test = draw(folder, "test", purpose="evaluate-seen", count=30, first=0, style="day")
        exact = exact_features(place)
        for feature_dtype in TYPES:
            results.append(
                measure(
                    place,
                    test,
                    feature_dtype=feature_dtype,
                    epochs=options.epochs,
                    folder=folder / feature_dtype,
                    exact=exact,
                )
            )
            if not options.json:
                print(results[-1])
    if options.json:
        print(json.dumps([asdict(result) for result in results], indent=2))


if __name__ == "__main__":
    main()
