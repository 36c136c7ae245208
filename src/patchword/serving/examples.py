"""Pictures to begin with: scenes of Toytown, drawn when somebody asks for them."""

from __future__ import annotations

import io
from functools import cached_property

from PIL import Image

from patchword.serving.limits import RefusedError

_TITLES = ("A scene by day", "Another scene by day", "A third scene by day", "A scene at dusk")
_SIZE = (240, 320)


class Examples:
    """Toytown's scenes, for Toytown's own model; no others have any."""

    def __init__(self, *, drawn: bool) -> None:
        self._titles = {f"toytown-{number}": title for number, title in enumerate(_TITLES, 1)} if drawn else {}

    def listed(self) -> list[dict[str, str]]:
        """All of them, as the API tells."""
        return [{"id": name, "url": f"/examples/{name}.png", "title": title} for name, title in self._titles.items()]

    def picture(self, name: str) -> bytes:
        """PNG of one."""
        if name not in self._titles:
            raise RefusedError(404, "there is no such picture", kind="unknown")
        return self._pictures[name]

    @cached_property
    def _pictures(self) -> dict[str, bytes]:
        from patchword.toytown.world import draw_scene, scene_seed

        found = {}
        for index, (name, title) in enumerate(self._titles.items()):
            style = "dusk" if "dusk" in title else "day"
            scene = draw_scene(scene_seed("test", index=index), size=_SIZE, style=style)
            buffer = io.BytesIO()
            Image.fromarray(scene.image).save(buffer, format="PNG")
            found[name] = buffer.getvalue()
        return found
