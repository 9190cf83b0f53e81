"""One session with NVML that no driver's answer can break: what is missing, refused or of another type is None."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

_LONGEST_TEXT = 96  # characters; NVML's own buffer for a device name (NVML_DEVICE_NAME_V2_BUFFER_SIZE)


class Nvml(Protocol):
    """The part of the module `pynvml` that is used: its error class, and its functions by their NVML names."""

    NVMLError: type[Exception]

    def __getattr__(self, function: str) -> Callable[..., Any]: ...


class NvmlUnavailableError(Exception):
    """NVML cannot be opened here; the message says why."""


@dataclass(frozen=True, slots=True)
class NvmlSession:
    """An open NVML: questions by the names of its functions without `nvml`, such as `DeviceGetName`."""

    nvml: Nvml

    def ask(self, question: str, *arguments: object) -> Any:
        """Return NVML's answer as it is; None where it has none (not supported, no permission, no such function)."""
        try:
            return getattr(self.nvml, f"nvml{question}")(*arguments)
        except Exception:  # noqa: BLE001  old drivers and stubs of pynvml raise what they like; a fact is then missing
            return None

    def text(self, question: str, *arguments: object) -> str | None:
        """Return a printable text of at most 96 characters; None where the answer is no text, or an empty one."""
        return as_text(self.ask(question, *arguments))

    def number(self, question: str, *arguments: object) -> int | None:
        """Return an integer from 0 on; None for any other answer."""
        return as_number(self.ask(question, *arguments))

    def pair(self, question: str, *arguments: object) -> tuple[int, int] | None:
        """Return two integers from 0 on, such as a capability or a mode (current, pending); None otherwise."""
        answer = self.ask(question, *arguments)
        numbers = [as_number(value) for value in answer] if isinstance(answer, list | tuple) else []
        return (numbers[0], numbers[1]) if len(numbers) == 2 and None not in numbers else None  # type: ignore[return-value]

    def field(self, name: str, question: str, *arguments: object) -> Any:
        """Return a field of the structure that NVML answers with; None where there is no such structure or field."""
        try:
            return getattr(self.ask(question, *arguments), name)
        except Exception:  # noqa: BLE001  as in `ask`: a structure of another driver may lack the field
            return None


@contextmanager
def open_nvml(nvml: Nvml | None = None) -> Iterator[NvmlSession]:
    """Open NVML, and close it at the end.

    Args:
        nvml: A stand-in for the module `pynvml`.

    Raises:
        NvmlUnavailableError: nvidia-ml-py is not installed, or there is no working driver.
    """
    session = NvmlSession(_load() if nvml is None else nvml)
    try:
        session.nvml.nvmlInit()
    except Exception as error:
        raise NvmlUnavailableError(as_text(str(error)) or type(error).__name__) from error
    try:
        yield session
    finally:
        session.ask("Shutdown")


def as_text(value: object) -> str | None:
    """Return `value` as printable text of at most 96 characters; None where it is no text, or an empty one.

    Older releases of pynvml answer with bytes.
    """
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    if not isinstance(text, str):
        return None
    printable = "".join(character if character.isprintable() else " " for character in text[:_LONGEST_TEXT])
    return printable.strip() or None


def as_number(value: object) -> int | None:
    """Return `value` if it is an integer from 0 on that a float can hold; otherwise None."""
    return value if type(value) is int and 0 <= value < 2**64 else None


def _load() -> Nvml:
    try:
        import pynvml
    except ImportError as error:
        raise NvmlUnavailableError("nvidia-ml-py is not installed") from error
    except Exception as error:
        raise NvmlUnavailableError(f"nvidia-ml-py cannot be imported ({type(error).__name__})") from error
    module: Nvml = pynvml
    return module
