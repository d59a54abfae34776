"""Users, groups, log destinations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fazai.lab.access import GROUP_ITEMS, USER_ITEMS, groups_of_user, read_privileges
from fazai.lab.box import ActionCall, Box
from fazai.lab.engine.config import ConfigEdit, Item
from fazai.lab.engine.hooktypes import CollectionHooks, ModelHooks
from fazai.lab.engine.schema import Field, ItemModel


def _next_id(box: Box, model: ItemModel, field: Field) -> str:
    used = {int(item.get(field.name) or 0) for item in box.items(model.path).values()}
    return str(max(max(used, default=0) + 1, 2000))


def _compute_user(box: Box, model: ItemModel, uuid: str, item: Item) -> Mapping[str, Any]:
    groups = groups_of_user(box, item["uid"]) if uuid else []
    return {"scrambled_password": "0", "group_memberships": ",".join(group["gid"] for group in groups)}


def _decorate_user(box: Box, model: ItemModel, uuid: str, item: Item, row: dict[str, Any]) -> None:
    holders = (item, *groups_of_user(box, item["uid"]))
    admin = any("page-all" in holder["priv"].split(",") for holder in holders)
    row |= {"%password": "", "%apikeys": "", "is_admin": "1" if admin else "0", "shell_warning": "0"}


def _keep_password(call: ActionCall, model: ItemModel, uuid: str, old: Item, new: dict[str, str]) -> None:
    """Keep the old password for an empty one, a new one as a hash; API keys have their own calls."""
    new["apikeys"] = old.get("apikeys", "")
    if not new["password"]:
        new["password"] = old.get("password", "")
    elif new["password"] != old.get("password"):
        new["password"] = "$2y$" + "*" * 11
        new["pwd_changed_at"] = f"{call.box.clock():.2f}"


def _store_memberships(call: ActionCall, edit: ConfigEdit, uuid: str, old: Item, new: Item) -> None:
    """Store the groups that are sent with the user with the groups."""
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


HOOKS: Final = ModelHooks(
    defaults={"Uid": _next_id, "Gid": _next_id},
    collections={
        USER_ITEMS: CollectionHooks(
            computed=_compute_user,
            paths=(GROUP_ITEMS,),
            add=_decorate_user,
            before=(_keep_password,),
            after=(_store_memberships,),
            version=read_privileges,
        )
    },
)
