"""Many clients of one server on this machine, against as many calls in the server's own process.

    python benchmarks/serve_load.py [--clients 200] [--seconds 60] [--model DIR] [--queue 256]

Each client asks again as soon as it is answered, on a connection of its own; where the server says 429 it waits as long
as it is told. Prints requests a second, what was lost, the latencies, the deepest queue, and the speed in process.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import httpx
import numpy as np
from PIL import Image

from patchword.config.segment import SegmentSettings
from patchword.config.serve import ServeConfig
from patchword.serving.answers import Found, as_json
from patchword.serving.models import open_models
from patchword.serving.uploads import decode_upload
from patchword.toytown.world import draw_scene, scene_seed

CLASSES = ["sky", "grass; meadow", "tree", "house", "road", "car"]
SETTINGS = {"image_size": 64, "window": None, "stride": None}  # one forward pass of the miniature's own size


def pictures(count: int) -> list[bytes]:
    """Scenes of Toytown as PNG."""
    found = []
    for index in range(count):
        buffer = io.BytesIO()
        Image.fromarray(draw_scene(scene_seed("test", index=index), size=96).image).save(buffer, format="PNG")
        found.append(buffer.getvalue())
    return found


def in_process(config: ServeConfig, files: list[bytes], *, seconds: float) -> float:
    """Images a second of the same work without a server: decode, segment, make the answer."""
    model = open_models(config)["default"]
    vocabulary = model.vocabulary(CLASSES, None)
    settings = SegmentSettings.of({**model.defaults, **SETTINGS})
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        pixels = decode_upload(files[done % len(files)], limits=config.limits)
        (seen,) = model.encode([pixels], settings)
        json.dumps(as_json(Found(*model.decide(seen, vocabulary, settings), vocabulary, 0.0, True)))
        done += 1
    return done / (time.perf_counter() - started)


async def load(address: str, files: list[bytes], *, clients: int, seconds: float) -> dict[str, Any]:
    """What clients saw."""
    took: list[float] = []
    seen: Counter[str] = Counter()
    deepest = 0
    until = 0.0

    data = {"classes": CLASSES, "settings": json.dumps(SETTINGS)}
    asked = [httpx.Request("POST", address, files={"file": ("a.png", file, "image/png")}, data=data) for file in files]
    forms = [({"Content-Type": each.headers["content-type"]}, each.read()) for each in asked]

    async def one(client: httpx.AsyncClient, number: int) -> None:
        headers, body = forms[number % len(forms)]
        while time.perf_counter() < until:
            started = time.perf_counter()
            while True:
                try:
                    answer = await client.post("/v1/segment", content=body, headers=headers)
                except httpx.HTTPError as error:
                    seen[f"lost: {type(error).__name__}"] += 1
                    break
                seen[str(answer.status_code)] += 1
                if answer.status_code != 429:
                    break
                await asyncio.sleep(int(answer.headers["retry-after"]))
            took.append(time.perf_counter() - started)

    async def watch(client: httpx.AsyncClient) -> None:
        nonlocal deepest
        while time.perf_counter() < until:
            text = (await client.get("/metrics")).text
            found = re.search(r"^patchword_queue_depth (\S+)$", text, re.MULTILINE)
            deepest = max(deepest, int(float(found[1]))) if found else deepest
            await asyncio.sleep(0.5)

    none = httpx.Limits(max_connections=None, max_keepalive_connections=None)  # a connection for each client
    async with httpx.AsyncClient(base_url=address, timeout=120, limits=none) as client:
        started = time.perf_counter()
        until = started + seconds
        await asyncio.gather(watch(client), *(one(client, number) for number in range(clients)))
    whole = time.perf_counter() - started
    cuts = statistics.quantiles(took, n=100)
    return {
        "answers": dict(seen),
        "requests_a_second": round(seen["200"] / whole, 2),
        "seconds": {name: round(cuts[at - 1], 3) for name, at in (("p50", 50), ("p95", 95), ("p99", 99))},
        "deepest_queue": deepest,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--queue", type=int, default=256)
    parser.add_argument("--model", action="append", default=[])
    chosen = parser.parse_args()
    files = pictures(16)
    limits = {"queue": chosen.queue, "deadline": 120}
    config = ServeConfig(model=tuple(chosen.model), settings=limits)
    alone = in_process(config, files, seconds=min(10.0, chosen.seconds))
    arguments = [part for model in chosen.model for part in ("--model", model)]
    arguments += [part for name, value in limits.items() for part in ("--set", f"{name}={value}")]
    command = [sys.executable, "-m", "patchword", "serve", "--port", "0", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            lines = iter(server.stderr or ())
            address = next(found[1] for line in lines if (found := re.search(r"serving at (\S+)", line)))
            warm = {"file": ("a.png", files[0], "image/png")}
            httpx.post(f"{address}/v1/segment", files=warm, data={"classes": CLASSES}, timeout=120)
            found = asyncio.run(load(address, files, clients=chosen.clients, seconds=chosen.seconds))
        finally:
            server.terminate()
    ratio = round(found["requests_a_second"] / alone, 3)
    load_average = [round(value, 1) for value in os.getloadavg()]
    numbers = {"in_process_a_second": round(alone, 2), "ratio": ratio, "load_average": load_average}
    print(json.dumps({**found, **numbers, "numpy": np.__version__}, indent=2))


if __name__ == "__main__":
    main()
