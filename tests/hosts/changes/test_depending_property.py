"""Random lists of resources over a small tree: one run, then another with nothing to do, and the result is
what a plain model gives that applies each resource at its turn. When a step fails, or the list contradicts
itself, what the run's own actions changed is as it was, and nothing else is touched.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.hosts.conftest import World

QUICK = settings(
    max_examples=8,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
        HealthCheck.function_scoped_fixture,
    ],
)
THOROUGH = settings(QUICK, max_examples=300)

# -- the model: a tree, and each kind as a plain function over it --------------------------------------------

#: Path -> ("file", mode, text), ("dir", mode) or ("link", target). "" is the root.
Node = tuple[Any, ...]
Tree = dict[str, Node]
BEGIN, END = "# BEGIN fazai", "# END fazai"


class CannotError(Exception):
    """The resource cannot be brought about."""


def real(tree: Tree, path: str, depth: int = 0) -> str | None:
    """The path with links on its way followed; None: its folder is not there."""
    found = ""
    *folders, name = path.split("/")[1:]
    for folder in folders:
        found = f"{found}/{folder}"
        if tree.get(found, ("",))[0] == "link":
            if depth > 8:
                return None
            there = real(tree, f"/{tree[found][1]}", depth + 1)  # links stand at the top, and lead there
            found = there if there is not None else "nowhere"
            while tree.get(found, ("",))[0] == "link" and depth <= 8:
                depth += 1
                found = f"/{tree[found][1]}"
        if tree.get(found, ("",))[0] != "dir":
            return None
    return f"{found}/{name}"


def at(tree: Tree, path: str) -> Node | None:
    found = real(tree, path)
    return None if found is None else tree.get(found)


def put(tree: Tree, path: str, node: Node) -> None:
    found = real(tree, path)
    if found is None:
        raise CannotError("its folder is not there")
    tree[found] = node


def drop(tree: Tree, path: str) -> None:
    found = real(tree, path)
    assert found is not None
    del tree[found]


def apply_file(tree: Tree, path: str, absent: bool = False, **want: Any) -> None:
    have = at(tree, path)
    if have is not None and have[0] == "dir":
        raise CannotError("there is a directory")
    if absent:
        if have is not None:
            drop(tree, path)
    elif have is None or have[0] == "link":
        if "content" not in want:
            raise CannotError("there is no such file")
        put(tree, path, ("file", want.get("mode", "0644"), want.get("content", "")))
    else:
        put(tree, path, ("file", want.get("mode", have[1]), want.get("content", have[2])))


def apply_directory(tree: Tree, path: str, absent: bool = False, **want: Any) -> None:
    have = at(tree, path)
    if have is not None and have[0] != "dir":
        raise CannotError("there is something else")
    if absent:
        if have is None:
            return
        where = real(tree, path)
        if any(other.startswith(f"{where}/") for other in tree):
            raise CannotError("it is not empty")
        drop(tree, path)
        return
    parts = path.split("/")
    for count in range(2, len(parts)):
        folder = "/".join(parts[:count])
        if at(tree, folder) is None:
            put(tree, folder, ("dir", "0755"))
    if have is not None:
        put(tree, path, ("dir", want.get("mode", have[1])))
    elif real(tree, path) is None:
        raise CannotError("there is something else on the way")
    else:
        put(tree, path, ("dir", want.get("mode", "0755")))


def apply_link(tree: Tree, path: str, absent: bool = False, target: str = "") -> None:
    have = at(tree, path)
    if have is not None and have[0] != "link":
        raise CannotError("there is something else")
    if not absent:
        put(tree, path, ("link", target))
    elif have is not None:
        drop(tree, path)


def edit(tree: Tree, path: str, absent: bool, create: bool, change: Any) -> None:
    have = at(tree, path)
    if have is None:
        if absent:
            return
        if not create:
            raise CannotError("there is no such file")
        put(tree, path, ("file", "0644", change("")))
    elif have[0] != "file":
        raise CannotError("there is no file")
    else:
        put(tree, path, ("file", have[1], change(have[2])))


def apply_line(tree: Tree, path: str, line: str, absent: bool = False, create: bool = False) -> None:
    def change(text: str) -> str:
        lines = text.splitlines()
        if absent:
            lines = [each for each in lines if each != line]
        elif line not in lines:
            lines.append(line)
        return "".join(f"{each}\n" for each in lines)

    edit(tree, path, absent, create, change)


def apply_block(tree: Tree, path: str, block: str = "", absent: bool = False, create: bool = False) -> None:
    def change(text: str) -> str:
        lines = text.splitlines()
        new = [] if absent else [BEGIN, *block.splitlines(), END]
        if BEGIN in lines:
            lines[lines.index(BEGIN) : lines.index(END) + 1] = new
        else:
            lines += new
        return "".join(f"{each}\n" for each in lines)

    edit(tree, path, absent, create, change)


def apply_command(tree: Tree, path: str, do: str) -> None:
    """`make`: where it is not there; `append`: where the line is not there; `remove`; `fail`."""
    have = at(tree, path)
    if do == "fail":
        raise CannotError("it fails")
    if do == "remove":
        if have is not None:
            where = real(tree, path)
            for other in [each for each in tree if each == where or each.startswith(f"{where}/")]:
                del tree[other]
    elif do == "make":
        if have is None:
            put(tree, path, ("file", "0644", "made\n"))
    elif have is not None and have[0] != "file":
        raise CannotError("there is no file")
    elif have is None or "z" not in have[2].splitlines():
        put(tree, path, ("file", have[1] if have else "0644", (have[2] if have else "") + "z\n"))


KINDS: dict[str, Callable[..., None]] = {
    "file": apply_file,
    "directory": apply_directory,
    "link": apply_link,
    "line": apply_line,
    "block": apply_block,
    "command": apply_command,
}


@dataclass(frozen=True)
class Item:
    kind: str
    fields: Mapping[str, Any] = field(hash=False)

    @property
    def identity(self) -> tuple[str, ...]:
        more = {"line": ("line",), "command": ("do",)}.get(self.kind, ())
        return (self.kind, self.fields["path"], *(self.fields[name] for name in more))

    def apply(self, tree: Tree) -> Tree:
        """The tree after it; raises CannotError."""
        after = dict(tree)
        KINDS[self.kind](after, **self.fields)
        return after

    def declared(self) -> dict[str, Any]:
        """Return the item as it stands in an inventory."""
        fields = dict(self.fields)
        if self.kind == "command":
            path = fields["path"].lstrip("/")
            each: dict[str, tuple[str, dict[str, Any]]] = {
                "make": (f"printf 'made\\n' >{path}", {"creates": f"/{path}"}),
                "append": (f"printf 'z\\n' >>{path}", {"unless": ["grep", "-qx", "z", path]}),
                "remove": (f"rm -r {path}", {"removes": f"/{path}"}),
                "fail": (f": {path}; exit 7", {"creates": "/never"}),
            }
            text, guard = each[fields["do"]]
            return {"host.command": {"shell": f"umask 022; {text}", "chdir": "/", **guard}}
        if fields.pop("absent", False):
            fields["state"] = "absent"
        return {f"host.{self.kind}": fields}


def taken_back(start: Tree, carried_out: list[Item]) -> Tree:
    """The tree after these items and then their undoing: each path is put back that is as the item left it;
    nothing takes a command back."""
    tree, done = dict(start), list[tuple[Tree, Tree]]()
    for item in carried_out:
        after = item.apply(tree)
        if item.kind != "command":
            done.append((tree, after))
        tree = after
    tree = dict(tree)
    for before, after in reversed(done):
        changed = [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
        for path in sorted(changed, key=len, reverse=True):
            full = any(other.startswith(f"{path}/") for other in tree)
            if tree.get(path) != after.get(path) or (full and path not in before):
                continue  # somebody else's by now
            if path in before:
                tree[path] = before[path]
            else:
                del tree[path]
    return tree


# -- trees on the disk ---------------------------------------------------------------------------------------


def lay(root: Path, tree: Tree) -> None:
    for path, node in sorted(tree.items()):
        place = root / path.lstrip("/")
        if node[0] == "link":
            place.symlink_to(node[1])
            continue
        place.mkdir() if node[0] == "dir" else place.write_text(node[2])
        place.chmod(int(node[1], 8))


def seen(root: Path) -> Tree:
    tree: Tree = {}
    for place in sorted(root.rglob("*")):
        path = f"/{place.relative_to(root)}"
        mode = f"{place.lstat().st_mode & 0o7777:04o}"
        if place.is_symlink():
            tree[path] = ("link", os.readlink(place))
        else:
            tree[path] = ("dir", mode) if place.is_dir() else ("file", mode, place.read_text())
    return tree


# -- what is tried -------------------------------------------------------------------------------------------

FOLDERS = ("/d", "/e", "/d/s")
LINKS = ("/l", "/m")
FILES = ("/a", "/d/a", "/d/b", "/d/s/a", "/l/b")
TEXTS = ("one\n", "two\n", "one\nz\n", "")
MODES = ("0644", "0600", "0755")


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Most folders are there, half of the files, now and then a link."""
    tree: Tree = {}
    for path in FOLDERS:
        if draw(st.integers(0, 7)) and real(tree, path) is not None:
            tree[path] = ("dir", draw(st.sampled_from(("0755", "0700"))))
    for path in FILES[:-1]:
        if draw(st.booleans()) and real(tree, path) is not None:
            tree[path] = ("file", draw(st.sampled_from(MODES)), draw(st.sampled_from(TEXTS)))
    for path in LINKS:
        target = draw(st.sampled_from(("d", "e", "nowhere", "")))
        if target:
            tree[path] = ("link", target)
    return tree


