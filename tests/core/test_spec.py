"""What a spec may say, and that each mistake in one is a sentence with the key in it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from presplit.core.errors import SpecError
from presplit.core.recipe import RECIPES, Recipe
from presplit.core.spec import (
    ByBudget,
    ByDensity,
    ByFanOut,
    Cnn,
    Data,
    Mlp,
    OwnModel,
    Spec,
    Training,
    read_spec,
    spec_from,
    spec_json,
)

PAPER = """
name = "paper-mnist"
[data]
name = "mnist"
pad_to = 800
[model]
kind = "mlp"
layers = [800, 40, 40, 10]
[sparsity]
family = "biregular"
fan_out = [2, 9, 10]
[training]
recipe = "paper"
"""

names = st.from_regex(r"\A[a-z0-9][a-z0-9_-]{0,20}\Z")
globs = st.text(min_size=1, max_size=8)
positive = st.floats(1e-6, 1e6)
densities = st.floats(1e-6, 1)
sections = st.fixed_dictionaries(
    {},
    optional={
        "name": names,
        "seed": st.integers(0, 2**32 - 1),
        "data": st.fixed_dictionaries(
            {}, optional={"name": globs, "validation": st.floats(0.001, 0.499)}
        ),
        "model": st.fixed_dictionaries({}, optional={"width": st.integers(1, 512)}),
        "start": st.fixed_dictionaries({"net": globs}),
        "sparsity": st.fixed_dictionaries(
            {"density": densities, "layers": st.dictionaries(globs, densities)}
        ),
        "exits": st.fixed_dictionaries(
            {"after": st.lists(globs, min_size=1, max_size=3, unique=True)}
        ),
        "training": st.fixed_dictionaries(
            {},
            optional={
                "recipe": st.sampled_from(["default", "paper"]),
                "rate": positive,
                "bf16": st.booleans(),
            },
        ),
        "plan": st.fixed_dictionaries(
            {}, optional={"link": globs, "deadline_s": st.floats(1e-6, 86_400) | st.none()}
        ),
    },
)


def write(folder: Path, text: str, *, name: str = "spec.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@given(raw=sections)
def test_a_spec_read_back_from_its_json_is_the_same(raw, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "spec.json"
    spec = spec_from(raw)
    path.write_bytes(spec_json(spec))
    assert read_spec(path) == spec


@given(raw=sections, section=st.sampled_from(["data", "model", "training", "plan"]), key=names)
def test_a_key_that_no_section_has_is_never_accepted(raw, section, key):
    strange = {**raw, section: {**raw.get(section, {}), f"x-{key}": 1}}
    with pytest.raises(SpecError, match=f"unknown key '{section}.x-{key}'"):
        spec_from(strange)


@given(
    raw=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5
    )
)
def test_whatever_stands_in_a_spec_is_read_or_refused(raw):
    for key in ("name", "seed", "data", "sparsity", "exits"):
        try:
            spec_from({key: raw})
        except SpecError as error:
            assert key in str(error)


def test_an_empty_spec_is_a_dense_net_on_digits(tmp_path):
    spec = read_spec(write(tmp_path, ""))
    assert (spec.data, spec.model, spec.sparsity, spec.exits, spec.plan) == (
        Data("digits"),
        Cnn(),
        None,
        None,
        None,
    )


def test_the_papers_experiment_is_said_in_its_own_words(tmp_path):
    spec = read_spec(write(tmp_path, PAPER))
    assert (spec.model, spec.sparsity) == (Mlp((800, 40, 40, 10)), ByFanOut((2, 9, 10)))


def test_what_the_spec_leaves_out_stays_the_recipes(tmp_path):
    own = read_spec(write(tmp_path, PAPER + "epochs = 3\n")).training
    paper = msgspec.to_builtins(RECIPES["paper"])
    assert own == Training(**{**paper, "epochs": 3})
    assert spec_from({}).training == Training(**msgspec.to_builtins(Recipe()))


def test_a_kind_is_told_from_the_keys_that_only_it_has():
    raw = {"model": {"layers": [8, 4, 2]}, "sparsity": {"fan_out": [2, 2]}}
    spec = spec_from(raw)
    assert (spec.model, spec.sparsity) == (Mlp((8, 4, 2)), ByFanOut((2, 2)))
    assert spec_from({"model": {"factory": "nets:make"}}).model == OwnModel("nets:make")
    assert spec_from({"sparsity": {"budget": 0.3}}).sparsity == ByBudget(0.3)
    written = msgspec.json.decode(spec_json(spec))
    assert (written["model"]["kind"], written["sparsity"]["kind"]) == ("mlp", "fan_out")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Training(epochs=0), "Training.epochs: expected `int` >= 1, got 0"),
        (lambda: Recipe(distil=0.6, self_distil=0.6), "Recipe.self_distil: .* got 0.6 . 0.6"),
        (lambda: Recipe(epochs=3, backbone_epochs=3), "backbone_epochs: expected fewer than .* 3"),
        (lambda: Recipe(epochs=1, regime="mixed"), "Recipe.epochs: regime 'mixed' needs 2"),
        (lambda: Mlp((8,)), "Mlp.layers: expected `array` of length >= 2"),
        (lambda: ByDensity(), "ByDensity.density: expected it, or layers, got neither"),
        (lambda: Spec(data=Data(pad_to=9), model=Mlp((8, 2))), "data.pad_to: expected the first"),
        (lambda: spec_from({"training": {"distil": 0.6, "self_distil": 0.6}}), "^training.self_d"),
    ],
)
def test_a_value_out_of_range_is_refused_when_it_is_made(make, message):
    with pytest.raises(SpecError, match=message):
        make()


def test_set_changes_one_key_and_leaves_its_neighbours(tmp_path):
    spec = read_spec(
        write(tmp_path, PAPER), set=["training.epochs=2", "data.name=digits", "data.validation=0.2"]
    )
    assert (spec.training.epochs, spec.training.batch) == (2, RECIPES["paper"].batch)
    assert spec.data == Data("digits", 0.2, 800)


def test_set_can_name_a_layer_with_dots(tmp_path):
    spec = read_spec(write(tmp_path, ""), set=["sparsity.layers.'features.0'=0.5"])
    assert spec.sparsity == ByDensity(layers={"features.0": 0.5})


def test_set_takes_what_is_not_toml_as_a_string():
    assert spec_from({}, set=['data.name=my "own" set.npz']).data.name == 'my "own" set.npz'


@pytest.mark.parametrize("assignment", ["epochs", "=3", "a..b=3", "training epochs=3", ""])
def test_a_set_without_key_and_value_is_refused(tmp_path, assignment):
    with pytest.raises(SpecError, match=r"expected KEY=VALUE with a dotted key"):
        read_spec(write(tmp_path, ""), set=[assignment])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sparsity]\nfan_outs = [2]", r"unknown key 'sparsity.fan_outs' \(nearest: fan_out\)"),
        (
            "[training]\nlearning_rate = 1",
            r"unknown key 'training.learning_rate' \(nearest: rate\)",
        ),
        (
            "[training]\nclass_weights = 'foo'",
            r"training.class_weights: expected one of none, balanced, root, or a list of num",
        ),
        ("[trainin]\nepochs = 2", r"unknown key 'trainin' \(nearest: training\)"),
        ("zzz = 2", r"unknown key 'zzz' \(there are: name, seed, data, "),
        (
            "name = 'Two Words'",
            r"name: expected small letters, digits, - and _, .*, got 'Two Words'",
        ),
        ('name = "net\\n"', r"name: expected small letters, digits, - and _, at most 63"),
        ("seed = -1", r"seed: expected `int` >= 0, got -1"),
        ("seed = 4294967296", r"seed: expected `int` <= 4294967295, got 4294967296"),
        ("seed = 99999999999999999999999", r"seed: .*got 99999999999999999999999"),
        ("seed = true", r"seed: expected `int`, got True"),
        ("data = 'mnist'", r"data: expected `table`, got 'mnist'"),
        ("[data]\nvalidation = 0.5", r"data.validation: expected `float` < 0.5, got 0.5"),
        ("[data]\nvalidation = nan", r"data.validation: expected a finite number, got nan"),
        ("[training]\nrate = inf", r"training.rate: expected a finite number, got inf"),
        ("[training]\nrate = '1e-3'", r"training.rate: expected `float`, got '1e-3'"),
        (
            "[training]\nrecipe = 'papers'",
            r"training.recipe: no recipe named 'papers' \(nearest: paper\); there are: default, ",
        ),
        (
            "[model]\nkind = 'mlp'\nlayers = [8, 0, 2]",
            r"model.layers\[1\]: expected `int` >= 1, got 0",
        ),
        ("[model]\nkind = 'mlp'", r"model: missing required field `layers`"),
        ("[model]\nlayers = [8]", r"model.layers: expected `array` of length >= 2, got \[8\]"),
        ("[model]\nkind = 'cnn'\nlayers = [8, 2]", r"model.layers: only kind 'mlp' has it, and"),
        ("[model]\nkind = 'vgg'", r"model.kind: expected one of mlp, cnn, own, got 'vgg'"),
        (
            "[model]\nkind = 'mlp'\nlayers = [8, 2]\nwidth = 3",
            r"model.width: only kind 'cnn' has it, and model.kind is 'mlp'",
        ),
        (
            "[model]\nkind = 'mlp'\nlayers = [8, 2]\nbottleneck = 3",
            r"model.bottleneck: only kind 'cnn' has it",
        ),
        ("[data]\npad_to = 800", r"data.pad_to: expected an mlp, got 800"),
        (
            PAPER.replace("pad_to = 800", "pad_to = 784"),
            r"data.pad_to: expected the first of model.layers, 800, got 784",
        ),
        (
            PAPER.replace("[2, 9, 10]", "[2, 9]"),
            r"sparsity.fan_out: expected one for each of the 3 junctions",
        ),
        (
            PAPER.replace("[2, 9, 10]", "[2, 41, 10]"),
            r"sparsity.fan_out\[1\]: expected 1..40, .*, got 41",
        ),
        (
            PAPER.replace("fan_out", "density = 0.5\nfan_out"),
            r"sparsity: expected the keys of one kind of .*, got density \(of density\) and f",
        ),
        ("[sparsity]\nfan_out = [2]", r"sparsity.fan_out: expected an mlp, got \[2\]"),
        (
            "[sparsity]\nfamily = 'grouped'",
            r"sparsity: expected the keys of one of density, budget, fan_out, got none",
        ),
        (
            "[sparsity.layers]\n'conv*' = 2.0",
            r"sparsity.layers: expected `float` <= 1.0, got {'conv\*': 2.0}",
        ),
        ("[exits]", r"exits: missing required field `after`"),
        ("[exits]\nafter = []", r"exits.after: expected `array` of length >= 1, got \[\]"),
        ("[exits]\nafter = ['a', 'a']", r"exits.after: expected different names"),
        (
            "[exits]\nafter = ['a']\nweights = [1, 2]",
            r"exits.weights: expected one for each of \['a'\], got \[1.0, 2.0\]",
        ),
        ("[start]\nvalues = 'taken'", r"start: missing required field `net`"),
        (
            "[start]\nnet = 'runs/a'\nvalues = 'copied'",
            r"start.values: expected one of taken, fitted, fresh, got 'copied'",
        ),
        (
            "[start]\nnet = 'runs/a'\nconections = 'chosen'",
            r"unknown key 'start.conections' \(nearest: connections\)",
        ),
        (
            "[start]\nnet = 'runs/a'\nconnections = 'drawn'",
            r"start.connections: 'drawn' is said of sparse layers, and there are none: add \[s",
        ),
        (
            "[exits]\nafter = ['a']\nweights = 'best'",
            r"exits.weights: expected auto, or a list of numbers, got 'best'",
        ),
        (
            "[exits]\nafter = ['a']\nhidden = [64, 0]",
            r"exits.hidden: expected one number, or one for each of \['a'\], got \[64, 0\]",
        ),
        ("[exits]\nafter = ['a']\nhidden = -1", r"exits.hidden: expected `int` >= 0, got -1"),
        (
            "[plan]\nmax_drop = 2",
            r"plan.max_drop: expected `float` <= 1.0, got 2",
        ),
        ("name = 'a'\nseed 3", r"not TOML: .*line 2"),
        ("name = 'a'\nseed =", r"not TOML: .*line 2"),
        ("name = 'a'\nname = 'b'", r"not TOML: Cannot overwrite a value \(at line 2"),
        ("seed = " + "9" * 5000, r"not TOML: "),
        ("seed = " + "[" * 5000, r"nested too deeply"),
    ],
)
def test_a_wrong_spec_is_one_sentence_that_names_file_and_key(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(SpecError, match=rf"^{path}: {message}") as caught:
        read_spec(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", '{"seed": NaN}', '{"seed": 1} 2', "[" * 5000])
def test_a_broken_json_spec_is_refused(tmp_path, text):
    with pytest.raises(SpecError, match=r"spec.json: (not JSON|nested too deeply)"):
        read_spec(write(tmp_path, text, name="spec.json"))


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "spec.toml"
    path.write_bytes(b"name = '\xff'")
    with pytest.raises(SpecError, match=r"expected UTF-8 text, got byte 0xff at 8"):
        read_spec(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(
        SpecError, match=r"nowhere.toml: cannot be read \(No such file or directory\)"
    ):
        read_spec(tmp_path / "nowhere.toml")


def test_a_spec_is_frozen():
    with pytest.raises(AttributeError):
        Spec().seed = 1  # type: ignore[misc]


def test_a_spec_can_stand_in_a_manifest():
    builtins = msgspec.to_builtins(spec_from({"model": {"kind": "mlp", "layers": [4, 2]}}))
    assert spec_from(builtins).model.layers == (4, 2)


@pytest.mark.parametrize("key", ["ema", "label_smoothing"])
def test_a_share_that_leaves_nothing_to_learn_is_refused(key: str) -> None:
    with pytest.raises(SpecError, match=f"training.{key}: expected `float` < 1.0, got 1"):
        spec_from({"training": {key: 1.0}})
