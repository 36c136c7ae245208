"""How large the package is and how far one call runs through it: `python tools/measure_structure.py`.

Lines and files are counted over `src/patchword`; cycles over its imports, those inside functions included. One `label`,
`segment` and `evaluate` of one Toytown scene with the miniatures is followed by a profile hook: files whose functions
run, and the deepest stack of the package's own frames. Class bodies, the templates of pages, and what modules run when
they are imported do not count.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from PIL import Image

SOURCE = Path(__file__).resolve().parent.parent / "src" / "patchword"
_FEWEST_LINES, _MOST_LINES = 40, 400
_NOT_CALLS = ("<module>", "<lambda>", "<genexpr>", "<listcomp>", "<dictcomp>", "<setcomp>")


class Follower:
    """Profile hook: which of the package's files run, and how deep its own frames stand on each other."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.deepest: list[str] = []

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        path = frame.f_code.co_filename
        if event != "call" or not _is_ours(path) or frame.f_code.co_name in _NOT_CALLS:
            return
        if not frame.f_code.co_flags & inspect.CO_OPTIMIZED or _is_importing(
            frame
        ):  # class bodies; runs once a process
            return
        self.files.add(Path(path).relative_to(SOURCE).as_posix())
        stack: list[str] = []
        above: FrameType | None = frame
        while above is not None:
            if _is_ours(above.f_code.co_filename) and above.f_code.co_name not in _NOT_CALLS:
                stack.append(f"{Path(above.f_code.co_filename).relative_to(SOURCE).as_posix()}:{above.f_code.co_name}")
            above = above.f_back
        if len(stack) > len(self.deepest):
            self.deepest = stack


def _is_ours(path: str) -> bool:
    return path.startswith(str(SOURCE)) and path.endswith(".py")  # templates of pages are compiled under their names


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a call is made by the code of a module."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith(str(SOURCE)):
            return True
        frame = frame.f_back
    return False


def follow(call: Callable[[], Any]) -> Follower:
    """Run a call, its threads included, under a hook."""
    follower = Follower()
    threading.setprofile(follower)
    sys.setprofile(follower)
    try:
        call()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return follower


def module_imports() -> dict[str, set[str]]:
    """Every module of the package and the modules of the package that it imports, anywhere in it."""
    modules = {_name(path): path for path in SOURCE.rglob("*.py")}
    found: dict[str, set[str]] = {}
    for name, path in modules.items():
        found[name] = set()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        typing_only = {
            id(node)
            for branch in ast.walk(tree)
            if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
            for node in ast.walk(branch)
        }
        for node in ast.walk(tree):
            if id(node) in typing_only:
                continue
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("patchword"):
                base = str(node.module)
                targets = [f"{base}.{alias.name}" for alias in node.names]
                found[name] |= {target if target in modules else base for target in targets}
            elif isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names if alias.name in modules}
        found[name] &= modules.keys() - {name}
    return found


def _name(path: Path) -> str:
    parts = ("patchword", *path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def cycles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other in a circle (strongly connected components of two and more)."""
    order: list[str] = []
    seen: set[str] = set()

    def visit(start: str, edges: dict[str, set[str]], out: list[str]) -> None:
        stack = [(start, iter(sorted(edges[start])))]
        seen.add(start)
        while stack:
            node, rest = stack[-1]
            following = next((each for each in rest if each not in seen), None)
            if following is None:
                out.append(node)
                stack.pop()
            else:
                seen.add(following)
                stack.append((following, iter(sorted(edges[following]))))

    for node in imports:
        if node not in seen:
            visit(node, imports, order)
    backwards: dict[str, set[str]] = {node: set() for node in imports}
    for node, targets in imports.items():
        for target in targets:
            backwards[target].add(node)
    seen.clear()
    groups: list[list[str]] = []
    for node in reversed(order):
        if node not in seen:
            group: list[str] = []
            visit(node, backwards, group)
            groups.append(sorted(group))
    return [group for group in groups if len(group) > 1]


def median_seconds(arguments: list[str], *, runs: int = 5) -> float:
    """Median wall time of a command as a whole process."""
    taken = []
    for _ in range(runs):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        taken.append(time.perf_counter() - began)
    return sorted(taken)[runs // 2]


def followed_calls() -> dict[str, Follower]:
    """One `label`, `segment` and `evaluate` of one scene, followed."""
    import patchword as pw
    from patchword.toytown import miniatures
    from patchword.toytown.classes import SEEN
    from patchword.toytown.world import draw_scene

    scene = draw_scene(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("photos", "masks"):
            (folder / part).mkdir()
        Image.fromarray(scene.image).save(folder / "photos" / "scene.png")
        Image.fromarray(np.minimum(scene.classes, len(SEEN) - 1)).save(folder / "masks" / "scene.png")
        clip = str(miniatures.CLIP)
        shared: dict[str, Any] = {"classes": list(SEEN), "quiet": True, "device": "cpu"}
        judged: dict[str, Any] = {"method": "maskclip", "image_text": clip}
        return {
            "label": follow(
                lambda: pw.label(
                    folder / "photos",
                    out=folder / "labels",
                    image_text=clip,
                    mask_generator=str(miniatures.SAM),
                    encoder=str(miniatures.DINO),
                    **shared,
                )
            ),
            "segment": follow(lambda: pw.segment(folder / "photos", out=folder / "out", **judged, **shared)),
            "evaluate": follow(
                lambda: pw.evaluate(
                    folder / "photos", masks=folder / "masks", out=folder / "scores", **judged, **shared
                )
            ),
        }


def measure() -> dict[str, Any]:
    """All numbers, by name."""
    lines = {
        path.relative_to(SOURCE).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in SOURCE.rglob("*.py")
    }
    code = {name: count for name, count in lines.items() if not name.endswith("__init__.py")}
    numbers: dict[str, Any] = {
        "lines": sum(lines.values()),
        "files": len(lines),
        f"files under {_FEWEST_LINES} lines": sorted(name for name, count in code.items() if count < _FEWEST_LINES),
        f"files over {_MOST_LINES} lines": sorted(name for name, count in lines.items() if count > _MOST_LINES),
        "import cycles": cycles(module_imports()),
        "seconds of import patchword": round(median_seconds(["-c", "import patchword"]), 3),
        "seconds of patchword --help": round(median_seconds(["-m", "patchword", "--help"]), 3),
    }
    for name, follower in followed_calls().items():
        numbers[f"{name}: files"] = len(follower.files)
        numbers[f"{name}: deepest stack"] = len(follower.deepest)
        numbers[f"{name}: the stack"] = follower.deepest[::-1]
        numbers[f"{name}: its files"] = sorted(follower.files)
    return numbers


def main() -> None:
    """Print the numbers, or all that is behind them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="with the stacks and the lists of files")
    numbers = measure()
    if parser.parse_args().json:
        print(json.dumps(numbers, indent=2))
        return
    for name, value in numbers.items():
        if not name.endswith((": the stack", ": its files")):
            print(f"{name:32} {len(value) if isinstance(value, list) else value}")


if __name__ == "__main__":
    main()
