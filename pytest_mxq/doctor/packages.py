"""The installed software, read from its metadata without importing any of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from pytest_mxq.models.published import PUBLISHED_STACK

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

OURS = "pytest-mxq"
# The same kernels under other names: a nightly on PyPI, a nightly of PyTorch's index.
_OTHER_NAMES = {"mslk-cuda": ("mslk-cuda-nightly", "mslk")}
_LEAST_DRIVER = {12: 525, 13: 580}  # by major version of CUDA
_BLACKWELL = (10, 0)  # and 12.0; CUDA compiles for them since 12.8 (its release notes, "Added compiler support")
_BLACKWELL_CUDA = (12, 8)
_FOR_IMAGES = ("lpips", "pytorch-msssim", "scikit-image", "torchvision")  # speed and memory gates run without


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """An installed distribution.

    Attributes:
        name: Its name.
        version: Its version; of torch and torchvision with the build, such as "2.15.0+cu132".
        requires: Its requirements, as it declares them.
    """

    name: str
    version: str
    requires: tuple[str, ...] = ()


Lookup = Callable[[str], Installed | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One package: what is installed, and whether it meets the requirement.

    Attributes:
        needed: The required range.
        fault: What is wrong with it; None where it meets the requirement.
        fix: What to do about the fault; None where there is no fault.
    """

    name: str
    found: Installed | None
    needed: str
    fault: str | None = None
    fix: str | None = None

    @property
    def is_for_images(self) -> bool:
        """Return whether gates of images alone need it."""
        return self.name in _FOR_IMAGES

    @property
    def row(self) -> str:
        """Version, range, and the fault or the published version, in columns."""
        version = self.found.version if self.found else "not installed"
        published = PUBLISHED_STACK.get(self.name)
        needs = f"needs {self.needed}" if self.needed else ""
        remark = f"published with {published}" if published else ""
        if self.found and self.fault:
            remark = self.fault
        return f"{version:<14} {needs:<21} {remark}".rstrip()

    @property
    def is_older_than_published(self) -> bool:
        """Return whether the published numbers were made with a later one."""
        published = PUBLISHED_STACK.get(self.name)
        if self.found is None or published is None or _version(self.found) is None:
            return False
        ours, theirs = Version(self.found.version), Version(published)
        counts_by_date = ours.major > 2000, theirs.major > 2000  # nightlies of MSLK do, its releases do not
        return counts_by_date[0] == counts_by_date[1] and ours.release < theirs.release


def find_installed(name: str) -> Installed | None:
    """Return the installed distribution of a name; None where it is not installed."""
    try:
        found = metadata.distribution(name)
        version: str | None = found.version
        requires = tuple(found.requires or ())
    except (metadata.PackageNotFoundError, OSError, KeyError, UnicodeError):
        return None
    return Installed(name=name, version=_build(found, name) or version or "unknown", requires=requires)


def _build(found: metadata.Distribution, name: str) -> str | None:
    """Return the version with its build, which PyPI's wheels leave out of their metadata and write into version.py."""
    if name not in {"torch", "torchvision"}:
        return None
    try:
        text = Path(str(found.locate_file(f"{name}/version.py"))).read_text(encoding="utf-8")
    except (OSError, UnicodeError):
        return None
    stated = re.search(r"""^__version__\s*=\s*['"]([^'"]+)""", text, re.MULTILINE)
    return stated[1] if stated else None


def _version(found: Installed) -> Version | None:
    try:
        return Version(found.version)
    except InvalidVersion:
        return None


def examine_dependencies(lookup: Lookup) -> Iterator[Package]:
    """Examine every dependency that pytest-mxq declares, and torchvision, which lpips imports."""
    ours = lookup(OURS)
    if ours is None:
        fault = f"{OURS} is not installed: its ranges are not known"
        yield Package(name=OURS, found=None, needed="", fault=fault, fix=f"pip install {OURS}, or -e of its checkout")
    for requirement in map(Requirement, ours.requires if ours else ()):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield examine(requirement, lookup, fix=f"pip install '{requirement.name}{_shown(requirement.specifier)}'")
    yield examine_torchvision(lookup)


def examine(requirement: Requirement, lookup: Lookup, *, fix: str) -> Package:
    """Examine whether a requirement is met."""
    found = lookup(requirement.name)
    fault = _fault(requirement, found)
    return Package(
        name=requirement.name,
        found=found,
        needed=_shown(requirement.specifier),
        fault=fault,
        fix=fix if fault else None,
    )


def _shown(specifier: SpecifierSet) -> str:
    """Return a range with its lower end first: packaging sorts "<" before ">"."""
    return ",".join(sorted(map(str, specifier), reverse=True))


def _fault(requirement: Requirement, found: Installed | None) -> str | None:
    if found is None:
        return f"{requirement.name} is not installed"
    version = _version(found)
    if version is None:
        return f"{found.name}'s version {found.version!r} cannot be read"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{found.name} {found.version} is not {_shown(requirement.specifier)}"
    return None


