"""What a manifest holds: the BF16 arm of one case on one kind of device, small enough to review in a pull request."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self

import msgspec
from msgspec import Meta

from pytest_mxq.baselines.identity import Count, Identity, PictureKey, Positive, Text, identity_differences
from pytest_mxq.baselines.strict_json import build, canonical, invalid, parse, shown
from pytest_mxq.environment.fingerprint import Fingerprint

__all__ = [
    "SCHEMA_VERSION",
    "ClipFacts",
    "Draft",
    "Identity",
    "LpipsInfo",
    "Manifest",
    "NoiseFloor",
    "Picture",
    "PictureKey",
    "Selection",
    "TimingSession",
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


class ClipFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What makes a picture a clip.

    Attributes:
        frames: How many there are.
        frame_rate: Frames a second.
        sample_rate: Samples of the sound a second; None without sound, as the two that follow.
        channels: Channels of the sound.
        samples: Samples of each channel.
    """

    frames: Positive
    frame_rate: Annotated[float, Meta(gt=0)]
    sample_rate: Positive | None = None
    channels: Positive | None = None
    samples: Positive | None = None


class Picture(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One stored picture or clip; `sha256` is of the file's bytes, width and height are in pixels.

    `clip` is None for a picture, and absent from its JSON: a manifest of pictures knows nothing of clips.
    """

    prompt: str
    prompt_index: Count
    image_index: Count
    seed: Count
    file: FileName
    sha256: Sha256
    width: Positive
    height: Positive
    clip: ClipFacts | None = None

    @property
    def noun(self) -> str:
        """What it is: "picture" or "clip"."""
        return "picture" if self.clip is None else "clip"

    @property
    def key(self) -> PictureKey:
        """Which picture of the identity this is."""
        return PictureKey(self.prompt, self.prompt_index, self.image_index, self.seed)


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
    """LPIPS of BF16 against BF16, the largest of the sentinel's pictures: what no quantization causes.

    Attributes:
        repeat: The same arm drawn twice.
        eager_vs_compiled: Eager against compiled; None where it was not measured.
        note: Why it was not measured; otherwise free.
    """

    repeat: Distance
    eager_vs_compiled: Distance | None
    note: str


class LpipsInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which LPIPS the numbers come from: net, version, SHA-256 of the trunk's weights."""

    net: Text
    version: Text
    trunk_sha256: Sha256


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
    """What a refresh hands to the store, which adds the pictures.

    Attributes:
        case: The case's name.
        model: The registered name or Hub id.
        device: The device's slug.
        created: ISO 8601 date and time.
        identity: What was observed.
        selections: By format.
        noise_floor: None where no pictures are gated.
        lpips: None where no pictures are gated.
        fingerprint: Of the process that drew the pictures.
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
    """A stored baseline; `pictures` holds every picture of the identity in order, or none for a case without them."""

    schema_version: Literal[1]
    identity_sha256: Sha256
    pictures: tuple[Picture, ...]

    @property
    def drawn(self) -> str:
        """How many pictures or clips it holds."""
        return f"{len(self.pictures)} {self.pictures[0].noun if self.pictures else 'picture'}s"


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
    yield from _picture_contradictions(manifest)


def _selection_contradictions(path: str, selection: Selection) -> Iterator[str]:
    counted = sum(selection.layers.values())
    if selection.quantized != counted:
        yield f"{path}.quantized is {selection.quantized}, but layers count {counted}"
    if selection.quantized > selection.total:
        yield f"{path}.quantized is {selection.quantized}, more than total {selection.total}"


def _picture_contradictions(manifest: Manifest) -> Iterator[str]:
    pictures, identity = manifest.pictures, manifest.identity
    wanted = len(identity.prompts) * identity.images_per_prompt
    if len(pictures) not in {0, wanted}:
        yield f"pictures has {len(pictures)} entries, but the identity draws {wanted}"
    if len({picture.clip is None for picture in pictures}) == 2:
        yield "pictures holds pictures as well as clips: a model draws one or the other"
    for index, (picture, key) in enumerate(zip(pictures, identity.picture_keys(), strict=False)):
        if picture.key != key:
            yield f"pictures[{index}] is {tuple(picture.key)}, but the identity draws {tuple(key)} there"
        if any(picture.file == other.file for other in pictures[:index]):
            yield f"pictures[{index}].file is {picture.file!r}, as another picture's is: a duplicate"
        yield from _clip_contradictions(f"pictures[{index}]", picture)


def _clip_contradictions(path: str, picture: Picture) -> Iterator[str]:
    clip = picture.clip
    if picture.file.endswith(".mkv") != (clip is not None):
        yield f"{path}.file is {picture.file!r}, but clip is {clip}: a clip is an .mkv file, a picture a .png"
    if clip and len({value is None for value in (clip.sample_rate, clip.channels, clip.samples)}) == 2:
        yield f"{path}.clip is {clip}: sample_rate, channels and samples are null together"
