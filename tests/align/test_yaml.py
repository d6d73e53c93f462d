"""YAML: an exact round trip of every field, errors with their line, and text that means harm. PyYAML judges."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from robocache.align import Align, Follow, From, Rate, Resize, Voxelize
from robocache.errors import ArgumentError
from robocache.policies import Angle, Linear, Nearest, Previous, Slerp, Window

SPEC = """
clock: {rate: 30000/1001}
span: union
streams:
  observation.state:
    source: /joint_states.position
    policy: {type: linear, max_gap: 50ms}
  observation.pose: {source: /tf.rotation, policy: {type: slerp, order: wxyz}}
  observation.imu: {source: /imu, policy: {type: window, span: 33ms, samples: 8}}
  observation.images.top:
    source: /camera/image
    policy: nearest
    latency: 38ms
    then: {type: resize, height: 224, width: 224}
  observation.voxels:
    source: /points
    policy: previous
    then: {type: voxelize, size: 1e-1, range: [[-6.4, -6.4, -1], [6.4, 6.4, 2]], mode: count}
  action: {source: /cmd, horizon: 16, missing: keep, optional: true}
"""


def test_the_schema_means_what_it_says(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    want = Align(
        Rate(Fraction(30000, 1001)),
        {
            "observation.state": From("/joint_states.position", Linear(max_gap="50ms")),
            "observation.pose": From("/tf.rotation", Slerp(order="wxyz")),
            "observation.imu": From("/imu", Window("33ms", 8)),
            "observation.images.top": From("/camera/image", Nearest(), latency="38ms", then=Resize(224, 224)),
            "observation.voxels": From(
                "/points", Previous(), then=Voxelize(0.1, range=((-6.4, -6.4, -1), (6.4, 6.4, 2)), mode="count")
            ),
            "action": From("/cmd", horizon=16, missing="keep", optional=True),
        },
        span="union",
    )
    assert Align.from_yaml(path) == Align.from_yaml(str(path)) == Align.from_yaml(SPEC) == want
    assert list(Align.from_yaml(path).streams) == list(want.streams)
    assert Align.from_yaml("clock: {follow: a}\nstreams: {a: {source: b}}").clock == Follow("a")
    assert Align.from_yaml("clock: {rate: 50}") == Align(Rate(50))


finite = {"allow_nan": False, "allow_infinity": False}
durations = st.one_of(st.integers(0, 2**62), st.floats(0, **finite), st.sampled_from(["50ms", "1.5 s", "20us", "3min"]))
gaps = st.none() | durations
holds = {"max_gap": gaps, "outside": st.sampled_from(["clamp", "nan"])}
outside = {"max_gap": gaps, "outside": st.sampled_from(["clamp", "nan", "extrapolate"])}
policies = st.one_of(
    st.none(),
    st.builds(Linear, **outside),
    st.builds(Previous, **holds),
    st.builds(Nearest, **holds),
    st.builds(Slerp, order=st.sampled_from(["xyzw", "wxyz"]), **outside),
    st.builds(Angle, period=st.floats(1e-300, 1e300), **outside),
    st.builds(Window, st.integers(1, 2**61) | st.just("33ms"), st.integers(1, 1000), gaps),
)
places = st.tuples(*[st.floats(-1e6, 1e6)] * 3)
grids = {
    "size": st.floats(1, 100) | st.integers(1, 100) | st.tuples(*[st.floats(1, 100)] * 3),
    "mode": st.sampled_from(["occupancy", "count", "mean", "max", "min", "sum"]),
    "outside": st.sampled_from(["drop", "clamp"]),
}
boxes = st.tuples(places, st.tuples(*[st.floats(0.5, 100)] * 3)).map(
    lambda box: (box[0], tuple(low + more for low, more in zip(*box, strict=True)))
)
thens = st.one_of(
    st.none(),
    st.builds(Resize, st.integers(1, 65536), st.integers(1, 65536)),
    st.builds(Voxelize, range=boxes, **grids),
    st.builds(Voxelize, grid_min=places, grid_size=st.tuples(*[st.integers(1, 1000)] * 3), **grids),
)
names = st.text(max_size=12) | st.sampled_from(
    ["on", "null", "1", "1e3", "<<", "=", "~", "- a", "2020-01-01", "&a", ": "]
)
sources = st.builds(
    From,
    names,
    policies,
    latency=st.integers(1 - 2**62, 2**62 - 1) | st.just("38ms"),
    missing=st.sampled_from(["drop", "keep"]),
    horizon=st.integers(1, 10**6),
    then=thens,
    optional=st.booleans(),
)
rates = st.one_of(
    st.integers(1, 10**9), st.floats(2e-6, 1e9), st.fractions(Fraction(1, 10**6), 10**9), st.just(Fraction(30000, 1001))
).map(Rate)


@st.composite
def descriptions(draw):
    streams = draw(st.none() | st.dictionaries(names, sources, min_size=1, max_size=4))
    clock = draw(rates if streams is None else rates | st.sampled_from(list(streams)).map(Follow))
    return Align(clock, streams, span=draw(st.sampled_from(["overlap", "union"])))


def types(value):
    """The values with their types: 50 and 50.0 are equal, and not the same."""
    fields = getattr(value, "__dataclass_fields__", None)
    if fields:
        return {name: types(getattr(value, name)) for name in fields}
    return {key: types(each) for key, each in value.items()} if isinstance(value, dict) else (type(value), value)


@settings(max_examples=200, deadline=None)
@given(descriptions())
def test_every_field_comes_back_as_it_was(spec):
    """Fails when a key is missing from the schema's tables, a float is shortened, or a string is read as a number."""
    text = spec.to_yaml()
    assert isinstance(yaml.safe_load(text), dict)
    back = Align.from_yaml(text)
    assert back == spec
    assert types(back.streams) == types(spec.streams)
    assert back.clock == spec.clock
    assert back.streams is None or list(back.streams) == list(spec.streams)


