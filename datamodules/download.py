"""Fetch a file of a data set, whole or not at all."""

import hashlib
import secrets
import shutil
import urllib.request
from pathlib import Path


def download(url: str, path: Path, owner: str, remedy: str, md5: str | None = None) -> None:
    """Fetch a file to ``path``, which appears only when it is complete.

    Args:
        url: Where it is.
        path: Where it goes; the folder is made.
        owner: Who asks and for what, the beginning of the message if that fails.
        remedy: What the user can do then, the end of the message.
        md5: Checksum of the file; ``None`` to take what comes.

    Raises:
        FileNotFoundError: If that fails.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                shutil.copyfileobj(response, file)
            expected = response.headers.get("Content-Length")
        if expected is not None and partial.stat().st_size != int(expected):
            msg = f"{partial.stat().st_size} of {expected} bytes came"
            raise OSError(msg)
        if md5 is not None and hashlib.md5(partial.read_bytes(), usedforsecurity=False).hexdigest() != md5:
            msg = f"its checksum is not {md5}"
            raise OSError(msg)
        partial.replace(path)
    except OSError as error:
        msg = f"{owner}, and {url} could not be downloaded ({error}); {remedy}"
        raise FileNotFoundError(msg) from error
    finally:
        partial.unlink(missing_ok=True)
