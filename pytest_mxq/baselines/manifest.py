"""The manifest of a baseline: the BF16 arm of one case on one kind of device, small enough to review in git."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final, Literal, Self

import msgspec
from msgspec import Meta

from pytest_mxq.baselines.identity import Count, Identity, OutputKey, Positive, Text, identity_differences
from pytest_mxq.baselines.strict_json import build, canonical, cut, invalid, parse, shown
from pytest_mxq.baselines.work import WorkRecord, chunk_count
from pytest_mxq.environment.fingerprint import Fingerprint

__all__ = [
    "SCHEMA_VERSION",
    "Draft",
    "Identity",
    "LpipsInfo",
    "Manifest",
    "NoiseFloor",
    "OutputKey",
    "Selection",
    "ShortPeak",
    "StoredOutput",
    "TimingSession",
    "VideoFacts",
    "content_digest",
    "decode",
    "encode",
    "identity_differences",
    "sealed",
]

SCHEMA_VERSION: Final = 2

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.(png|mkv)\Z")]
Share = Annotated[float, Meta(ge=0, le=1)]
Distance = Annotated[float, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0)]
Gib = Annotated[float, Meta(gt=0)]


class VideoFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The facts that a video has beside an image's.

    Attributes:
        frames: How many there are.
        frame_rate: Frames a second.
        sample_rate: Samples of the audio a second; None without audio, as the two that follow.
        channels: Channels of the audio.
        samples: Samples of each channel.
    """

    frames: Positive
    frame_rate: Annotated[float, Meta(gt=0)]
    sample_rate: Positive | None = None
    channels: Positive | None = None
    samples: Positive | None = None


class StoredOutput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One stored image or video; `sha256` is of the file's bytes, width and height are in pixels.

    `video` is None for an image, and absent from its JSON: a manifest of images knows nothing of videos.
    """

    prompt: str
    prompt_index: Count
    image_index: Count
    seed: Count
    file: FileName
    sha256: Sha256
    width: Positive
    height: Positive
    video: VideoFacts | None = None

    @property
    def noun(self) -> str:
        """The output's kind: "image" or "video"."""
        return "image" if self.video is None else "video"

    @property
    def key(self) -> OutputKey:
        """The key of the identity's output that this is."""
        return OutputKey(self.prompt, self.prompt_index, self.image_index, self.seed)


class Selection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The linear layers that a format's rule quantizes.

    Attributes:
        quantized: How many layers the rule takes.
        total: How many linear layers there are.
        weight_share: Share of the linear layers' parameters that is quantized, 0 to 1.
        sha256: Of the sorted layer names, joined by newlines.
        layers: Layer names with each number written as `*`, and how many there are of each.
    """

    quantized: Positive
    total: Positive
    weight_share: Share
    sha256: Sha256
    layers: dict[str, Positive]

    @classmethod
    def of(cls, names: Iterable[str], *, total: int, weight_share: float) -> Self:
        """Return the selection of the layers called `names`."""
        ordered = sorted(names)
        return cls(
            quantized=len(ordered),
            total=total,
            weight_share=weight_share,
            sha256=hashlib.sha256("\n".join(ordered).encode()).hexdigest(),
            layers=dict(Counter(re.sub(r"\d+", "*", name) for name in ordered)),
        )


class NoiseFloor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """LPIPS of BF16 against BF16, the largest of the drift check's outputs: what no quantization causes.

    Attributes:
        repeat: The same arm generated twice.
        eager_vs_compiled: Eager against compiled; None where it was not measured.
        note: Why it was not measured; otherwise free.
        gate: Name of the gate on whose scale they are.
    """

    gate: ClassVar[str] = "lpips"

    repeat: Distance
    eager_vs_compiled: Distance | None
    note: str


class LpipsInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The LPIPS that the numbers come from: net, version, SHA-256 of the AlexNet weights."""

    net: Text
    version: Text
    weights_sha256: Sha256


