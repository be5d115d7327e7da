"""Files that are either the old ones or the new ones, never half of each."""

import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` through a temporary file beside it and one rename.

    Missing parent folders are made.

    Raises:
        OSError: if the folder cannot be written; ``path`` is then as it was.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "pictures" / "a.txt"
    >>> write_atomically(target, b"whole")
    >>> target.read_bytes(), len(list(target.parent.iterdir()))
    (b'whole', 1)
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp's 0o600 would hide the file from a group
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
