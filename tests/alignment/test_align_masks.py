"""Patches are drawn to what the image-text model sees in their mask: a colour without a name is found by its name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from colour_world import COLOURS, SETTINGS, TEXT_DIM, ColourPatches, ColourText, draw, record
from PIL import Image
from torch import Tensor
from torch.nn import functional

from patchword.alignment.data import HashedItem, mask_targets
from patchword.alignment.distributed import Processes
from patchword.alignment.run import AlignmentResult, align_labels
from patchword.config.align import AlignSettings
from patchword.data.masks import LabelMap
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordWarning
from patchword.labeling.embeddings import CELLS, MaskEmbeddings
from patchword.models.protocols import ModelRecord

NAMED = Vocabulary.of(["red", "green"], templates=["a {} patch"])
GAP = 2 * functional.one_hot(torch.tensor(TEXT_DIM - 1), TEXT_DIM).float()  # images lie apart from words


@dataclass(frozen=True)
class Item:
    image: Path
    label_map: Path
    embeddings_file: Path | None


@dataclass(frozen=True)
class Labels:
    items: tuple[Item, ...]
    image_text: ModelRecord
    vocabulary: Vocabulary = NAMED


def make_labels(folder: Path, *, maker: str = "t" * 64, embedded: bool = True) -> Labels:
    """Pictures of two of three colours side by side; blue has no name and no label, but a mask as the others."""
    items = []
    for seed in range(8):
        picture, classes = draw(seed)
        image, labels, embeddings = (folder / kind / f"{seed}" for kind in ("photos", "masks", "embeddings"))
        for path in (image, labels, embeddings):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(image, "PNG")
        LabelMap(np.where(classes == 2, 255, classes), NAMED.names).save(labels)
        places, vectors = [], []
        for index in range(3):
            place = torch.from_numpy(np.repeat(np.repeat(classes == index, CELLS // 16, 0), CELLS // 16, 1))
            if place.any():
                places.append(place.float())
                vectors.append(functional.normalize(functional.one_hot(torch.tensor(index), TEXT_DIM) + GAP, dim=0))
        MaskEmbeddings.of(torch.stack(vectors), shares=torch.stack(places)).save(embeddings)
        items.append(Item(image, labels, embeddings if embedded else None))
    return Labels(tuple(items), record("maker", dim=TEXT_DIM, fingerprint=maker))


def train(labels: Labels, out: Path, *, settings: AlignSettings = SETTINGS, quiet: bool = True) -> AlignmentResult:
    return align_labels(
        labels, encoder=ColourPatches(), text_encoder=ColourText(), out=out, settings=settings, quiet=quiet
    )


def called_by_its_name(result: AlignmentResult) -> float:
    """Share of blue patches whose nearest word is blue."""
    words = ColourText().encode_text([f"a {colour} patch" for colour in COLOURS])
    found: list[Tensor] = []
    for seed in range(20, 30):
        picture, classes = draw(seed)
        image = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            aligned = result.artifact.module(ColourPatches()(image))  # (1, d, 4, 4)
        names = torch.einsum("bdhw,cd->bhwc", aligned, words).argmax(-1)[0]
        found.append(names[torch.from_numpy(classes)[::4, ::4] == 2])
    return float((torch.cat(found) == 2).float().mean())


def weights(result: AlignmentResult) -> list[Tensor]:
    return list(result.artifact.module.state_dict().values())


def test_a_colour_that_no_label_names_is_found_by_its_name(tmp_path: Path) -> None:
    result = train(make_labels(tmp_path), tmp_path / "model")
    assert result.history[-1].patch_mask > 0
    assert called_by_its_name(result) > 0.9


@pytest.mark.parametrize("reason", ["no weight", "no embeddings", "another model's", "augmented"])
def test_without_the_term_the_training_is_as_it_was(
    tmp_path: Path, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with_term = SETTINGS.model_copy(update={"features": "online"}) if reason == "augmented" else SETTINGS
    off = with_term.model_copy(update={"mask_weight": 0.0})
    expected = train(make_labels(tmp_path, embedded=False), tmp_path / "expected", settings=off)
    settings = off if reason == "no weight" else with_term
    maker = "x" * 64 if reason == "another model's" else "t" * 64
    labels = make_labels(tmp_path, maker=maker, embedded=reason != "no embeddings")
    found = train(labels, tmp_path / "found", settings=settings, quiet=False)
    assert found.history[-1].patch_mask == 0
    for one, other in zip(weights(found), weights(expected), strict=True):
        assert torch.equal(one, other)
    told = "mask embeddings are not used" in capsys.readouterr().err
    assert told == (reason in ("another model's", "augmented"))


def test_a_damaged_file_costs_its_photograph_s_masks(tmp_path: Path) -> None:
    labels = make_labels(tmp_path)
    assert labels.items[0].embeddings_file is not None
    labels.items[0].embeddings_file.write_bytes(b"nothing")
    with pytest.warns(PatchwordWarning, match=r"0 are damaged .*; 0 is trained on without its masks"):
        result = train(labels, tmp_path / "model")
    assert result.artifact.config.training.images == 8
    assert result.history[-1].patch_mask > 0


def test_targets_lie_about_the_mean_of_the_words(tmp_path: Path) -> None:
    labels = make_labels(tmp_path)
    items = [HashedItem(item.image, item.label_map, "", "", item.embeddings_file) for item in labels.items]
    items.append(HashedItem(items[0].image, items[0].label_map, "", "", None))
    text = ColourText().encode_text(["a red patch", "a green patch"])
    found = mask_targets(items, grid=(4, 4), text=text, settings=SETTINGS)
    stored = torch.cat([MaskEmbeddings.load(item.embeddings).vectors.float() for item in items if item.embeddings])
    for vector, seen in zip(found.vectors.float(), stored, strict=True):
        moved = seen - stored.mean(0) + text.mean(0)
        torch.testing.assert_close(vector, moved / moved.norm(), rtol=2e-3, atol=2e-3)
    assert (found.regions[-1] == -1).all()
    assert found.regions[:-1].unique().tolist() == list(range(len(stored)))


def test_each_process_reads_its_share_and_knows_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = make_labels(tmp_path)
    items = [HashedItem(item.image, item.label_map, "", "", item.embeddings_file) for item in labels.items]
    told: dict[str, Any] = {"grid": (4, 4), "text": ColourText().encode_text(["a red patch"]), "settings": SETTINGS}
    whole = mask_targets(items, **told)
    read: list[Any] = []
    monkeypatch.setattr(Processes, "collect", lambda self, mine: read.extend(mine) or list(read))
    parts = [mask_targets(items, **told, processes=Processes(count=2, index=index)) for index in range(2)]
    assert len(parts[0].regions) == 4
    assert torch.equal(parts[1].regions, whole.regions)
    assert torch.equal(parts[1].vectors, whole.vectors)
