"""Small modules with the interfaces of timm and OpenCLIP, as far as the adapters use them, for tests without either.

They were written after timm 1.0 (`create_model("local-dir:...")`, `forward_intermediates`, `feature_info`,
`pretrained_cfg`) and OpenCLIP 3 (`create_model("local-dir:...")`, `get_tokenizer`, `VisionTransformer`).
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

TIMM_DIM, OPEN_CLIP_WIDTH, OPEN_CLIP_DIM, CONTEXT = 24, 32, 20, 16


class TimmVit(nn.Module):
    """A vision transformer of timm's: class token, learned positions, a norm at the end."""

    def __init__(self, *, dynamic_img_size: bool = False) -> None:
        super().__init__()
        self.dynamic = dynamic_img_size
        self.patch_embed = nn.Conv2d(3, TIMM_DIM, 8, 8)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, TIMM_DIM))
        self.pos_embed = nn.Parameter(torch.zeros(1, 17, TIMM_DIM))
        self.block = nn.TransformerEncoderLayer(TIMM_DIM, 2, 48, dropout=0.0, batch_first=True, norm_first=True)
        self.norm = nn.LayerNorm(TIMM_DIM)
        self.feature_info = [{"module": "block", "num_chs": TIMM_DIM, "reduction": 8}]
        self.pretrained_cfg = {
            "mean": (0.4, 0.5, 0.6),
            "std": (0.2, 0.3, 0.4),
            "input_size": (3, 32, 32),
            "license": "mit",
        }

    def forward_intermediates(
        self, x: Tensor, *, indices: int, norm: bool, output_fmt: str, intermediates_only: bool
    ) -> list[Tensor]:
        assert (indices, output_fmt, intermediates_only) == (1, "NCHW", True)
        patches = self.patch_embed(x)
        grid = patches.shape[-2:]
        assert self.dynamic or grid == (4, 4), f"Input height ({x.shape[-2]}) doesn't match model (32)."
        table = self.pos_embed[:, 1:].transpose(1, 2).reshape(1, TIMM_DIM, 4, 4)
        table = nn.functional.interpolate(table, grid, mode="bicubic", antialias=True) if grid != (4, 4) else table
        tokens = (patches + table).flatten(2).transpose(1, 2)
        first = (self.cls_token + self.pos_embed[:, :1]).expand(x.shape[0], -1, -1)
        tokens = self.block(torch.cat([first, tokens], dim=1))
        tokens = self.norm(tokens) if norm else tokens
        return [tokens[:, 1:].transpose(1, 2).reshape(x.shape[0], TIMM_DIM, *grid)]


class TimmNet(nn.Module):
    """A convolutional network of timm's, which has no norm for its maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 4, 4)
        self.stage = nn.Conv2d(12, TIMM_DIM, 2, 2)
        self.feature_info = [
            {"module": "stem", "num_chs": 12, "reduction": 4},
            {"module": "stage", "num_chs": TIMM_DIM, "reduction": 8},
        ]
        self.pretrained_cfg = {
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "input_size": (3, 32, 32),
            "license": None,
        }

    def forward_intermediates(
        self, x: Tensor, *, indices: int, norm: bool, output_fmt: str, intermediates_only: bool
    ) -> list[Tensor]:
        assert not norm, "normalization of features not supported"
        return [self.stage(self.stem(x).relu()).tanh()]


class TimmPlain(nn.Module):
    """A model without feature maps."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.pretrained_cfg: dict[str, Any] = {}


def timm_module() -> ModuleType:
    """A stand-in of the package timm."""

    def create_model(name: str, *, pretrained: bool, num_classes: int, **options: Any) -> nn.Module:
        assert pretrained
        assert num_classes == 0
        folder = Path(name.removeprefix("local-dir:"))
        architecture = json.loads((folder / "config.json").read_text())["architecture"]
        if architecture == "vit":
            model: nn.Module = TimmVit(**options)
        elif architecture in ("net", "plain"):
            if options:
                raise TypeError("__init__() got an unexpected keyword argument 'dynamic_img_size'")
            model = TimmNet() if architecture == "net" else TimmPlain()
        else:
            raise RuntimeError(f"Unknown model ({architecture})")
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model.train()

    module = ModuleType("timm")
    module.create_model = create_model  # type: ignore[attr-defined]
    return module


