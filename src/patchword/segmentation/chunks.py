"""Which photographs of a folder are segmented together, as the heads of their files tell."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from patchword.runs.shards import Shard, chunks_of
from patchword.segmentation.folder_settings import FolderSettings
from patchword.segmentation.large.readers import read_head
from patchword.segmentation.settings import SegmentSettings

_HEADS = 8  # files that are opened at once, which takes no memory


@dataclass(frozen=True)
class ChunkPlan:
    """What goes to the models together.

    Attributes:
        chunks: names of photographs.
        in_tiles: images that are segmented tile by tile; each is a chunk of its own.
    """

    chunks: list[tuple[str, ...]]
    in_tiles: frozenset[Path]


def plan_chunks(
    photographs: Mapping[str, Path],
    *,
    settings: SegmentSettings,
    how: FolderSettings,
    shard: Shard | None,
    or_none: bool = False,
) -> ChunkPlan:
    """Cut a folder's photographs into chunks of at most `batch` photographs and `batch_megapixels`.

    Args:
        photographs: name and path of all, sorted by name.
        settings, how: of the run.
        shard: the part that is wanted; None for all.
        or_none: whether a shard may have no photographs, as where there are videos.
    """
    if not photographs:
        return ChunkPlan([], frozenset())
    with ThreadPoolExecutor(_HEADS, thread_name_prefix="patchword-head") as pool:
        read = pool.map(partial(read_head, settings=settings), photographs.values())
        heads = dict(zip(photographs, read, strict=True))
    large = {name for name, head in heads.items() if head.in_tiles}
    chunks = chunks_of(
        list(photographs),
        size=settings.batch,
        shard=None if or_none else shard,
        alone=large,
        pixels={name: head.pixels for name, head in heads.items()},
        most=how.batch_megapixels * 1e6,
    )
    if or_none and shard is not None:
        chunks = chunks[shard.index - 1 :: shard.count]
    return ChunkPlan(chunks, frozenset(photographs[name] for name in large))
