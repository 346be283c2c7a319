"""Which rkbench machines install: this clone's commit, a git URL, a wheel, or what they have."""

import dataclasses
import pathlib
import re
import subprocess
import urllib.parse

from rkbench.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
INSTALLED = "installed"
CLONE = "clone"

_PACKAGE = ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "rkbench")


@dataclasses.dataclass(frozen=True)
class Source:
    """What a machine installs.

    Attributes:
      requirement: a URL for pip, the name of one of the files, or "" for nothing.
      files: what has to be sent along, {name: content}.
      commit: for the record of the run; "" where the installation itself knows it, or nobody does.
    """

    requirement: str = ""
    files: dict[str, bytes] = dataclasses.field(default_factory=dict)
    commit: str = ""


def find(text: str, allow_dirty: bool = False, clone: pathlib.Path = ROOT) -> Source:
    """The source that --source=`text` names.

    Raises UserError for anything else, a URL with a password, or a clone with changes that are not
    committed, unless they are allowed.
    """
    if text == INSTALLED:
        return Source()
    if text == CLONE:
        return _of_clone(clone, allow_dirty)
    if text.endswith(".whl") and "://" not in text:
        return _of_wheel(pathlib.Path(text))
    url = urllib.parse.urlsplit(text.removeprefix("git+"))
    if url.scheme not in ("https", "ssh") or not url.netloc:
        raise UserError(
            f"--source={text} must be {CLONE!r} (this clone's commit), {INSTALLED!r} (the machines "
            "have rkbench), a wheel, or a URL for pip as git+https://HOST/REPOSITORY@COMMIT"
        )
    if url.password or (url.username and url.scheme == "https") or url.query:
        raise UserError("--source has a password or token in its URL, which would end up in files")
    commit = re.search("@([0-9a-f]{40})$", text)
    return Source(text, {}, commit[1] if commit else "")


def _of_wheel(path: pathlib.Path) -> Source:
    try:
        return Source(path.name, {path.name: path.read_bytes()})
    except OSError as error:
        raise UserError(f"--source={path}: {error.strerror}") from error


def _of_clone(clone: pathlib.Path, allow_dirty: bool) -> Source:
    """An archive of the commit that is checked out, or of it and the changes to its files."""

    def git(*arguments: str) -> bytes:
        try:
            return subprocess.run(
                ["git", *arguments], cwd=clone, capture_output=True, check=True
            ).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            raise UserError(
                f"--source={CLONE}: {clone} is no git clone with a commit ({error})"
            ) from error

    commit = git("rev-parse", "HEAD").decode().strip()
    packed, label = commit, commit
    if changed := git("status", "--porcelain", "--", *_PACKAGE).decode().splitlines():
        if not allow_dirty:
            raise UserError(
                f"{clone} has changes that are not committed ({changed[0].strip()}); commit them, "
                "or send them along with --allow-dirty (new files only after git add)"
            )
        packed, label = git("stash", "create").decode().strip() or commit, f"{commit}-dirty"
    name = f"rkbench-{label[:12]}"
    archive = git("archive", "--format=tar.gz", f"--prefix={name}/", packed, "--", *_PACKAGE)
    constraints = git("show", f"{packed}:constraints.txt")
    return Source(
        f"{name}.tar.gz", {f"{name}.tar.gz": archive, "constraints.txt": constraints}, label
    )
