"""Reading of YAML: from a path to bytes within limits, and from bytes to values."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fazai.errors import YamlError, missing_file
from fazai.yamltext.limits import DEFAULT_YAML_LIMITS, YamlLimits
from fazai.yamltext.nodes import YamlList, YamlMap

#: Opens a file that is Ansible Vault text as a whole: its bytes and its name to the plain bytes.
Decrypt = Callable[[bytes, str], bytes]

#: Is called with the path and the bytes of each file that is read, before they are parsed.
OnFileRead = Callable[[str, bytes], None]

_VAULT = b"$ANSIBLE_VAULT;"
_PEM = b"-----BEGIN "


class KeyFile(YamlError):
    """A key or certificate in the place of a text that we read: no line of it is ever quoted."""


def load_yaml(
    path: str | Path,
    *,
    limits: YamlLimits = DEFAULT_YAML_LIMITS,
    decrypt: Decrypt | None = None,
    on_read: OnFileRead | None = None,
    what: str = "file",
) -> YamlMap | YamlList | None:
    """Read the one document of a file; None for an empty one. `what` it is called if it is not there. Raises
    YamlError, or Errors for several."""
    name = str(path)
    data = read_limited(name, limits, what)
    if on_read is not None:
        on_read(name, data)
    return parse_yaml(data, name, limits=limits, decrypt=decrypt)


def loads_yaml(
    text: str | bytes, file: str, *, limits: YamlLimits = DEFAULT_YAML_LIMITS
) -> YamlMap | YamlList | None:
    """Parse the one document of a text; `file` is its name in marks. Raises as `load_yaml`."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return parse_yaml(data, file, limits=limits)


def parse_yaml_value(text: str, file: str, *, limits: YamlLimits = DEFAULT_YAML_LIMITS) -> Any:
    """Parse a text that may also be a single value: `5`, `yes`, `[a]`. Raises as `load_yaml`."""
    from fazai.yamltext.build import build_yaml

    data = text.encode("utf-8", "surrogatepass")
    if len(data) > limits.size_bytes:
        raise _size_error(file, len(data), limits)
    return build_yaml(data, file, limits, scalar_ok=True)


def parse_yaml(
    data: bytes, file: str, *, limits: YamlLimits = DEFAULT_YAML_LIMITS, decrypt: Decrypt | None = None
) -> YamlMap | YamlList | None:
    """Parse the one document of these bytes. Raises as `load_yaml`."""
    from fazai.yamltext.build import build_yaml  # with PyYAML, which takes its time to import

    if data.startswith(_VAULT):
        if decrypt is None:
            text = "the whole file is encrypted with Ansible Vault, and no vault password was given"
            hint = "give the vault password file, or encrypt single values with !vault instead"
            raise YamlError(text, where=file, hint=hint)
        data = decrypt(data, file)
    if len(data) > limits.size_bytes:
        raise _size_error(file, len(data), limits)
    found: YamlMap | YamlList | None = build_yaml(data, file, limits)
    return found


def read_limited(path: str | Path, limits: YamlLimits = DEFAULT_YAML_LIMITS, what: str = "file") -> bytes:
    """Read the bytes of a file or pipe; the size is looked at before anything is read. Raises YamlError."""
    name = str(path)
    try:
        with open(name, "rb", opener=_open_nonblocking) as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                data = _read_pipe(stream.fileno(), limits)
            elif status.st_size > limits.size_bytes:
                raise _size_error(name, status.st_size, limits)
            else:
                data = stream.read(status.st_size + 1)  # not the limit: room for all of that would be made
                if len(data) > status.st_size:  # it grows
                    data += stream.read(limits.size_bytes + 1)
    except FileNotFoundError:
        raise missing_file(YamlError, what, name) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise YamlError(f"cannot read the file: {reason}", where=name) from None
    if len(data) > limits.size_bytes:
        raise _size_error(name, None, limits)
    if data.lstrip()[: len(_PEM)] == _PEM:
        hint = "was another file meant? a key is named where it is used, such as key_file:"
        raise KeyFile("this is a key or a certificate (PEM)", where=name, hint=hint)
    return data


def _open_nonblocking(path: str, flags: int) -> int:
    """Open a file; a pipe that nobody writes to is not waited for."""
    return os.open(path, flags | os.O_NONBLOCK)


def _read_pipe(handle: int, limits: YamlLimits) -> bytes:
    """Read what a pipe has, to its end or past the limit. Raises OSError, also when the time is over."""
    until_s = time.monotonic() + limits.pipe_s
    ready = select.poll()
    ready.register(handle, select.POLLIN)
    data = bytearray()
    while len(data) <= limits.size_bytes:
        left_s = until_s - time.monotonic()
        if left_s <= 0 or not ready.poll(left_s * 1000):
            raise OSError(errno.ETIMEDOUT, f"nobody wrote it to its end within {limits.pipe_s:g} s")
        with contextlib.suppress(BlockingIOError):
            chunk = os.read(handle, 64 * 1024)
            if not chunk:
                break
            data += chunk
    return bytes(data)


def _size_error(file: str, size_bytes: int | None, limits: YamlLimits) -> YamlError:
    size = f"{size_bytes / 2**20:.1f} MiB" if size_bytes is not None else "an endless stream"
    text = f"the file is too large: {size}, at most {limits.size_bytes / 2**20:g} MiB are read"
    return YamlError(text, where=file, hint="split it: an inventory may be a folder of files")