STREAM = "clock: {rate: 50}\nstreams:\n  a:\n    source: b\n    "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (STREAM + "polixi: linear", r"^text, line 5, .*: there is no key 'polixi'; did you mean 'policy'\? "),
        (
            STREAM + "policy: linxar",
            r"line 5, streams\['a'\]\.policy: there is no type 'linxar'; did you mean 'linear",
        ),
        (STREAM + "policy: {type: linear, maxgap: 5ms}", r"no key 'maxgap'; did you mean 'max_gap'\?"),
        (STREAM + "policy: {max_gap: 5ms}", r"policy: needs the key 'type', one of linear, "),
        (STREAM + "policy: window", r"policy: window needs the key 'span'$"),
        (STREAM + "policy: {type: window, span: 5ms}", r"policy: needs the key 'samples'$"),
        (STREAM + "policy: {type: linear, max_gap: 5 parsecs}", r"line 5, .*policy: '5 parsecs' is not a duration"),
        (STREAM + "policy: {type: linear, max_gap: [1]}", r"policy\.max_gap: must be a duration .*, got a list$"),
        (STREAM + "horizon: 0", r"line 4, streams\['a'\]: horizon must be a whole number of frames, 1 or more, got 0$"),
        (STREAM + "horizon: 1.5", r"line 5, streams\['a'\]\.horizon: must be a whole number, got '1\.5'$"),
        (STREAM + "optional: maybe", r"optional: must be true or false, got 'maybe'$"),
        (STREAM + "latency: {a: 1}", r"latency: must be a duration .*, got a mapping$"),
        (STREAM + "then: {type: resize, height: 2}", r"then: needs the key 'width'$"),
        (STREAM + "then: {type: voxelize, size: 1, range: [1, 2]}", r"then\.range: must be three numbers, got '1'$"),
        (STREAM + "source: c", r"line 5, streams\['a'\]: has the key 'source' twice; remove one$"),
        ("clock: {rate: 50}\nstreams:\n  a: {source: 5}", r"line 3, .*source: must be text, got '5'; put it in quotes"),
        ("clock: {rate: 50}\nstreams: {a: {}}", r"line 2, streams\['a'\]: needs the key 'source'$"),
        ("clock: {rate: 50}\nstreams: {1: {source: b}}", r"line 2, a key of streams: must be text, got '1'"),
        ("clock: {rate: 50}\nstreams: {}", r"^text, line 1: streams is empty"),
        ("clock: {rate: fast}\n", r"line 1, clock\.rate: must be a number, got 'fast'$"),
        ("clock: {rate: -1}\n", r"line 1, clock\.rate: rate must be a number of frames a second"),
        ("clock: {rate: 1/0}\n", r"clock\.rate: must be a number, got '1/0'$"),
        ("clock: {rate: 5, follow: a}\n", r"clock: needs either rate: .* or follow:"),
        ("clock: {rate: 2020-02-31}\n", r"must be a number of frames a second, got '2020-02-31'$"),
        ("clok: {rate: 5}\n", r"there is no key 'clok'; did you mean 'clock'\?"),
        ("span: union\n", r"the description: needs the key 'clock'$"),
        ("- a\n- b\n", r"^text, line 1, the description: must be a mapping of keys to values, got a list$"),
        ("a: [1\nb: 2\n", r"^text, line \d: is not YAML: "),
        ("\n", r"^text: holds nothing; it must have clock:"),
        ("a: \0\n", r"^text, line 1: holds a character that YAML does not allow$"),
        ('a: "\\UFFFFFFFF"\n', r"is not YAML"),
        ("clock: !!python/object/apply:os.system [ls]\n", r"line 1: tags such as .* are not read"),
        ("clock: &a {rate: 5}\n", r"^text, line 1: anchors \(&\) and aliases \(\*\) are not read; write it out$"),
    ],
)
def test_an_error_names_line_and_key_and_the_way_out(text, message):
    with pytest.raises(ArgumentError, match=message):
        Align.from_yaml(text)


