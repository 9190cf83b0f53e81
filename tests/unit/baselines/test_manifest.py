import doctest
import hashlib
import json
from typing import Any

import msgspec
import pytest
from manifest_examples import HEX, IDENTITY, WHERE, altered, make_manifest, message_of, put

from pytest_mxq.baselines import strict_json
from pytest_mxq.baselines.manifest import (
    Identity,
    Manifest,
    NoiseFloor,
    OutputKey,
    Selection,
    TimingSession,
    decode,
    encode,
    identity_differences,
    sealed,
)
from pytest_mxq.environment.fingerprint import Fingerprint
from pytest_mxq.errors import BaselineInvalidError


def test_round_trip_is_stable_sorted_and_indented() -> None:
    data = encode(make_manifest())
    assert decode(data, where=WHERE) == make_manifest()
    assert encode(decode(data, where=WHERE)) == data
    assert data.decode() == json.dumps(json.loads(data), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def test_a_case_without_images_needs_neither_lpips_nor_noise_floor() -> None:
    manifest = sealed(msgspec.structs.replace(make_manifest(), outputs=(), lpips=None, noise_floor=None))
    assert decode(encode(manifest), where=WHERE) == manifest


@pytest.mark.parametrize("calls", [(), ({"num_inference_steps": 28}, {"num_inference_steps": 28})])
def test_a_session_keeps_its_calls_and_one_of_an_older_version_has_none(calls: tuple[dict[str, Any], ...]) -> None:
    session = TimingSession(
        created="2026-01-02T03:04:05+00:00",
        execution="compiled blocks, default",
        seconds=(1.5, 1.6),
        peak_gib=None,
        fingerprint=Fingerprint(hard={"torch": "2.15.0"}, recorded={}),
        calls=calls,
    )
    manifest = sealed(msgspec.structs.replace(make_manifest(), sessions=(session,)))
    data = encode(manifest)
    assert ("calls" in json.loads(data)["sessions"][0]) == bool(calls)
    assert decode(data, where=WHERE) == manifest


def test_every_error_names_the_file_and_the_next_command() -> None:
    message = message_of(b"{}")
    assert message.startswith(f"{WHERE}: ")
    assert "pytest --mxq-refresh" in message


def test_a_manifest_cut_anywhere_is_refused() -> None:
    data = encode(make_manifest())
    for end in range(0, len(data) - 2, 37):
        assert "not a JSON document, perhaps truncated" in message_of(data[:end])


def test_conflict_markers_and_endless_nesting_are_refused() -> None:
    assert "not a JSON document" in message_of(b"<<<<<<< HEAD\n" + encode(make_manifest()))
    assert "not a JSON document" in message_of(b"[" * 100_000)


def test_a_newer_schema_is_refused_by_name() -> None:
    newer = altered(lambda document: document.update(schema_version=3, something_new=1))
    message = message_of(newer)
    assert "schema_version 3" in message
    assert "upgrade pytest-mxq" in message


def test_an_unknown_field_is_refused_with_those_that_its_place_may_have() -> None:
    message = message_of(altered(lambda document: document["noise_floor"].update(colour=1)))
    assert "noise_floor: Object contains unknown field `colour`; allowed: repeat, eager_vs_compiled, note" in message
    assert message.startswith(WHERE)
    assert "pytest --mxq-refresh" in message


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("noise_floor.repeat", b'"repeat": 0.0'),
        ("selections.mxfp8.weight_share", b'"weight_share": 0.9'),
        ("identity.calls[0].sigmas[1]", b"0.5\n        ]"),
        ("outputs[1].seed", b'"seed": 8'),
    ],
)
def test_numbers_that_are_not_finite_are_refused_with_their_path(token: str, path: str, place: bytes) -> None:
    data = encode(make_manifest())
    assert data.count(place) == 1
    number = place.rpartition(b": ")[2].split()[0]
    message = message_of(data.replace(place, place.replace(number, token.encode())))
    assert f"{path} is " in message
    assert "every number must be finite" in message


