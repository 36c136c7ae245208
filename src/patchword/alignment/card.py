"""The model card that lies beside the weights: what it is, what it learned from, what it is worth."""

from __future__ import annotations

from patchword.alignment.artifact import ArtifactConfig, Tower

_NAMES_SHOWN = 200


def model_card(config: ArtifactConfig) -> str:
    """Write the card of an alignment in Markdown.

    Args:
        config: of the artifact.

    Returns:
        the text of `README.md`, the same for the same arguments.
    """
    return "\n".join(
        [*_front_matter(), *_summary(config), *_parts(config), *_training(config), *_scores(config), *_limits(), ""]
    )


def _front_matter() -> list[str]:
    return [
        "---",
        "library_name: patchword",
        "pipeline_tag: image-segmentation",
        "tags: [open-vocabulary, semantic-segmentation, annotation-free]",
        "---",
        "",
    ]


def _summary(config: ArtifactConfig) -> list[str]:
    return [
        "# An open-vocabulary segmenter",
        "",
        "An alignment module made by patchword. It maps the patch features of a frozen vision encoder into the text "
        "space of a frozen image-text model, so that an image can be segmented by any class names. The label set is "
        "open: names that were never trained may be asked for.",
        "",
        "```python",
        "from patchword import Segmenter",
        "",
        'segmenter = Segmenter.from_pretrained("this folder, or its name on the hub")',
        'segmenter.segment("photo.jpg", classes=["cat", "lamp"]).overlay().save("photo.png")',
        "```",
        "",
        f"This folder holds the module alone ({_count(config)} parameters). The frozen models are loaded from where "
        "`config.json` names them, and only the very same weights are accepted.",
        "",
    ]


def _parts(config: ArtifactConfig) -> list[str]:
    return [
        "## Parts",
        "",
        "| part | weights | fingerprint | licence |",
        "|---|---|---|---|",
        _tower("vision encoder", config.encoder),
        _tower("text encoder", config.text_encoder),
        "",
        "The licences of the frozen models are stated as their publishers state them and bind whoever uses them.",
        "",
    ]


def _training(config: ArtifactConfig) -> list[str]:
    facts, settings = config.training, config.settings
    vocabulary = config.parsed_vocabulary()
    shown = ", ".join(vocabulary.names[:_NAMES_SHOWN])
    more = f" and {len(vocabulary) - _NAMES_SHOWN} more" if len(vocabulary) > _NAMES_SHOWN else ""
    lines = [
        "## Training",
        "",
        f"- {facts.images} photographs with label maps (data fingerprint `{facts.data_fingerprint[:16]}`); "
        f"{facts.images_without_labels} more had no labelled patch, {facts.images_skipped} could not be used",
        f"- {100 * facts.labelled_share:.1f} % of the patches had a label; the others took no part",
        f"- {len(vocabulary)} classes: {shown}{more}",
        f"- {facts.steps} steps of AdamW, images as squares of {config.image_size} pixels, seed {settings.seed}",
        f"- loss of the last steps {facts.last.total:.4f} (patch-patch {facts.last.patch_patch:.4f}, "
        f"text anchor {facts.last.text_anchor:.4f}, patch anchor {facts.last.patch_anchor:.4f}); "
        f"text temperature {config.temperature:.4f}",
    ]
    if facts.held_out is not None:
        lines.append(
            f"- {100 * settings.held_out:g} % of the photographs were held out; their patches got the class of their "
            f"label in {100 * facts.held_out:.1f} %, mean over classes"
        )
    if facts.classes_without_patches:
        lines.append(f"- no patch was labelled as: {', '.join(facts.classes_without_patches)}")
    if config.versions:
        lines.append(f"- made with {', '.join(f'{name} {value}' for name, value in sorted(config.versions.items()))}")
    table = [f"| {name} | {value} |" for name, value in sorted(settings.model_dump(mode="json").items())]
    return [*lines, "", "| setting | value |", "|---|---|", *table, ""]


def _scores(config: ArtifactConfig) -> list[str]:
    if not config.scores:
        return ["## Scores", "", "None was measured when this card was written.", ""]
    return [
        "## Scores",
        "",
        "| measurement | value |",
        "|---|---|",
        *(f"| {name} | {value:.4f} |" for name, value in config.scores.items()),
        "",
    ]


def _limits() -> list[str]:
    return [
        "## Limits",
        "",
        "- It learned from label maps as they were: where they are wrong in the same way everywhere, so is it.",
        "- Its map has the resolution of patches; thin and small things are lost or blurred, and edges are off by part "
        "of a patch.",
        "- Every pixel takes one of the names asked for, however badly it fits, unless background words or a least "
        "confidence are given. The confidence is relative to the names asked for.",
        "- It inherits the biases of the frozen models and of their training data. It has not been tested for any use "
        "in which a mistake harms people.",
    ]


def _tower(role: str, tower: Tower) -> str:
    revision = f" at {tower.revision}" if tower.revision else ""
    return f"| {role} | {tower.name}{revision} | `{tower.fingerprint[:16]}` | {tower.licence or 'not stated'} |"


def _count(config: ArtifactConfig) -> str:
    return f"{config.module.kind}, {config.module.build().parameter_count / 1e6:.2f} million"
