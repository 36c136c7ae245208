"""Requests made from the API's own description never break the server, and it answers as it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from patchword.config.serve import LabelStudioConfig, ServeConfig
from patchword.serving.app import create_app
from patchword.serving.studio import create_studio_app

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
TOKEN = {"Authorization": "Bearer secret"}


APPS: dict[str, tuple[Callable[[], FastAPI], set[str]]] = {
    "serve": (
        lambda: create_app(ServeConfig(token="secret")),
        {"/v1/models", "/v1/images", "/v1/images/{image}/segment", "/v1/segment", "/metrics"},
    ),
    "label-studio-backend": (
        lambda: create_studio_app(LabelStudioConfig(token="secret")),
        {"/health", "/setup", "/predict", "/webhook", "/metrics"},
    ),
}


@pytest.fixture(scope="module", params=APPS)
def operations(request: pytest.FixtureRequest) -> list[Any]:
    make, paths = APPS[request.param]
    described = schemathesis.openapi.from_asgi("/openapi.json", make())
    found = [each.ok() for each in described.get_all_operations()]
    assert paths <= {each.path for each in found}
    return found


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["as described", "otherwise"])
def test_the_description_is_kept(operations: list[Any], mode: GenerationMode) -> None:
    for operation in operations:
        if mode == GenerationMode.NEGATIVE and not (operation.body or operation.query):
            continue

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=8,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def check(case: Any) -> None:
            case.validate_response(case.call(headers=TOKEN), checks=CHECKS)

        check()
