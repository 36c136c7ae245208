"""A whole run of stage 2: what it writes, what it skips, how it goes on, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from colour_world import COLOURS, SETTINGS, VOCABULARY, ColourPatches, ColourText, make_data
from PIL import Image

from patchword.alignment.artifact import read_artifact
from patchword.alignment.data import AlignmentData, AlignmentItem
from patchword.alignment.run import AlignmentResult, align_labels
from patchword.config.align import AlignSettings
from patchword.data.masks import LabelMap
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from small_world import state_of

QUICK = SETTINGS.model_copy(update={"steps": None, "epochs": 2})


def run(
    data: AlignmentData,
    out: Path,
    *,
    settings: AlignSettings = QUICK,
    encoder: ColourPatches | None = None,
    text: ColourText | None = None,
    cache: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> AlignmentResult:
    return align_labels(
        data,
        encoder=encoder or ColourPatches(),
        text_encoder=text or ColourText(),
        out=out,
        settings=settings,
        cache=cache,
        resume=resume,
        overwrite=overwrite,
        quiet=True,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_leaves_the_documented_files_and_nothing_else(tmp_path: Path) -> None:
    result = run(make_data(tmp_path), tmp_path / "model")
    assert set(contents(tmp_path / "model")) == {
        ".patchword",
        "README.md",
        "config.json",
        "model.safetensors",
        "training.json",
    }
    config = read_artifact(tmp_path / "model").config
    assert config == result.artifact.config
    assert config.encoder.fingerprint == "p" * 64
    assert config.text_encoder.fingerprint == "t" * 64
    assert config.image_size == 16
    assert config.parsed_vocabulary() == VOCABULARY
    assert config.settings == QUICK
    facts = config.training
    assert (facts.images, facts.steps, facts.classes_without_patches) == (8, 4, ())
    assert facts.labelled_share == 1
    assert facts.last == result.history[-1]


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    run(data, tmp_path / "one")
    run(data, tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


class Stops(ColourPatches):
    """An encoder that stops the run after some images."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        if self.images >= 3:
            raise KeyboardInterrupt
        return super().__call__(images)


def test_run_stopped_in_the_features_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    settings = QUICK.model_copy(update={"shard_megabytes": 1e-6})
    run(data, tmp_path / "whole", settings=settings)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "stopped", settings=settings, encoder=Stops())
    encoder = ColourPatches()
    run(data, tmp_path / "stopped", settings=settings, encoder=encoder, resume=True)
    assert encoder.images == 5
    assert contents(tmp_path / "whole") == contents(tmp_path / "stopped")


def test_run_stopped_in_the_training_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data(tmp_path)
    run(data, tmp_path / "whole")
    from patchword.alignment import trainer

    step, done = trainer.training_step, []

    def stopping(*arguments: object, **keywords: object) -> object:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(1)
        return step(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer, "training_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "stopped")
    assert (tmp_path / "stopped" / "checkpoint.safetensors").exists()
    monkeypatch.setattr(trainer, "training_step", step)
    encoder = ColourPatches()
    run(data, tmp_path / "stopped", resume=True, encoder=encoder)
    assert encoder.images == 0
    assert contents(tmp_path / "whole") == contents(tmp_path / "stopped")


def test_finished_run_is_returned_as_it_is(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    first = run(data, tmp_path / "model")
    before = contents(tmp_path / "model")
    encoder = ColourPatches()
    again = run(data, tmp_path / "model", encoder=encoder, resume=True)
    assert encoder.images == 0
    assert again.history == first.history
    assert contents(tmp_path / "model") == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": QUICK.model_copy(update={"seed": 7})}, "setting 'seed' was 0 and is 7"),
        ({"encoder": ColourPatches("x" * 64)}, "the encoder of the run there is another"),
        ({"text": ColourText("x" * 64)}, "the text encoder of the run there is another"),
    ],
)
def test_resuming_another_run_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    data = make_data(tmp_path)
    run(data, tmp_path / "model")
    with pytest.raises(PatchwordError, match=f"{message}; pass --overwrite"):
        run(data, tmp_path / "model", resume=True, **change)  # type: ignore[arg-type]
    run(data, tmp_path / "model", overwrite=True, **change)  # type: ignore[arg-type]


def test_settings_without_an_effect_may_change_when_a_run_goes_on(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    first = run(data, tmp_path / "model")
    other = QUICK.model_copy(update={"decode_threads": 1, "checkpoint_minutes": 1.0})
    assert run(data, tmp_path / "model", settings=other, resume=True).history == first.history


def test_agreement_with_held_out_labels_is_in_the_facts_and_the_card(tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"held_out": 0.25, "epochs": 3})
    result = run(make_data(tmp_path), tmp_path / "model", settings=settings)
    agreed = [record.held_out for record in result.history if record.held_out is not None]
    assert len(agreed) == 3
    assert result.artifact.config.training.held_out == agreed[-1]
    card = (tmp_path / "model" / "README.md").read_text()
    assert (
        f"25 % of the photographs were held out; their patches got the class of their label in {100 * agreed[-1]:.1f} %"
        in card
    )