class Block(nn.Module):
    """OpenCLIP's `ResidualAttentionBlock`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 2, batch_first=True)
        self.ls_1, self.ls_2 = nn.Identity(), nn.Identity()
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.ln_1(x)
        x = x + self.ls_1(self.attn(normed, normed, normed, need_weights=False)[0])
        return x + self.ls_2(self.mlp(self.ln_2(x)))


class Blocks(nn.Module):
    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.batch_first = True
        self.resblocks = nn.ModuleList(Block(width) for _ in range(layers))


class VisionTransformer(nn.Module):
    """OpenCLIP's image tower: 32-pixel input, patch 8."""

    def __init__(self) -> None:
        super().__init__()
        width = OPEN_CLIP_WIDTH
        self.image_size, self.patch_size = (32, 32), (8, 8)
        self.conv1 = nn.Conv2d(3, width, 8, 8, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(17, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Blocks(width, 3)
        self.attn_pool = None
        self.pool_type = "tok"
        self.proj = nn.Parameter(torch.zeros(width, OPEN_CLIP_DIM))

    def tokens(self, x: Tensor) -> Tensor:
        """As `VisionTransformer.forward` does up to the pooling, at the trained size only."""
        x = self.conv1(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(x.shape[0], 1, -1), x], dim=1) + self.positional_embedding
        x = self.ln_pre(x)
        for block in self.transformer.resblocks:
            x = block(x)
        return self.ln_post(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.tokens(x)[:, 0] @ self.proj


class TimmModel(nn.Module):
    """OpenCLIP's wrapper of a timm image tower."""

    def __init__(self) -> None:
        super().__init__()
        self.image_size = (32, 32)
        self.trunk = nn.Conv2d(3, OPEN_CLIP_DIM, 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.trunk(x).mean(dim=(-2, -1))


class OpenClip(nn.Module):
    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.visual = tower
        self.token_embedding = nn.Embedding(300, OPEN_CLIP_DIM)
        self.positional_embedding = nn.Parameter(torch.zeros(CONTEXT, OPEN_CLIP_DIM))
        self.ln_final = nn.LayerNorm(OPEN_CLIP_DIM)

    def encode_image(self, image: Tensor) -> Tensor:
        features: Tensor = self.visual(image)
        return features

    def encode_text(self, text: Tensor) -> Tensor:
        """Pooled at the highest token, after all that comes before it."""
        x = (self.token_embedding(text) + self.positional_embedding).tanh().cumsum(dim=1)
        return self.ln_final(x)[torch.arange(x.shape[0]), text.argmax(dim=-1)]


def tokenize(texts: list[str]) -> Tensor:
    """Bytes, the end token 299 after the last, zeros behind it; too long is cut."""
    tokens = torch.zeros(len(texts), CONTEXT, dtype=torch.long)
    for row, text in enumerate(texts):
        ids = [*list(text.lower().encode())[: CONTEXT - 1], 299]
        tokens[row, : len(ids)] = torch.tensor(ids)
    return tokens


def open_clip_module() -> ModuleType:
    """A stand-in of the package open_clip."""

    def create_model(name: str, *, precision: str, device: str) -> nn.Module:
        assert (precision, device) == ("fp32", "cpu")
        folder = Path(name.removeprefix("local-dir:"))
        stated = json.loads((folder / "open_clip_config.json").read_text())
        timm_tower = "timm_model_name" in stated["model_cfg"]["vision_cfg"]
        model = OpenClip(TimmModel() if timm_tower else VisionTransformer())
        model.load_state_dict(load_file(folder / "open_clip_model.safetensors"))
        model.visual.preprocess_cfg = stated["preprocess_cfg"]
        return model.train()

    module = ModuleType("open_clip")
    module.create_model = create_model  # type: ignore[attr-defined]
    module.get_tokenizer = lambda name: tokenize  # type: ignore[attr-defined]
    return module


def make_timm(folder: Path, architecture: str = "vit") -> Path:
    """A checkpoint in timm's hub format."""
    models = {"vit": lambda: TimmVit(dynamic_img_size=True), "net": TimmNet, "plain": TimmPlain}
    folder.mkdir(parents=True, exist_ok=True)
    config = {"architecture": architecture, "num_classes": 1000, "pretrained_cfg": {"tag": "test"}}
    (folder / "config.json").write_text(json.dumps(config))
    _save(models[architecture](), folder / "model.safetensors")
    return folder


def make_open_clip(folder: Path, *, timm_tower: bool = False) -> Path:
    """A checkpoint in OpenCLIP's hub format."""
    folder.mkdir(parents=True, exist_ok=True)
    vision = {"timm_model_name": "vit"} if timm_tower else {"patch_size": 8}
    config = {
        "model_cfg": {"embed_dim": OPEN_CLIP_DIM, "vision_cfg": vision, "text_cfg": {"context_length": CONTEXT}},
        "preprocess_cfg": {"mean": [0.48, 0.45, 0.4], "std": [0.26, 0.25, 0.27], "interpolation": "bicubic"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    tower = TimmModel() if timm_tower else VisionTransformer()
    _save(OpenClip(tower), folder / "open_clip_model.safetensors")
    return folder


def _save(model: nn.Module, path: Path) -> None:
    generator = torch.Generator().manual_seed(5)
    for weight in model.parameters():
        scale = weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.1
        noise = torch.randn(weight.shape, generator=generator) * scale
        weight.data = noise if weight.ndim > 1 else weight.data + noise
    save_file(model.state_dict(), path)
