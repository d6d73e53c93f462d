"""An alignment as YAML text."""

from __future__ import annotations

import dataclasses
import numbers
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import yaml

from robocache.align.yaml_schema import POLICIES, STREAM_KEYS, THENS, Form

if TYPE_CHECKING:
    from robocache.align.spec import Align, Follow, From, Rate

_OTHER_BREAKS = frozenset("\x85\u2028\u2029\ufeff")


def align_text(spec: Align) -> str:
    """The description as YAML, which reads back as an equal one; defaults are left out.

    Args:
        spec: What to write.
    """
    document: dict[str, Any] = {"clock": _clock(spec.clock)}
    if spec.span != "overlap":
        document["span"] = spec.span
    if spec.streams is not None:
        document["streams"] = {str(name): stream_mapping(source) for name, source in spec.streams.items()}
    return dump(document)


def dump(document: dict[str, Any]) -> str:
    """Plain values as YAML text: keys in their order, short mappings on one line.

    Args:
        document: Mappings, lists, strings, numbers and bools.
    """
    text = _dumped(document, allow_unicode=True)
    # PyYAML writes line breaks of other alphabets as they are, and folds them when it reads them back.
    return text if _OTHER_BREAKS.isdisjoint(text) else _dumped(document, allow_unicode=False)


def _dumped(document: dict[str, Any], *, allow_unicode: bool) -> str:
    text: str = yaml.safe_dump(
        document, sort_keys=False, allow_unicode=allow_unicode, width=110, default_flow_style=None
    )
    return text


def stream_mapping(source: From) -> dict[str, Any]:
    """One stream as plain values.

    Args:
        source: What to write.
    """
    mapping: dict[str, Any] = {}
    for field in dataclasses.fields(source):
        value = getattr(source, field.name)
        if field.default is not dataclasses.MISSING and _is_same(value, field.default):
            continue
        if field.name == "policy":
            mapping["policy"] = form_mapping(value, POLICIES)
        elif field.name == "then":
            mapping["then"] = form_mapping(value, THENS)
        else:
            assert field.name in STREAM_KEYS  # what is written must be readable
            mapping[field.name] = _plain(value)
    return mapping


def form_mapping(value: Any, forms: dict[str, Form]) -> str | dict[str, Any]:  # noqa: ANN401  any of the forms' kinds
    """A policy, or a `then`, as its name or as a mapping with a `type`.

    Args:
        value: What to write.
        forms: Its family.
    """
    name, form = next((name, form) for name, form in forms.items() if form.kind is type(value))
    mapping: dict[str, Any] = {"type": name}
    for field in dataclasses.fields(form.kind):
        held = getattr(value, field.name)
        if field.default is dataclasses.MISSING or not _is_same(held, field.default):
            mapping[field.name] = _plain(held)
    return mapping if len(mapping) > 1 else name


def _clock(clock: Rate | Follow) -> dict[str, Any]:
    hz = getattr(clock, "hz", None)
    if hz is None:
        return {"follow": str(clock.stream)}  # type: ignore[union-attr]
    if isinstance(hz, numbers.Rational):
        ratio = Fraction(int(hz.numerator), int(hz.denominator))
        return {"rate": int(ratio) if ratio.denominator == 1 else str(ratio)}
    return {"rate": float(hz)}


def _is_same(value: object, default: object) -> bool:
    return value is default or (type(value) is type(default) and value == default)


def _plain(value: Any) -> Any:  # noqa: ANN401
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    return [_plain(each) for each in value]
