"""An agent of contract 1.1 that a test drives: real programs, a real folder; messages are JSON, read by the
types of the contract."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fazai.errors import Unreachable
from fazai.wire.southbound import (
    CommandExec,
    FileApply,
    FileDiff,
    FileList,
    FileRead,
    decode_southbound_request,
)


@dataclass
class Agent:
    """`allowed`: the programs it runs. `says` answers in its place, with the id of the message; one that is
    `away` is not connected."""

    root: Path
    allowed: tuple[str, ...] = ("/bin/sh", "/bin/cat", "/bin/echo")
    says: Mapping[str, Any] | None = None
    away: bool = False
    reads: bool = True
    seen: list[str] = field(default_factory=list)
    taken: int = 0  # bytes of messages
    ids: set[str] = field(default_factory=set)

    async def answer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        if self.away:
            raise Unreachable("it is not connected", stage="connect")
        text = json.dumps(message)
        request = decode_southbound_request(text, max_payload=64 << 20)
        self.taken += len(text)
        self.seen.append(message["method"])
        assert isinstance(request, CommandExec | FileDiff | FileApply | FileRead | FileList)
        assert request.action_id not in self.ids, "an id for two actions"
        self.ids.add(request.action_id)
        if self.says is not None:
            return {"action_id": request.action_id, **self.says}
        if isinstance(request, CommandExec):
            body = await self.run(request)
        elif isinstance(request, FileDiff):
            body = self.compare(request)
        elif isinstance(request, FileRead):
            body = self.read(request)
        elif isinstance(request, FileList):
            body = self.list(request)
        else:
            body = self.replace(request)
        return {"ok": "code" not in body, "action_id": request.action_id, **body}

    async def run(self, request: CommandExec) -> dict[str, Any]:
        if request.command not in self.allowed:
            return {"error": f"{request.command} is not on the allow-list", "code": "not_allowed"}
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            request.command, *request.args, stdin=pipe, stdout=pipe, stderr=pipe, cwd=request.cwd or "/"
        )
        sent = (request.stdin or "").encode()
        try:
            async with asyncio.timeout(request.timeout / 1000):
                out, err = await process.communicate(sent)
        except TimeoutError:
            process.kill()
            await process.wait()
            return {"error": "it took too long", "code": "timeout", "stdout": "", "stderr": ""}
        return {
            "exit_code": process.returncode,
            "stdout": out.decode("utf-8", "replace"),
            "stderr": err.decode("utf-8", "replace"),
        }

    def compare(self, request: FileDiff) -> dict[str, Any]:
        want, base = request.want_sha256, self.hash_of(request.path)
        if want is None:
            want = hashlib.sha256(base64.b64decode(request.want_base64 or "")).hexdigest()
        return {"patch": "", "base_sha256": base, "differs": want != base}

    def read(self, request: FileRead) -> dict[str, Any]:
        path = self.root / request.path.lstrip("/")
        if not self.reads:
            return {"error": "files below / are not handed out", "code": "not_allowed"}
        if not path.exists():
            return {"sha256": "absent", "size": 0}
        data, mode = path.read_bytes(), f"{path.stat().st_mode & 0o777:04o}"
        body = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "mode": mode}
        return {**body, **({"content_base64": base64.b64encode(data).decode()} if request.content else {})}

    def list(self, request: FileList) -> dict[str, Any]:
        root = self.root / request.path.lstrip("/")
        below = [path for path in sorted(root.rglob("*")) if not path.is_symlink()]
        found = {
            "folders": [path for path in below if path.is_dir()],
            "files": [p for p in below if p.is_file()],
        }
        places = {name: [str(one.relative_to(root)) for one in paths] for name, paths in found.items()}
        return {**places, "left_out": sum(path.is_symlink() for path in root.rglob("*"))}

    def replace(self, request: FileApply) -> dict[str, Any]:
        assert request.content_base64 is not None
        if self.hash_of(request.path) != request.base_sha256:
            return {"error": "the file moved on", "code": "conflict"}
        path = self.root / request.path.lstrip("/")
        path.write_bytes(base64.b64decode(request.content_base64))
        path.chmod(int(request.mode or "0644", 8))
        return {"applied": True}

    def hash_of(self, path: str) -> str:
        file = self.root / path.lstrip("/")
        return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else "absent"