def test_the_file_is_named(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("clock: {rate: 50}\nspam: 1\n")
    with pytest.raises(ArgumentError, match=r"wrong\.yaml, line 2, the description: there is no key 'spam'; did you "):
        Align.from_yaml(path)
    path.write_bytes(b"clock: \xff")
    with pytest.raises(ArgumentError, match=r"wrong\.yaml, byte 7: is not UTF-8"):
        Align.from_yaml(path)
    for missing in (tmp_path / "none.yaml", tmp_path, "a\0b"):
        with pytest.raises(ArgumentError, match=r"cannot be read .*; name a YAML file"):
            Align.from_yaml(missing)
    with pytest.raises(ArgumentError, match="from a path or from text, got 5"):
        Align.from_yaml(5)


BOMB = "a: &a [x, x]\n" + "".join(f"{n}: &{n} [*{p}, *{p}]\n" for p, n in zip("abcdefghij", "bcdefghijk", strict=True))


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "a: " + "[" * 100_000 + "\n",
        "a: " + "{a: " * 60_000 + "\n",
        "- " * 100_000 + "\n",
        "? " * 100_000 + "\n",
        "a: [" + "1, " * 80_000 + "1]\n",
        "".join(f"k{k}: v\n" for k in range(25_000)),
        "clock: {rate: " + "9" * 200_000 + "}\n",
        "a: " + "x" * 300_000 + "\n",
        "a: |\n" + " x\n" * 80_000,
        "a: '" + "''" * 120_000 + "'\n",
        'a: "' + "\\\n" * 80_000 + '"\n',
    ],
    ids=[
        "bomb",
        "lists",
        "mappings",
        "dashes",
        "questions",
        "long",
        "wide",
        "digits",
        "huge",
        "lines",
        "quotes",
        "folds",
    ],
)
def test_hostile_text_is_refused_soon(text):
    """Fails (by time, memory or RecursionError) when depth, parts, size or anchors are not checked first."""
    started = time.process_time()
    with pytest.raises(ArgumentError):
        Align.from_yaml(text)
    assert time.process_time() - started < 5
