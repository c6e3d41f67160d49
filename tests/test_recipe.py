"""Recipes: every problem at once, nearest names, overrides, and what belongs together."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.config import parse_yaml
from edgekit.recipe import Recipe, load_recipe, recipe_names
from edgekit.runtime.errors import BadConfig

MINIMAL = """
name: mine
classes: [car, bike]
model: {name: mobile-centernet}
preprocess: {size: [96, 64]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    return path


def problems(file: Path, text: str = "", overrides: list[str] | None = None) -> str:
    """The message of the error that ``text``, added to a good recipe, causes."""
    file.write_text(MINIMAL + text, encoding="utf-8")
    with pytest.raises(BadConfig) as error:
        load_recipe(file, overrides)
    return str(error.value)


# -- defaults ---------------------------------------------------------------------------------------------------------
def test_the_papers_settings_are_the_defaults(file: Path) -> None:
    recipe = load_recipe(file)
    loss, train = recipe.loss, recipe.train
    assert (loss.alpha, loss.beta, loss.gamma, loss.max_weight) == (2, 4, 0.75, 10)
    assert (loss.size, loss.offset, loss.balanced) == (0.1, 1, True)
    assert (train.epochs, train.lr, train.schedule.kind, train.schedule.drops) == (60, 1e-3, "step", (45, 55))
    assert recipe.folder == file.parent


def test_a_recipe_survives_its_manifest(file: Path) -> None:
    """What a checkpoint's manifest holds is a recipe again; where the file lay is no part of it."""
    recipe = load_recipe(file, ["train.init=some/weights", "loss.radius=cornernet"])
    dumped = recipe.model_dump(mode="json")
    assert not {"folder", "measured"} & dumped.keys()
    assert Recipe.model_validate(dumped).model_dump(mode="json") == dumped


def test_what_lies_beside_a_recipe_and_is_read_after_training_has_a_whole_path(file: Path) -> None:
    for place in ("calib", "val", "dhaka-eval", "data"):
        (file.parent / place).mkdir()
    (file.parent / "map.yaml").touch()
    sources = "{roads: {val: val.json, class_map: map.yaml}, val: {val: val.json, class_map: bdd100k-traffic}}"
    more = [f"data={{root: data, sources: {sources}}}", "quantize.calibration=calib", "evaluation=./dhaka-eval"]
    here = file.parent.resolve()
    recipe = load_recipe(file, more)
    assert recipe.data is not None
    assert recipe.quantize is not None
    assert (recipe.quantize.calibration, recipe.evaluation) == (str(here / "calib"), str(here / "dhaka-eval"))
    assert (recipe.data.root, recipe.data.sources["roads"].root) == (str(here / "data"), ".")
    assert recipe.data.sources["roads"].class_map == str(here / "map.yaml")
    assert recipe.data.sources["val"].class_map == "bdd100k-traffic"
    # a source, a shipped set, what lies elsewhere and what is whole stay as they are written
    for name in ("val", "dhaka-eval", "somewhere/else.json", "~/data", str(here / "calib")):
        assert load_recipe(file, [*more, f"evaluation={name}"]).evaluation == name


# -- wrong files ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("trian: {epochs: 3}", ["trian", "unknown key", "did you mean train"]),
        ("train: {epoch: 3}", ["train.epoch", "did you mean epochs"]),
        ("train: {schedule: {warmup: 3}}", ["train.schedule.warmup", "warmup_steps"]),
        ("loss: {gama: 1}", ["loss.gama", "did you mean gamma"]),
        ("teacher: {recipe: a, weight: b}\ndistillation: {}", ["teacher.weight", "did you mean weights"]),
        ("epochs: 3", ["epochs: unknown key; did you mean train.epochs?"]),
        ("train: {momentum: 0.9}", ["train.momentum: unknown key; did you mean train.optimizer.momentum?"]),
        ("augment: {policy:ssd}", ["unknown key; YAML wants a space behind a colon: policy: ssd"]),
        ("export: {zzz: 1}", ["export.zzz", "known keys: top_k, opset"]),
        ("anchor_loss: {boxs: giou}", ["anchor_loss.boxs", "did you mean box"]),
        ("anchor_loss: {iou_guided: {alfa: 1}}", ["anchor_loss.iou_guided.alfa", "did you mean alpha"]),
        ("yolo_loss: {ignor: 1}", ["yolo_loss.ignor", "did you mean ignore"]),
    ],
)
def test_an_unknown_key_offers_the_nearest(file: Path, text: str, words: list[str]) -> None:
    message = problems(file, text)
    for word in [str(file), *words]:
        assert word in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: {epochs: 0}", ["train.epochs", "greater than or equal to 1"]),
        ("train: {lr: .inf}", ["train.lr", "finite"]),
        ("train: {ema: 1.0}", ["train.ema", "less than 1"]),
        ("train: {precision: int8}", ["train.precision", "'fp32'", "'bf16'"]),
        ("augment: {scale: [1.5, 0.5]}", ["augment.scale", "[lowest, highest]"]),
        ("augment: {crop: [100, 64]}", ["augment.crop", "divisible by 32", "100x64"]),
        ("train: {epochs: two}", ["train.epochs: should be a valid integer, found 'two'"]),
        (
            "augment: {crop: [128, 64]}",
            [
                "augment.crop 128x64 is larger than preprocess.size 96x64: "
                "augment.crop=null, or at most augment.crop=[96, 64]"
            ],
        ),
        ("export: {top_k: 5000}", ["export.top_k", "3840"]),
        ("teacher: {recipe: a, weights: b}", ["teacher and distillation go together"]),
        ("distillation: {pair: 1}", ["teacher and distillation go together"]),
        ("distillation: {pair: -1}\nteacher: {recipe: a, weights: b}", ["distillation.pair"]),
        ("distillation: {pair: 0, pixel: 0}\nteacher: {weights: b}", ["every term of distillation is 0"]),
        (
            "distillation: {pair: 0, pixel: 0, features: [{student: a, teacher: b}]}\nteacher: {weights: b}",
            ["every term of distillation is 0"],
        ),
        ("anchor_loss: {box: giuo}", ["anchor_loss.box", "'giou'"]),
        ("anchor_loss: {negative: 0.6}", ["negative 0.6 is above positive 0.5"]),
        ("anchor_loss: {classification: focal, iou_guided: {}}", ["iou_guided replaces cross-entropy"]),
        ("anchor_loss: {gamma: 1.5}", ["gamma of the focal loss, which needs classification: focal"]),
        ("anchor_loss: {balanced: true, box_weight: 2}", ["box_weight beside balanced"]),
        ("train: {multiscale: {sizes: [[96, 60]]}}", ["train.multiscale.sizes", "divisible by 32", "96x60"]),
        ("train: {optimizer: {kind: adagrad}}", ["train.optimizer.kind", "'rmsprop'"]),
    ],
)
def test_values_out_of_range_are_named(file: Path, text: str, words: list[str]) -> None:
    message = problems(file, text)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[96, 64]", "[100, 64]", ["preprocess.size", "divisible by 32", "100x64"]),
        ("[96, 64]", "[96]", ["preprocess.size: needs [width, height] in pixels, such as [256, 256], found [96]"]),
        ("[96, 64]", "128", ["preprocess.size: needs [width, height] in pixels, such as [256, 256], found 128"]),
        ("[car, bike]", "car", ["classes: should be a list, found 'car'"]),
        ("[car, bike]", "[car, bike, car]", ["classes", "car appears twice"]),
        ("[car, bike]", "[]", ["classes"]),
        ("[car, bike]", '["car\\nbike"]', ["classes.0"]),
        ("name: mine", "", ["name", "required"]),
        ("model: {name: mobile-centernet}", "model: mobile-centernet", ["model"]),
    ],
)
def test_required_values(file: Path, old: str, new: str, words: list[str]) -> None:
    file.write_text(MINIMAL.replace(old, new), encoding="utf-8")
    with pytest.raises(BadConfig) as error:
        load_recipe(file)
    for word in words:
        assert word in str(error.value)