class ShortPeak(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """BF16's peak memory in a call of few steps, GiB, and what that call did."""

    steps: Positive
    peak_gib: Gib
    work: WorkRecord


class TimingSession(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """BF16 timed once, in a process of its own.

    Attributes:
        created: ISO 8601 date and time.
        execution: How the arm ran.
        seconds: Wall time of each timed call.
        peak_gib: Peak of allocated memory over one call with BF16 alone on the device, GiB; None where not measured.
        fingerprint: Of the process; only sessions with equal hard facts are used together.
        calls: The arguments of each call of the pipeline in one timed run; the identity's are those of all batches.
            Empty, and absent from its JSON, where an older version stored the session: it is comparable with nothing.
        work: What one timed run did; absent where an older version stored the session.
        predicted: Seconds of a call by the line through short calls; absent where they were not timed.
        short_seconds: Wall time of each of the shorter ones of these, which tell later whether the machine is as fast;
            absent where they were not timed.
        short: The peak of a short call beside `peak_gib`; absent where the number of steps cannot be set.
    """

    created: Text
    execution: Text
    seconds: Annotated[tuple[Seconds, ...], Meta(min_length=1)]
    peak_gib: Gib | None
    fingerprint: Fingerprint
    calls: tuple[dict[str, Any], ...] = ()
    work: WorkRecord | None = None
    short: ShortPeak | None = None
    predicted: Seconds | None = None
    short_seconds: tuple[Seconds, ...] = ()


class Draft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A baseline as a refresh hands it to the store, which adds the outputs.

    Attributes:
        case: The case's name.
        model: The registered name or Hub id.
        device: The device's slug.
        created: ISO 8601 date and time.
        identity: What was observed.
        selections: By format.
        noise_floor: None where no images are gated.
        lpips: None where no images are gated.
        fingerprint: Of the process that generated the images.
        sessions: Timing sessions of BF16, the newest last.
        works: What each chunk of prompts ran, or one alone where all are alike; empty where no images are gated, and
            where an older version stored the baseline.
    """

    case: Text
    model: Text
    device: Text
    created: Text
    identity: Identity
    selections: dict[str, Selection]
    noise_floor: NoiseFloor | None
    lpips: LpipsInfo | None
    fingerprint: Fingerprint
    sessions: tuple[TimingSession, ...] = ()
    works: tuple[WorkRecord, ...] = ()


class Manifest(Draft, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stored baseline; `outputs` holds every output of the identity in order, or none for a case without them.

    Attributes:
        schema_version: Of the file that it was read from; 2 is what is written.
        identity_sha256: The identity's digest.
        outputs: The stored images or videos.
        content_sha256: SHA-256 of the canonical JSON of everything else; None in schema version 1.
    """

    schema_version: Literal[1, 2]
    identity_sha256: Sha256
    outputs: tuple[StoredOutput, ...]
    content_sha256: Sha256 | None = None

    @property
    def is_covered(self) -> bool:
        """Return whether a digest covers every section; in schema version 1 only identity and outputs have one."""
        return self.content_sha256 is not None

    @property
    def contents(self) -> str:
        """Count the outputs and name their kind, such as "8 images"."""
        return f"{len(self.outputs)} {self.outputs[0].noun if self.outputs else 'image'}s"


def decode(data: bytes, *, where: str) -> Manifest:
    """Return the manifest in `data`, of schema version 1 or 2.

    Raises:
        BaselineInvalidError: Truncated, made by a newer version, altered, or impossible; names `where` (the file),
            the field's path, its value, and the next command.
    """
    document = parse(data, where=where)
    version = document.get("schema_version") if isinstance(document, dict) else None
    if type(version) is int and version > SCHEMA_VERSION:
        newer = f"schema_version {shown(version)}, this one reads up to {SCHEMA_VERSION}"
        error = invalid(where, f"made by a newer pytest-mxq: {newer}; upgrade pytest-mxq")
        error.command = "pip install --upgrade pytest-mxq"
        raise error
    if type(version) is int and version == 1:
        document = _renamed(document, where)
    manifest = build(document, Manifest, where=where)
    for contradiction in _contradictions(manifest):
        raise invalid(where, contradiction)
    _check_content(document, manifest, where)
    return manifest


def encode(manifest: Manifest) -> bytes:
    """Return the manifest's one text: sorted keys, indented by 2, a newline at the end; of schema version 2.

    Raises:
        BaselineInvalidError: `decode` would refuse it.
    """
    where = f"baseline of {manifest.case}"
    data = msgspec.json.format(canonical(sealed(manifest), where=where), indent=2) + b"\n"
    decode(data, where=where)
    return data


def sealed(manifest: Manifest) -> Manifest:
    """Return the manifest in schema version 2, with the digest of its content.

    Raises:
        BaselineInvalidError: A value has no JSON form.
    """
    current = msgspec.structs.replace(manifest, schema_version=SCHEMA_VERSION, content_sha256=None)
    document = msgspec.json.decode(canonical(current, where=f"baseline of {manifest.case}"))
    return msgspec.structs.replace(current, content_sha256=content_digest(document))


def content_digest(document: dict[str, Any]) -> str:
    """Return the SHA-256 of a manifest's canonical JSON without its `content_sha256`, in hex.

    Args:
        document: What `parse` returned: its values are not checked again.
    """
    content = {key: value for key, value in document.items() if key != "content_sha256"}
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()


def _renamed(document: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a document of schema version 1 under the keys of version 2; no key of version 2 may stand in it."""
    renamed: dict[str, Any] = _rename(document, "pictures", "outputs", where)
    outputs, lpips = renamed.get("outputs"), renamed.get("lpips")
    if isinstance(outputs, list):
        renamed["outputs"] = [_rename(output, "clip", "video", where) for output in outputs]
    if isinstance(lpips, dict):
        renamed["lpips"] = _rename(lpips, "trunk_sha256", "weights_sha256", where)
    return renamed


def _rename(mapping: Any, old: str, new: str, where: str) -> Any:
    if not isinstance(mapping, dict):
        return mapping
    if new in mapping:
        raise invalid(where, f"schema_version 1 has no field `{new}`")
    return {new if key == old else key: value for key, value in mapping.items()}


def _check_content(document: dict[str, Any], manifest: Manifest, where: str) -> None:
    if manifest.schema_version == 1:
        if manifest.content_sha256 is not None:
            raise invalid(where, "schema_version 1 has no field `content_sha256`")
        return
    found = content_digest(document)
    if manifest.content_sha256 != found:
        stated = manifest.content_sha256 or "missing"
        raise invalid(where, f"content_sha256 is {stated}, but the content's is {found}: the manifest was altered")


def _contradictions(manifest: Manifest) -> Iterator[str]:
    """Yield what is wrong between fields that are right by themselves."""
    digest = manifest.identity.digest
    if manifest.identity_sha256 != digest:
        yield f"identity_sha256 is {manifest.identity_sha256}, but the identity's is {digest}: one was altered"
    if not _is_moment(manifest.created):
        yield f"created is {shown(manifest.created)}: not an ISO 8601 date and time"
    floor = manifest.noise_floor
    if floor and floor.eager_vs_compiled is None and not floor.note.strip():
        yield f"noise_floor.note is {shown(floor.note)}: it must say why eager_vs_compiled is null"
    for name, selection in manifest.selections.items():
        yield from _selection_contradictions(f"selections.{cut(name, 80)}", selection)
    chunks = chunk_count(manifest.identity)
    if len(manifest.works) not in {0, 1, chunks}:
        yield f"works has {len(manifest.works)} entries, but the identity generates in {chunks} calls"
    yield from _output_contradictions(manifest)


def _is_moment(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _selection_contradictions(path: str, selection: Selection) -> Iterator[str]:
    counted = sum(selection.layers.values())
    if selection.quantized != counted:
        yield f"{path}.quantized is {selection.quantized}, but layers count {counted}"
    if selection.quantized > selection.total:
        yield f"{path}.quantized is {selection.quantized}, more than total {selection.total}"


def _output_contradictions(manifest: Manifest) -> Iterator[str]:
    outputs, identity = manifest.outputs, manifest.identity
    wanted = len(identity.prompts) * identity.images_per_prompt
    if len(outputs) not in {0, wanted}:
        yield f"outputs has {len(outputs)} entries, but the identity generates {wanted}"
    if len({output.video is None for output in outputs}) == 2:
        yield "outputs holds images as well as videos: a model generates one or the other"
    files: set[str] = set()
    for index, (output, key) in enumerate(zip(outputs, identity.output_keys(), strict=False)):
        if output.key != key:
            yield f"outputs[{index}] is {_key(output.key)}, but the identity generates {_key(key)} there"
        if output.file in files:
            yield f"outputs[{index}].file is {shown(output.file)}, as another output's is: a duplicate"
        files.add(output.file)
        yield from _video_contradictions(f"outputs[{index}]", output)


def _key(key: OutputKey) -> str:
    return f"({shown(key.prompt)}, {key.prompt_index}, {key.image_index}, {key.seed})"


def _video_contradictions(path: str, output: StoredOutput) -> Iterator[str]:
    video = output.video
    if output.file.endswith(".mkv") != (video is not None):
        yield f"{path}.file is {shown(output.file)}, but video is {video}: a video is an .mkv file, an image a .png"
    if video and len({value is None for value in (video.sample_rate, video.channels, video.samples)}) == 2:
        yield f"{path}.video is {video}: sample_rate, channels and samples are null together"
