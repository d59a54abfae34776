"""Users, groups, log destinations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from fazai.lab.access import GROUP_ITEMS, USER_ITEMS, privileges
from fazai.lab.box import Box, Call
from fazai.lab.engine.config import Edit, Item
from fazai.lab.engine.hooktypes import Extra, Hooks
from fazai.lab.engine.schema import Field, ItemModel

__all__ = ["HOOKS"]


def _tls(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    if item["transport"].startswith("tls") and not item["certificate"]:
        yield "transport", "A certificate is required for tls types"
        yield "certificate", "A certificate is required for tls types"


def _password(box: Box, model: ItemModel, uuid: str, item: Item) -> Iterable[tuple[str, str]]:
    if not item["password"]:
        yield "password", "A password is required"


def _next_id(box: Box, model: ItemModel, field: Field) -> str:
    used = {int(item.get(field.name) or 0) for item in box.items(model.path).values()}
    return str(max(max(used, default=0) + 1, 2000))


def _member_of(box: Box, uid: str) -> str:
    return ",".join(
        group["gid"] for group in box.items(GROUP_ITEMS).values() if uid in group["member"].split(",")
    )


def _user_computed(box: Box, model: ItemModel, uuid: str, item: Item) -> Mapping[str, Any]:
    groups = _member_of(box, item["uid"]) if uuid else ""
    return {"scrambled_password": "0", "group_memberships": groups}


def _add_user(box: Box, model: ItemModel, uuid: str, item: Item, row: dict[str, Any]) -> None:
    admin = "page-all" in item["priv"].split(",") or any(
        "page-all" in group["priv"].split(",")
        for group in box.items(GROUP_ITEMS).values()
        if item["uid"] in group["member"].split(",")
    )
    row |= {"%password": "", "%apikeys": "", "is_admin": "1" if admin else "0", "shell_warning": "0"}


def _keep_password(call: Call, model: ItemModel, uuid: str, old: Item, new: dict[str, str]) -> None:
    """An empty password keeps the old one, a new one is kept as a hash; API keys have their own calls."""
    new["apikeys"] = old.get("apikeys", "")
    if not new["password"]:
        new["password"] = old.get("password", "")
    elif new["password"] != old.get("password"):
        new["password"] = "$2y$" + "*" * 11
        new["pwd_changed_at"] = f"{call.box.clock():.2f}"


def _memberships(call: Call, edit: Edit, uuid: str, old: Item, new: Item) -> None:
    """Groups are sent with the user and stored with the groups."""
    sent = call.body.get("user", {})
    if not isinstance(sent, Mapping) or "group_memberships" not in sent:
        return
    wanted = str(sent["group_memberships"]).split(",")
    for key, group in call.box.items(GROUP_ITEMS).items():
        members = [uid for uid in group["member"].split(",") if uid and uid != new["uid"]]
        if group["gid"] in wanted:
            members.append(new["uid"])
        if ",".join(members) != group["member"]:
            edit.put(GROUP_ITEMS, key, {**group, "member": ",".join(members)})


HOOKS: Final = Hooks(
    checks={"syslog_tls": _tls, "user_password": _password},
    defaults={"Uid": _next_id, "Gid": _next_id},
    computed={USER_ITEMS: _user_computed},
    extra={
        USER_ITEMS: Extra(
            paths=(GROUP_ITEMS,),
            add=_add_user,
            before=(_keep_password,),
            after=(_memberships,),
            version=privileges,
        ),
    },
)