def test_imagenets_means_are_in_the_order_of_the_colours(file: Path) -> None:
    bgr = load_recipe(file).preprocess
    rgb = load_recipe(file, ["preprocess.colour=rgb"]).preprocess
    assert (rgb.mean, rgb.std) == (bgr.mean[::-1], bgr.std[::-1])
    assert load_recipe(file, ["preprocess.colour=rgb", "preprocess.mean=[1, 2, 3]"]).preprocess.mean == (1, 2, 3)


def test_all_problems_are_told_at_once(file: Path) -> None:
    message = problems(file, "trian: {}\nloss: {alpha: -1, gama: 2}\ntrain: {epochs: many}")
    assert "4 problems" in message
    for word in ("trian", "loss.alpha", "loss.gama", "train.epochs"):
        assert word in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"name: [", ["not valid YAML"]),
        (b"- a\n- b\n", ["expected a mapping", "list"]),
        (b"", ["expected a mapping"]),
        (b"name: \xff\xfe", ["not valid YAML"]),
        (MINIMAL.encode() + b"folder: /somewhere\n", ["folder: unknown key"]),
        (b"train: {lr: 1}\nname: a\ntrain: {epochs: 1}\n", ["key 'train' is there twice", "line 3"]),
        (b"train: {lr: 1, 'lr': 2}\n", ["key 'lr' is there twice"]),
        (b"a: [{b: 1, b: 2}]\n", ["key 'b' is there twice"]),
    ],
)
def test_files_that_are_no_recipes(file: Path, content: bytes, words: list[str]) -> None:
    file.write_bytes(content)
    with pytest.raises(BadConfig) as error:
        load_recipe(file)
    for word in [str(file), *words]:
        assert word in str(error.value)


