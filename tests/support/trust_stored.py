"""Faults in the stored baseline, the environment and the bound."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from math import nan
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from PIL import Image
from trust_bench import RECIPE, Fault, Layer, Scene, TrustBench, empty_store

from pytest_mxq.baselines.identity import Identity
from pytest_mxq.baselines.manifest import content_digest
from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.models.demo import DEMO
from pytest_mxq.planning.settings import Reference

if TYPE_CHECKING:
    from gate_bench import Bench

Pixels = Callable[[Any], Any]


def edited(change: Callable[[dict[str, Any]], object], *, sealed: bool = False) -> Callable[[Bench], None]:
    """Return what edits the manifest; with the digest of its content written again where it is sealed."""

    def edit(bench: Bench) -> None:
        document = json.loads(bench.manifest.read_text())
        change(document)
        if sealed:
            document["content_sha256"] = content_digest(document)
        bench.manifest.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")

    return edit


def _setting(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return change


def _file(change: Callable[[Any], None]) -> Callable[[Bench], None]:
    """Return what changes the file of the first image."""

    def edit(bench: Bench) -> None:
        assert isinstance(bench, TrustBench)
        change(bench.outputs[0])

    return edit


def _pixel_changed(path: Any) -> None:
    pixels = np.asarray(Image.open(path)).copy()
    pixels[5, 5] ^= 1
    Image.fromarray(pixels).save(path)


def _truncated(path: Any) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _pointer(path: Any, digest: str) -> None:
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize 12345\n")


def _image_pointer(bench: Bench) -> None:
    assert isinstance(bench, TrustBench)
    output = json.loads(bench.manifest.read_text())["outputs"][0]
    _pointer(bench.manifest.with_suffix("") / output["file"], output["sha256"])


def _stored_again(change: Pixels) -> Callable[[Bench], None]:
    """Return what stores changed images under right digests, as a refresh elsewhere would have."""

    def edit(bench: Bench) -> None:
        manifest = bench.store.load("demo", "case")
        images = [Image.fromarray(change(np.asarray(image))) for image in bench.store.read_outputs(manifest)]
        bench.store.save(manifest, images)

    return edit


def _quantized_stored(bench: Bench) -> None:
    """Store the quantized arm's images as BF16's."""
    images: list[Image.Image] = []

    def workload(pipeline: Any, prompt: Any) -> Any:
        generated = pipeline(prompt).images
        if Scene(pipeline=pipeline, prompt=prompt, memory={}).is_quantized:
            images.append(Image.fromarray((generated[0] * 255).round().byte().permute(1, 2, 0).numpy()))
        return generated

    bench.judge(case=bench.case(RECIPE, prompts=2), workload=workload)
    bench.store.save(bench.store.load("demo", "case"), images)


def _version_1(document: dict[str, Any]) -> None:
    document["schema_version"] = 1
    del document["content_sha256"]
    document["pictures"] = document.pop("outputs")
    document["lpips"]["trunk_sha256"] = document["lpips"].pop("weights_sha256")


def _without_selection(document: dict[str, Any]) -> None:
    del document["selections"]["mxfp8"]


def _other_selection(document: dict[str, Any]) -> None:
    document["selections"]["mxfp8"]["sha256"] = "0" * 64


def _weights_of_another_model(document: dict[str, Any]) -> None:
    document["identity"]["weights"] = "folder:" + "0" * 12
    identity = msgspec.json.decode(json.dumps(document["identity"]), type=Identity)
    document["identity_sha256"] = identity.digest


_altered = partial(Fault, layer=Layer.BASELINE, expected=Outcome.ERROR)
_stale = partial(Fault, layer=Layer.BASELINE, expected=Outcome.STALE)
_fallback = partial(Fault, layer=Layer.BASELINE, expected=Outcome.PASS)
_environment = partial(Fault, layer=Layer.ENVIRONMENT, expected=Outcome.STALE)
_bound = partial(Fault, layer=Layer.BOUND, expected=Outcome.ERROR)

FAULTS = [
    _altered(
        injected="one bit of a stored image changed",
        stored=_file(_pixel_changed),
        said="sha",
        why="each file has its digest in the manifest",
    ),
    _altered(
        injected="a stored image cut off", stored=_file(_truncated), said="sha", why="the digest is checked first"
    ),
    _altered(
        injected="a stored image removed",
        stored=_file(lambda path: path.unlink()),
        said="cannot be read",
        why="a manifest without its images is damaged, not missing",
    ),
    _altered(
        injected="a Git LFS pointer in place of an image",
        stored=_image_pointer,
        said="a Git LFS pointer, not its content",
        why="a pointer is known, and the command that fetches the content is named",
    ),
    _altered(
        injected="a Git LFS pointer in place of the manifest",
        stored=lambda bench: _pointer(bench.manifest, "0" * 64),
        said="a Git LFS pointer, not its content",
        why="it is no manifest; nothing is judged live in its place",
    ),
    _altered(
        injected="the manifest cut off",
        stored=lambda bench: _truncated(bench.manifest),
        why="half a manifest is no JSON; nothing is judged live in its place",
    ),
    _altered(
        injected="the noise floor edited by hand",
        stored=edited(_setting("noise_floor", "repeat", value=0.01)),
        said="altered",
        why="a digest covers every section of the manifest",
    ),
    _altered(
        injected="the format's selection removed by hand",
        stored=edited(_without_selection),
        said="altered",
        why="a digest covers every section of the manifest",
    ),
    _altered(
        injected="a newer schema version",
        stored=edited(_setting("schema_version", value=3)),
        said="upgrade pytest-mxq",
        why="what is not known is not guessed",
    ),
    _altered(
        injected="a field that the schema does not know",
        stored=edited(_setting("bound", value=0.5), sealed=True),
        said="bound",
        why="unknown fields are refused",
    ),
    _stale(
        injected="another selection stored for the format",
        stored=edited(_other_selection, sealed=True),
        said="layers",
        why="as many layers, but others",
    ),
    _stale(
        injected="a baseline of other weights",
        stored=edited(_weights_of_another_model, sealed=True),
        said="weights",
        why="the digest of the weights is part of the case's identity",
    ),
    _stale(
        injected="a baseline of other prompts",
        prompts=DEMO.prompts[2:4],
        said="prompts",
        why="the prompts are part of the case's identity",
    ),
    _stale(
        injected="a baseline of another number of prompts",
        prompts=DEMO.prompts[:1],
        said="prompts",
        why="the prompts are part of the case's identity",
    ),
    _stale(
        injected="a baseline of another seed",
        settings={"seed": 1},
        said="seed 0 -> 1",
        why="the seed is part of the case's identity",
    ),
    _stale(
        injected="a baseline of another batch size",
        batch_size=2,
        said="batch_size 1 -> 2",
        why="NVFP4 multiplies differently in another batch: the batch size is part of the case's identity",
    ),
    _stale(
        injected="a baseline of another number of steps, on both arms",
        quantized=lambda scene: scene.call(num_inference_steps=1),
        bf16=lambda scene: scene.call(num_inference_steps=1),
        said="num_inference_steps 2 -> 1",
        why="the arguments of each call are part of the case's identity",
    ),
    _stale(
        injected="stored images moved by one pixel (--mxq-reference=stored)",
        stored=_stored_again(lambda pixels: np.roll(pixels, 1, axis=1)),
        reference=Reference.STORED,
        said="regenerated BF16 outputs differ",
        why="BF16 is generated again and compared with the stored images: reference drift is no fault of the format",
    ),
    _fallback(
        injected="stored images moved by one pixel (--mxq-reference=auto)",
        stored=_stored_again(lambda pixels: np.roll(pixels, 1, axis=1)),
        why="the stored images no longer serve; the format is judged against BF16 of this run, and the note says why",
    ),
    _fallback(
        injected="the quantized arm's images stored as BF16's",
        stored=_quantized_stored,
        why="the drift check finds BF16's images to be others; the format is judged against BF16 of this run",
    ),
    Fault(
        injected="no baseline (--mxq-reference=stored)",
        layer=Layer.BASELINE,
        expected=Outcome.MISSING,
        stored=empty_store,
        reference=Reference.STORED,
        said="does not exist",
        why="a stored baseline is asked for",
    ),
    _fallback(
        injected="no baseline (--mxq-reference=auto)",
        stored=empty_store,
        why="judged against BF16 of this run, and the note says why",
    ),
    _fallback(
        injected="a baseline of schema version 1",
        stored=edited(_version_1),
        said="schema version 1",
        why="older baselines serve; a caution says that no digest covers them",
    ),
    _fallback(
        injected="the format's selection removed, and the manifest's digest written again",
        stored=edited(_without_selection, sealed=True),
        why="the digest finds accidents, not intent; a format without a stored selection is judged by the "
        "rule and min_share alone",
    ),
    _environment(
        injected="another torch version than the baseline's (--mxq-reference=stored)",
        fingerprint={"torch": "0.0.1"},
        reference=Reference.STORED,
        said="torch",
        why="other kernels round otherwise: the baseline has to be refreshed",
    ),
    _environment(
        injected="another torch version than the baseline's (--mxq-reference=auto)",
        expected=Outcome.PASS,
        fingerprint={"torch": "0.0.1"},
        why="judged against BF16 of this run, and the note says why",
    ),
    _environment(
        injected="another instruction set than the baseline's (--mxq-reference=stored)",
        fingerprint={"isa": "another"},
        reference=Reference.STORED,
        said="isa",
        why="what changes images is part of the fingerprint",
    ),
    _environment(
        injected="other LPIPS weights than the baseline's (--mxq-reference=stored)",
        stored=edited(_setting("lpips", "weights_sha256", value="0" * 64), sealed=True),
        reference=Reference.STORED,
        said="LPIPS",
        why="the stored noise floor was measured with another metric",
    ),
    _environment(
        injected="a GPU that another process uses",
        expected=Outcome.ENVIRONMENT,
        preflight="the GPU is in use by another process",
        said="in use",
        why="the machine is at fault, not the format",
    ),
    _bound(injected="a bound of NaN", bound={"max": nan}, said="above 0", why="no number compares with NaN"),
    _bound(
        injected="a bound of 0",
        bound={"max": 0},
        said="above 0",
        why="bit-identical images alone would pass, and those are not quantized",
    ),
    _bound(injected="a negative bound", bound={"max": -0.1}, said="above 0", why="no format could pass"),
    _bound(injected="a bound of 5", bound={"max": 5}, said="at most", why="no format could fail"),
    _bound(
        injected="a worst bound stricter than the mean's",
        bound={"max": 0.01, "worst": 0.005},
        said="stricter",
        why="the worst image cannot be better than the mean",
    ),
    _bound(
        injected="a bound of another format alone",
        bound={"max": {"nvfp4": 0.1}},
        said="no bound for format",
        why="a format without a bound is not gated",
    ),
    _bound(
        injected="a bound below the format's error",
        expected=Outcome.REGRESSION,
        bound={"max": 1e-5},
        said="mean",
        why="the gate fails where the number does not keep its bound",
    ),
]