PATHS, ABSENT = st.sampled_from(FILES), st.just(True)


def item(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Item]:
    return st.builds(Item, st.just(kind), st.fixed_dictionaries(fields))


def commands(*words: str) -> st.SearchStrategy[Item]:
    return item("command", path=PATHS, do=st.sampled_from(words))


CONTENT, MODE, FOLDER = st.sampled_from(TEXTS), st.sampled_from(MODES), st.sampled_from(FOLDERS)
#: What makes something, more often than what removes it or cannot be without it.
MAKING = (
    item("file", path=PATHS, content=CONTENT),
    item("file", path=PATHS, content=CONTENT, mode=MODE),
    item("line", path=PATHS, line=st.sampled_from(("one", "x", "z")), create=ABSENT),
    item("block", path=PATHS, block=st.just("b\n"), create=ABSENT),
    item("directory", path=FOLDER),
    item("directory", path=FOLDER, mode=st.sampled_from(("0700", "0755"))),
    commands("make", "append"),
)
OTHERS = (
    item("link", path=st.sampled_from(LINKS), target=st.sampled_from(("d", "e", "a"))),
    item("file", path=PATHS, mode=MODE),
    item("line", path=PATHS, line=st.sampled_from(("one", "x"))),
    item("file", path=st.sampled_from((*FILES, *LINKS)), absent=ABSENT),
    item("directory", path=FOLDER, absent=ABSENT),
    item("link", path=st.sampled_from(LINKS), absent=ABSENT),
    item("line", path=PATHS, line=st.just("one"), absent=ABSENT),
    commands("remove"),
)
ITEMS = st.one_of(*MAKING, *MAKING, *OTHERS)
LISTS = st.lists(ITEMS, min_size=3, max_size=9, unique_by=lambda item: item.identity)
FAILURE = Item("command", {"path": "/", "do": "fail"})
NUMBERS = itertools.count()


