"""The work of BF16 as a baseline stores it: small, and enough to find what a quantized arm left out."""

import json
from typing import Any

import msgspec
import pytest
from manifest_examples import IDENTITY, WHERE, altered, make_manifest, message_of, put, resealed

from pytest_mxq.baselines.manifest import decode, encode
from pytest_mxq.baselines.work import WorkRecord, chunk_differences, stored_works, work_changes

WORK = WorkRecord(
    denoiser_calls={"transformer": 8},
    layer_calls=496,
    layers_sha256="a" * 64,
    other_module_calls=3,
    rest_sha256="b" * 64,
)


def changed(**fields: Any) -> WorkRecord:
    return msgspec.structs.replace(WORK, **fields)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (changed(denoiser_calls={"transformer": 4}), ("denoiser calls: transformer 8 -> 4",)),
        (changed(denoiser_calls={"transformer": 8, "transformer_2": 1}), ("denoiser calls: transformer_2 None -> 1",)),
        (changed(layer_calls=490), ("layer calls: 496 -> 490",)),
        (changed(layers_sha256="c" * 64), ("layer calls: 496 of other layers",)),
        (changed(other_module_calls=4), ("other module calls: 3 -> 4",)),
        (changed(other_module_calls=0), ()),
        (WORK, ()),
    ],
)
def test_other_work_is_named_and_what_was_computed_before_may_be_left_out(
    other: WorkRecord, said: tuple[str, ...]
) -> None:
    assert work_changes(WORK, other) == said


def test_work_that_only_its_digest_tells_differs() -> None:
    assert len(work_changes(WORK, changed(rest_sha256="c" * 64))) == 1


def test_equal_works_are_stored_once_and_others_one_by_one_in_their_order() -> None:
    last = changed(layer_calls=248)
    assert stored_works({0: WORK, 1: WORK, 2: WORK}) == (WORK,)
    assert stored_works({2: last, 0: WORK, 1: WORK}) == (WORK, WORK, last)
    assert stored_works({}) == ()


def test_each_chunk_is_compared_with_its_own_stored_work() -> None:
    last = changed(layer_calls=248)
    identity = msgspec.structs.replace(IDENTITY, prompts=("a", "b", "c"), batch_size=2)
    assert chunk_differences((WORK, last), identity, {0: WORK, 2: last}) == ()
    (said,) = chunk_differences((WORK, last), identity, {0: WORK, 2: WORK})
    assert said.startswith("layer calls: 248 -> 496")
    (said,) = chunk_differences((WORK,), identity, {0: last, 2: last})
    assert "2 of 2 calls" in said


def test_a_baseline_without_works_differs_in_nothing() -> None:
    assert chunk_differences((), IDENTITY, {0: WORK}) == ()


def test_a_manifest_keeps_its_works_and_one_without_is_read() -> None:
    manifest = msgspec.structs.replace(make_manifest(), works=(WORK,))
    assert decode(encode(manifest), where=WHERE).works == (WORK,)
    document = json.loads(encode(manifest))
    del document["works"]
    assert decode(json.dumps(resealed(document)).encode(), where=WHERE).works == ()


def test_works_for_another_number_of_chunks_are_a_contradiction() -> None:
    records = [msgspec.to_builtins(WORK)] * 2
    assert "works has 2 entries, but the identity generates in 1 calls" in message_of(altered(put("works", records)))
