"""Replaying recorded exchanges: sending, uuids, and what "the same answer" means."""

from __future__ import annotations

import functools
import json
import os
import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from fazai.lab import LabFirewall

HERE = Path(__file__).parent
ROOT = Path(os.environ.get("FAZAI_RECORDINGS", HERE.parents[2] / "shared" / "opnsense"))
WIDER = Path(os.environ.get("FAZAI_RECORDINGS_MORE", ROOT.with_name("opnsense-more")))
NOT_EXCHANGES = {"endpoints", "fields", "latency"}
CONFIG = re.compile(r"config-[0-9.]+\.xml\Z")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")

UUID_WITHIN = re.compile(UUID.pattern[:-2])
#: The network cards of the second recording, and those of the first, which are the lab's.
MACS = {f"52:54:00:00:00:0{n}": f"52:54:00:aa:00:0{n}" for n in range(1, 5)}

Json = dict[str, Any]


def recordings() -> list[str]:
    """The names of the recorded files; none where there are no recordings."""
    return sorted(path.stem for path in ROOT.glob("*.json") if path.stem not in NOT_EXCHANGES)


def wider_recordings() -> list[str]:
    """The names of the files of the second recording that are replayed whole; none where it is not here."""
    return sorted(name for name in _wider_plans() if (WIDER / f"{name}.json").is_file())


def exchanges(name: str) -> list[Json]:
    folder = WIDER if name in _wider_plans() else ROOT
    found: list[Json] = json.loads((folder / f"{name}.json").read_text())
    return found


@functools.cache
def _wider_plans() -> Json:
    plans: Json = {}
    for path in sorted((HERE / "recorded_more").glob("*.json")):
        plans |= json.loads(path.read_text())
    return plans


def settings(name: str) -> Json:
    """What precedes a file's exchanges, and what of its answers cannot be compared (`recorded.json`, of the
    second recording `recorded_more/*.json`)."""
    plans = _wider_plans()
    found: Json = (
        plans[name] if name in plans else json.loads((HERE / "recorded.json").read_text()).get(name, {})
    )
    return found


def _named_once(found: list[Json]) -> set[str]:
    """The uuids of made items that no other exchange of a file names."""
    text = json.dumps(found)
    made = [one["response"].get("uuid", "") for one in found if isinstance(one["response"], dict)]
    return {uuid for uuid in made if isinstance(uuid, str) and uuid and text.count(uuid) == 1}


