"""The content of a file as a value: compared by its hash, shown when it is short and no secret."""

from __future__ import annotations

import hashlib
from dataclasses import field

from fazai.compat.language import dataclass
from fazai.model import Secret, Value

#: Longer contents stand in plans and journals as their hash.
SHOWN_BYTES = 64 * 1024


def reveal_text(value: Value) -> str:
    """Return a value as text, also that of a secret, for what is sent to a host."""
    return value.reveal() if isinstance(value, Secret) else str(value)


@dataclass(frozen=True, slots=True, eq=False)
class Blob:
    """Bytes, or the hash of bytes that were not fetched (`data` None). `private`: never shown."""

    data: bytes | None = field(repr=False)
    sha256: str
    size: int
    private: bool = False

    @classmethod
    def of(cls, content: str | bytes | Secret, *, private: bool = False) -> Blob:
        """Make a content from text, from bytes, or from a secret, which stays one."""
        if isinstance(content, Secret):
            content, private = content.reveal(), True
        data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
        return cls(data, hashlib.sha256(data).hexdigest(), len(data), private)

    def hidden(self) -> Blob:
        """Return the same content, not to be shown."""
        return Blob(self.data, self.sha256, self.size, True)

    @property
    def default_mode(self) -> str:
        """The mode of a file that is made with this content."""
        return "0600" if self.private else "0644"

    def private_text(self) -> str | None:
        """Return the content, where it is known and must not be shown (`echoes.Content`)."""
        return self.data.decode("utf-8", "replace") if self.private and self.data is not None else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blob) and self.sha256 == other.sha256 and self.size == other.size

    def __hash__(self) -> int:
        return hash(self.sha256)

    def __bool__(self) -> bool:
        return self.size > 0

    def __repr__(self) -> str:
        return f"Blob({self})"

    def __str__(self) -> str:
        if self.private:
            return "***"
        if self.data is not None and self.size <= SHOWN_BYTES and b"\0" not in self.data:
            try:
                return self.data.decode()
            except UnicodeDecodeError:
                pass
        return f"sha256:{self.sha256[:16]}… ({self.size} bytes)"
