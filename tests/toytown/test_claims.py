"""The grid behind docs/claims.md is one that runs: its folders are the demo's, its settings exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchword.config.align import AlignSettings
from patchword.errors import PatchwordError
from patchword.toytown.classes import SEEN
from tools.claims import claims_grid, run_claims


def test_every_row_has_settings_that_exist() -> None:
    grid = claims_grid(Path("demo"), seeds=(0, 1))
    for row in grid.all_rows:
        AlignSettings(**(grid.settings | row.settings))
        assert row.encoder is None or (Path(row.encoder) / "config.json").is_file()
    assert any(row.exact for row in grid.all_rows)
    assert {row.label_noise for row in grid.rows} == {0, 0.4}


def test_unseen_classes_are_scored_alone() -> None:
    tests = {test.name: test for test in claims_grid(Path("demo"), seeds=(0,)).tests}
    assert not set(tests["unseen classes"].score or ()) & set(SEEN)
    assert tests["unseen scenes"].score is None


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PatchwordError, match="is not a folder that `patchword demo` made"):
        run_claims([tmp_path], out=tmp_path / "out", resume=False, overwrite=False)


def test_one_seed_is_not_counted_twice(tmp_path: Path) -> None:
    demos = [tmp_path / "one", tmp_path / "two"]
    for demo in demos:
        demo.mkdir()
        (demo / "report.json").write_text('{"settings": {"seed": 3}}')
    with pytest.raises(PatchwordError, match="the seeds of the demos are 3, 3; they must differ"):
        run_claims(demos, out=tmp_path / "out", resume=False, overwrite=False)
