"""The grammar of playbooks and of lists of resources: which key may stand where. Finds all errors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from fazai.errors import FazaiError, PlaybookError, did_you_mean, raise_found, spelling_hint
from fazai.playbook.modules import module_hint
from fazai.playbook.nodes import DeclaredResource, Play, split_texts
from fazai.yamltext import Decrypt, OnFileRead, YamlList, YamlMap, load_yaml

_PLAY: Final = ("name", "hosts", "vars", "tags", "resources", "handlers", "serial", "max_fail")
#: Keys that decide whether and how often a resource is wanted: read without one of them, a resource would
#: cause errors that are none.
_DECIDING: Final = ("when", "loop", "loop_control", "vars")
_BESIDE: Final = ("state", "tags", "name", "adopt", "notify", "listen", *_DECIDING)
_STATES: Final = ("present", "absent")
_KIND: Final = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PERCENT: Final = re.compile(r"(\d{1,3})%")
_TASKS: Final = ("tasks", "pre_tasks", "post_tasks")
#: Words of Ansible's plays and tasks, and what there is here instead.
_EITHER_HINTS: Final = {
    **dict.fromkeys(
        ("become", "become_user", "become_method"), "it is a variable of the hosts, in the inventory"
    ),
    "remote_user": "it is a variable of the hosts, in the inventory: user: …",
    "connection": "it is a variable of the hosts, in the inventory: provider: ssh, or local",
    "port": "it is a variable of the hosts, in the inventory",
    "run_once": "name one host: hosts: GROUP[0] of a play",
    "no_log": "leave it away: what comes from !env, !file, !cmd or !vault is never shown",
    "collections": "leave it away: fazai brings its kinds with it; see: fazai kinds",
    "module_defaults": "leave it away: write the fields in each resource",
    **dict.fromkeys(("check_mode", "diff"), "give it to the command: --check, --diff"),
    **dict.fromkeys(("throttle", "strategy"), "leave it away: serial: makes waves, --forks says how many"),
}
_PLAY_HINTS: Final = {
    **_EITHER_HINTS,
    **dict.fromkeys((*_TASKS, "roles"), "declare resources: instead"),
    **dict.fromkeys(("gather_facts", "force_handlers", "order"), "leave it away: a play has none"),
    "vars_prompt": "give it to the command: -e NAME=VALUE; a secret comes from !env, !file or !cmd",
    "environment": "host.command has the field environment:",
    **dict.fromkeys(("max_fail_percentage", "any_errors_fatal"), 'write max_fail: 0, or "10%"'),
    "vars_files": "put the variables into group_vars, or under vars:",
    "import_playbook": "list both files: under playbooks: of the inventory, or with --playbook",
}
_RESOURCE_HINTS: Final = {
    **_EITHER_HINTS,
    **dict.fromkeys(("delegate_to", "local_action"), "declare it for that host: in a play with its hosts:"),
    "register": "leave it away: a resource gives no result, and when: asks variables",
    "ignore_errors": "leave it away: what fails is taken back; max_fail: of the play says how many may",
    **dict.fromkeys(
        ("changed_when", "failed_when"),
        "leave it away: what is there is compared; host.command has creates:, removes: and unless:",
    ),
    **dict.fromkeys(("until", "retries", "delay"), "leave it away: retries are fazai's own"),
    **dict.fromkeys(("async", "poll"), "leave it away: host.command has the field timeout:"),
}


def load_playbooks(
    paths: Iterable[str | Path], *, decrypt: Decrypt | None = None, on_read: OnFileRead | None = None
) -> tuple[Play, ...]:
    """Read the plays of these files, in order. A file that is named twice is read once.

    `decrypt` opens files that are Ansible Vault text as a whole (`SecretReader.open_file`). Raises
    PlaybookError or YamlError, or Errors for several; their `rest` is the plays without what is wrong.
    """
    plays: list[Play] = []
    errors: list[FazaiError] = []
    for path in dict.fromkeys(Path(path) for path in paths):
        try:
            document = load_yaml(path, decrypt=decrypt, on_read=on_read, what="playbook")
        except FazaiError as error:
            errors += error.errors
            document = error.rest if isinstance(error.rest, YamlList) else None
        if document is None:
            continue
        if not isinstance(document, YamlList):
            hint = "start every play with `- name:`"
            errors.append(_grammar_error(document, None, "a playbook is a list of plays", hint))
            continue
        for node in _read_mappings(document, "a play", "`- name: …` with hosts: below it", errors):
            play = _PlayReader(node, errors).read(path)
            if play is not None:
                plays.append(play)
    raise_found(errors, tuple(plays))
    return tuple(plays)


def read_resources(resources: YamlList) -> tuple[tuple[DeclaredResource, ...], tuple[FazaiError, ...]]:
    """Read the resources of a list; returns them, and all errors in its shape."""
    errors: list[FazaiError] = []
    nodes = _read_mappings(resources, "a resource", "`- opnsense.alias: {name: …}`", errors)
    found = [_ResourceReader(node, errors).read() for node in nodes]
    return tuple(each for each in found if each is not None), tuple(errors)


def _read_mappings(items: YamlList, what: str, hint: str, errors: list[FazaiError]) -> Iterator[YamlMap]:
    """Yield the items of a list that are mappings; every other is an error."""
    for index, item in enumerate(items):
        if isinstance(item, YamlMap):
            yield item
        else:
            errors.append(_grammar_error(items, index, f"{what} is a mapping", hint))


def _grammar_error(
    node: YamlMap | YamlList, key: Any, message: str, hint: str | None = None, *, at_key: bool = False
) -> PlaybookError:
    place = node.key_mark(key) if at_key and isinstance(node, YamlMap) else node.mark(key)
    return PlaybookError(message, where=place, hint=hint, excerpt=node.excerpt(key))


class _MappingReader:
    """Reads the keys of one mapping; errors go into `errors`."""

    def __init__(self, node: YamlMap, errors: list[FazaiError]) -> None:
        self.node = node
        self.errors = errors

    def report(self, key: str | None, message: str, hint: str | None = None, *, at_key: bool = False) -> None:
        self.errors.append(_grammar_error(self.node, key, message, hint, at_key=at_key))

    def read_text(self, key: str) -> str | None:
        value = self.node.get(key)
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        self.report(key, f"{key}: takes a text")
        return None

    def read_words(self, key: str) -> tuple[str, ...]:
        value = self.node.get(key)
        found = () if value is None else split_texts(value)
        if found is None:
            self.report(key, f"{key}: takes a text, or a list of texts", f"{key}: [one, two]")
        return found or ()

    def read_map(self, key: str) -> YamlMap | None:
        value = self.node.get(key)
        if value is None or isinstance(value, YamlMap):
            return value
        self.report(key, f"{key}: takes a mapping", f"write `name: value` lines below {key}:")
        return None

    def read_if(self, fine: bool, key: str, message: str, hint: str | None = None) -> Any:
        """Return the value of a key; of a value that is not fine, report it and return None."""
        value = self.node.get(key)
        if value is None or fine:
            return value
        self.report(key, message, hint)
        return None


class _PlayReader(_MappingReader):
    """Reads one item of a playbook."""

    def read(self, path: Path) -> Play | None:
        for key in self.node:
            if key not in _PLAY:
                hint = _PLAY_HINTS.get(key) or spelling_hint(key, _PLAY) or _misplaced_kind_hint(key)
                self.report(key, f'a play has no "{key}"', hint, at_key=True)
        hosts = self._read_hosts()
        resources = (*self._read_resources(), *self._read_misnamed(), *self._read_handlers())
        if hosts is None:
            return None
        return Play(
            name=self.read_text("name") or ", ".join(hosts),
            hosts=hosts,
            resources=resources,
            path=path,
            node=self.node,
            tags=self.read_words("tags"),
            vars=self.read_map("vars"),
            serial=self._read_serial(),
            max_fail=self._read_max_fail(),
        )

    def _read_hosts(self) -> tuple[str, ...] | None:
        value = self.node.get("hosts")
        if isinstance(value, str) and value.strip():
            return (value,)
        if isinstance(value, YamlList) and value and all(isinstance(item, str) for item in value):
            return tuple(value)
        if value is None:
            self.report(None, "a play says which hosts it is for", "hosts: all")
        else:
            self.report("hosts", "hosts: takes a host pattern, or a list of them", "hosts: all")
        return None

    def _read_resources(self, key: str = "resources") -> tuple[DeclaredResource, ...]:
        value = self.node.get(key)
        if value is None:
            return ()
        if not isinstance(value, YamlList):
            self.report(key, f"{key}: takes a list", "write `- kind: {fields}`")
            return ()
        found, errors = read_resources(value)
        self.errors.extend(errors)
        return found

    def _read_misnamed(self) -> tuple[DeclaredResource, ...]:
        """Read the resources below a misspelt `resources:`, or `tasks:`, to find the errors in them, too."""
        found: tuple[DeclaredResource, ...] = ()
        for key in self.node:
            meant = key in _TASKS or did_you_mean(key, _PLAY) == "resources"
            if key not in _PLAY and meant and isinstance(self.node[key], YamlList):
                found += self._read_resources(key)
        return found

    def _read_handlers(self) -> tuple[DeclaredResource, ...]:
        """Read handlers: resources that listen to what they say, else to their name."""
        found = self._read_resources("handlers")
        for each in found:
            if each.listen is None and each.name is None:
                place = each.node.mark(each.kind)
                text = "a handler needs a name, which notify: then says"
                self.errors.append(PlaybookError(text, where=place, hint='name: "restart app"'))
        return tuple(each if each.listen is not None else replace(each, listen=each.name) for each in found)

    def _read_serial(self) -> tuple[int | str, ...]:
        value = self.node.get("serial")
        if value is None:
            return ()
        sizes = tuple(value) if isinstance(value, YamlList) else (value,)
        if not sizes or not all(_is_size(size, least=1) for size in sizes):
            text = "serial: takes a number from 1 on, a percentage, or a list"
            self.report("serial", text, 'serial: [1, "30%"]')
            return ()
        return sizes

    def _read_max_fail(self) -> Any:
        fine, text = _is_size(self.node.get("max_fail"), least=0), "a number of targets, or a percentage"
        return self.read_if(fine, "max_fail", f"max_fail: takes {text}", 'max_fail: "10%"')


def _is_size(value: Any, *, least: int) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return value >= least
    found = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    return found is not None and least <= int(found[1]) <= 100


def _is_template(value: Any) -> bool:
    return isinstance(value, str) and "{{" in value


def _misplaced_kind_hint(key: str) -> str | None:
    return "resources stand in a list below resources:" if _KIND.fullmatch(key) else None


def _resource_hint(key: str) -> str | None:
    return "write loop:" if key.startswith("with_") else _RESOURCE_HINTS.get(key)


class _ResourceReader(_MappingReader):
    """Reads one item of a list of resources."""

    def read(self) -> DeclaredResource | None:
        kind = self._find_kind()
        fields = self._read_fields(kind) if kind is not None else None
        before = len(self.errors)
        loop_var, index_var = self._read_loop_control()
        when, loop, variables = self._read_when(), self._read_loop(), self.read_map("vars")
        if kind is None or fields is None or len(self.errors) > before or self._is_undecided():
            return None
        return DeclaredResource(
            kind=kind,
            fields=fields,
            node=self.node,
            mark=self.node.key_mark(kind),
            tags=self.read_words("tags"),
            name=self.read_text("name"),
            state=self._read_state(),
            when=when,
            loop=loop,
            loop_var=loop_var,
            index_var=index_var,
            vars=variables,
            adopt=self._read_adopt(),
            notify=self.node.get("notify"),
            listen=self.node.get("listen"),
        )

    def _is_undecided(self) -> bool:
        """Tell whether an unknown key may be meant to decide for whom, or how often, the resource is."""
        unknown = (key for key in self.node if key not in _BESIDE and not _KIND.fullmatch(key))
        return any(key.startswith("with_") or did_you_mean(key, _BESIDE) in _DECIDING for key in unknown)

    def _find_kind(self) -> str | None:
        """Find the one key that is a kind; every other must be known."""
        others = [key for key in self.node if key not in _BESIDE]
        kinds = [key for key in others if _KIND.fullmatch(key)] or others[:1]
        for key in others:
            if key in kinds[:1]:
                continue
            if _KIND.fullmatch(key):
                message = f'two kinds in one resource: "{kinds[0]}" and "{key}"'
                self.report(key, message, "start each resource with a dash of its own", at_key=True)
            else:
                near = _resource_hint(key) or spelling_hint(key, _BESIDE)
                hint = near or f"a field of it stands below {kinds[0]}:"
                self.report(key, f'a resource has no "{key}"', hint, at_key=True)
        if not kinds:
            self.report(None, "this resource names no kind", "`- opnsense.alias: {name: …}`")
            return None
        if not _KIND.fullmatch(kinds[0]):
            near = spelling_hint(kinds[0], _BESIDE)
            known = None if near and self.node[kinds[0]] in _STATES else module_hint(kinds[0])
            hint = _resource_hint(kinds[0]) or known or near or "see: fazai kinds"
            self.report(kinds[0], f'there is no kind "{kinds[0]}"', hint, at_key=True)
            return None
        return kinds[0]

    def _read_fields(self, kind: str) -> Any:
        value = self.node[kind]
        if isinstance(value, YamlMap) or _is_template(value):
            return value
        self.report(kind, f"{kind}: takes a mapping of fields", f"for an example: fazai kinds {kind}")
        return None

    def _read_state(self) -> Any:
        value = self.node.get("state")
        fine = isinstance(value, str) and (value in _STATES or _is_template(value))
        hint = spelling_hint(value, _STATES) if isinstance(value, str) and not fine else None
        return self.read_if(fine, "state", "state: is present or absent", hint)

    def _read_when(self) -> Any:
        value = self.node.get("when")
        items = value if isinstance(value, YamlList) else [value]
        fine = all(isinstance(item, str | bool) for item in items)
        text = "when: takes an expression, or a list of them"
        return self.read_if(fine, "when", text, "when: site == 'north'")

    def _read_loop(self) -> Any:
        value = self.node.get("loop")
        hint = 'loop: "{{ mapping | dict2items }}"' if isinstance(value, YamlMap) else 'loop: "{{ names }}"'
        fine = isinstance(value, YamlList) or _is_template(value)
        return self.read_if(fine, "loop", "loop: takes a list", hint)

    def _read_loop_control(self) -> tuple[str, str | None]:
        control = self.read_map("loop_control")
        if control is None:
            return "item", None
        if "loop" not in self.node:
            self.report("loop_control", "loop_control: stands beside loop:", at_key=True)
        known = ("loop_var", "index_var")
        for key, value in control.items():
            if key not in known:
                hint = spelling_hint(key, known) or "it has loop_var and index_var"
                error = _grammar_error(control, key, f'loop_control: has no "{key}"', hint, at_key=True)
                self.errors.append(error)
            elif not isinstance(value, str) or not _NAME.fullmatch(value):
                error = _grammar_error(control, key, f"{key}: takes the name of a variable", f"{key}: rule")
                self.errors.append(error)
        return str(control.get("loop_var", "item")), control.get("index_var")

    def _read_adopt(self) -> Any:
        value = self.node.get("adopt")
        fine = isinstance(value, bool) or _is_template(value)
        return self.read_if(fine, "adopt", "adopt: is true or false")
