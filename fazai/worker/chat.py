"""Renders a conversation as tokens, by the chat template in the model's own file.

A model that was tuned for conversations has a chat template in its metadata; the template is rendered once,
with marks where the texts go, and only what the template itself wrote is read for control tokens. So nobody
can end a turn, or begin one, from within a prompt. A base model has none: it continues text.
"""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fazai.errors import InputError
from fazai.worker.modelfile import rendering

_SYSTEM, _PROMPT, _ANSWER, _EARLIER = (
    f"\ue000{name}\ue001" for name in ("system", "prompt", "answer", "earlier")
)
#: What a file may say of its tuning and still be a base model.
_UNTUNED = ("", "base", "pt", "pretrained", "pretraining")
_TEMPLATE_MAX = 262_144
_RENDER_S = 60.0  # of the clock, on a machine that has no time; of a processor it has far less


class Tokenizer(Protocol):
    """The methods of `bridge.NativeEngine` that a conversation needs."""

    @property
    def bos(self) -> int: ...
    @property
    def eos(self) -> int: ...
    def tokenize(self, text: str, *, special: bool = False, bos: bool = False) -> list[int]: ...
    def tokenize_plain(self, text: str) -> list[int]: ...
    def piece(self, token: int, *, special: bool = False) -> bytes: ...
    def meta(self, key: str) -> str | None: ...


@dataclass(frozen=True, slots=True)
class TurnPiece:
    """A part of a turn: text of the template (`slot` is empty), or the place of a text."""

    text: str = ""
    slot: str = ""  # system, prompt
    trims: bool = False  # the template takes white space around the text away


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """The form in which turns are written. `kind` says for people where it comes from."""

    kind: str
    first_turn: tuple[TurnPiece, ...]
    first_with_system: tuple[TurnPiece, ...]
    next_turn: tuple[TurnPiece, ...]
    adds_bos: bool = True
    tools: bool = False  # the template writes declarations of tools; the worker hands it none
    thinks: bool = False  # the template can ask for thoughts; the worker does not

    @property
    def system_role(self) -> bool:
        """True where the system's text has a turn of its own; else it stands before the first question."""
        slots = [piece.slot for piece in self.first_with_system]
        between = self.first_with_system[slots.index("system") + 1 : slots.index("prompt")]
        return not self.completes and any(piece.text.strip() for piece in between)

    @property
    def completes(self) -> bool:
        """True for a base model: text goes on where the prompt ends, and a question is no question to it."""
        return not any(piece.text for piece in self.first_turn)

    def first_tokens(self, engine: Tokenizer, system: str | None, prompt: str) -> list[int]:
        """Return the tokens of a conversation's first turn."""
        pieces = self.first_with_system if system else self.first_turn
        tokens = _tokens_of(engine, pieces, system or "", prompt)
        if self.adds_bos and engine.bos >= 0 and tokens[:1] != [engine.bos]:
            tokens.insert(0, engine.bos)
        return tokens

    def next_tokens(self, engine: Tokenizer, prompt: str) -> list[int]:
        """Return the tokens of a later turn: the answer before it is ended, for its own end was not kept."""
        return _tokens_of(engine, self.next_turn, "", prompt)


def _tokens_of(engine: Tokenizer, pieces: tuple[TurnPiece, ...], system: str, prompt: str) -> list[int]:
    found: list[int] = []
    for piece in pieces:
        if piece.slot:
            text = system if piece.slot == "system" else prompt
            found += engine.tokenize_plain(text.strip() if piece.trims else text)
        else:
            found += engine.tokenize(piece.text, special=True)
    return found


def _base_model_chat() -> ChatFormat:
    turn = (TurnPiece(slot="prompt"),)
    with_system = (TurnPiece(slot="system"), TurnPiece("\n\n"), *turn)
    return ChatFormat("none: a base model, which continues text", turn, with_system, turn)


def _chat_of_marks(opening: str, closing: str, *, system_role: bool) -> ChatFormat:
    """Return Gemma's turns, for a tuned file that lacks its template. Gemma 3 and before know no system role:
    its text stands before the first question."""

    def turn(role: str, *text: TurnPiece) -> tuple[TurnPiece, ...]:
        return (TurnPiece(f"{opening}{role}\n"), *text, TurnPiece(f"{closing}\n"))

    prompt, system = TurnPiece(slot="prompt", trims=True), TurnPiece(slot="system", trims=True)
    asked = (*turn("user", prompt), TurnPiece(f"{opening}model\n"))
    if system_role:
        with_system = (*turn("system", system), *asked)
    else:
        with_system = (*turn("user", system, TurnPiece("\n\n"), prompt), TurnPiece(f"{opening}model\n"))
    return ChatFormat(f"turns of {opening}", asked, with_system, (TurnPiece(f"{closing}\n"), *asked))


_FAMILIES = (("<start_of_turn>", "<end_of_turn>", False), ("<|turn>", "<turn|>", True))


