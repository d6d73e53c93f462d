"""An alignment from YAML text, which may come from anywhere: bounded, without anchors, each error with its line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import yaml

from robocache.align import yaml_schema as schema
from robocache.align.spec import Align, Follow, From, Rate
from robocache.align.yaml_schema import Form
from robocache.align.yaml_values import READERS, is_null, ratio, shown, text
from robocache.errors import ArgumentError

MAX_BYTES = 256 * 1024
MAX_EVENTS = 20_000  # a stream takes about twenty
MAX_DEPTH = 12
_ENTERING = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
_LEAVING = (yaml.MappingEndEvent, yaml.SequenceEndEvent)


def read_align(source: Path | str) -> Align:
    """Read a description: see `Align.from_yaml`.

    Args:
        source: A path, or text.

    Raises:
        ArgumentError: With file, line and key.
    """
    if isinstance(source, str) and ("\n" in source or ": " in source):
        return Document("text", source).align()
    if not isinstance(source, str | Path):
        raise ArgumentError(f"a description is read from a path or from text, got {source!r}")
    return Document(str(source), _text_of(Path(source))).align()


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # a NUL in a name is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise ArgumentError(f"{path}: cannot be read ({reason}); name a YAML file that describes an Align") from error
    if len(content) > MAX_BYTES:
        _refuse_size(str(path))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{path}, byte {error.start}: is not UTF-8 text; name a YAML file") from error


class Document:
    """One YAML text; it is read once.

    Args:
        name: What errors call it.
        text: The YAML.
    """

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        if len(text) > MAX_BYTES:
            _refuse_size(name)
        self._text = text

    def align(self) -> Align:
        """The description that it holds."""
        root = self._composed()
        top = self._mapping(root, "the description", schema.TOP_KEYS, required=("clock",))
        arguments: dict[str, Any] = {"clock": self._clock(top["clock"])}
        if "span" in top:
            arguments["span"] = text(self.fail, top["span"], "span")
        if "streams" in top and not is_null(top["streams"]):
            entries = self._entries(top["streams"], "streams")
            arguments["streams"] = {name: self._stream(name, node) for name, node in entries.items()}
        return self._made(Align, arguments, root, "")  # type: ignore[no-any-return]

    def fail(self, node: yaml.Node | yaml.Mark, key: str, problem: str) -> NoReturn:
        """Raise with file, line and key.

        Args:
            node: Where.
            key: Which key, such as "streams['a'].policy"; may be empty.
            problem: What is wrong, and the way out.
        """
        mark = node.start_mark if isinstance(node, yaml.Node) else node
        raise ArgumentError(f"{self._name}, line {mark.line + 1}{key and ', '}{key}: {problem}")

    def _composed(self) -> yaml.Node:
        try:
            self._check_events()
            root = yaml.compose(self._text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            line = 0 if error.problem_mark is None else error.problem_mark.line + 1
            raise ArgumentError(f"{self._name}, line {line}: is not YAML: {error.problem}") from error
        except yaml.reader.ReaderError as error:
            line = self._text.count("\n", 0, error.position) + 1
            raise ArgumentError(f"{self._name}, line {line}: holds a character that YAML does not allow") from error
        except (ValueError, OverflowError) as error:  # an escape that is no character
            if isinstance(error, ArgumentError):
                raise
            raise ArgumentError(f"{self._name}: is not YAML: {error}") from error
        if root is None:
            raise ArgumentError(f"{self._name}: holds nothing; it must have clock: and may have span: and streams:")
        return root

    def _check_events(self) -> None:
        # Before anything is built: nesting would exhaust the stack, anchors can stand for more than any memory.
        depth = 0
        for count, event in enumerate(yaml.parse(self._text, Loader=yaml.SafeLoader)):
            if getattr(event, "anchor", None) is not None:
                self.fail(event.start_mark, "", "anchors (&) and aliases (*) are not read; write it out")
            if getattr(event, "tag", None) is not None:
                self.fail(event.start_mark, "", f"tags such as {event.tag!r} are not read; leave it out")
            depth += isinstance(event, _ENTERING) - isinstance(event, _LEAVING)
            if depth > MAX_DEPTH:
                self.fail(event.start_mark, "", f"is nested more than {MAX_DEPTH} deep, which no description is")
            if count > MAX_EVENTS:
                self.fail(event.start_mark, "", f"has more than {MAX_EVENTS} parts; name fewer streams")

    def _entries(self, node: yaml.Node, where: str) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            self.fail(node, where, f"must be a mapping of keys to values, got {shown(node)}")
        entries: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = text(self.fail, key, f"a key of {where}")
            if name in entries:
                self.fail(key, where, f"has the key {name!r} twice; remove one")
            entries[name] = value
        return entries

    def _mapping(
        self, node: yaml.Node, where: str, keys: Iterable[str], *, required: Iterable[str] = ()
    ) -> dict[str, yaml.Node]:
        entries = self._entries(node, where)
        for name, value in entries.items():
            if name not in keys:
                self.fail(value, where, f"there is no key {name!r}; {_nearest(name, keys)}")
        for name in required:
            if name not in entries:
                self.fail(node, where, f"needs the key {name!r}")
        return entries

    def _clock(self, node: yaml.Node) -> Rate | Follow:
        clock = self._mapping(node, "clock", schema.CLOCK_KEYS)
        if len(clock) != 1:
            self.fail(node, "clock", "needs either rate: (frames a second) or follow: (a name in streams)")
        if "follow" in clock:
            return Follow(text(self.fail, clock["follow"], "clock.follow"))
        value = clock["rate"]
        return self._made(Rate, {"hz": ratio(self.fail, value, "clock.rate")}, value, "clock.rate")  # type: ignore[no-any-return]

    def _stream(self, name: str, node: yaml.Node) -> From:
        where = f"streams[{name!r}]"
        keys = (*schema.STREAM_KEYS, "policy", "then")
        arguments: dict[str, Any] = {}
        for key, value in self._mapping(node, where, keys, required=("source",)).items():
            at = f"{where}.{key}"
            if key == "policy":
                arguments[key] = self._form(value, at, schema.POLICIES)
            elif key == "then":
                arguments[key] = self._form(value, at, schema.THENS)
            else:
                arguments[key] = READERS[schema.STREAM_KEYS[key]](self.fail, value, at)
        return self._made(From, arguments, node, where)  # type: ignore[no-any-return]

    def _form(self, node: yaml.Node, where: str, forms: dict[str, Form]) -> Any:  # noqa: ANN401
        if is_null(node):
            return None
        entries = {"type": node} if isinstance(node, yaml.ScalarNode) else self._entries(node, where)
        if "type" not in entries:
            self.fail(node, where, f"needs the key 'type', one of {', '.join(forms)}")
        name = text(self.fail, entries["type"], where)
        if name not in forms:
            self.fail(entries["type"], where, f"there is no type {name!r}; {_nearest(name, forms)}")
        form = forms[name]
        if isinstance(node, yaml.MappingNode):
            self._mapping(node, where, ("type", *form.keys), required=form.required)
        elif form.required:
            self.fail(node, where, f"{name} needs the key {form.required[0]!r}")
        arguments = {
            key: None if is_null(value) else READERS[form.keys[key]](self.fail, value, f"{where}.{key}")
            for key, value in entries.items()
            if key != "type"
        }
        return self._made(form.kind, arguments, node, where)

    def _made(self, kind: type[Any], arguments: dict[str, Any], node: yaml.Node, where: str) -> Any:  # noqa: ANN401
        try:
            return kind(**arguments)
        except ArgumentError as error:
            self.fail(node, where, str(error))


def _refuse_size(name: str) -> NoReturn:
    raise ArgumentError(f"{name}: is larger than the {MAX_BYTES} bytes that a description may have; name another file")


def _nearest(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name[:100], list(names), n=1, cutoff=0.0)
    return f"did you mean {close[0]!r}? There are: {', '.join(names)}"
