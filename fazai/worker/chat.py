"""A conversation as tokens, in the format that Gemma was trained on.

Gemma 1 to 3 know no system role: its text stands before the first question. Gemma 4 has one, and other
marks. The marks are special tokens; a user's text is never read for them, so nobody can end a turn from
within a prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

from fazai.worker.bridge import Engine

__all__ = ["Chat", "chat_of"]


@dataclass(frozen=True, slots=True)
class Chat:
    """The marks of one family of models; empty ones for a model without turns."""

    opening: str
    closing: str
    system_role: bool

    def first(self, engine: Engine, system: str | None, prompt: str) -> list[int]:
        """The tokens of a conversation's first turn."""
        tokens = [engine.bos] if engine.bos >= 0 else []
        if system and self.system_role:
            tokens += self._turn(engine, "system", system)
        elif system:
            prompt = f"{system}\n\n{prompt}"
        return tokens + self._question(engine, prompt)

    def following(self, engine: Engine, prompt: str) -> list[int]:
        """The tokens of a later turn: the answer before it is ended, for its own end was not kept."""
        ending = engine.tokenize(f"{self.closing}\n", special=True) if self.closing else []
        return ending + self._question(engine, prompt)

    def _question(self, engine: Engine, prompt: str) -> list[int]:
        if not self.opening:
            return engine.tokenize(prompt)
        return self._turn(engine, "user", prompt) + engine.tokenize(f"{self.opening}model\n", special=True)

    def _turn(self, engine: Engine, role: str, text: str) -> list[int]:
        return [
            *engine.tokenize(f"{self.opening}{role}\n", special=True),
            *engine.tokenize(text.strip()),
            *engine.tokenize(f"{self.closing}\n", special=True),
        ]


_FAMILIES = (Chat("<start_of_turn>", "<end_of_turn>", False), Chat("<|turn>", "<turn|>", True))


def chat_of(engine: Engine) -> Chat:
    """The family whose marks are single tokens here; without one, text is continued as it is."""
    for chat in _FAMILIES:
        if all(len(engine.tokenize(mark, special=True)) == 1 for mark in (chat.opening, chat.closing)):
            return chat
    return Chat("", "", False)
