"""What a manifest holds: the BF16 arm of one case on one kind of device, small enough to review in a pull request."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self

import msgspec
from msgspec import Meta

from pytest_mxq.baselines.identity import Count, Identity, OutputKey, Positive, Text, identity_differences
from pytest_mxq.baselines.strict_json import build, canonical, invalid, parse, shown
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
    "StoredOutput",
    "TimingSession",
    "VideoFacts",
    "decode",
    "encode",
    "identity_differences",
]

SCHEMA_VERSION: Final = 1

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.(png|mkv)\Z")]
Share = Annotated[float, Meta(ge=0, le=1)]
Distance = Annotated[float, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0)]


class VideoFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What makes an image a video.

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
    video: VideoFacts | None = msgspec.field(default=None, name="clip")  # its key in schema 1

    @property
    def noun(self) -> str:
        """What it is: "image" or "video"."""
        return "image" if self.video is None else "video"

    @property
    def key(self) -> OutputKey:
        """Which image of the identity this is."""
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
        """The selection of the layers called `names`."""
        ordered = sorted(names)
        return cls(
            quantized=len(ordered),
            total=total,
            weight_share=weight_share,
            sha256=hashlib.sha256("\n".join(ordered).encode()).hexdigest(),
            layers=dict(Counter(re.sub(r"\d+", "*", name) for name in ordered)),
        )


class NoiseFloor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """LPIPS of BF16 against BF16, the largest of the drift check's images: what no quantization causes.

    Attributes:
        repeat: The same arm generated twice.
        eager_vs_compiled: Eager against compiled; None where it was not measured.
        note: Why it was not measured; otherwise free.
    """

    repeat: Distance
    eager_vs_compiled: Distance | None
    note: str


class LpipsInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The LPIPS that the numbers come from: net, version, SHA-256 of the AlexNet weights."""

    net: Text
    version: Text
    weights_sha256: Sha256 = msgspec.field(name="trunk_sha256")  # its key in schema 1


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
    """

    created: Text
    execution: Text
    seconds: Annotated[tuple[Seconds, ...], Meta(min_length=1)]
    peak_gib: Seconds | None
    fingerprint: Fingerprint
    calls: tuple[dict[str, Any], ...] = ()


class Draft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a refresh hands to the store, which adds the images.

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


class Manifest(Draft, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stored baseline; `images` holds every image of the identity in order, or none for a case without them."""

    schema_version: Literal[1]
    identity_sha256: Sha256
    outputs: tuple[StoredOutput, ...] = msgspec.field(name="pictures")  # its key in schema 1

    @property
    def generated(self) -> str:
        """How many images or videos it holds."""
        return f"{len(self.outputs)} {self.outputs[0].noun if self.outputs else 'image'}s"


def decode(data: bytes, *, where: str) -> Manifest:
    """The manifest in `data`.

    Raises:
        BaselineInvalidError: truncated, made by a newer version, altered, or impossible; names `where` (the file),
            the field's path, its value, and the next command.
    """
    document = parse(data, where=where)
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        newer = f"schema_version {version}, this one reads {SCHEMA_VERSION}"
        raise invalid(where, f"made by a newer pytest-mxq: {newer}; upgrade pytest-mxq")
    manifest = build(document, Manifest, where=where)
    for contradiction in _contradictions(manifest):
        raise invalid(where, contradiction)
    return manifest


def encode(manifest: Manifest) -> bytes:
    """The manifest's one text: sorted keys, indented by 2, a newline at the end; read back before it is returned.

    Raises:
        BaselineInvalidError: what `decode` would refuse.
    """
    where = f"baseline of {manifest.case}"
    data = msgspec.json.format(canonical(manifest, where=where), indent=2) + b"\n"
    decode(data, where=where)
    return data


def _contradictions(manifest: Manifest) -> Iterator[str]:
    """What no field tells alone."""
    digest = manifest.identity.digest
    if manifest.identity_sha256 != digest:
        yield f"identity_sha256 is {manifest.identity_sha256}, but the identity's is {digest}: one was altered"
    try:
        datetime.fromisoformat(manifest.created)
    except ValueError:
        yield f"created is {shown(manifest.created)}: not an ISO 8601 date and time"
    floor = manifest.noise_floor
    if floor and floor.eager_vs_compiled is None and not floor.note.strip():
        yield f"noise_floor.note is {floor.note!r}: it must say why eager_vs_compiled is null"
    for name, selection in manifest.selections.items():
        yield from _selection_contradictions(f"selections.{name}", selection)
    yield from _image_contradictions(manifest)


def _selection_contradictions(path: str, selection: Selection) -> Iterator[str]:
    counted = sum(selection.layers.values())
    if selection.quantized != counted:
        yield f"{path}.quantized is {selection.quantized}, but layers count {counted}"
    if selection.quantized > selection.total:
        yield f"{path}.quantized is {selection.quantized}, more than total {selection.total}"


def _image_contradictions(manifest: Manifest) -> Iterator[str]:
    images, identity = manifest.outputs, manifest.identity
    wanted = len(identity.prompts) * identity.images_per_prompt
    if len(images) not in {0, wanted}:
        yield f"pictures has {len(images)} entries, but the identity generates {wanted}"
    if len({image.video is None for image in images}) == 2:
        yield "pictures holds images as well as videos: a model generates one or the other"
    for index, (image, key) in enumerate(zip(images, identity.output_keys(), strict=False)):
        if image.key != key:
            yield f"pictures[{index}] is {tuple(image.key)}, but the identity generates {tuple(key)} there"
        if any(image.file == other.file for other in images[:index]):
            yield f"pictures[{index}].file is {image.file!r}, as another image's is: a duplicate"
        yield from _video_contradictions(f"pictures[{index}]", image)


def _video_contradictions(path: str, image: StoredOutput) -> Iterator[str]:
    video = image.video
    if image.file.endswith(".mkv") != (video is not None):
        yield f"{path}.file is {image.file!r}, but clip is {video}: a video is an .mkv file, an image a .png"
    if video and len({value is None for value in (video.sample_rate, video.channels, video.samples)}) == 2:
        yield f"{path}.clip is {video}: sample_rate, channels and samples are null together"
