"""Sessions of the reconciler: what one run of a controller knows of this machine."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from fazai.agent.errors import Refused
from fazai.errors import DeviceError, FazaiError, Moved
from fazai.errors import Refused as RefusedChange
from fazai.masking import make_mask, secret_texts
from fazai.model import Change, Target
from fazai.providers.hosts.blob import Blob
from fazai.providers.hosts.local.transport import start_local_shell
from fazai.providers.hosts.planning import UNDONE_NOTE
from fazai.providers.hosts.remote.failures import encode_error
from fazai.providers.hosts.remote.messages import (
    MOST_RESOURCES,
    ChangeName,
    RemoteObservation,
    change_sha256,
    decode_changes,
    decode_resource,
    encode_observation,
)
from fazai.providers.hosts.remote.values import Malformed, decode_text, encode_value
from fazai.providers.hosts.session import HostSession
from fazai.providers.hosts.shell.batching import MAX_CHANGES
from fazai.providers.hosts.shell.become import Become

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Final

    from fazai.agent.state.policy import Policy
    from fazai.model import Resource
    from fazai.providers.hosts.kind import HostKind
    from fazai.providers.hosts.shell.channel import ShellChannel

#: Where programs are that administer a machine; a service may have been started without some of them.
_FOLDERS: Final = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
#: Variables that are the agent's own affair, by how they begin.
_OWN: Final = ("FAZAI_", "PYTHON", "LD_", "NOTIFY_SOCKET", "LISTEN_", "JOURNAL_STREAM", "INVOCATION_ID")
#: What commands print in one step; their own relay cuts each at 256 KiB.
_OUTPUT_CHARS: Final = 1024 * 1024


def shell_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of shells: the agent's without what is its own, and all folders of programs."""
    found = {name: value for name, value in environ.items() if not name.startswith(_OWN)}
    path = [folder for folder in environ.get("PATH", "").split(":") if folder]
    found["PATH"] = ":".join([*path, *(folder for folder in _FOLDERS if folder not in path)])
    return found


