"""What the documentation says to type is there to be typed."""

import argparse
import re
from collections.abc import Mapping

import pytest
from documented_commands import REPOSITORY, DocumentedCommand, documented_commands

from agetf_pipeline.cli import _parse, _parser

_COMMANDS = documented_commands()
# Modules of installed packages, and configurations that the reader writes.
_INSTALLED = {"pip", "pytest"}
_OWN_CONFIGS = {"mine.yaml"}


def _of(program: str) -> list[DocumentedCommand]:
    return [command for command in _COMMANDS if command.words[0] == program]


@pytest.mark.parametrize("command", _of("make"), ids=str)
def test_make_has_the_target_and_the_variables(command):
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    variables = set(re.findall(r"^([A-Z]+) \?=", makefile, re.MULTILINE))
    for word in command.words[1:]:
        variable, equals, _ = word.partition("=")
        assert variable in (variables if equals else targets), word


def _subcommands(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices
    return {}


@pytest.mark.parametrize("command", [c for c in _of("agetf") if not c.inline], ids=str)
def test_agetf_reads_its_arguments(command):
    options = _parse(_parser(), command.words[1:])
    config = getattr(options, "config", None)
    if config is not None and config.name not in _OWN_CONFIGS:
        assert (REPOSITORY / config).is_file()


@pytest.mark.parametrize("command", [c for c in _of("agetf") if c.inline], ids=str)
def test_agetf_has_what_a_sentence_names(command):
    """A sentence may name a command and an option without all that the command needs."""
    parser = _parser()
    for written in command.words[1:]:
        word = written.rstrip(",")
        choices = _subcommands(parser)
        if choices and word not in ("<stage>", "<command>") and not word.startswith("-"):
            assert word in choices
            parser = choices[word]
        elif word.startswith("--"):
            assert word.partition("=")[0] in parser._option_string_actions
        if written != word:
            return  # a list of subcommands: its first is looked up


@pytest.mark.parametrize("command", _of("python"), ids=str)
def test_python_finds_the_module(command):
    if command.words[1] != "-m":
        return
    module = command.words[2]
    path = REPOSITORY / module.replace(".", "/")
    if module in _INSTALLED:
        return
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


def test_there_are_commands_of_every_kind():
    assert len(_of("make")) > 20
    assert len(_of("agetf")) > 40
    assert len(_of("python")) > 3