def test_a_tracker_takes_the_history_and_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        def __init__(self) -> None:
            self.steps: list[int] = []
            self.finished = False

        def log(self, values: dict[str, float], /, *, step: int) -> None:
            self.steps.append(step)

        def finish(self) -> None:
            self.finished = True

    tracker = Fake()
    monkeypatch.setattr("patchword.alignment.run.require_tracker", lambda name: None)
    monkeypatch.setattr("patchword.alignment.run.start_tracker", lambda *arguments, **named: tracker)
    result = run(make_data(tmp_path), tmp_path / "model", settings=QUICK.model_copy(update={"tracker": "wandb"}))
    assert tracker.steps == [record.step for record in result.history]
    assert tracker.finished


def test_a_tracker_that_is_not_installed_is_refused_before_features_are_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accelerate.utils.is_wandb_available", lambda: False)
    encoder = ColourPatches()
    with pytest.raises(PatchwordError, match="tracker 'wandb' needs a package"):
        run(
            make_data(tmp_path),
            tmp_path / "model",
            settings=QUICK.model_copy(update={"tracker": "wandb"}),
            encoder=encoder,
        )
    assert encoder.images == 0
    assert not (tmp_path / "model").exists()


def test_resuming_with_other_data_is_refused(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    run(data, tmp_path / "model")
    LabelMap(torch.zeros(16, 16, dtype=torch.uint8).numpy(), COLOURS).save(data.items[0].label_map)
    with pytest.raises(PatchwordError, match="the data of the run there is another"):
        run(data, tmp_path / "model", resume=True)


def test_given_cache_is_kept_and_used_again(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    run(data, tmp_path / "one", cache=tmp_path / "cache")
    encoder = ColourPatches()
    other = run(
        data, tmp_path / "two", cache=tmp_path / "cache", encoder=encoder, settings=QUICK.model_copy(update={"seed": 5})
    )
    assert encoder.images == 0
    assert other.artifact.config.training.images == 8


def test_items_that_cannot_be_used_are_skipped_and_listed(tmp_path: Path) -> None:
    data = make_data(tmp_path, images=9)
    (tmp_path / "photos" / "0.png").unlink()
    (tmp_path / "photos" / "1.png").write_bytes(b"no image")
    (tmp_path / "masks" / "2.png.png").unlink()
    (tmp_path / "masks" / "3.png.png").write_bytes(b"no map")
    LabelMap(torch.zeros(16, 12, dtype=torch.uint8).numpy(), COLOURS).save(tmp_path / "masks" / "4.png.png")
    Image.new("L", (16, 16), 9).save(tmp_path / "masks" / "5.png.png")
    LabelMap(torch.full((16, 16), 255, dtype=torch.uint8).numpy(), COLOURS).save(tmp_path / "masks" / "6.png.png")
    result = run(data, tmp_path / "model")
    assert {Path(path).name for path in result.skipped} == {f"{number}.png" for number in range(6)}
    assert "12 x 16 pixels" in result.skipped[str(tmp_path / "photos" / "4.png")]
    facts = result.artifact.config.training
    assert (facts.images, facts.images_without_labels, facts.images_skipped) == (2, 1, 6)
    assert json.loads((tmp_path / "model" / "training.json").read_text())["skipped"] == result.skipped


def test_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    data = make_data(tmp_path, images=2)
    for item in data.items:
        item.image.write_bytes(b"no image")
    with pytest.raises(PatchwordError, match=r"no image .* can be trained on, 2 are skipped; cannot read"):
        run(data, tmp_path / "model")
    blank = make_data(tmp_path / "blank", images=2)
    for item in blank.items:
        LabelMap(torch.full((16, 16), 255, dtype=torch.uint8).numpy(), COLOURS).save(item.label_map)
    with pytest.raises(PatchwordError, match="no image has a labelled patch"):
        run(blank, tmp_path / "blank_model")


def test_classes_without_patches_are_reported_in_the_card(tmp_path: Path) -> None:
    vocabulary = Vocabulary.of([*COLOURS, "violet"])
    data = make_data(tmp_path, vocabulary=vocabulary)
    result = run(data, tmp_path / "model")
    assert result.artifact.config.training.classes_without_patches == ("violet",)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "no patch was labelled as: violet" in card
    assert "colour-patches" in card
    assert "None was measured" in card


def test_text_is_encoded_with_the_vocabularys_templates_and_no_image_is(tmp_path: Path) -> None:
    text = ColourText()
    run(make_data(tmp_path), tmp_path / "model", text=text)
    assert set(text.prompts) == {f"a {word} patch" for word in ("red", "crimson", "green", "blue")}


class TestFolders:
    def test_masks_of_either_name_are_paired(self, tmp_path: Path) -> None:
        data = make_data(tmp_path, images=3)
        data.items[1].label_map.rename(tmp_path / "masks" / "1.png")
        data.items[2].label_map.unlink()
        found = AlignmentData.from_folders(tmp_path / "photos", masks=tmp_path / "masks", vocabulary=VOCABULARY)
        assert found.items == (data.items[0], AlignmentItem(data.items[1].image, tmp_path / "masks" / "1.png"))

    def test_no_masks_is_an_error(self, tmp_path: Path) -> None:
        make_data(tmp_path, images=1)
        with pytest.raises(PatchwordError, match=r"a/b.jpg.png or a/b.png"):
            AlignmentData.from_folders(tmp_path / "photos", masks=tmp_path / "photos" / "none", vocabulary=VOCABULARY)


def stopped(tmp_path: Path, *, settings: AlignSettings = QUICK) -> AlignmentData:
    """Data, and a run on it in `model` that was stopped in the features."""
    data = make_data(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "model", encoder=Stops(), settings=settings)
    return data


def in_bfloat16() -> ColourPatches:
    encoder = ColourPatches()
    encoder.dtype = torch.bfloat16  # type: ignore[attr-defined]
    return encoder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"encoder": in_bfloat16()},
            "the dtype of the vision encoder was float32, now bfloat16; go on with",
        ),
        ({"settings": QUICK.model_copy(update={"seed": 7})}, "setting 'seed' was 0 and is 7"),
    ],
)
def test_a_refusal_to_go_on_changes_nothing(tmp_path: Path, change: dict[str, object], message: str) -> None:
    data = stopped(tmp_path)
    before = state_of(tmp_path / "model")
    with pytest.raises(PatchwordError, match=message):
        run(data, tmp_path / "model", resume=True, **change)  # type: ignore[arg-type]
    assert state_of(tmp_path / "model") == before


