"""The messages of a chat request as turns of a conversation: texts, and every other thing refused by name. Knows no model."""

from collections.abc import Sequence
from typing import Any

from mohole.model.chat import Role
from mohole.serve.errors import short
from mohole.serve.openai.refusals import refused_key

_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_KEYS = {"role", "content", "name", "refusal", "annotations", "audio", "tool_calls", "function_call"}


def turns_of(messages: Sequence[Any]) -> list[tuple[Role, str]]:
    """Who said what.

    Raises:
        OpenAIRefusal: no message, another role, or what is no text.
    """
    return [_turn(message, f"messages.{place}") for place, message in enumerate(messages)]


def _turn(message: Any, at: str) -> tuple[Role, str]:
    if not isinstance(message, dict):
        raise refused_key(at, "an object with role and content is needed")
    if unknown := set(message) - _KEYS:
        raise refused_key(f"{at}.{min(unknown)}", "no such key of a message", "unknown_parameter")
    for key in ("tool_calls", "function_call", "audio"):
        if message.get(key):
            raise refused_key(f"{at}.{key}", "not supported here", "unsupported_parameter")
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        code = "unsupported_parameter" if role in ("tool", "function") else "invalid_value"
        raise refused_key(f"{at}.role", f"{short(role)}: there are {', '.join(_ROLES)}", code)
    content = message.get("content")
    if isinstance(content, list):
        return _ROLES[role], "".join(_part(part, f"{at}.content.{place}") for place, part in enumerate(content))
    if not isinstance(content, str):
        raise refused_key(f"{at}.content", "a text, or a list of parts of text, is needed")
    return _ROLES[role], content


def _part(part: Any, at: str) -> str:
    if not isinstance(part, dict):
        raise refused_key(at, "an object with type and text is needed")
    if part.get("type") != "text":
        raise refused_key(f"{at}.type", f"{short(part.get('type'))}: only text is read here", "unsupported_parameter")
    if not isinstance(part.get("text"), str):
        raise refused_key(f"{at}.text", "a text is needed")
    return str(part["text"])
