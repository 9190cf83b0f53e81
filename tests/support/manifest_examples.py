"""A manifest for tests, and the ways in which it is altered."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from pytest_mxq.baselines.manifest import (
    Identity,
    LpipsInfo,
    Manifest,
    NoiseFloor,
    Selection,
    StoredOutput,
    content_digest,
    decode,
    encode,
    sealed,
)
from pytest_mxq.environment.fingerprint import Fingerprint
from pytest_mxq.errors import BaselineInvalidError

WHERE = "baselines/cpu-x86-64/demo/test_demo.json"
HEX = "0123456789abcdef" * 4

IDENTITY = Identity(
    model="demo",
    weights="packaged:0123456789ab",
    prompts=("a red circle", "a blue square"),
    seed=7,
    batch_size=2,
    images_per_prompt=1,
    width=64,
    height=48,
    execution="eager",
    calls=({"num_inference_steps": 28, "guidance_scale": 3.5, "sigmas": [1.0, 0.5], "extra": {"scale": None}},),
)


def make_manifest(identity: Identity = IDENTITY) -> Manifest:
    keys = list(identity.output_keys())
    manifest = Manifest(
        schema_version=2,
        case="test_demo[b2]",
        model="demo",
        device="cpu-x86-64",
        created="2026-01-02T03:04:05+00:00",
        identity=identity,
        identity_sha256=identity.digest,
        outputs=tuple(
            StoredOutput(**key._asdict(), file=f"{order:02}.png", sha256=HEX, width=64, height=48)
            for order, key in enumerate(keys)
        ),
        selections={
            "mxfp8": Selection.of(["blocks.0.q", "blocks.1.q", "proj"], total=5, weight_share=0.9),
            "nvfp4": Selection.of(["blocks.0.q"], total=5, weight_share=0.5),
        },
        noise_floor=NoiseFloor(repeat=0.0, eager_vs_compiled=None, note="no compiler on this machine"),
        lpips=LpipsInfo(net="alex", version="0.1", weights_sha256=HEX),
        fingerprint=Fingerprint(hard={"torch": "2.15.0"}, recorded={"host": "runner"}),
    )
    return sealed(manifest)


def altered(change: Callable[[dict[str, Any]], object]) -> bytes:
    document = json.loads(encode(make_manifest()))
    change(document)
    return json.dumps(document).encode()


def in_schema_1(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document of schema version 2 as version 1 wrote it."""
    old = {key: value for key, value in document.items() if key not in {"outputs", "content_sha256"}}
    old["schema_version"] = 1
    old["pictures"] = [
        {"clip" if key == "video" else key: value for key, value in output.items()} for output in document["outputs"]
    ]
    if old["lpips"]:
        old["lpips"] = {
            "trunk_sha256" if key == "weights_sha256" else key: value for key, value in old["lpips"].items()
        }
    return old


def resealed(document: dict[str, Any]) -> dict[str, Any]:
    """Return an altered document with the digest of its content."""
    return document | {"content_sha256": content_digest(document)}


def message_of(data: bytes) -> str:
    with pytest.raises(BaselineInvalidError) as caught:
        decode(data, where=WHERE)
    return str(caught.value)


def put(path: str, value: object) -> Callable[[dict[str, Any]], object]:
    *parents, last = [int(step) if step.isdigit() else step for step in path.split("/")]

    def change(document: Any) -> None:
        for step in parents:
            document = document[step]
        document[last] = value

    return change