def test_a_merged_mapping_may_be_changed_by_its_own_keys() -> None:
    text = "base: &base {a: 1, b: 2}\nnext: &next {<<: *base, b: 3}\nlast: {<<: *next, b: 4, a: 5}\n"
    assert parse_yaml(text) == {"base": {"a": 1, "b": 2}, "next": {"a": 1, "b": 3}, "last": {"a": 5, "b": 4}}


# -- overrides --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("train.epochs=3", "train", "epochs", 3),
        ("train.lr=1e-4", "train", "lr", 1e-4),
        ("train.init=runs/a=b", "train", "init", "runs/a=b"),
        ("augment.crop=[64, 32]", "augment", "crop", (64, 32)),
        ("augment.crop=null", "augment", "crop", None),
        ("loss.balanced=false", "loss", "balanced", False),
        ("preprocess.size=[128, 96]", "preprocess", "size", (128, 96)),
    ],
)
def test_an_override_changes_one_value(file: Path, override: str, section: str, key: str, value: object) -> None:
    before, after = load_recipe(file), load_recipe(file, [override])
    assert getattr(getattr(after, section), key) == value
    old, new = before.model_dump(), after.model_dump()
    old[section].pop(key), new[section].pop(key)
    assert old == new


def test_overrides_make_sections_and_the_last_one_wins(file: Path) -> None:
    recipe = load_recipe(file, ["data.root=/a", "data.train=x.json", "data.root=/b", "train.schedule.kind=cosine"])
    assert recipe.data is not None
    assert (recipe.data.root, recipe.data.train) == ("/b", "x.json")
    assert recipe.train.schedule.kind == "cosine"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.epochs", ["key=value"]),
        ("=3", ["key=value"]),
        ("train epochs=3", ["key=value"]),
        ("name.first=3", ["'name' is not a section"]),
        ("train.lr=[1", ["not valid YAML"]),
        ("name=\udcff", ["not valid YAML"]),  # a byte on the command line that is no text
        ("train.epohcs=3", ["train.epohcs", "did you mean epochs"]),
        ("train.epochs=none", ["train.epochs"]),
    ],
)
def test_wrong_overrides(file: Path, override: str, words: list[str]) -> None:
    message = problems(file, overrides=[override])
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "overrides", "first", "lines"),
    [
        ("", ["train.epochs=two"], "train.epochs=two on the command line, for {}: 1 problem", ["found 'two'"]),
        (
            "augment: {crop: [96, 64]}",
            ["train.lr=1", "preprocess.size=[64, 64]"],
            "preprocess.size=[64, 64] on the command line, for {}: 1 problem",
            ["recipe: augment.crop 96x64 is larger"],
        ),
        (
            "loss: {alpha: -1}",
            ["train.schedule=fast"],
            "{}: 2 problems",
            ["loss.alpha: should be greater than 0, found -1\n", "(by train.schedule=fast on the command line)"],
        ),
    ],
)
def test_what_the_command_line_changed_is_not_blamed_on_the_file(
    file: Path, text: str, overrides: list[str], first: str, lines: list[str]
) -> None:
    message = problems(file, text, overrides=overrides)
    assert message.splitlines()[0] == first.format(file)
    for line in lines:
        assert line in message + "\n"


