"""Seeded mutations of stored files, and what reading a mutated one came to."""

from __future__ import annotations

import copy
import hashlib
import json
import struct
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from baseline_examples import CASE, DEVICE, OLD, make_draft, make_images, make_videos

from pytest_mxq.baselines.manifest import Manifest, NoiseFloor, Selection, TimingSession, content_digest
from pytest_mxq.baselines.store import BaselineStore
from pytest_mxq.baselines.video import inspect
from pytest_mxq.errors import BaselineInvalidError, BaselineMissingError

KINDS = ("manifest", "image", "video")

_VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**63,
    2**64,
    10**30,
    1e308,
    -0.0,
    "",
    "x" * 5000,
    "\ud800",
    "\x00",
    "../../x.png",
    [],
    {},
    [[[]]],
    {"": {"": None}},
    "9999-12-31T23:59:59+23:59",
    "f" * 64,
)
_TOKENS = (
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"9" * 400,
    b"[" * 3000,
    b'{"a":' * 3000,
    b'"\\ud800"',
    b"\xff\xfe",
    b"\x00" * 99,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What reading one mutated file came to.

    Attributes:
        name: "accepted", "refused" (an error of the baselines), or the name of a foreign exception.
        seconds: CPU time of the read, so that other processes do not change it.
        message: The error's.
    """

    name: str
    seconds: float
    message: str = ""

    @property
    def is_foreign(self) -> bool:
        """Whether an exception of another package came through."""
        return self.name not in {"accepted", "refused"}


class Reader:
    """A baseline whose manifest, first image or first video is replaced by mutations, one after the other."""

    def __init__(self, kind: str, folder: Path) -> None:
        self._kind = kind
        self._store = BaselineStore(folder, media=None, device=DEVICE)
        outputs = make_videos((1, 2)) if kind == "video" else make_images(OLD)
        self._saved = self._store.save(_full_draft(), outputs)
        manifest = self._store.manifest_path("demo", CASE)
        self._path = manifest if kind == "manifest" else manifest.with_suffix("") / self._saved.outputs[0].file
        self._data = self._path.read_bytes()

    def read_mutation(self, seed: int) -> Outcome:
        """Write the mutation of this seed, and read the baseline."""
        self.write(seed)
        return self.read(seed)

    def write(self, seed: int) -> None:
        """Write the mutation of this seed."""
        self._path.write_bytes(_MUTATE[self._kind](self._data, Random(f"{self._kind} {seed}")))

    def read(self, seed: int) -> Outcome:
        """Read the baseline with what was written."""
        start = time.process_time()
        try:
            manifest = None if self._kind == "manifest" else self._agreeing(self._path.read_bytes(), Random(seed))
            self._store.read_outputs(manifest or self._store.load("demo", CASE))
        except (BaselineInvalidError, BaselineMissingError) as error:
            return Outcome(name="refused", seconds=time.process_time() - start, message=str(error))
        except Exception as error:  # noqa: BLE001  what is looked for
            name = type(error).__name__
            return Outcome(name=name, seconds=time.process_time() - start, message=str(error)[:1000])
        return Outcome(name="accepted", seconds=time.process_time() - start)

    def _agreeing(self, data: bytes, random: Random) -> Manifest:
        """Return a manifest whose digest is the mutation's, and often its size and length too: so it is decoded."""
        first, *others = self._saved.outputs
        changes: dict[str, Any] = {"sha256": hashlib.sha256(data).hexdigest()}
        if self._kind == "image" and random.random() < 0.5 and len(data) >= 24:
            changes["width"], changes["height"] = struct.unpack(">II", data[16:24])
        if self._kind == "video" and random.random() < 0.5:
            with suppress(BaselineInvalidError):
                (changes["width"], changes["height"]), changes["video"] = inspect(data, where="mutation")
        return msgspec.structs.replace(self._saved, outputs=(msgspec.structs.replace(first, **changes), *others))


def _full_draft() -> Any:
    draft = make_draft()
    session = TimingSession(
        created=draft.created, execution="eager", seconds=(1.5, 1.6), peak_gib=2.0, fingerprint=draft.fingerprint
    )
    return msgspec.structs.replace(
        draft,
        selections={"mxfp8": Selection.of(["blocks.0.q", "blocks.1.q", "proj"], total=5, weight_share=0.9)},
        noise_floor=NoiseFloor(repeat=0.0, eager_vs_compiled=0.001, note=""),
        sessions=(session,),
    )


def mutate_bytes(data: bytes, random: Random) -> bytes:
    """Change, insert, remove, repeat or cut bytes, one to eight times."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4, 8))):
        at, length = random.randrange(len(changed) + 1), random.choice((1, 1, 2, 4, 8, 64, 500))
        match random.randrange(7):
            case 0:
                changed[at : at + 1] = bytes([random.randrange(256)])
            case 1:
                changed[at : at + length] = random.choice((b"\x00", b"\xff", b"\x7f")) * length
            case 2:
                changed[at:at] = random.randbytes(length)
            case 3:
                del changed[at : at + length]
            case 4:
                changed[at:at] = changed[at : at + length] * random.choice((1, 3, 50))
            case 5:
                source = random.randrange(len(changed) + 1)
                changed[at : at + length] = changed[source : source + length]
            case _ if random.random() < 0.3:
                del changed[at:]
    return bytes(changed)


def mutate_manifest(data: bytes, random: Random) -> bytes:
    """Change bytes, replace a token, or replace, remove, rename or repeat fields; often with digests that agree."""
    if random.random() < 0.3:
        return mutate_bytes(data, random)
    if random.random() < 0.1:
        at = random.randrange(len(data))
        return data[:at] + random.choice(_TOKENS) + data[at + random.choice((0, 1, 10)) :]
    document = json.loads(data)
    for _ in range(random.choice((1, 1, 2, 5))):
        _mutate_field(document, random)
    if random.random() < 0.7:
        _agree(document)
    return json.dumps(document).encode()


def _mutate_field(document: dict[str, Any], random: Random) -> None:
    node: Any = document
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = random.choice(keys)
        if isinstance(node[key], dict | list) and node[key] and random.random() < 0.8:
            node = node[key]
            continue
        break
    match random.randrange(5):
        case 0 | 1:
            node[key] = copy.deepcopy(random.choice(_VALUES))
        case 2:
            del node[key]
        case 3 if isinstance(node, dict):
            node[random.choice(("", "x", "pictures", "video", "\udfff", "k" * 3000))] = node.pop(key)
        case _ if isinstance(node, list):
            node.extend(copy.deepcopy(node) * random.choice((1, 50)))
        case _:
            node[key] = [copy.deepcopy(node[key])] * random.choice((1, 2000))


def _agree(document: dict[str, Any]) -> None:
    """Give the document digests that agree, where it can have them."""
    try:
        document["identity_sha256"] = content_digest({"identity": document["identity"]})
        text = msgspec.json.encode(document["identity"], order="sorted")
        document["identity_sha256"] = hashlib.sha256(text).hexdigest()
        document["content_sha256"] = content_digest(document)
    except (BaselineInvalidError, KeyError, TypeError, ValueError):
        return


def mutate_png(data: bytes, random: Random) -> bytes:
    """Change bytes, in half of the mutations with checksums that agree; or insert a chunk."""
    if random.random() < 0.2:
        kind = random.choice((b"tRNS", b"PLTE", b"zTXt", b"iCCP", b"acTL", b"fcTL", b"IDAT", b"IHDR", b"eXIf", b"iTXt"))
        body = random.choice((b"", random.randbytes(30), b"a\0\0" + zlib.compress(bytes(2_000_000))))
        at = random.choice((33, 33, len(data) - 12))
        return data[:at] + _chunk(kind, body) + data[at:]
    changed = mutate_bytes(data, random)
    return _with_checksums(changed) if random.random() < 0.6 else changed


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _with_checksums(data: bytes) -> bytes:
    """Return a PNG with the right checksum in every chunk that can be found."""
    parts, at = [b"\x89PNG\r\n\x1a\n"], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        parts.append(_chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return b"".join(parts)


_MUTATE: dict[str, Callable[[bytes, Random], bytes]] = {
    "manifest": mutate_manifest,
    "image": mutate_png,
    "video": mutate_bytes,
}