def chat_of(engine: Tokenizer) -> ChatFormat:
    """Return the form of this model's conversations: its own template; Gemma's turns when the file says that
    it was tuned and has none; a base model's text is continued. Raises InputError for a template that cannot
    be used."""
    adds_bos = (engine.meta("tokenizer.ggml.add_bos_token") or "true") != "false"
    template = engine.meta("tokenizer.chat_template")
    if template:
        bos, eos = (
            engine.piece(t, special=True).decode() if t >= 0 else "" for t in (engine.bos, engine.eos)
        )
        return read_template(template, bos=bos, eos=eos, adds_bos=adds_bos)
    if (engine.meta("general.finetune") or "").strip().lower() not in _UNTUNED:
        for opening, closing, system_role in _FAMILIES:
            if all(len(engine.tokenize(mark, special=True)) == 1 for mark in (opening, closing)):
                return _chat_of_marks(opening, closing, system_role=system_role)
    return _base_model_chat()


def read_template(template: str, *, bos: str, eos: str, adds_bos: bool = True) -> ChatFormat:
    """Return a chat template as the pieces of its turns. Raises InputError: what is wrong with it."""
    user, answer = _message("user", _PROMPT), _message("assistant", _ANSWER)
    rendered = _render(
        template,
        bos,
        eos,
        {"messages": [user]},
        {"messages": [_message("system", _SYSTEM), user]},
        {"messages": [_message("user", _EARLIER), answer, user]},
        {"messages": [user], "tools": [_TOOL]},
        {"messages": [user], "thinking": True},
    )
    asked, with_role, whole, with_tool, thinking = rendered
    first = _cut_at_marks(_text_of(asked), prompt=1)
    try:
        with_system = _cut_at_marks(_text_of(with_role), system=1, prompt=1)
    except InputError:  # it knows no system role
        with_system = _system_before(first)
    _, found, rest = _text_of(whole).partition(_ANSWER)
    if not found:
        raise _unusable_template("an answer is not part of the conversation")
    # White space that was put around the marks to see whether it is taken away.
    later = _cut_at_marks(rest.removeprefix(" "), prompt=1)
    return ChatFormat(
        kind="its own template",
        first_turn=first,
        first_with_system=with_system,
        next_turn=later,
        adds_bos=adds_bos,
        tools=_TOOL_NAME in with_tool.get("text", ""),
        thinks=thinking.get("text", asked["text"]) != asked["text"],
    )


_TOOL_NAME = "look_up"
_TOOL = {
    "type": "function",
    "function": {
        "name": _TOOL_NAME,
        "description": "Looks something up.",
        "parameters": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    },
}


def _message(role: str, mark: str) -> dict[str, str]:
    return {"role": role, "content": f" {mark} "}


def _system_before(first: tuple[TurnPiece, ...]) -> tuple[TurnPiece, ...]:
    """Return the turn with the system's text before the first question."""
    at = next(n for n, piece in enumerate(first) if piece.slot == "prompt")
    return (*first[:at], TurnPiece(slot="system", trims=True), TurnPiece("\n\n"), *first[at:])


def _cut_at_marks(text: str, **wanted: int) -> tuple[TurnPiece, ...]:
    """Return a rendered text, cut at the marks; each of them must be there as often as it is wanted."""
    found = [TurnPiece(text)]
    for slot, mark in (("system", _SYSTEM), ("prompt", _PROMPT)):
        if text.count(mark) != wanted.get(slot, 0):
            raise _unusable_template(f"the {slot} is in it {text.count(mark)} times")
        found = list(itertools.chain.from_iterable(_cut_piece(piece, slot, mark) for piece in found))
    return tuple(piece for piece in found if piece.slot or piece.text)


def _cut_piece(piece: TurnPiece, slot: str, mark: str) -> list[TurnPiece]:
    before, found, after = piece.text.partition(mark)
    if not found:
        return [piece]
    kept = before.endswith(" ") and after.startswith(" ")  # ours
    if kept:
        before, after = before[:-1], after[1:]
    return [TurnPiece(before), TurnPiece(slot=slot, trims=not kept), TurnPiece(after)]


def _text_of(rendered: dict[str, str]) -> str:
    if "problem" in rendered:
        raise _unusable_template(rendered["problem"])
    return rendered["text"]


def _render(template: str, bos: str, eos: str, *conversations: dict[str, Any]) -> list[dict[str, str]]:
    """Return each conversation as text, or its problem, from the process of rendering.py: a file of weights
    is not trusted with more. Raises InputError."""
    if len(template) > _TEMPLATE_MAX:
        raise _unusable_template(f"it has more than {_TEMPLATE_MAX} characters")
    asked = {"template": template, "bos": bos, "eos": eos, "conversations": conversations}
    command = [sys.executable, "-P", str(Path(rendering.__file__))]  # it finds jinja2 where this process did
    try:
        done = subprocess.run(
            command, input=json.dumps(asked).encode(), capture_output=True, timeout=_RENDER_S
        )
    except (OSError, subprocess.TimeoutExpired):
        raise _unusable_template("the machine has no time to render it") from None
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise _unusable_template(f"it takes more than {rendering.CPU_S} s to render")
    if done.returncode != 0 or not done.stdout:
        raise _unusable_template("it is too large, or nested too deeply")
    answers: list[dict[str, str]] = json.loads(done.stdout)
    return answers


def _unusable_template(why: str) -> InputError:
    return InputError(
        f"the model's chat template cannot be used: {' '.join(why.split())[:200]}",
        hint="a file with a template that jinja2 renders",
    )