# -- places -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.epochs=true", "train.epochs: should be a number, found True"),
        ("train.lr=on", "train.lr: should be a number, found True"),
        ("preprocess.mean=[yes, 0, 0]", "preprocess.mean: should be a number"),
        ("preprocess.mean=[.nan, 0, 0]", "should be a finite number, found nan"),
        ("train.lr=.inf", "train.lr: should be a finite number, found inf"),
        ("train.epochs=1:30", "train.epochs: should be a valid integer, found '1:30'"),
    ],
)
def test_what_no_number_can_mean_is_refused(file: Path, override: str, said: str) -> None:
    with pytest.raises(BadConfig) as caught:
        load_recipe(file, [override])
    assert said in str(caught.value)


def test_a_number_with_zeros_before_it_is_decimal(file: Path) -> None:
    """To YAML 1.1 it would be octal, or a text where a digit is 8 or 9."""
    assert [load_recipe(file, [f"train.epochs={text}"]).train.epochs for text in ("010", "08", "1_0")] == [10, 8, 10]


def test_a_recipe_by_folder_file_and_name(file: Path) -> None:
    assert load_recipe(file.parent) == load_recipe(file)
    name = recipe_names()[0]
    assert load_recipe(name).name == name


def test_an_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(BadConfig) as error:
        load_recipe("mobile-centernet-w16-daka")
    assert "mobile-centernet-w16-dhaka" in str(error.value)


def test_paths_are_looked_for_beside_the_recipe_first(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(file)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("HOME", str(elsewhere))
    assert recipe.resolve("weights") == elsewhere / "weights"
    (file.parent / "weights").touch()
    assert recipe.resolve("weights") == file.parent / "weights"
    assert recipe.resolve("~/weights") == elsewhere / "weights"


# -- the shipped recipes ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_is_whole(name: str) -> None:
    """Its name is its folder's, its head shows its command, and its teacher fits it."""
    recipe = load_recipe(name)
    assert recipe.name == name == recipe.folder.name
    assert recipe.description
    head = (recipe.folder / "recipe.yaml").read_text(encoding="utf-8").split("name:")[0]
    assert f"edgekit train {name}" in head
    if recipe.teacher is not None:
        teacher = load_recipe(recipe.teacher.recipe)
        assert teacher.classes == recipe.classes
        assert teacher.preprocess == recipe.preprocess


def test_bdd100k_recipes_are_the_papers() -> None:
    """Mobile CenterNet, section 4.1."""
    for name in ("mobile-centernet-w16", "mobile-centernet-w32"):
        recipe = load_recipe(name)
        assert len(recipe.classes) == 10
        assert recipe.preprocess.size == (576, 320)
        assert recipe.preprocess.mode == "stretch"
        assert recipe.train.epochs == 60
        assert recipe.train.schedule.drops == (45, 55)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (["augment.policy=ssd", "augment.scale=[0.5, 2]"], "policy ssd has no scale"),
        (["augment.max_expand=2"], "policy centernet has no max_expand"),
        (["augment.policy=yolo"], "policy"),
        (["augment.mosaic=2"], "mosaic"),
        (["data.layout=vox"], "layout"),
    ],
)
def test_augmentation_and_data_of_one_kind(override: list[str], said: str) -> None:
    with pytest.raises(BadConfig, match=said):
        load_recipe("mobile-centernet-w16", override)
