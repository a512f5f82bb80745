"""The settings of `trtbuild repo` as options, and which words are about which engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from builder.errors import LimitError
from triton_repo.settings.options import GROUPS, SETTINGS
from triton_repo.settings.table import Kind, Setting
from trtbuild.options import F

_METAVARS = {
    Kind.WHOLE: "N",
    Kind.FRACTION: "X",
    Kind.TEXT: "PATH",
    Kind.LIST: "N,N,…",
    Kind.GROUPS: "N,N;…",
    Kind.PATHS: "{N},{N,N},…",
}
_GIVEN = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP)


class _Value(click.ParamType):  # type: ignore[type-arg]
    """A setting's value, as a word or as a settings file has it."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.name = setting.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value, or click's error for another."""
        try:
            if isinstance(value, str):
                return self.setting.read(value)
            return self.setting.checked(_tuples(value))
        except LimitError as error:
            self.fail(str(error), param, ctx)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


class SettingOption(click.Option):
    """An option that is a setting, which has a group."""

    group = ""


class SettingsCommand(click.Command):
    """A command whose help has its settings by group, and which may have a command beside it."""

    beside: Mapping[str, click.Command] = {}
    """First word of the arguments → the command that it stands for."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """That of the command beside it where the first word is its name."""
        other = self.beside.get(args[0]) if args else None
        if other is None:
            return super().make_context(info_name, args, parent, **extra)
        return other.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The settings under their groups, after all other options."""
        for group in ("", *GROUPS):
            records = [
                record
                for param in self.get_params(ctx)
                if getattr(param, "group", "") == group
                and (record := param.get_help_record(ctx)) is not None
            ]
            if records:
                with formatter.section(group or "Options"):
                    formatter.write_dl(records)


def settings(function: F) -> F:
    """An option for each setting, called as upstream calls it."""
    for setting in reversed(tuple(SETTINGS.values())):
        function = _option(setting)(function)
    return function


def _option(setting: Setting) -> Callable[[F], F]:
    flag = "--" + setting.name.replace("_", "-")
    help = setting.help
    if setting.default is not None:
        because = f", because {setting.why}" if setting.why else ""
        help += f"  [default: {_shown(setting.default)}{because}]"
    kind: dict[str, Any] = {"type": _Value(setting), "metavar": _metavar(setting)}
    if setting.kind is Kind.FLAG:
        flag, kind = f"{flag}/--no-{flag[2:]}", {"type": bool}

    class Grouped(SettingOption):
        group = setting.group

    return click.option(flag, setting.name, cls=Grouped, default=None, help=help, **kind)


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _metavar(setting: Setting) -> str:
    if setting.choices:
        return f"[{'|'.join(setting.choices)}]"
    return _METAVARS.get(setting.kind, "")


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that were given, wherever."""
    source = click.get_current_context().get_parameter_source
    return {name: value for name, value in values.items() if source(name) in _GIVEN}


@dataclass(frozen=True, kw_only=True)
class Addressed:
    """A word of the command line, and the engine that it is for; None is all of them."""

    engine: str | None
    word: str


def addressed(word: str, called: Sequence[str]) -> Addressed:
    """`ENGINE:WORD`, or a word for all; `called` are the engines' names."""
    engine, colon, rest = word.partition(":")
    if colon and engine in called:
        return Addressed(engine=engine, word=rest)
    return Addressed(engine=None, word=word)


def of_one(flag: str, words: Sequence[str], name: str, called: Sequence[str]) -> list[str]:
    """The words that are for the engine `name`; of several, each must say for which it is."""
    found = [addressed(word, called) for word in words]
    for each in found:
        if each.engine is None and len(called) > 1:
            raise click.UsageError(
                f"{flag} {each.word}: say for which engine: {called[0]}:{each.word}."
            )
    return [each.word for each in found if each.engine in (None, name)]


def pairs(
    words: Sequence[str], name: str, called: Sequence[str], *, common: bool = True
) -> dict[str, str]:
    """The `NAME=VALUE` words for the engine `name`; its own beat those for all (`common`)."""
    found = [addressed(word, called) for word in words]
    chosen: dict[str, str] = {}
    for engine in (None, name) if common else (name,):
        own: dict[str, str] = {}
        for word in (each.word for each in found if each.engine == engine):
            setting, equals, value = word.partition("=")
            if not setting or not equals:
                raise click.UsageError(f"--set {word}: it is NAME=VALUE, or ENGINE:NAME=VALUE.")
            if setting in own:
                raise click.UsageError(f"--set {setting}: it is set twice.")
            own[setting] = value
        chosen |= own
    return chosen


def adapters(words: Sequence[str]) -> dict[str, Path]:
    """`[NAME=]DIR` words; an adapter is called as its folder where it has no other name."""
    found: dict[str, Path] = {}
    for word in words:
        name, equals, folder = word.partition("=")
        path = Path(folder if equals else word)
        name = name if equals else path.resolve().name
        if not name or name in found:
            raise click.UsageError(f"--lora {word}: give each adapter a name of its own, NAME=DIR.")
        found[name] = path
    return found