def test_a_run_that_an_earlier_version_began_goes_on_as_it_began(tmp_path: Path) -> None:
    earlier = QUICK.model_copy(update={"label_smoothing": 0.0, "batch_size": None})
    data = stopped(tmp_path, settings=earlier)
    path = tmp_path / "model" / "training.json"
    record = json.loads(path.read_text())
    del record["identity"]["settings"]["label_smoothing"]
    path.write_text(json.dumps(record))
    for changed, said in (
        ({"label_smoothing": 0.2}, r"'label_smoothing' was 0\.0 and is 0\.2"),
        ({}, "'batch_size' was 8 and is None"),
    ):
        with pytest.raises(PatchwordError, match=said):
            run(data, tmp_path / "model", resume=True, settings=earlier.model_copy(update=changed))
    assert run(data, tmp_path / "model", resume=True, settings=earlier.model_copy(update={"batch_size": 8})).history


def test_a_finished_model_is_returned_whatever_computes(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    first = run(data, tmp_path / "model")
    assert run(data, tmp_path / "model", resume=True, encoder=in_bfloat16()).history == first.history


@pytest.mark.parametrize(
    ("threads", "said"),
    [
        (None, "was begun by an earlier version of patchword, which recorded neither dtype"),
        (97, "97 threads: last digits may differ"),
    ],
)
def test_a_run_of_an_earlier_version_or_in_other_threads_goes_on_with_a_line(
    tmp_path: Path, threads: int | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = stopped(tmp_path)
    path = tmp_path / "model" / "training.json"
    record = json.loads(path.read_text())
    assert record["identity"]["numerics"]["dtypes"]["training"] == "float32"
    assert record["identity"]["numerics"]["threads"] == torch.get_num_threads()
    if threads is None:
        del record["identity"]["numerics"]
    else:
        record["identity"]["numerics"]["threads"] = threads
    assert record["identity"]["settings"]["similarity_bound"] is None
    record["identity"]["settings"]["similarity_bound"] = 2**20  # the default of then
    path.write_text(json.dumps(record))
    align_labels(
        data, encoder=ColourPatches(), text_encoder=ColourText(), out=tmp_path / "model", settings=QUICK, resume=True
    )
    assert said in capsys.readouterr().err


def test_a_run_says_what_it_will_do_and_that_it_is_little(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = {"encoder": ColourPatches(), "text_encoder": ColourText()}
    settings = AlignSettings(image_size=16, schedule="paper", patch_sample=64)
    result = align_labels(make_data(tmp_path), out=tmp_path / "model", settings=settings, **models)
    told = capsys.readouterr().err
    assert "\n8 photographs: 5 epochs x 1 step of 32, learning rate 0.0001\n" in told
    assert "\n5 steps may be too few" in told
    assert "\n8 photographs are few to learn from" in told
    assert result.artifact.config.training.steps == 5
    kept = result.artifact.config.settings
    assert (kept.batch_size, kept.epochs, kept.learning_rate) == (32, 5, 1e-4)
    align_labels(make_data(tmp_path), out=tmp_path / "quiet", settings=settings, quiet=True, **models)
    assert capsys.readouterr().err == ""
