"""Reading of secrets by reference. Each is read once, however many targets use it; so is each failure."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fazai.errors import Mark, SecretError, spelling_hint
from fazai.masking import secret_texts
from fazai.model import Secret, SecretRef, Value
from fazai.secrets.files import read_private

if TYPE_CHECKING:
    from fazai.secrets.vault import VaultPassword

#: Words that Ansible takes in the place of a vault password file, to ask for the password.
PROMPTS: Final = ("prompt", "prompt_ask_vault_pass")

_PASSWORD_VARIABLES: Final = ("FAZAI_VAULT_PASSWORD_FILE", "ANSIBLE_VAULT_PASSWORD_FILE")
_IDENTITIES: Final = "ANSIBLE_VAULT_IDENTITY_LIST"
_KEY_NAMES: Final = {"key": "api_key", "secret": "api_secret"}


@dataclass(frozen=True, slots=True)
class _FailedSecret:
    message: str
    hint: str | None


class SecretReader:
    """Reads secrets with what it is given here, and nothing else.

    `environ`: for !env, for programs, and for where vault passwords are. `folder`: the secrets folder, with
    `<provider>/<target>.json` below it. `base`: what relative paths of the command line are relative to.
    `vault_password_files`: paths, or `label@path`; a program there is run. `uid`: the user we are.
    """

    def __init__(
        self,
        *,
        environ: Mapping[str, str],
        folder: Path | None = None,
        base: Path | None = None,
        vault_password_files: Sequence[str] = (),
        timeout_s: float = 30.0,
        uid: int | None = None,
    ) -> None:
        self._environ = environ
        self._folder = folder
        self._base = base if base is not None else Path.cwd()
        self._password_files = tuple(vault_password_files)
        self._timeout_s = timeout_s
        self._uid = os.geteuid() if uid is None else uid
        self._known: dict[object, Value | _FailedSecret] = {}
        self._passwords: tuple[VaultPassword, ...] | None = None

    def read(self, ref: SecretRef) -> Value:
        """Read a secret: a Secret, or a mapping of Secrets where what is read is a JSON object. Raises
        SecretError."""
        value = ref.value
        if ref.scheme == "cmd":
            if isinstance(value, str):
                hint = '!cmd [pass, "fw-01"]'
                raise SecretError("!cmd takes a list of arguments", where=ref.mark, hint=hint)
            cwd = self._folder_of(ref.mark)
            return self._read_once(("cmd", value, cwd), ref.mark, lambda: self._read_command(value, cwd))
        text = value if isinstance(value, str) else " ".join(value)
        if ref.scheme == "env":
            return self._read_once(("env", text), ref.mark, lambda: self._read_variable(text.strip()))
        if ref.scheme == "file":
            path = self._folder_of(ref.mark) / self._expand_home(text.strip())
            return self._read_once(("file", path), ref.mark, lambda: self._read_file(path))
        if ref.scheme == "vault":
            return self._read_once(("vault", text), ref.mark, lambda: self._read_vault(text))
        raise SecretError(f"there is no way to read !{ref.scheme}", where=ref.mark)

    def lookup(self, provider: str, target: str, where: Mark | None = None) -> Value | None:
        """Look a target up in the secrets folder; None if nothing is there. Raises SecretError."""
        if self._folder is None or "/" in target or target.startswith("."):
            return None
        path = self._base / self._folder / provider / f"{target}.json"
        if not os.path.lexists(path):
            return None
        return self._read_once(("file", path), where, lambda: self._read_file(path))

    def wrap(self, value: Value, where: Mark | None = None) -> Value:
        """Make the texts in a value that stands in the file itself Secrets. Raises SecretError."""
        if isinstance(value, Secret):
            return value
        if isinstance(value, SecretRef):
            return self.read(value)
        if isinstance(value, str):
            return Secret(value)
        if isinstance(value, Mapping) and value:
            return {key: self._wrap_entry(key, item, where) for key, item in value.items()}
        hint = "{api_key: !env NAME, api_secret: !env NAME}"
        raise SecretError("a secret is text, or a mapping of texts", where=where, hint=hint)

    def open_file(self, data: bytes, name: str) -> bytes:
        """Decrypt a file that is Vault text as a whole. Raises SecretError."""
        from fazai.secrets.vault import decrypt_vault

        try:
            return decrypt_vault(data.decode(), self.passwords())
        except UnicodeDecodeError:
            raise SecretError("the vault text is damaged", where=name) from None
        except SecretError as error:
            error.where = error.where or name
            raise

    def texts(self) -> Iterator[str]:
        """Iterate over all secret texts that were read so far, to mask them in output."""
        return secret_texts([one for one in self._known.values() if not isinstance(one, _FailedSecret)])

    def passwords(self) -> tuple[VaultPassword, ...]:
        """The vault passwords, from the command line, then from the environment. Raises SecretError."""
        if self._passwords is None:
            self._passwords = tuple(self._read_password(source) for source in self._password_sources())
        return self._passwords

    # -- one scheme each --------------------------------------------------------------------------------

    def _read_variable(self, name: str) -> Value:
        text = self._environ.get(name)
        if text is None:
            hint = spelling_hint(name, self._environ) or f"export {name}=…"
            raise SecretError(f'the environment variable "{name}" is not set', hint=hint)
        return _parse_secret(text, f'the environment variable "{name}"')

    def _read_file(self, path: Path) -> Value:
        data, what = read_private(path, uid=self._uid), f"the file {path}"
        found = _parse_secret(_decode_utf8(data, what), what, is_json=path.suffix == ".json")
        return Secret(found.reveal(), os.path.abspath(path)) if isinstance(found, Secret) else found

    def _read_command(self, argv: tuple[str, ...], cwd: Path) -> Value:
        data = self._run_program(argv, cwd)
        what = f'the output of "{argv[0]}"'
        return _parse_secret(_decode_utf8(data, what), what)

    def _read_vault(self, text: str) -> Value:
        from fazai.secrets.vault import decrypt_vault

        plain = _decode_utf8(decrypt_vault(text, self.passwords()), "the vault's content")
        return _parse_secret(plain, "the vault's content", strip=False)

    # -- vault passwords --------------------------------------------------------------------------------

    def _password_sources(self) -> list[tuple[str | None, str]]:
        """Return label and path of each password file, from Ansible's `label@path`."""
        texts = list(self._password_files)
        texts += [self._environ[name] for name in _PASSWORD_VARIABLES if self._environ.get(name)]
        texts += [part.strip() for part in self._environ.get(_IDENTITIES, "").split(",") if part.strip()]
        parts = (text.rpartition("@") for text in dict.fromkeys(texts))
        return [(label or None, path) for label, _, path in parts]

    def _read_password(self, source: tuple[str | None, str]) -> VaultPassword:
        from fazai.secrets.vault import VaultPassword

        label, name = source
        if name in PROMPTS:
            hint = "put it into a file, or behind a program"
            raise SecretError("a vault password is not asked for", hint=hint)
        path = self._base / self._expand_home(name)
        if path.is_file() and os.access(path, os.X_OK):
            argv = [str(path)]
            if path.stem.endswith("-client"):  # Ansible's convention for programs that know several passwords
                argv += ["--vault-id", label or "default"]
            data = self._run_program(argv, self._base)
        else:
            data = read_private(path, uid=self._uid, folder=False)
        if not data.strip():
            raise SecretError(f"the vault password in {path} is empty")
        return VaultPassword(label, data.strip())

    def _run_program(self, argv: Sequence[str], cwd: Path) -> bytes:
        from fazai.secrets.commands import run_program  # with subprocess, which most runs do not need

        return run_program(argv, cwd=cwd, environ=self._environ, timeout_s=self._timeout_s)

    # -- helpers ----------------------------------------------------------------------------------------

    def _read_once(self, key: object, where: Mark | None, read: Callable[[], Value]) -> Value:
        known = self._known.get(key)
        if known is None:
            try:
                known = read()
            except SecretError as error:
                known = _FailedSecret(error.message, error.hint)
            self._known[key] = known
        if isinstance(known, _FailedSecret):
            raise SecretError(known.message, where=where, hint=known.hint)
        return known

    def _folder_of(self, mark: Mark) -> Path:
        return self._base / Path(mark.file).parent

    def _expand_home(self, path: str) -> str:
        if path.startswith("~/") and self._environ.get("HOME"):
            return self._environ["HOME"] + path[1:]
        return path

    def _wrap_entry(self, key: str, item: Value, where: Mark | None) -> Value:
        if isinstance(item, bool) or item is None or isinstance(item, Mapping | list):
            raise SecretError(f'"{key}" in a secret is no text', where=where)
        return self.wrap(str(item) if isinstance(item, int | float) else item, where)


