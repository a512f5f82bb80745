"""Where keys come from: a TOML file that holds their digests, or the environment."""

from __future__ import annotations

import hmac
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from server.auth.key import MOST_KEYS, ApiKey, digest
from server.errors import UnusableKeysError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_SHA256 = re.compile(r"[0-9a-f]{64}")
_LIMITS = ("requests_per_minute", "tokens_per_minute", "max_in_flight")
_SHOWN_DIGITS = 12
_FIELDS = frozenset(ApiKey.__dataclass_fields__)


class Keys:
    """The keys that are known. Raises UnusableKeysError for a name or a key that is there twice,
    and for more than there is room for."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._by_digest = {key.sha256: key for key in keys}
        names = {key.name for key in keys}
        if not len(keys) == len(names) == len(self._by_digest):
            raise UnusableKeysError("two API keys have one name, or are one key")
        if len(keys) > MOST_KEYS:
            raise UnusableKeysError(f"more than {MOST_KEYS} API keys", found=str(len(keys)))

    def __len__(self) -> int:
        return len(self._by_digest)

    @property
    def for_clients(self) -> bool:
        """Whether any key isn't an admin's: then clients need one."""
        return any(not key.admin for key in self._by_digest.values())

    def find(self, presented: str) -> ApiKey | None:
        """Whose key that is. The time it takes tells no more than of a digest, which tells
        nothing of a key."""
        found = digest(presented)
        key = self._by_digest.get(found)
        return key if key and hmac.compare_digest(key.sha256, found) else None


def read_file(path: Path) -> tuple[ApiKey, ...]:
    """The keys of a file: tables `[[keys]]` with ApiKey's fields; an empty one has none.

    Raises UnusableKeysError.
    """
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UnusableKeysError(f"can't read the API keys in {path}", found=str(error)) from error
    entries = content.pop("keys", None) if content else []
    if content or not isinstance(entries, list):
        raise UnusableKeysError(
            f"{path} doesn't hold API keys",
            found=", ".join(content) or "no [[keys]]",
            do="write it with trtbuild keys new",
        )
    return tuple(_key(path, number, entry) for number, entry in enumerate(entries, 1))


def from_environment(text: str) -> tuple[ApiKey, ...]:
    """Keys in a variable, divided by commas or spaces: each KEY or NAME=KEY, for all models.

    One without a name is called by its digest, whatever stands beside it. Raises
    UnusableKeysError, also when there is none: who sets the variable wants no open endpoint.
    """
    words = re.split(r"[,\s]+", text.strip(", \t\r\n"))
    return tuple(_word(word, number) for number, word in enumerate(words, 1))


def _word(word: str, number: int) -> ApiKey:
    name, equals, key = word.partition("=") if "=" in word else ("", "", word)
    # base64 ends in "=": what comes before would be taken for a name, and be logged
    if not (
        key.strip("=") and key.isascii() and key.isprintable() and (_is_name(name) or not equals)
    ):
        raise UnusableKeysError(
            f"API key {number} of the environment is none",
            do="write KEY or NAME=KEY, the latter where it ends in '=', or unset the variable",
        )
    sha256 = digest(key)
    return ApiKey(name=name or f"environment-{sha256[:_SHOWN_DIGITS]}", sha256=sha256)


def _key(path: Path, number: int, entry: Any) -> ApiKey:
    where = f"{path}: key {number}"
    if not isinstance(entry, Mapping) or not {"name", "sha256"} <= entry.keys() <= _FIELDS:
        raise UnusableKeysError(
            f"{where} hasn't the fields of a key",
            found=", ".join(map(str, entry)) if isinstance(entry, Mapping) else repr(entry),
            do="it has name and sha256, and may have " + ", ".join(_FIELDS - {"name", "sha256"}),
        )
    wrong = [name for name, right in _checks(entry).items() if not right]
    if wrong:
        raise UnusableKeysError(f"{where} has wrong values", found=", ".join(wrong))
    models = entry.get("models")
    return ApiKey(**{**entry, "models": None if models is None else frozenset(models)})


def _checks(entry: Mapping[str, Any]) -> dict[str, bool]:
    """Field → whether its value is right."""
    models, name = entry.get("models", []), entry["name"]
    return {
        "name": isinstance(name, str) and _is_name(name),
        "sha256": isinstance(entry["sha256"], str) and bool(_SHA256.fullmatch(entry["sha256"])),
        "models": isinstance(models, list) and all(isinstance(model, str) for model in models),
        "admin": isinstance(entry.get("admin", False), bool),
        **{limit: _is_limit(entry.get(limit, 1)) for limit in _LIMITS},
    }


def _is_name(name: str) -> bool:
    return 0 < len(name) <= 100 and name.isprintable()


def _is_limit(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
