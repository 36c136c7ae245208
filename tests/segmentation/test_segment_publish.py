"""A segmenter goes up to the hub and comes down again the same; the hub's client is a stand-in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from patchword.export import publish
from patchword.segmentation.segmenter import Segmenter


class StandIn:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create_repo(self, name: str, **options: Any) -> None:
        self.folder.mkdir()

    def upload_folder(self, *, folder_path: Path, allow_patterns: list[str], **options: Any) -> SimpleNamespace:
        for pattern in allow_patterns:
            for path in folder_path.glob(pattern):
                shutil.copy(path, self.folder)
        return SimpleNamespace(commit_url="somewhere")


def test_up_and_down_again(segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: StandIn(folder))
    assert segmenter.push_to_hub("someone/colours", scores={"mIoU": 0.5}) == "somewhere"
    assert json.loads((folder / "config.json").read_text())["scores"] == {"mIoU": 0.5}
    assert "| mIoU | 0.5000 |" in (folder / "README.md").read_text()
    assert segmenter.config.scores == {}
    monkeypatch.setattr(publish, "cached_folder", lambda name, revision: folder)
    again = Segmenter.from_pretrained("someone/colours", encoder=segmenter.encoder, text_encoder=segmenter.text)
    assert again.config.scores == {"mIoU": 0.5}
    for name, weights in segmenter.module.state_dict().items():
        assert weights.equal(again.module.state_dict()[name])
