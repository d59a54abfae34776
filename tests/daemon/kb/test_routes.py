"""/kb over HTTP: add, search, show, verify, remove, export and import, and who may do which."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fazai.store.notes import hash_content
from fazai.wire import notes as wire
from fazai.wire.base import decode_body
from tests.daemon.live import Live, live, token

NOTE: dict[str, Any] = {
    "title": "fw-01 and its blocklist",
    "snippet": "It is edited by hand on Fridays.",
    "tags": ["alias"],
}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Live]:
    with live(tmp_path) as found:
        yield found


@pytest.fixture
def client(daemon: Live) -> Iterator[httpx.Client]:
    with daemon.client() as found:
        yield found


def add(client: httpx.Client, title: str, snippet: str = "text", **more: Any) -> str:
    answer = client.post("/kb", json={"title": title, "snippet": snippet, **more})
    assert answer.status_code == 200, answer.text
    return decode_body(answer.content, wire.KbAddedAnswer).id


def search(client: httpx.Client, q: str, **more: Any) -> list[dict[str, Any]]:
    answer = client.get("/kb/search", params={"q": q, **more})
    assert answer.status_code == 200, answer.text
    decode_body(answer.content, wire.KbDocsAnswer)
    found: list[dict[str, Any]] = answer.json()["docs"]
    return found


def show(client: httpx.Client, id_: str) -> dict[str, Any]:
    answer = client.get(f"/kb/{id_}")
    assert answer.status_code == 200, answer.text
    decode_body(answer.content, wire.KbNoteAnswer)
    found: dict[str, Any] = answer.json()
    return found


def test_what_was_added_is_found(client: httpx.Client) -> None:
    id_ = add(client, NOTE["title"], NOTE["snippet"], tags=["alias"], target="fw-01", source="night shift")
    add(client, "Something else", "about db-1")
    (doc,) = search(client, "who edits the blocklist of FW-01?")
    assert (doc["id"], doc["status"], doc["origin"], doc["author"]) == (
        id_,
        "unverified",
        "person",
        "anonymous",
    )
    assert (doc["target"], doc["source"], doc["tags"]) == ("fw-01", "night shift", ["alias"])
    assert [doc["id"] for doc in search(client, "edited by hand", target="fw-01")] == [id_]
    assert search(client, "edited by hand", target="fw-02") == []
    assert search(client, "nothing whatsoever matches") == []


def test_the_same_again_is_the_same_note(client: httpx.Client) -> None:
    first = client.post("/kb", json=NOTE).json()
    again = client.post("/kb", json=NOTE).json()
    assert (first["id"], first.get("merged")) == (again["id"], None)
    assert again["merged"] is True
    assert show(client, first["id"])["note"]["written"] == 2


def test_a_note_shows_what_it_was_derived_from(client: httpx.Client) -> None:
    one = add(client, "one")
    two = add(client, "two", parents=[one])
    three = add(client, "three", parents=[two], contradicts=[one])
    found = show(client, one)
    links = {(link["note"], link["other"], link["relation"]) for link in found["links"]}
    assert links == {(two, one, "parent"), (three, two, "parent"), (three, one, "contradicts")}
    assert {doc["id"] for doc in found["linked"]} == {two, three}
    answer = client.post("/kb", json={"title": "x", "snippet": "y", "parents": ["kb-99"]})
    assert (answer.status_code, answer.json()["error"]) == (404, "there is no note 'kb-99'")


def test_who_verified_a_note_is_told(daemon: Live, client: httpx.Client) -> None:
    id_ = add(client, "one")
    answer = client.post(f"/kb/{id_}/verify")
    assert (answer.status_code, answer.json()["note"]["verified_by"]) == (200, "anonymous")
    assert f"note {id_} was verified by anonymous" in daemon.log()
    assert client.post("/kb/kb-99/verify").status_code == 404


def test_a_removed_note_is_gone(client: httpx.Client) -> None:
    id_ = add(client, "one", "unmistakable")
    child = add(client, "two", parents=[id_])
    assert client.post(f"/kb/{id_}/remove").json() == {"ok": True}
    assert search(client, "unmistakable") == []
    assert client.get(f"/kb/{id_}").status_code == 404
    assert client.post(f"/kb/{id_}/remove").status_code == 404
    found = show(client, child)
    assert found["links"] == [{"note": child, "other": id_, "relation": "parent"}]
    assert found.get("linked", []) == []


@pytest.mark.parametrize("id_", ["31", "kb-", "kb-x", "kb--1", "kb-1%2F..", "kb-" + "9" * 40, "search2"])
def test_what_is_no_id_is_not_found(client: httpx.Client, id_: str) -> None:
    answer = client.get(f"/kb/{id_}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"title": "a"}, "snippet"),
        ({"title": " ", "snippet": "x"}, "a note has a title and a text"),
        ({"title": "a", "snippet": "\u0007"}, "a note has a title and a text"),
        ({"title": "a", "snippet": "x" * 65_537}, "snippet"),
        ({"title": "a", "snippet": "b", "status": "verified"}, "status"),
        ({"title": "a", "snippet": "b", "origin": "model"}, "origin"),
        ({"title": "a", "snippet": "b", "author": "root"}, "author"),
    ],
)
def test_what_cannot_be_noted_is_refused(client: httpx.Client, body: dict[str, str], said: str) -> None:
    answer = client.post("/kb", json=body)
    assert answer.status_code == 422
    assert said in answer.json()["error"]


@pytest.mark.parametrize("query", ["", "q=", "q=x&limit=0", "q=x&limit=51", "q=x&status=verified"])
def test_a_query_that_is_none_is_refused(client: httpx.Client, query: str) -> None:
    answer = client.get(f"/kb/search?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_query")


def test_who_may_do_what(tmp_path: Path) -> None:
    roles = {role: token(tmp_path, role, role) for role in ("viewer", "operator", "admin")}
    with live(tmp_path) as daemon:
        clients = {role: daemon.client(text) for role, text in roles.items()}
        id_ = add(clients["operator"], "one")
        asked = {
            "viewer": [("GET", "/kb/search?q=one"), ("GET", f"/kb/{id_}"), ("GET", "/kb/export")],
            "operator": [("POST", "/kb"), ("POST", f"/kb/{id_}/verify")],
            "admin": [("POST", "/kb/import"), ("POST", f"/kb/{id_}/remove")],
        }
        order = ("viewer", "operator", "admin")
        for needed, requests in asked.items():
            for role in order:
                for method, path in requests:
                    body: Any = NOTE if path == "/kb" else {"notes": []}
                    answer = clients[role].request(method, path, json=body if method == "POST" else None)
                    allowed = order.index(role) >= order.index(needed)
                    assert (answer.status_code == 403) is not allowed, (role, method, path, answer.text)
        for one in clients.values():
            one.close()


def export(client: httpx.Client, limit: int = 2) -> list[dict[str, Any]]:
    notes: list[dict[str, Any]] = []
    after = 0
    while True:
        page = client.get("/kb/export", params={"after": after, "limit": limit}).json()
        notes += page["notes"]
        if "next" not in page:
            return notes
        after = page["next"]


def test_an_export_brings_everything_back(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    with live(tmp_path / "a") as daemon, daemon.client() as client:
        one = add(
            client, "one", "Olá, mundo\n\tcom linhas", tags=["b", "a"], source="x.md#y", origin="import"
        )
        two = add(client, "two", parents=[one], target="fw 01")
        add(client, "three", contradicts=[one, two])
        client.post(f"/kb/{two}/verify")
        add(client, "two", parents=[one], target="fw 01")
        wanted = export(client)
    with live(tmp_path / "b") as daemon, daemon.client() as client:
        answer = client.post("/kb/import", json={"notes": wanted})
        assert answer.json() == {"ok": True, "added": 3, "merged": 0}, answer.text
        assert export(client) == wanted
        assert [note["written"] for note in export(client) if "written" in note] == [2]
        (doc,) = search(client, "two", target="fw 01")
        assert doc["status"] == "verified"


def test_an_import_keeps_the_stronger_status(client: httpx.Client) -> None:
    id_ = add(client, "one", "text")
    (exported,) = export(client)
    verified = {
        **exported,
        "status": "verified",
        "verified_at": "2026-11-22T03:04:05Z",
        "verified_by": "token:day",
    }
    for notes, status in (([verified], "verified"), ([exported], "verified")):
        answer = client.post("/kb/import", json={"notes": notes}).json()
        assert (answer["added"], answer["merged"]) == (0, 1)
        assert show(client, id_)["note"]["status"] == status
    assert show(client, id_)["note"]["verified_by"] == "token:day"


def test_an_import_with_a_wrong_hash_is_refused(client: httpx.Client) -> None:
    add(client, "one", "text")
    (exported,) = export(client)
    other = {**exported, "title": "two", "hash": hash_content("two", "text", (), "")}
    answer = client.post("/kb/import", json={"notes": [other, {**exported, "text": "another"}]})
    assert (answer.status_code, answer.json()["error"]) == (
        422,
        "`hash`: it is not that of the note's content",
    )
    assert search(client, "two") == []


@pytest.mark.parametrize(("title", "text"), [(" ", "text"), ("two", "\u0007 \n"), ("two", "\u00a0")])
def test_an_import_of_an_empty_note_is_refused(client: httpx.Client, title: str, text: str) -> None:
    add(client, "one", "text")
    (exported,) = export(client)
    good = {**exported, "title": "good", "hash": hash_content("good", "text", (), "")}
    empty = {**exported, "title": title, "text": text, "hash": hash_content(title, text, (), "")}
    answer = client.post("/kb/import", json={"notes": [good, empty]})
    assert (answer.status_code, answer.json()["error"]) == (
        422,
        "`notes[1]`: a note has a title and a text",
    )
    assert [note["title"] for note in export(client)] == ["one"]


def test_a_large_import_is_one_request(client: httpx.Client) -> None:
    add(client, "one", "text")
    (exported,) = export(client)
    notes = [
        {**exported, "title": f"note {number}", "hash": hash_content(f"note {number}", "text", (), "")}
        for number in range(500)
    ]
    notes[499]["parents"] = [notes[0]["hash"], notes[498]["hash"], "0" * 64]
    assert client.post("/kb/import", json={"notes": notes}).json() == {"ok": True, "added": 500, "merged": 0}
    assert client.post("/kb/import", json={"notes": notes}).json() == {"ok": True, "added": 0, "merged": 500}
    (last,) = [one for one in export(client, 1000) if one["title"] == "note 499"]
    assert sorted(last["parents"]) == sorted(notes[499]["parents"][:2])


def test_a_long_note_shows_the_part_that_is_asked_for(client: httpx.Client) -> None:
    lines = ["x"] * 20_000 + ["the wanted answer is here"] + ["y"] * 10_000
    add(client, "long", "\n".join(lines))
    (doc,) = search(client, "wanted answer")
    assert "the wanted answer is here" in doc["snippet"]
    assert len(doc["snippet"]) < 1600
    assert doc["snippet"].startswith("… ")
