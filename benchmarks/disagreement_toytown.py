"""Of the masks that a trained model contradicts most, how many are truly wrong? Needs a folder of `patchword demo`.

    python benchmarks/disagreement_toytown.py demo

The masks that labelling drew are ranked by the doubt of the model that learned from them; only then are the exact masks
opened. A mask is wrong when most of its labelled pixels are of another class.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

import patchword as pw
from patchword.evaluation.disagreement import find_disagreement
from patchword.labeling.quality.records import worst_masks
from patchword.toytown.demo_scenes import ALL
from patchword.versions import versions


def is_wrong(demo: Path, labels: pw.LabelledDataset, name: str, position: int) -> bool:
    """Whether most pixels that a mask gave its class are of another."""
    item = next(item for item in labels.items if item.record.name == name)
    segment = item.segments()[position]
    said = pw.LabelMap.load(item.label_map, names=labels.vocabulary.names).indices
    exact = pw.LabelMap.load(demo / "truth" / "scenes" / "all" / f"{name}.png", names=ALL).indices
    kept = segment.mask() & (said == segment.class_index)
    return bool(np.mean(exact[kept] == ALL.index(segment.class_name)) < 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="folder that `patchword demo` made")
    arguments = parser.parse_args()
    labels = pw.LabelledDataset.open(arguments.demo / "labels")
    model = pw.load(arguments.demo / "model", device="cpu")
    with tempfile.TemporaryDirectory() as temporary:
        records = find_disagreement(labels, segmenter=model, out=Path(temporary) / "disagreement.jsonl")
    ranked = worst_masks(records)
    wrong = np.array([is_wrong(arguments.demo, labels, name, mask.position) for name, mask in ranked])
    print(f"{len(ranked)} masks of {len(records)} scenes; chance, the share of all that are wrong: {wrong.mean():.3f}")
    for count in (50, 100, 200):
        if count <= len(ranked):
            flagged = wrong[:count].mean()
            print(f"precision at {count}: {flagged:.3f}, {flagged / max(wrong.mean(), 1e-9):.1f} x chance")
    print(json.dumps(versions(), sort_keys=True))


if __name__ == "__main__":
    main()