def test_nan_is_refused_when_written_instead_of_becoming_null() -> None:
    floor = NoiseFloor(repeat=float("nan"), eager_vs_compiled=0.1, note="")
    with pytest.raises(BaselineInvalidError, match=r"noise_floor\.repeat is nan"):
        encode(msgspec.structs.replace(make_manifest(), noise_floor=floor))
    with pytest.raises(BaselineInvalidError, match=r"calls\[0\]\.guidance_scale is inf"):
        _ = msgspec.structs.replace(IDENTITY, calls=({"guidance_scale": float("inf")},)).digest


def test_a_call_argument_without_json_form_is_refused() -> None:
    with pytest.raises(BaselineInvalidError, match="type object is unsupported"):
        _ = msgspec.structs.replace(IDENTITY, calls=({"callback": object()},)).digest


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("schema_version", 0, "schema_version is 0: Invalid enum value 0"),
        ("schema_version", "1", "schema_version is '1'"),
        ("case", "", "case is ''"),
        ("created", "yesterday", "created is 'yesterday': not an ISO 8601"),
        ("outputs/0/width", 0, "outputs[0].width is 0"),
        ("outputs/1/height", -48, "outputs[1].height is -48"),
        ("outputs/0/seed", -1, "outputs[0].seed is -1"),
        ("outputs/0/prompt_index", -1, "outputs[0].prompt_index is -1"),
        ("outputs/1/image_index", True, "outputs[1].image_index is True"),
        ("outputs/0/sha256", "abc", "outputs[0].sha256 is 'abc'"),
        ("outputs/0/sha256", HEX.upper(), "outputs[0].sha256 is '0123456789ABCDEF"),
        ("outputs/0/sha256", HEX + "\n", "outputs[0].sha256 is"),
        ("outputs/0/file", "../01.png", "outputs[0].file is '../01.png'"),
        ("outputs/0/file", "/etc/01.png", "outputs[0].file is '/etc/01.png'"),
        ("outputs/0/file", "a\\01.png", "outputs[0].file is 'a\\\\01.png'"),
        ("outputs/0/file", ".01.png", "outputs[0].file is '.01.png'"),
        ("outputs/0/file", "01.pkl", "outputs[0].file is '01.pkl'"),
        ("identity/batch_size", 0, "identity.batch_size is 0"),
        ("identity/images_per_prompt", 0, "identity.images_per_prompt is 0"),
        ("identity/width", -64, "identity.width is -64"),
        ("identity/execution", "", "identity.execution is ''"),
        ("selections/nvfp4/total", 0, "selections.nvfp4.total is 0"),
        ("selections/nvfp4/quantized", 0, "selections.nvfp4.quantized is 0"),
        ("selections/mxfp8/weight_share", 1.5, "selections.mxfp8.weight_share is 1.5"),
        ("selections/mxfp8/layers/proj", "x", "selections.mxfp8.layers.proj is 'x'"),
        ("selections/mxfp8/layers/proj", 7, "selections.mxfp8.quantized is 3, but layers count 9"),
        ("selections/mxfp8/total", 2, "selections.mxfp8.quantized is 3, more than total 2"),
        ("noise_floor/repeat", -0.1, "noise_floor.repeat is -0.1"),
        ("noise_floor/eager_vs_compiled", -1, "noise_floor.eager_vs_compiled is -1"),
        ("noise_floor/note", " ", "noise_floor.note is ' ': it must say why"),
        ("lpips/net", None, "lpips.net is None"),
        ("fingerprint/hard/torch", 2, "fingerprint.hard.torch is 2"),
        ("surprise", 1, "the document: Object contains unknown field `surprise`"),
        ("identity/surprise", 1, "identity: Object contains unknown field `surprise`"),
        ("selections/nvfp4/surprise", 1, "selections.nvfp4: Object contains unknown field `surprise`"),
        ("outputs/1/surprise", 1, "outputs[1]: Object contains unknown field `surprise`"),
    ],
)
def test_an_impossible_field_is_refused_with_its_path_and_value(path: str, value: object, expected: str) -> None:
    message = message_of(altered(put(path, value)))
    assert message.startswith(f"{WHERE}: {expected}")


