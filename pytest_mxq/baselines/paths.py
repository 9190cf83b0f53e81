"""Names of models and cases, and the file names that they become."""

import re
from urllib.parse import quote, unquote

from pytest_mxq.baselines.strict_json import shown
from pytest_mxq.errors import CaseFaultError

MAX_FILE_NAME = (
    200  # characters after escaping: file systems allow 255 bytes, and `.json` and a temporary suffix follow
)

_CASE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_\[\].+=, -]*")
_MODEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]*(/[A-Za-z0-9_][A-Za-z0-9_.+=-]*)?")

_NAME_IT = 'name the case in its test: @pytest.mark.mxq(..., case="...")'


def check_case_name(name: str) -> None:
    """Raise unless `name` can be a case's, such as `TestFlux.test_dev[b4-wide]`.

    Raises:
        CaseFaultError: The name is empty, begins with a dot, holds `..`, is too long, ends as a manifest does,
            or holds a slash, a control character or another character that is not allowed.
    """
    if not _CASE.fullmatch(name) or ".." in name or name.endswith((" ", ".json")):
        raise CaseFaultError(
            f"case name {shown(name)} is not allowed: it begins with a letter, digit or _, goes on with these, spaces "
            f"and [ ] . - + = , holds no '..' and ends in neither a space nor .json; {_NAME_IT}"
        )
    if len(_escape(name)) > MAX_FILE_NAME:
        raise CaseFaultError(
            f"case name {shown(name)} makes a file name of {len(_escape(name))} characters, at most {MAX_FILE_NAME} "
            f"are allowed; {_NAME_IT}"
        )


def check_model_name(name: str) -> None:
    """Raise unless `name` is a registered name or a Hub id: `flux.1-dev`, `black-forest-labs/FLUX.1-dev`.

    Raises:
        CaseFaultError: As for `check_case_name`; one slash is allowed, and no space.
    """
    if not _MODEL.fullmatch(name) or ".." in name or len(name) > MAX_FILE_NAME:
        raise CaseFaultError(
            f"model name {shown(name)} is not allowed: a registered name or a Hub id begins with a letter, digit or _, "
            f"goes on with these and . - + =, holds no space, no '..', at most one / and at most {MAX_FILE_NAME} "
            "characters; rename the folder, or register the model under a name of its own"
        )


def case_file_name(case: str) -> str:
    """Return the case's name on disk: what a shell, a glob or a URL would interpret is percent-escaped.

    >>> case_file_name("test_dev[b4 wide]")
    'test_dev%5Bb4%20wide%5D'
    """
    check_case_name(case)
    return _escape(case)


def case_of_file(name: str) -> str:
    """Return the case of a name on disk.

    >>> case_of_file("test_dev%5Bb4%20wide%5D")
    'test_dev[b4 wide]'
    """
    return unquote(name)


def model_folder_name(model: str) -> str:
    """Return the model's name on disk.

    >>> model_folder_name("black-forest-labs/FLUX.1-dev")
    'black-forest-labs--FLUX.1-dev'
    """
    check_model_name(model)
    return model.replace("/", "--")


def output_file_name(order: int, prompt: str, suffix: str = ".png") -> str:
    """Return the file name of an image or video, the same at each refresh: a pull request shows old and new.

    >>> output_file_name(0, "A large, striped red circle")
    '00-a-large-striped-red-circle.png'
    """
    words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:40].rstrip("-") or "prompt"
    return f"{order:02}-{words}{suffix}"


def content_file_name(file: str, sha256: str) -> str:
    """Return an output's file name with a part of its content's SHA-256: a new one never overwrites an old one.

    >>> content_file_name("00-a-red-circle.png", "0123456789abcdef")
    '00-a-red-circle-01234567.png'
    """
    stem, dot, suffix = file.rpartition(".")
    return f"{stem}-{sha256[:8]}{dot}{suffix}"


def _escape(name: str) -> str:
    return quote(name, safe="+=,")
