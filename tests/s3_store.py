"""A store of objects for the tests: moto's S3, on a port of this machine, which writes down every request."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
import s3fs
from moto.server import ThreadedMotoServer
from werkzeug.serving import WSGIRequestHandler


@dataclass
class Store:
    """The store as a test sees it.

    Attributes:
        environment: what finds it, for other processes; this one has it as well.
        requests: method and path of each so far.
    """

    endpoint: str
    environment: dict[str, str]
    requests: list[tuple[str, str]] = field(default_factory=list)

    def client(self) -> Any:
        return boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1")

    def put(self, folder: Path, prefix: str) -> str:
        """Store every file of a folder; the URL."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                key = f"{prefix}/{path.relative_to(folder).as_posix()}"
                self.client().put_object(Bucket="bucket", Key=key, Body=path.read_bytes())
        return f"s3://bucket/{prefix}"

    def files(self, url: str) -> dict[str, bytes]:
        """Every object below a URL, by name."""
        prefix = url.removeprefix("s3://bucket/") + "/"
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=prefix)
        keys = [each["Key"] for page in pages for each in page.get("Contents", ())]
        return {
            key.removeprefix(prefix): self.client().get_object(Bucket="bucket", Key=key)["Body"].read() for key in keys
        }

    def counted(self, prefix: str = "") -> Counter[str]:
        """How many requests of each method there were, of paths that begin so."""
        return Counter(method for method, path in self.requests if path.startswith(f"/bucket/{prefix}"))


@contextmanager
def serving() -> Iterator[Store]:
    """A store, and the environment in which it is found."""
    server = ThreadedMotoServer(port=0, verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        server.start()
        _, port = server.get_host_and_port()
        endpoint = f"http://127.0.0.1:{port}"
        environment = {
            "AWS_ACCESS_KEY_ID": "made",
            "AWS_SECRET_ACCESS_KEY": "up",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
        }
        for name, value in environment.items():
            patch.setenv(name, value)
        found = Store(endpoint, environment)
        patch.setattr(
            WSGIRequestHandler,
            "log_request",
            lambda self, *_: found.requests.append((self.command, self.path)),
        )
        s3fs.S3FileSystem.clear_instance_cache()
        found.client().create_bucket(Bucket="bucket")
        yield found
        s3fs.S3FileSystem.clear_instance_cache()
        server.stop()


def without_place(files: dict[str, bytes], record: str) -> dict[str, Any]:
    """Files of a result but `runs.jsonl`, and what they say without where the photographs are."""
    values = json.loads(files[record])
    place = values.pop("photographs").encode()
    others = {name: data for name, data in files.items() if name not in ("runs.jsonl", record)}
    pages = {name: data.replace(place, b"PLACE") for name, data in others.items() if name.endswith(".html")}
    return {**others, **pages, record: values}
