"""Registry and presets: what they state agrees with itself and with the models' configs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from patchword.errors import PatchwordError
from patchword.models.registry import FAMILIES, PRESETS, checkpoint_of, family_of, find_preset, known_family

NAME = "openai/clip-vit-base-patch16"


def test_presets_name_known_models_of_the_right_kinds() -> None:
    for preset, choice in PRESETS.items():
        assert find_preset(preset) is choice
        kinds = []
        for name in choice.names:
            family = known_family(name)
            assert family is not None, name
            kinds.append(family.kinds[0])
        assert kinds == ["image-text", "mask", "patch"]


def test_unknown_preset() -> None:
    with pytest.raises(PatchwordError, match=r"preset 'best' is unknown \(choose from fast, balanced, thorough"):
        find_preset("best")


def test_registry_is_consistent() -> None:
    names = [checkpoint.name for family in FAMILIES for checkpoint in family.checkpoints]
    assert len(set(names)) == len(names)
    types = [model_type for family in FAMILIES for model_type in family.model_types]
    assert len(set(types)) == len(types)
    for family in FAMILIES:
        assert family_of(family.model_types[0], where="here") is family
        for checkpoint in family.checkpoints:
            assert checkpoint.licence
            assert checkpoint.input_size % checkpoint.patch_size == 0
            assert (checkpoint.tower_dim > 0) == ("patch" in family.kinds[1:])
            assert checkpoint.gated == family.name.startswith("dinov3")


def test_every_role_of_a_family_has_weights_and_an_adapter() -> None:
    import transformers

    from patchword.models.loading import adapter_of

    for family in FAMILIES:
        for kind in family.kinds:
            assert hasattr(transformers, adapter_of(family, kind).class_name)


def _configs() -> dict[str, Callable[[], tuple[Any, Any]]]:
    """The published configs of some checkpoints, written down, as (model class, config)."""
    import transformers as t

    clip_large: dict[str, Any] = {
        "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
        "vision_config": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "patch_size": 14,
            "image_size": 336,
        },
        "projection_dim": 768,
    }
    dino: dict[str, Any] = {"image_size": 518, "patch_size": 14}
    giant = {"hidden_size": 1536, "num_attention_heads": 24, "num_hidden_layers": 40, "use_swiglu_ffn": True, **dino}
    huge = {"hidden_size": 1280, "num_hidden_layers": 32, "patch_size": 14, "intermediate_size": 5120}
    plus = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 20, "intermediate_size": 5120}
    return {
        NAME: lambda: (t.CLIPModel, t.CLIPConfig(vision_config={"patch_size": 16})),
        "openai/clip-vit-large-patch14-336": lambda: (t.CLIPModel, t.CLIPConfig(**clip_large)),
        "facebook/dinov2-small": lambda: (
            t.Dinov2Model,
            t.Dinov2Config(hidden_size=384, num_attention_heads=6, **dino),
        ),
        "facebook/dinov2-base": lambda: (t.Dinov2Model, t.Dinov2Config(**dino)),
        "facebook/dinov2-with-registers-base": lambda: (
            t.Dinov2WithRegistersModel,
            t.Dinov2WithRegistersConfig(**dino),
        ),
        "facebook/dinov2-giant": lambda: (t.Dinov2Model, t.Dinov2Config(**giant)),
        "facebook/dinov3-vits16-pretrain-lvd1689m": lambda: (
            t.DINOv3ViTModel,
            t.DINOv3ViTConfig(num_register_tokens=4),
        ),
        "facebook/dinov3-vith16plus-pretrain-lvd1689m": lambda: (
            t.DINOv3ViTModel,
            t.DINOv3ViTConfig(num_register_tokens=4, use_gated_mlp=True, **plus),
        ),
        "facebook/dinov3-convnext-tiny-pretrain-lvd1689m": lambda: (t.DINOv3ConvNextModel, t.DINOv3ConvNextConfig()),
        "facebook/dinov3-convnext-large-pretrain-lvd1689m": lambda: (
            t.DINOv3ConvNextModel,
            t.DINOv3ConvNextConfig(hidden_sizes=[192, 384, 768, 1536], depths=[3, 3, 27, 3]),
        ),
        "facebook/vit-mae-base": lambda: (t.ViTMAEModel, t.ViTMAEConfig()),
        "facebook/vit-mae-huge": lambda: (t.ViTMAEModel, t.ViTMAEConfig(num_attention_heads=16, **huge)),
        "google/siglip2-base-patch16-224": lambda: (t.SiglipModel, t.SiglipConfig(text_config={"vocab_size": 256000})),
        "facebook/sam-vit-base": lambda: (t.SamModel, t.SamConfig()),
        "facebook/sam2.1-hiera-tiny": lambda: (t.Sam2VideoModel, t.Sam2VideoConfig()),
    }


@pytest.mark.parametrize("name", list(_configs()))
def test_registry_states_the_sizes_of_the_models(name: str) -> None:
    """Counted on the meta device, without a weight."""
    import torch

    from patchword.models.loading import adapter_of

    family, checkpoint = known_family(name), checkpoint_of(name)
    assert family is not None
    assert checkpoint is not None
    with torch.device("meta"):
        model_class, config = _configs()[name]()
        count = sum(parameter.numel() for parameter in model_class(config).parameters())
    assert count / 1e6 == pytest.approx(checkpoint.parameters, abs=0.1)
    if "patch" in family.kinds[1:]:
        tower = config.vision_config
        assert adapter_of(family, "patch").sizes(tower) == (
            checkpoint.patch_size,
            checkpoint.tower_dim,
            checkpoint.input_size,
        )
    assert adapter_of(family, family.kinds[0]).sizes(config) == (
        checkpoint.patch_size,
        checkpoint.dim,
        checkpoint.input_size,
    )