@dataclass
class Ended:
    """The end of a list in the model: the tree, and why it failed."""

    tree: Tree
    reason: str = ""


def model(tree: Tree, items: list[Item]) -> Ended:
    """Each at its turn, then all once more: a list that contradicts itself never comes to rest."""
    try:
        for item in items:
            tree = item.apply(tree)
        for item in items:
            if item.apply(tree) != tree:
                return Ended(tree, f"{item} changes it again")
    except CannotError as error:
        return Ended(tree, str(error))
    return Ended(tree)


def check(world: World, start: Tree, items: list[Item]) -> None:
    name = f"box{next(NUMBERS)}"
    world.hosts.clear()
    root = world.local(name)
    lay(root, start)
    try:
        check_run(world, root, start, items)
    finally:
        shutil.rmtree(root)


def check_run(world: World, root: Path, start: Tree, items: list[Item]) -> None:
    wanted = [item.declared() for item in items]
    told = json.dumps([start, wanted], indent=1)
    expected = model(start, items)
    found = world.fazai("apply", "--yes", "--output", "json", resources=wanted)
    if not expected.reason:
        assert (found.code, seen(root)) == (0, expected.tree), f"{told}\n{found.out}"
        again = world.fazai("apply", "--yes", "--output", "json", resources=wanted)
        assert (again.code, again.document["totals"]["changed"]) == (0, 0), f"{told}\n{again.out}"
        return
    assert found.code == 1, f"{expected.reason}\n{told}\n{found.out}"
    (target,) = found.document["targets"]
    done = [c["identity"] for c in target["changes"] if c["status"] in ("done", "undone")]
    names = {id(item): name_of(item) for item in items}
    carried_out = [item for item in items if names[id(item)] in done]
    assert seen(root) == taken_back(start, carried_out), f"{expected.reason}\n{told}\n{found.out}"


def name_of(item: Item) -> str:
    from fazai.providers.hosts.kinds import load_host_kinds

    ((kind, fields),) = item.declared().items()
    found = load_host_kinds()[kind].identify({k: v for k, v in fields.items() if k != "state"})
    assert isinstance(found, str)
    return found


@QUICK
@given(trees(), LISTS)
def test_any_list_ends_as_one_by_one(world: World, start: Tree, items: list[Item]) -> None:
    check(world, start, items)


@QUICK
@given(trees(), LISTS, st.integers(0, 7))
def test_a_failure_at_any_step_takes_back_what_is_ours(
    world: World, start: Tree, items: list[Item], place: int
) -> None:
    check(world, start, [*items[:place], FAILURE, *items[place:]])


@pytest.mark.slow
@THOROUGH
@given(trees(), LISTS)
def test_many_lists_end_as_one_by_one(world: World, start: Tree, items: list[Item]) -> None:
    check(world, start, items)


@pytest.mark.slow
@THOROUGH
@given(trees(), LISTS, st.integers(0, 7))
def test_many_failures_at_any_step(world: World, start: Tree, items: list[Item], place: int) -> None:
    check(world, start, [*items[:place], FAILURE, *items[place:]])