def _decode_utf8(data: bytes, what: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SecretError(f"{what} is not UTF-8 text") from None


def _parse_secret(text: str, what: str, *, is_json: bool = False, strip: bool = True) -> Value:
    """Parse a JSON object, or OPNsense's own key file, to a mapping of Secrets; everything else is one
    Secret."""
    stripped = text.strip()
    if not stripped:
        raise SecretError(f"{what} is empty")
    if stripped.startswith("{"):
        import json

        try:
            found = json.loads(stripped, object_pairs_hook=_refuse_repeated_keys)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            return {key: _wrap_item(key, item, what) for key, item in found.items()}
    if is_json:
        raise SecretError(f"{what} is not a JSON object", hint='{"api_key": "…", "api_secret": "…"}')
    return _parse_key_file(stripped) or Secret(stripped if strip else text)


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _wrap_item(key: str, item: Any, what: str) -> Secret:
    if isinstance(item, bool) or not isinstance(item, str | int | float):
        raise SecretError(f'"{key}" in {what} is no text')
    return Secret(str(item))


def _parse_key_file(text: str) -> dict[str, Value] | None:
    """Parse `key=…` and `secret=…`, the file that OPNsense's user page hands out."""
    pairs = [line.partition("=") for line in text.splitlines() if line.strip()]
    names = [name.strip() for name, _, _ in pairs]
    if sorted(names) != sorted(_KEY_NAMES):
        return None
    return {_KEY_NAMES[name.strip()]: Secret(value.strip()) for name, _, value in pairs}
