"""The identity of a case as it ran: a baseline of another identity is stale, and the changed field is named."""

import hashlib
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from pytest_mxq.baselines.strict_json import canonical
from pytest_mxq.errors import MxqError

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(gt=0)]
Text = Annotated[str, Meta(min_length=1)]


class OutputKey(NamedTuple):
    """The key of one output: prompt, index of the prompt, index among that prompt's outputs, seed of its noise."""

    prompt: str
    prompt_index: int
    image_index: int
    seed: int


class Identity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The facts observed when the case ran.

    Attributes:
        model: The registered name or Hub id.
        weights: Where the weights came from, such as `folder:<digest>` or `hub:<id>@<commit>`.
        prompts: In the order of the images.
        seed: The first image's seed.
        batch_size: Prompts in one call; the composition of a batch changes NVFP4's numerics.
        images_per_prompt: Images generated of each prompt.
        width: Pixels.
        height: Pixels.
        execution: The mode in which the images were generated, such as `eager`.
        calls: The arguments of each call of the pipeline, as JSON values.
    """

    model: Text
    weights: Text
    prompts: tuple[str, ...]
    seed: Count
    batch_size: Positive
    images_per_prompt: Positive
    width: Positive
    height: Positive
    execution: Text
    calls: tuple[dict[str, Any], ...]

    @property
    def digest(self) -> str:
        """The SHA-256 of the canonical JSON (sorted keys, no spaces), in hex.

        Raises:
            BaselineInvalidError: A call argument has no JSON form or is not finite.
        """
        return hashlib.sha256(canonical(self, where="identity")).hexdigest()

    def output_keys(self) -> Iterator[OutputKey]:
        """Yield the key of every output, in order.

        `seed = first seed + prompt index x images per prompt + image index`.
        """
        for prompt_index, prompt in enumerate(self.prompts):
            for image_index in range(self.images_per_prompt):
                offset = prompt_index * self.images_per_prompt + image_index
                yield OutputKey(prompt, prompt_index, image_index, self.seed + offset)

    def chunk_positions(self, start: int) -> range:
        """Return the positions of the outputs of one chunk of prompts, by the index of its first prompt."""
        end = min(start + self.batch_size, len(self.prompts))
        return range(start * self.images_per_prompt, end * self.images_per_prompt)


def identity_differences(stored: Identity, current: Identity) -> tuple[str, ...]:
    """List every field in which two identities differ; empty exactly if their digests agree.

    Such as `num_inference_steps 28 -> 20` and `prompts: 2 of 24 differ, first #3 'a' -> 'b'` (counted from 0).
    An argument that changed in several calls is named once.
    """
    old, new = _as_json(stored), _as_json(current)
    plain = [name for name in old if name not in {"prompts", "calls"}]
    changes = _changes({name: old[name] for name in plain}, {name: new[name] for name in plain})
    changes += _prompt_changes(old["prompts"], new["prompts"])
    return (*changes, *_call_changes(old["calls"], new["calls"]))


def check_same_calls(bf16: Identity, quantized: Identity) -> None:
    """Raise if the workloads of two arms did different things.

    Raises:
        MxqError: They did; names every difference.
    """
    differences = identity_differences(bf16, quantized)
    if differences:
        raise MxqError(f"the workload did not do the same on both arms (BF16 -> quantized): {'; '.join(differences)}")


def _as_json(identity: Identity) -> dict[str, Any]:
    return dict(msgspec.json.decode(canonical(identity, where="identity")))


def _changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    texts = ((key, _text(old, key), _text(new, key)) for key in sorted(old.keys() | new.keys()))
    return [f"{key} {_arrow(before, after)}" for key, before, after in texts if before != after]


def _text(mapping: dict[str, Any], key: str) -> str:
    # Compared as JSON text because the digest is: to Python, 1 == True == 1.0.
    return msgspec.json.encode(mapping[key], order="sorted").decode() if key in mapping else "(absent)"


def _prompt_changes(old: list[str], new: list[str]) -> list[str]:
    if len(old) != len(new):
        return [f"prompts: {len(old)} -> {len(new)}"]
    differing = [index for index, prompt in enumerate(old) if prompt != new[index]]
    if not differing:
        return []
    first = differing[0]
    change = _arrow(repr(old[first]), repr(new[first]))
    return [f"prompts: {len(differing)} of {len(old)} differ, first #{first} {change}"]


def _call_changes(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[str]:
    counts = [f"calls: {len(old)} -> {len(new)}"] if len(old) != len(new) else []
    named: dict[str, str] = {}
    for before, after in zip(old, new, strict=False):
        for change in _changes(before, after):
            named.setdefault(change.split(" ", 1)[0], change)
    return [*counts, *named.values()]


def _arrow(before: str, after: str) -> str:
    """Return `before -> after`, with a long common beginning left out and each side cut to 60 characters."""
    common = next((at for at, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), 0)
    start = common - 10 if common > 30 else 0
    lead = "..." if start else ""
    return " -> ".join(lead + text[start : start + 60] for text in (before, after))