def test_the_guilty_key_is_named_even_when_a_later_one_has_the_same_fault() -> None:
    def spoil_two(document: dict[str, Any]) -> None:
        document["selections"]["nvfp4"]["layers"]["blocks.*.q"] = "x"
        document["selections"]["mxfp8"]["layers"]["proj"] = "x"

    assert "selections.mxfp8.layers.proj is 'x'" in message_of(altered(spoil_two))


def test_an_innocent_key_is_not_blamed_for_a_fault_that_comes_later() -> None:
    def spoil_two(document: dict[str, Any]) -> None:
        document["fingerprint"]["hard"] = {"innocent": "x", "torch": 2}
        document["selections"]["mxfp8"]["total"] = 0

    assert "fingerprint.hard.torch is 2" in message_of(altered(spoil_two))


def test_every_missing_field_is_named() -> None:
    for field in set(Manifest.__struct_encode_fields__) - {
        "sessions",
        "works",
        "content_sha256",
    }:  # absent where nothing was timed or an older version stored it, or checked below
        data = altered(lambda document, field=field: document.pop(field))  # type: ignore[misc]
        assert f"missing required field `{field}`" in message_of(data)


def test_a_document_that_is_no_object_is_refused() -> None:
    assert "the document: Expected `object`, got `array`" in message_of(b"[]")
    assert "the document is 3: Expected `object`, got `int`" in message_of(b"3")


def test_an_identity_altered_by_hand_is_refused() -> None:
    message = message_of(altered(put("identity/calls/0/num_inference_steps", 20)))
    assert f"identity_sha256 is {IDENTITY.digest}, but the identity's is " in message


def test_images_are_the_identitys_each_once_and_in_order() -> None:
    def duplicate(document: dict[str, Any]) -> None:
        document["outputs"][1] = document["outputs"][0]

    def same_file(document: dict[str, Any]) -> None:
        document["outputs"][1]["file"] = document["outputs"][0]["file"]

    assert (
        "outputs[1] is ('a red circle', 0, 0, 7), but the identity generates ('a blue square', 1, 0, 8)"
        in message_of(altered(duplicate))
    )
    assert "outputs[1].file is '00.png', as another output's is: a duplicate" in message_of(altered(same_file))
    assert "outputs has 1 entries, but the identity generates 2" in message_of(
        altered(lambda document: document["outputs"].pop())
    )
    assert "outputs[0] is ('a red circle', 0, 0, 9)" in message_of(altered(put("outputs/0/seed", 9)))


def test_an_impossible_manifest_is_never_encoded() -> None:
    manifest = make_manifest()
    with pytest.raises(BaselineInvalidError, match="outputs has 1 entries"):
        encode(msgspec.structs.replace(manifest, outputs=manifest.outputs[:1]))


def test_seeds_count_images() -> None:
    identity = msgspec.structs.replace(IDENTITY, seed=100, images_per_prompt=2)
    assert list(identity.output_keys()) == [
        OutputKey("a red circle", 0, 0, 100),
        OutputKey("a red circle", 0, 1, 101),
        OutputKey("a blue square", 1, 0, 102),
        OutputKey("a blue square", 1, 1, 103),
    ]


def test_digest_is_of_canonical_json_and_ignores_the_order_of_arguments() -> None:
    reordered = dict(reversed(IDENTITY.calls[0].items()))
    assert msgspec.structs.replace(IDENTITY, calls=(reordered,)).digest == IDENTITY.digest
    document = json.loads(encode(make_manifest()))["identity"]
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert IDENTITY.digest == hashlib.sha256(text.encode()).hexdigest()


