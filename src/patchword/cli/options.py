"""The options that several commands share, each worded once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Photos = Annotated[Path, typer.Argument(metavar="PHOTOS", help="Folder of photographs, or one photograph.")]
ClassList = Annotated[str, typer.Option("--classes", help='A class list file, or names: "cat, dog".')]
Background = Annotated[
    str | None, typer.Option(metavar="WORDS", help='Background words, "sky, wall", instead of the class list\'s.')
]
OutFolder = Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder of the result.")]
PresetName = Annotated[str, typer.Option(help="Models (and settings of labelling): fast, balanced or thorough.")]
Model = Annotated[Path, typer.Option(metavar="FOLDER", help="Segmenter that `patchword align` made.")]
AnyModel = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="Segmenter that `patchword align` made, or its .onnx file; or --method."),
]
Method = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Instead, without training: maskclip, sclip, clearclip, naclip or proxyclip, with --image-text.",
    ),
]
ImageText = Annotated[
    str | None, typer.Option(metavar="NAME", help="CLIP of --method: hub name, name@revision or folder.")
]
VisionEncoder = Annotated[
    str | None, typer.Option(metavar="NAME", help="Vision encoder of proxyclip; or where that of --model is now.")
]
TextEncoder = Annotated[
    str | None, typer.Option(metavar="NAME", help="Where the text encoder of --model is now; or text vectors.")
]
ModelPart = Annotated[str | None, typer.Option(metavar="NAME", help="Hub name, name@revision or folder.")]
Snapper = Annotated[
    str | None,
    typer.Option(
        "--mask-generator",
        "--mask-proposer",
        metavar="NAME",
        help="SAM for the setting refine=sam.",
    ),
]
Assignments = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting; repeatable.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Limit = Annotated[int | None, typer.Option(metavar="N", help="Take the first N photographs.")]
Part = Annotated[
    str | None, typer.Option("--shard", metavar="I/N", help="Take part I of N; `patchword merge` puts them together.")
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="With --resume, try photographs again that failed.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where an earlier run stopped.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Empty the folder first, if it is an earlier result.")]
OverwriteCorrections = Annotated[
    bool,
    typer.Option("--overwrite-corrections", help="As --overwrite, also where a person's imported labels would go."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show counts, models and settings; do nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Moved = Annotated[Path | None, typer.Option("--photos", metavar="FOLDER", help="Where the photographs are now.")]