class HeldSession:
    """One session: the host provider's own, with what this run wrote through it."""

    def __init__(self, host: str, kinds: Mapping[str, HostKind], policy: Policy, root: str) -> None:
        self.used_s = time.monotonic()
        self.wrote: list[Change] = []  # what this run began to write, in that order
        self._host, self._kinds, self._policy, self._root = host, kinds, policy, root
        self._resources: dict[tuple[str, str], Resource] = {}
        self._masking: Callable[[str], str] | None = None
        self._handlers: list[Resource] = []
        self._output: list[list[Any]] = []
        self._left = _OUTPUT_CHARS
        target = Target(host, "local", "write", {"root": root} if root else {})
        self._session = HostSession(target, kinds, self._start, timeout_s=60, root=root)
        self._session.listen(self._hear)

    async def _start(self) -> ShellChannel:
        timeout_s = self._session.shell.timeout_s
        environ = shell_environ(os.environ)
        return await start_local_shell(self._host, Become(), self._root, environ, timeout_s)

    async def close(self, *, busy: bool = False) -> None:
        """End the shell; `busy`: with all that it runs."""
        await self._session.shell.close(busy=busy)

    # -- looking ----------------------------------------------------------------------------------------

    async def observe(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Look at resources. Raises Refused before anything runs, Malformed."""
        asked = request["resources"]
        if not isinstance(asked, list) or len(asked) > MOST_RESOURCES:
            raise Malformed(f"no list of at most {MOST_RESOURCES} resources")
        wanted = [decode_resource(each, self._kinds) for each in asked]
        for resource in wanted:
            self._policy.check(resource)
        self._resources.update(((each.kind, each.identity), each) for each in wanted)
        self._masking = None
        self._session.shell.timeout_s = timeout_s
        try:
            if not wanted and not request.get("facts"):
                await self._session.shell.prove()
            seen = await self._session.observe(wanted)
            facts = await self._session.facts() if request.get("facts") else None
        except FazaiError as error:
            return {"error": self._encode_error(error)}
        found = RemoteObservation(seen, self._session.names, self._root, facts)
        return encode_observation(wanted, found, self._host)

    # -- writing ----------------------------------------------------------------------------------------

    async def apply(self, step: object) -> dict[str, Any]:
        """Carry out one step. Raises Refused before anything runs, Malformed."""
        if not isinstance(step, dict) or len(step) != 1:
            raise Malformed("no step")
        ((word, data),) = step.items()
        steps = {
            "write": self._write,
            "activate": self._activate,
            "verify": self._verify,
            "explains": self._explains,
        }
        if word not in steps:
            raise Malformed("an unknown step")
        self._output, self._left = [], _OUTPUT_CHARS
        result = await steps[word](data)
        if self._output:
            result["output"] = self._output
        return result

    async def _write(self, data: object) -> dict[str, Any]:
        names = decode_changes(data, MAX_CHANGES)
        for name in names:
            self._check(name)
        done: list[str] = []
        try:
            for name in names:
                self._take_content(name)
            rest = [self._change(name) for name in names]
            while rest:
                count, error = await self._write_next(rest, done)
                if error is not None:
                    raise error
                rest = rest[count:]
        except FazaiError as error:
            return {"done": encode_value(done), "error": self._encode_error(error)}
        return {"done": encode_value(done)}

    async def _write_next(self, rest: Sequence[Change], done: list[str]) -> tuple[int, FazaiError | None]:
        """Write the first of these, or as many as the session joins. What was written before may have made
        links: the policy is asked again."""
        count = self._session.join(rest) if len(rest) > 1 else 1
        for change in rest[:count]:
            try:
                self._check(change)
            except Refused as refused:
                raise RefusedChange(refused.message, where=change.where, hint=refused.hint) from None
            if change.note != UNDONE_NOTE:
                self.wrote.append(change)
        if count == 1:
            done.append(await self._session.write(rest[0]))
            return 1, None
        refs, error = await self._session.write_joined(rest[:count])
        done += refs
        return count, error

    def _check(self, change: ChangeName | Change) -> None:
        """Ask the policy. Raises Refused."""
        resource = self._resources.get((change.kind, change.identity))
        if resource is None:  # by this session: another one of that name may have
            raise Refused("not_found", f"{change.kind} {change.identity} was not looked at", "look again")
        self._policy.check(resource, writes=True)

    def _take_content(self, name: ChangeName) -> None:
        """Take the content that the question left out. Raises Malformed where it is another one."""
        field, resource = self._kinds[name.kind].by_hash, self._resources[name.key]
        content = resource.fields.get(field)
        if name.content is None or not isinstance(content, Blob):
            return
        found = Blob.of(name.content, private=content.private)
        if found != content:
            raise Malformed(f"{name.kind} {name.identity}: another content than was asked about")
        whole = replace(resource, fields={**resource.fields, field: found})
        self._resources[name.key] = whole
        self._masking = None
        self._session.declare_again(whole)

    def _change(self, name: ChangeName) -> Change:
        """Work out a change anew. Raises Moved where what it takes back is not known, DeviceError where it is
        another one than the controller means."""
        title = f"{name.kind} {name.identity}"
        if name.undo:
            wrote = [each for each in self.wrote if (each.kind, each.identity) == name.key]
            candidates = [self._session.inverse(each, each.ref) for each in reversed(wrote)]
            if not candidates:
                raise Moved(f"{title}: the agent does not know any more what this run wrote", path="")
        else:
            candidates = [self._session.planned_change(name.kind, name.identity)]
        fits = (each for each in candidates if each is not None and each.verb is name.verb)
        found = next((each for each in fits if change_sha256(each) == name.sha256), None)
        if found is None:
            hint = "is the agent of another version? fazai agent version"
            raise DeviceError(f"{title}: the agent works out another change than was planned", hint=hint)
        return found

    async def _activate(self, data: object) -> dict[str, Any]:
        if not isinstance(data, dict) or data.keys() != {"service", "handler"}:
            raise Malformed("no handler")
        handler, service = decode_resource(data["handler"], self._kinds), decode_text(data["service"])
        if not handler.listen:
            raise Malformed("no handler")
        self._policy.check(handler, writes=True)
        self._session.declare_handler(service, handler)
        self._handlers, self._masking = [*self._handlers, handler], None
        try:
            await self._session.activate(service)
        except FazaiError as error:
            return {"error": self._encode_error(error)}
        return {}

    async def _verify(self, data: object) -> dict[str, Any]:
        changes = [self._skeleton(name) for name in decode_changes(data, MOST_RESOURCES, hashed=False)]
        try:
            errors = await self._session.verify(changes)
        except FazaiError as error:
            return {"error": self._encode_error(error)}
        return {"errors": [self._encode_error(each) for each in errors]}

    async def _explains(self, data: object) -> dict[str, Any]:
        if not isinstance(data, dict) or data.keys() != {"path", "changes"}:
            raise Malformed("no question")
        names = decode_changes(data["changes"], MOST_RESOURCES, hashed=False) if data["changes"] else []
        moved = Moved("", path=decode_text(data["path"]))
        try:
            return {"explains": await self._session.explains(moved, [self._skeleton(name) for name in names])}
        except FazaiError as error:
            return {"error": self._encode_error(error)}

    def _skeleton(self, name: ChangeName) -> Change:
        """Return a change of which only the name counts. Raises Malformed for one of nothing that was looked
        at."""
        self._check(name)
        return Change(self._host, name.kind, name.identity, name.verb, {}, {}, name.identity)

    # -- what leaves the machine ------------------------------------------------------------------------

    def _mask(self, text: str) -> str:
        """Mask all secrets that this session was given."""
        if self._masking is None:
            fields = [each.fields for each in (*self._resources.values(), *self._handlers)]
            self._masking = make_mask(secret_texts(fields, contents=True))
        return self._masking(text)

    def _encode_error(self, error: FazaiError) -> dict[str, Any]:
        error.message = self._mask(error.message)
        return encode_error(error, self._host)

    def _hear(self, stream: str, text: str) -> None:
        """Keep what a command prints, for the answer."""
        if self._left > 0:
            self._left -= len(text)
            self._output.append([stream, encode_value(self._mask(text))])