def test_selection_counts_patterns_and_hashes_sorted_names() -> None:
    names = ["blocks.10.attn.to_q", "proj_out", "blocks.2.attn.to_q"]
    selection = Selection.of(names, total=4, weight_share=0.75)
    assert selection.layers == {"blocks.*.attn.to_q": 2, "proj_out": 1}
    assert (selection.quantized, selection.total, selection.weight_share) == (3, 4, 0.75)
    assert selection.sha256 == Selection.of(reversed(names), total=4, weight_share=0.75).sha256
    assert selection.sha256 != Selection.of(["blocks.11.attn.to_q", *names[1:]], total=4, weight_share=0.75).sha256


def with_call(**arguments: object) -> Identity:
    return msgspec.structs.replace(IDENTITY, calls=(IDENTITY.calls[0] | arguments,))


@pytest.mark.parametrize(
    ("current", "expected"),
    [
        (IDENTITY, ()),
        (with_call(num_inference_steps=20), ("num_inference_steps 28 -> 20",)),
        (with_call(guidance_scale=3), ("guidance_scale 3.5 -> 3",)),
        (with_call(true_cfg_scale=4.0), ("true_cfg_scale (absent) -> 4.0",)),
        (with_call(sigmas=[1.0, 0.25]), ("sigmas [1.0,0.5] -> [1.0,0.25]",)),
        (with_call(extra={"scale": True}), ('extra {"scale":null} -> {"scale":true}',)),
        (msgspec.structs.replace(IDENTITY, width=128, seed=0), ("seed 7 -> 0", "width 64 -> 128")),
        (msgspec.structs.replace(IDENTITY, execution="compiled"), ('execution "eager" -> "compiled"',)),
        (msgspec.structs.replace(IDENTITY, prompts=("a", "b", "c")), ("prompts: 2 -> 3",)),
        (
            msgspec.structs.replace(IDENTITY, prompts=("a red circle", "b")),
            ("prompts: 1 of 2 differ, first #1 'a blue square' -> 'b'",),
        ),
        (msgspec.structs.replace(IDENTITY, calls=()), ("calls: 1 -> 0",)),
    ],
)
def test_identity_differences_name_each_field(current: Identity, expected: tuple[str, ...]) -> None:
    assert identity_differences(IDENTITY, current) == expected
    assert (current.digest == IDENTITY.digest) == (expected == ())


@pytest.mark.parametrize(("before", "after"), [(1, True), (1, 1.0), (0, False), ("1", 1), (None, "null")])
def test_values_that_python_calls_equal_or_alike_are_still_told_apart(before: object, after: object) -> None:
    old, new = with_call(flag=before), with_call(flag=after)
    assert old.digest != new.digest
    assert len(identity_differences(old, new)) == 1


def test_an_identity_read_back_differs_in_nothing() -> None:
    fresh = with_call(size=(64, 48))
    stored = decode(encode(make_manifest(fresh)), where=WHERE).identity
    assert identity_differences(stored, fresh) == ()
    assert stored.digest == fresh.digest


def test_a_change_in_many_calls_is_named_once() -> None:
    old = msgspec.structs.replace(IDENTITY, calls=tuple({"steps": 28, "call": at} for at in range(12)))
    new = msgspec.structs.replace(IDENTITY, calls=tuple({"steps": 20, "call": at} for at in range(12)))
    assert identity_differences(old, new) == ("steps 28 -> 20",)


def test_long_values_are_cut_where_they_differ() -> None:
    common = "the same long beginning of a prompt, " * 10
    old = msgspec.structs.replace(IDENTITY, prompts=(common + "ends so",) * 2)
    new = msgspec.structs.replace(IDENTITY, prompts=(common + "stops there",) * 2)
    (difference,) = identity_differences(old, new)
    assert difference == "prompts: 2 of 2 differ, first #0 ...a prompt, ends so' -> ...a prompt, stops there'"


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(strict_json) == (0, 1)