class Replay:
    """One firewall of the lab that is sent what a file recorded."""

    def __init__(self, firewall: LabFirewall, client: httpx.Client, volatile: set[str]) -> None:
        self.firewall = firewall
        self.client = client
        self.volatile = volatile
        self.known: dict[str, str] = {}
        self.keys: dict[str, tuple[str, str]] = {}
        self.before: Mapping[str, list[Any]] = {}
        self.loose: Mapping[str, Json] = {}
        self.chosen: set[str] = set()  # uuids that stood in requests
        self._searched: dict[str, set[str]] = {}  # what a search listed the first time
        self._double = ""  # the call that deletes an item that was made twice, or only tried
        self._second = ""  # the call that deletes the second item
        self._passing: set[str] = set()  # items that no later exchange names: deleted at once
        self._before_set: set[str] = set()  # what was listed before the last set of a whole model
        self._deletes: dict[str, str] = {}  # a controller's action that deletes
        self._timers: list[Callable[[], None]] = []
        firewall.box.schedule = self._schedule

    # sending

    def _schedule(self, delay_s: float, action: Callable[[], None]) -> Callable[[], None]:
        """The firewall's timers run out when the recording says so, not by the clock."""
        self._timers.append(action)
        return lambda: self._timers.remove(action)

    def _run_out(self) -> None:
        timers, self._timers = self._timers, []
        assert timers, "no timer is armed"
        for action in timers:
            action()

    def prepare(self, index: int) -> None:
        """What happened before this exchange without being recorded."""
        for step in self.before.get(str(index), ()):
            if "newest" in step:
                items = self.firewall.call("GET", "/api/core/backup/backups/this")["items"]
                self.known[step["newest"]] = items[step.get("skip", 0)]["id"][len("config-") : -len(".xml")]
            elif "wait" in step:
                self._run_out()
            elif isinstance(step, dict):
                self._special(step)
            else:
                method, path, body = self.translated(step)
                answer = self.firewall.call(method, path, body)
                text = json.dumps(answer)
                if "failed" in text or "errorMessage" in text:
                    raise AssertionError(f"preparing exchange {index}: {path} answered {text}")

    def _special(self, step: Json) -> None:
        user = step["user"]
        body = {"user": {"name": user, "password": "Secret-123-x", "priv": step["priv"], "disabled": "0"}}
        made = self.firewall.call("POST", "/api/auth/user/add", body)
        key = self.firewall.call("POST", f"/api/auth/user/addApiKey/{user}", {})
        self.keys[step["auth"]] = (key["key"], key["secret"])
        path = f"/api/auth/user/set/{made['uuid']}"
        if step.get("then") == "disabled":
            self.firewall.call("POST", path, {"user": {"disabled": "1"}})
        elif step.get("then") in ("deleted", "replaced"):
            self.firewall.call("POST", f"/api/auth/user/del/{made['uuid']}", {})

    def _prepare_wider(self, exchange: Json) -> None:
        """What whoever made the second recording did between its exchanges: deleted what was there twice, the
        second item before one of a uuid of his own choosing and that one after it,
        looked up the uuids of new items that a set of the whole model had made, and at the end deleted what
        he had made."""
        path = exchange["path"]
        if self._double:
            self.firewall.call("POST", self.translated(self._double), {})
        answer = exchange["response"]
        made = answer.get("uuid", "") if isinstance(answer, dict) else ""
        name = exchange["name"]
        if name.endswith(("with an unknown version 4 uuid", "a new item under a uuid of the client")):
            if self._second:
                self.firewall.call("POST", self.translated(self._second), {})
            self._second = ""
        if made and name.endswith(("with most fields", "a second one", "the second one again")):
            self._second = f"{path.replace('/add', '/del')}/{made}"
        twice = made and (name.endswith("(duplicate)") or made in self._passing)
        self._double = f"{path.replace('/add', '/del')}/{made}" if twice else ""
        if name.endswith("of the uuid chosen by the client"):
            self._double = path.replace("/get", "/del")
        controller, action = path.split("/")[2:4], path.split("/")[4] if path.count("/") > 3 else ""
        if action.startswith("del"):
            self._deletes["/".join(controller)] = f"/api/{'/'.join(controller)}/{action}"
        searches = [one for one in self._searched if one.startswith(f"/api/{'/'.join(controller)}/")]
        if action == "set":
            self._before_set = {one for search in searches for one in self._rows(search)}
        if action.startswith("search"):
            if path not in self._searched:
                self._searched[path] = set(self._rows(path))
            elif exchange["name"].endswith("(after)"):
                for uuid in set(self._rows(path)) - self._searched[path]:
                    self.firewall.call("POST", f"{self._deletes['/'.join(controller)]}/{uuid}", {})
        elif not action.startswith(("get", "set")):
            for theirs in re.findall(UUID_WITHIN, path):
                there = [one for search in searches for one in self._rows(search)]
                named = {*self.known.values(), *self.chosen}
                fresh = [one for one in there if one not in named]
                fresh = [one for one in fresh if one not in self._before_set] or fresh
                made_up = theirs in self.chosen or theirs.startswith("00000000-")
                if theirs not in self.known and not made_up and fresh:
                    self.known[theirs] = fresh[-1]
        self.chosen.update(re.findall(UUID_WITHIN, f"{path}{json.dumps(exchange['request'].get('json'))}"))

    def _rows(self, path: str) -> list[str]:
        found = self.firewall.call(
            "POST", path, {"current": 1, "rowCount": -1, "sort": {}, "searchPhrase": ""}
        )
        return [str(row.get("uuid")) for row in found["rows"]]

    def authorization(self, auth: str) -> str | None:
        key, secret = self.firewall.api_key, self.firewall.api_secret
        if auth == "none":
            return None
        if auth == "base64 without a colon":
            return "Basic " + b64encode(b"nocolon").decode()
        if auth in self.keys:
            key, secret = self.keys[auth]
        elif auth == "valid key, wrong secret":
            secret = "wrong"
        elif auth == "unknown key":
            key = "unknown"
        else:
            assert auth in ("valid key:secret", "Bearer + base64(key:secret)"), auth
        scheme = "Bearer" if auth.startswith("Bearer") else "Basic"
        return f"{scheme} " + b64encode(f"{key}:{secret}".encode()).decode()

    def translated(self, value: Any) -> Any:
        """Recorded uuids become the lab's."""
        text = json.dumps(value)
        for theirs, ours in self.known.items():
            text = text.replace(theirs, ours)
        return json.loads(text)

    def run(self, name: str, *, strictly: bool = False) -> Iterator[tuple[int, Json, list[str]]]:
        """Every exchange of a file with what is wrong with the lab's answer."""
        plan = settings(name)
        self.before = plan.get("before", {})
        self.loose = {} if strictly else plan.get("loose", {})
        self.volatile = self.volatile | set(plan.get("volatile", ()))
        if name in _wider_plans():
            self.known |= MACS
        self._passing = _named_once(exchanges(name))
        for index, exchange in enumerate(exchanges(name)):
            self.prepare(index)
            if name in _wider_plans():
                self._prepare_wider(exchange)
            yield index, exchange, self.problems(index, exchange, self.send(exchange))

    def send(self, exchange: Json) -> httpx.Response:
        request = exchange["request"]
        headers = {}
        authorization = self.authorization(request["auth"])
        if authorization is not None:
            headers["authorization"] = authorization
        if "content_type" in request:
            headers["content-type"] = request["content_type"]
        content: bytes | None = None
        if "json" in request:
            content = json.dumps(self.translated(request["json"])).encode()
        elif "raw_body" in request:
            content = request["raw_body"].encode()
        elif "form" in request:
            content = str(httpx.QueryParams(request["form"])).encode()
        path = self.translated(exchange["path"])
        return self.client.request(exchange["method"], path, headers=headers, content=content)

    # comparing

    def problems(self, index: int, exchange: Json, response: httpx.Response) -> list[str]:
        """How the lab's answer differs from the recorded one."""
        kept = self.volatile
        self.volatile = kept | set(self.loose.get(str(index), {}).get("fields", ()))
        try:
            return self._problems(exchange, response)
        finally:
            self.volatile = kept

    def _problems(self, exchange: Json, response: httpx.Response) -> list[str]:
        if response.status_code != exchange["status"]:
            return [f"status {response.status_code}, recorded {exchange['status']}: {response.text[:200]}"]
        wanted_type = exchange["headers"].get("content-type", "").partition(";")[0]
        type_ = response.headers.get("content-type", "").partition(";")[0]
        found = [] if type_ == wanted_type else [f"content type {type_!r}, recorded {wanted_type!r}"]
        if exchange.get("response_is_json", True):
            note, ours = exchange.get("note", ""), response.json()
            if "top-level keys kept" in note:
                (body,) = ours.values()
                ours = {section: list(values) for section, values in body.items()}
            found += self._differ(self.translated(exchange["response"]), ours, "", "shortened" in note)
        elif "replaced" not in exchange.get("note", ""):
            theirs = self.translated(exchange["response"])
            if self._lines(theirs) != self._lines(response.text):
                found.append(f"text {response.text[:300]!r}, recorded {theirs[:300]!r}")
        return found

    def _lines(self, text: str) -> list[str]:
        return [re.sub(r"^[0-9a-f-]{36};", "<uuid>;", line).strip() for line in text.strip().splitlines()]

    def _differ(self, theirs: Any, ours: Any, where: str, shortened: bool) -> Iterator[str] | list[str]:
        name = where.rpartition(".")[2]
        if type(theirs) is type(ours) and name in self.volatile:
            if name == "refid" and theirs:
                self.known[theirs] = ours
            return []
        if isinstance(theirs, dict) and isinstance(ours, dict):
            return list(self._differ_maps(theirs, ours, where, shortened))
        if isinstance(theirs, list) and isinstance(ours, list):
            return list(self._differ_lists(theirs, ours, where, shortened))
        if type(theirs) is not type(ours):
            return [f"{where}: {ours!r}, recorded {theirs!r}"]
        if theirs == ours:
            return []
        if isinstance(theirs, str):
            if CONFIG.match(theirs) and CONFIG.match(ours):
                self.known[theirs[7:-4]] = ours[7:-4]
                return []
            if UUID.match(theirs) and UUID.match(ours) and theirs not in self.known.values():
                self.known[theirs] = ours
                return []
            if "/" in where and self._without_uuids(theirs) == self._without_uuids(ours):
                return []
        return [f"{where}: {ours!r}, recorded {theirs!r}"]

    @staticmethod
    def _without_uuids(text: str) -> str:
        return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uuid>", text)

    def _differ_maps(self, theirs: Json, ours: Json, where: str, shortened: bool) -> Iterator[str]:
        missing = [key for key in theirs if key not in ours]
        extra = [key for key in ours if key not in theirs]
        if shortened and len(extra) > 1:
            extra = []
        pairs = {key: key for key in theirs if key in ours}
        for their_key in [key for key in missing if UUID.match(key)]:
            our_key = next((key for key in extra if UUID.match(key)), None)
            if our_key is not None:
                missing.remove(their_key)
                extra.remove(our_key)
                pairs[their_key] = our_key
                self.known[their_key] = our_key
        for their_key in [key for key in missing if UUID_WITHIN.search(key)]:  # `alias.alias.UUID.name`
            shape = UUID_WITHIN.sub("UUID", key := their_key)
            our_key = next((one for one in extra if UUID_WITHIN.sub("UUID", one) == shape), None)
            if our_key is not None:
                missing.remove(key)
                extra.remove(our_key)
                pairs[key] = our_key
        if missing or extra:
            yield f"{where}: keys missing {missing}, extra {extra}"
        for their_key, our_key in pairs.items():
            yield from self._differ(theirs[their_key], ours[our_key], f"{where}.{their_key}", shortened)

    def _differ_lists(self, theirs: list[Any], ours: list[Any], where: str, shortened: bool) -> Iterator[str]:
        if shortened and len(ours) > len(theirs):
            ours = self._kept(theirs, ours)
        if len(theirs) != len(ours):
            yield f"{where}: {len(ours)} entries, recorded {len(theirs)}"
        for index, (left, right) in enumerate(zip(theirs, ours, strict=False)):
            yield from self._differ(left, right, f"{where}[{index}]", shortened)

    @staticmethod
    def _kept(theirs: list[Any], ours: list[Any]) -> list[Any]:
        """The entries of ours that a shortened list kept: by uuid or name where they have one."""
        for key in ("uuid", "id", "name", "filename", "description"):
            if theirs and all(isinstance(entry, dict) and key in entry for entry in theirs):
                by_key = {entry.get(key): entry for entry in ours if isinstance(entry, dict)}
                if all(entry[key] in by_key for entry in theirs):
                    return [by_key[entry[key]] for entry in theirs]
        return ours[: len(theirs)]