def examine_torchvision(lookup: Lookup) -> Package:
    """Examine whether torchvision is of this torch: by its own metadata, and of the same build."""
    vision, torch = lookup("torchvision"), lookup("torch")
    if vision is None or torch is None:
        fault = None if vision else "torchvision is not installed, and lpips imports it"
        return Package(
            name="torchvision", found=vision, needed="", fault=fault, fix="pip install torchvision" if fault else None
        )
    needs = next(_requirements_on("torch", vision.requires), None)
    fault = (_fault(needs, torch) if needs else None) or _other_build(vision, torch)
    return Package(
        name="torchvision",
        found=vision,
        needed=f"torch{_shown(needs.specifier)}" if needs else "",
        fault=f"torchvision is not of this torch: {fault}" if fault else None,
        fix=f"pip install --force-reinstall torchvision torch=={torch.version.partition('+')[0]}, from one index"
        if fault
        else None,
    )


def _requirements_on(name: str, texts: Iterable[str]) -> Iterator[Requirement]:
    for text in texts:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.name == name and requirement.marker is None:
            yield requirement


def _other_build(vision: Installed, torch: Installed) -> str | None:
    builds = [version.local for version in (_version(vision), _version(torch)) if version and version.local]
    return f"build {builds[0]}, torch's {builds[1]}" if len(set(builds)) > 1 else None


def examine_video(lookup: Lookup) -> Package:
    """Examine PyAV, which the extra "video" installs: baselines of videos are stored and read with it."""
    ours = lookup(OURS)
    declared = map(Requirement, ours.requires if ours else ())
    stated = next((requirement for requirement in declared if requirement.name == "av"), Requirement("av"))
    return examine(stated, lookup, fix=f"pip install '{OURS}[video]'")


def examine_kernels(text: str, lookup: Lookup) -> Package:
    """Examine whether a format's own requirement is met, such as "mslk-cuda>=1.0"."""
    requirement = Requirement(text)
    names = (requirement.name, *_OTHER_NAMES.get(requirement.name, ()))
    there = [found for found in map(lookup, names) if found is not None]
    real = [found for found in there if not _is_placeholder(found)]
    fix = "pip install 'pytest-mxq[blackwell]'" if requirement.name == "mslk-cuda" else f"pip install '{requirement}'"
    if there and not real:
        return Package(
            name=requirement.name,
            found=there[0],
            needed=_shown(requirement.specifier),
            fault=f"{there[0].name} {there[0].version} is an empty placeholder",
            fix=f"pip uninstall {there[0].name}, then {fix}",
        )
    return examine(requirement, lambda _: real[0] if real else None, fix=fix)


def _is_placeholder(found: Installed) -> bool:
    return found.name == "mslk" and found.version == "0.0.0"  # what PyPI has under that name


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaFault:
    """The reason why torch cannot use the GPU, and the fix."""

    reason: str
    fix: str


def cuda_fault(lookup: Lookup, driver: str, capability: tuple[int, int] | None) -> CudaFault | None:
    """Return why torch cannot use the GPU, and what to do; None where it can, or torch does not say its build.

    A driver runs every CUDA of a major version from a first release on (CUDA Toolkit release notes, "CUDA Minor
    Version Compatibility": 12.x needs driver 525, 13.x needs 580). A build for a CUDA that is older than the GPU loads
    and sees it, and has no kernels for it.

    Args:
        lookup: What finds torch.
        driver: The driver's version, such as "580.65.06"; empty where it is not known.
        capability: The GPU's compute capability; None where it is not known.
    """
    torch = lookup("torch")
    version = _version(torch) if torch else None
    build = (version.local if version else None) or ""
    if torch is None or build.startswith(("cpu", "rocm", "xpu")):
        return _without_cuda(torch)
    stated = re.match(r"cu(\d\d)(\d+)", build)
    if stated is None:
        return None
    cuda = int(stated[1]), int(stated[2])
    return _no_kernels(torch, cuda, capability) or _old_driver(torch, cuda[0], driver)


def _without_cuda(torch: Installed | None) -> CudaFault | None:
    if torch is None:  # its absence is a finding of its own
        return None
    return CudaFault(reason=f"torch {torch.version} is built without CUDA", fix="install torch's CUDA build")


def _no_kernels(torch: Installed, cuda: tuple[int, int], capability: tuple[int, int] | None) -> CudaFault | None:
    if capability is None or capability < _BLACKWELL or cuda >= _BLACKWELL_CUDA:
        return None
    built, found, needed = (".".join(map(str, pair)) for pair in (cuda, capability, _BLACKWELL_CUDA))
    return CudaFault(
        reason=f"torch {torch.version} is built for CUDA {built}; compute capability {found} needs {needed}",
        fix=f"install torch's build for CUDA {needed} or newer",
    )


def _old_driver(torch: Installed, major: int, driver: str) -> CudaFault | None:
    found, least = re.match(r"\d+", driver), _LEAST_DRIVER.get(major, 0)
    if found is None or int(found[0]) >= least:
        return None
    return CudaFault(
        reason=f"torch {torch.version} needs driver {least} or newer, found {driver}",
        fix="update the driver, or install a torch that is built for an older CUDA",
    )
