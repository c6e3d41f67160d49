"""benchmarks/ablations.py: every row of every table is a network that can be trained; verdicts by hand; a real run."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import ablations
import pytest
import torch
import yaml
from ablation_picture import FOR, OPEN, differences
from ablations import Comparison, Result, Row, Table, compare, load_table, needed, pair_of, recipe_of, table_names
from pydantic import ValidationError
from safetensors.torch import save_file

from edgekit.models.checkpoint import load_weights, weights_file
from edgekit.models.zoo import build
from edgekit.recipe import load_recipe
from edgekit.runtime.artifact import file_sha256, read_artifact
from edgekit.training.tasks import task_of
from tests.training import jobs

SVG = "{http://www.w3.org/2000/svg}"
ROWS = [
    pytest.param(name, row.name, id=f"{name} {row.name}") for name in table_names() for row in load_table(name).rows
]


@cache
def network(name, options, classes):
    """On the meta device; options as JSON: many rows share a network."""
    with torch.device("meta"):
        return build(name, classes, json.loads(options))


def network_of(recipe):
    return network(recipe.model.name, json.dumps(recipe.model.options), len(recipe.classes))


# -- the tables -------------------------------------------------------------------------------------------------------
def test_the_papers_tables_are_there():
    """RefineDetLite 3, RefineDet++ II to IV, Lightweight SSD 3 and 4, Mobile CenterNet 2, CSPNet 2."""
    wanted = {"refinedetlite-3", "refinedetpp-2", "refinedetpp-3", "refinedetpp-4", "lightweight-ssd-3"}
    ours = {
        "edgekit-road",
        "distillation-bccd",
        "distillation-centernet",
        "distillation-refinedet",
        "distillation-road",
        "distillation-refinedetpp",
        "mobile-centernet-2-slim",
    }
    assert set(table_names()) == wanted | ours | {"lightweight-ssd-4", "mobile-centernet-2", "cspnet-2"}
    assert {name: len(load_table(name).rows) for name in ("refinedetlite-3", "cspnet-2")} == {
        "refinedetlite-3": 15,
        "cspnet-2": 10,
    }


@pytest.mark.parametrize(("table", "row"), ROWS)
def test_a_row_is_a_network_that_its_losses_fit(table, row):
    table = load_table(table)
    chosen = table.row(row)
    recipe = recipe_of(table, chosen, teacher=Path("w32-0") if chosen.teacher else None)
    model = network_of(recipe)
    task_of(model, recipe.model.name).check(recipe)
    if chosen.weights:  # another test of that network
        source = network_of(recipe_of(table, table.row(chosen.weights)))
        assert {k: v.shape for k, v in model.state_dict().items()} == {
            k: v.shape for k, v in source.state_dict().items()
        }


@pytest.mark.parametrize("name", table_names())
def test_no_two_rows_of_a_table_are_the_same_experiment(name):
    """What a row sets must change something, or a network is compared with itself."""
    table = load_table(name)
    made = {}
    for row in table.rows:
        recipe = recipe_of(table, row, teacher=Path("w32-0") if row.teacher else None)
        experiment = [recipe.model_dump(mode="json"), row.pseudo]
        made.setdefault(json.dumps(experiment, sort_keys=True), []).append(row.name)
    assert all(len(names) == 1 for names in made.values()), made


def test_settings_that_make_two_rows_one_experiment_are_refused():
    table = load_table("lightweight-ssd-3")
    rows = [table.row("fpn"), table.row("cfpn")]
    ablations.check(table, rows, ["model.name=ssd"])
    with pytest.raises(ablations.BadConfig, match="--set makes the rows fpn and cfpn one experiment"):
        ablations.check(table, rows, ["model={name: ssd, options: {neck: cfpn}}"])


def test_all_rows_of_a_table_see_the_same_images():
    for name in table_names():
        table = load_table(name)
        ablations.check(table, table.rows, ["train.epochs=3"])
    first = table.rows[0]
    unlike = Row(name="x", title="", published=1, set=("train.batch_size=3",))
    ablations.check(table, [first, unlike], [])  # such as its teacher
    with pytest.raises(ablations.BadConfig, match="same images"):
        ablations.check(table, [first, unlike.model_copy(update={"against": first.name})], [])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"against": "b"}, "no other row 'b'"),
        ({"against": "a"}, "no other row 'a'"),
        ({"weights": "a"}, "no row 'a' before it"),
        ({"name": "a b"}, "pattern"),
        ({"sets": []}, "Extra inputs"),
    ],
)
def test_a_wrong_table_is_refused(change, said):
    row = {"name": "a", "title": "", "published": 1.0, **change}
    with pytest.raises(ValidationError, match=said):
        Table(paper="", tested_on="", metric="map", recipe="x", rows=(row,))


def test_one_teacher_serves_the_students_of_all_seeds():
    table = load_table("distillation-refinedetpp")
    assert [needed(table, ("both", seed)) for seed in (0, 1, 7)] == [[("teacher", 0)]] * 3
    assert [pair_of(row, 2) for row in table.rows[:2]] == [("teacher", 0), ("plain", 2)]


# -- the verdict ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("gains", "paper", "mean", "half", "verdict"),
    [
        ((1.0, 2.0, 3.0), 0.5, 2.0, 4.303 * 1.0 / 3**0.5, "cannot tell"),  # 2.0 +- 2.48
        ((2.0, 2.5, 3.0), 0.5, 2.5, 4.303 * 0.5 / 3**0.5, "agrees"),  # 2.5 +- 1.24
        ((2.0, 2.5, 3.0), -0.5, 2.5, 4.303 * 0.5 / 3**0.5, "disagrees"),
        ((-2.0, -2.5, -3.0), -0.5, -2.5, 4.303 * 0.5 / 3**0.5, "agrees"),
        ((2.0, 2.5, 3.0), 0.0, 2.5, 4.303 * 0.5 / 3**0.5, "cannot tell"),
        ((1.0, 1.0), 0.1, 1.0, 0.0, "agrees"),
        ((5.0,), 0.1, 5.0, None, "cannot tell"),
    ],
)
def test_the_verdict_by_hand(gains, paper, mean, half, verdict):
    old = {seed: 0.30 + 0.05 * seed for seed in range(len(gains))}  # seeds differ more than the rows do
    new = {seed: old[seed] + gain / 100 for seed, gain in enumerate(gains)}
    found = compare({**new, 99: 1.0}, old, paper)
    assert found.seeds == len(gains)
    assert found.mean == pytest.approx(mean)
    assert found.half == (pytest.approx(half, abs=1e-9) if half is not None else None)
    assert Comparison(found.seeds, round(found.mean, 9), found.half, found.paper).verdict == verdict


def test_rows_without_a_common_seed_are_not_compared():
    assert compare({0: 0.5}, {1: 0.4}, 1.0) is None


def test_more_seeds_than_are_tabulated_take_the_last_t():
    gains = {seed: 0.01 if seed % 2 else 0.02 for seed in range(30)}
    half = compare(gains, dict.fromkeys(range(30), 0.0), 1.0).half
    assert half == pytest.approx(2.131 * (0.25 * 30 / 29) ** 0.5 / 30**0.5)


@pytest.mark.parametrize(("gain", "verdict"), [(0.02, "helps"), (-0.02, "hurts")])
def test_a_choice_of_ours_has_no_paper(gain, verdict):
    new = {0: 0.3 + gain, 1: 0.4 + 1.1 * gain, 2: 0.5 + gain}
    assert compare(new, {0: 0.3, 1: 0.4, 2: 0.5}, None).verdict == verdict
    assert compare({0: 0.3 + gain}, {0: 0.3}, None).verdict == "cannot tell"


def test_the_table_by_hand():
    rows = (
        Row(name="a", title="plain", published=24.7),
        Row(name="b", title="trick", published=25.7, against="a"),
        Row(name="c", title="broken", published=26.0, against="b"),
    )
    table = Table(paper="Paper, table 9", tested_on="COCO, AP", metric="map", recipe="x", rows=rows)
    results = [Result("a", s, "k", map=0.20 + 0.01 * s, images=640, seconds=3600) for s in range(3)]
    results += [Result("b", s, "k", map=0.23 + 0.01 * s, images=640, seconds=1800) for s in range(3)]
    results += [Result("c", 0, "", failed="no data")]
    text = ablations.markdown(table, results)
    assert "| a | plain | 3 | 21.0 ± 1.0 | - | - | 24.7 | - | - | 1.0 |" in text
    assert "| b | trick | 3 | 24.0 ± 1.0 | a | +3.0 ± 0.0 | 25.7 | +1.0 | agrees | 0.5 |" in text
    assert "Images seen in training: 640.\n\n| row" in text
    assert "640.\nSet for every row: `train.epochs=5 train.lr=0.01`.\n\n| row" in ablations.markdown(
        table, results, ["train.epochs=5", "train.lr=0.01"]
    )
    assert "0.1 of these 1 comparisons would be sure all the same, and at least one of them in 5 %" in text
    assert "Failed:\n- c, seed 0: no data" in text
    assert [line["row"] for line in ablations.lines(table, results)] == ["a", "b"]


def test_classes_by_hand():
    rows = (Row(name="a", title="plain"), Row(name="b", title="trick", against="a"))
    table = Table(paper="Paper", tested_on="nothing", metric="map", recipe="x", rows=rows)
    gains = {"a": (0, 0, 0), "b": (1, 1.5, 2)}  # of cars; one bicycle more or less is chance
    bikes = {"a": (0, 4, 0), "b": (4, 0, 0)}
    results = [
        Result(row, seed, "k", ap50={"car": 0.2 + gains[row][seed] / 100, "bicycle": bikes[row][seed] / 100})
        for row in gains
        for seed in range(3)
    ]
    text = ablations.by_class(table, results)
    assert text.splitlines()[1:] == [
        "| row | AP@0.5 car | AP@0.5 bicycle |",
        "| --- | --- | --- |",
        "| a | 20.0 | 1.3 |",
        "| b | 21.5 (**+1.5 ± 1.2**) | 1.3 (+0.0 ± 9.9) |",
    ]
    assert text in ablations.markdown(table, results)
    assert ablations.by_class(table, []) == ""


def test_the_picture_by_hand():
    rows = (
        Row(name="a", title="plain & old", published=24.0),
        Row(name="b", title="better <here>", published=25.0, against="a"),
        Row(name="c", title="ours", against="a"),
        Row(name="d", title="one seed", published=23.0, against="a"),
    )
    table = Table(paper="Paper, table 9", tested_on="COCO, AP", metric="map", recipe="x", rows=rows)
    gains = {"a": (0, 0, 0), "b": (2, 2.5, 3), "c": (-2, 1, 3), "d": (-1,)}
    results = [
        Result(row, s, "k", map=0.2 + gain / 100) for row, found in gains.items() for s, gain in enumerate(found)
    ]
    picture = differences(ablations.lines(table, results), "mAP")
    texts = ["".join(e.itertext()) for e in ElementTree.fromstring(picture).iter(f"{SVG}text")]
    assert {"better <here>", "ours", "one seed", "+2.5 ± 1.2", "+0.7 ± 6.3", "-1.0", "against a"} <= set(texts)
    assert "plain & old" not in texts  # which is compared with nothing
    assert texts[0].endswith("points of mAP: ours with the 95 % interval over the seeds, and ◇ the paper's")
    marks = [(e.get("stroke"), e.get("fill")) for e in ElementTree.fromstring(picture).iter(f"{SVG}circle")]
    assert marks == [(FOR, FOR), (OPEN, OPEN), (OPEN, "white")]
    places = [float(e.get("cx")) for e in ElementTree.fromstring(picture).iter(f"{SVG}circle")]
    zero = next(float(e.get("x")) for e in ElementTree.fromstring(picture).iter(f"{SVG}text") if e.text == "0")
    assert [(x - zero) / (places[2] - zero) for x in places] == pytest.approx([-2.5, -2 / 3, 1], abs=0.01)
    assert picture.count('fill="none" stroke="#888"') == 2  # the paper's, of the rows that it has
    assert differences(ablations.lines(table, results[:3]), "mAP") is None


# -- a real run -------------------------------------------------------------------------------------------------------
@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A table over a recipe of eight real pictures: a teacher, its student, and the student measured otherwise."""
    recipe = jobs.write_tiny(tmp_path / "data")
    table = {
        "paper": "Nobody's, table 1",
        "tested_on": "nothing",
        "metric": "map50",
        "recipe": str(recipe),
        "set": ["train.epochs=1", "train.validate_every=1", "train.workers=0"],
        "rows": [
            {"name": "big", "title": "teacher", "published": 50.0, "set": ["model.options={head_filters: 64}"]},
            {"name": "small", "title": "student", "published": 40.0, "against": "big", "teacher": "big",
             "set": ["distillation={}"]},
            {"name": "few", "title": "fewer boxes", "published": 39.0, "against": "big", "weights": "big",
             "set": ["model.options={head_filters: 64}", "export.top_k=7"]},
        ],
    }  # fmt: skip
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "tiny-1.yaml").write_text(yaml.safe_dump(table))
    monkeypatch.setattr(ablations, "TABLES", folder)
    return ["--table", "tiny-1", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--seeds", "0"]


def test_data_that_are_not_there_are_said_once_and_nothing_is_begun(tiny, tmp_path, capsys):
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    assert ablations.main(tiny) == 2
    assert capsys.readouterr().err.count("ablations: ") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_tiny_table_is_trained_once_and_read_again(tiny, tmp_path, capsys, monkeypatch, jobs):
    threads = torch.get_num_threads()
    assert ablations.main([*tiny, "--jobs", jobs]) == 0, capsys.readouterr().err
    torch.set_num_threads(threads)
    out = tmp_path / "out" / "tiny-1"
    assert sorted(p.name for p in out.iterdir()) == [
        "big-0", "few-0", "runs.csv", "small-0", "table.csv", "table.md", "table.svg"
    ]  # fmt: skip
    assert not (out / "few-0" / "checkpoint").exists()
    teacher = load_recipe(out / "big-0" / "recipe.yaml")
    model = build(teacher.model.name, 3, teacher.model.options)
    load_weights(model, weights_file(out / "big-0" / "checkpoint"), teacher.classes)
    student = json.loads((out / "small-0" / "checkpoint" / "manifest.json").read_text())
    assert student["parents"]["teacher"]
    monkeypatch.setattr(ablations.trainings, "trained", None)  # nothing is trained any more
    assert ablations.main(tiny) == 0
    assert "| small | student | 1 |" in capsys.readouterr().out


@pytest.mark.slow
def test_a_row_measured_as_it_was_trained_gives_the_trained_figures(tiny, tmp_path, capsys):
    assert ablations.main([*tiny, "--rows", "big"]) == 0, capsys.readouterr().err
    table = load_table("tiny-1")
    trained = json.loads((tmp_path / "out" / "tiny-1" / "big-0" / "result.json").read_text())
    overrides = [f"data.root={tmp_path / 'data'}", "train.seed=0"]
    again = ablations.validate(
        recipe_of(table, table.rows[0], overrides), tmp_path / "out" / "tiny-1" / "big-0" / "checkpoint"
    )
    assert again["map"] == pytest.approx(trained["map"], abs=1e-6)
    assert again["map50"] == pytest.approx(trained["map50"], abs=1e-6)


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--rows", "huge"], 2, "--rows: no huge; there are: big, small, few"),
        (["--set", "train.epoch=3"], 2, "train.epoch: unknown key; did you mean epochs"),
    ],
)
def test_a_mistake_is_said_in_a_line_before_anything_is_trained(tiny, tmp_path, capsys, more, code, said):
    assert ablations.main([*tiny, *more]) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_row_of_a_network_that_was_made_with_other_settings_fails_and_says_so(tiny, capsys):
    assert ablations.main([*tiny, "--rows", "big"]) == 0, capsys.readouterr().err
    assert ablations.main([*tiny, "--rows", "few", "--set", "train.lr=2.0e-3"]) == 1
    assert "big-0/result.json: made with other settings" in capsys.readouterr().out


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A table of a network that ships, what it teaches by its outputs, and what by its labels of other images."""
    recipe = jobs.write_tiny(tmp_path / "data")
    old = jobs.write_tiny(tmp_path / "old")
    torch.manual_seed(0)
    save_file(build("mobile-centernet", 3, {}).state_dict(), old.parent / "weights.safetensors")
    others = tmp_path / "others"
    others.mkdir()
    for image in sorted((jobs.CALIBRATION / "images").iterdir())[:4]:
        shutil.copy(image, others)
    rows = [
        {"name": "old", "title": "as it ships", "shipped": str(old)},
        {"name": "plain", "title": "student"},
        {"name": "taught", "title": "distilled", "against": "plain", "teacher": "old", "set": ["distillation={}"]},
        {"name": "labels", "title": "its labels", "against": "plain", "pseudo": "old"},
    ]
    table = {"paper": "Nobody's, table 2", "tested_on": "nothing", "metric": "map50", "recipe": str(recipe)}
    table |= {"set": ["train.epochs=1", "train.validate_every=1", "train.workers=0"], "rows": rows}
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "tiny-2.yaml").write_text(yaml.safe_dump(table))
    monkeypatch.setattr(ablations, "TABLES", folder)
    places = ["--data", str(tmp_path / "data"), "--unlabelled", str(others), "--out", str(tmp_path / "out")]
    return ["--table", "tiny-2", *places, "--seeds", "0", "1"]


@pytest.mark.slow
def test_a_network_that_ships_teaches_and_labels(shipped, tmp_path, capsys, monkeypatch):
    # an untrained network is sure of nothing; what it labels has to be made up
    def label(source, images, out):
        assert (source / "manifest.json").is_file()
        content = json.loads((tmp_path / "data" / "train.json").read_text())
        names = sorted(file.name for file in images.iterdir())
        content["images"] = [{**i, "file_name": n} for i, n in zip(content["images"], names, strict=False)]
        ids = {image["id"] for image in content["images"]}
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] in ids]
        out.parent.mkdir()
        out.write_text(json.dumps(content))

    monkeypatch.setattr(ablations.edgekit, "label", label)
    assert ablations.main(shipped) == 0, capsys.readouterr().err
    out = tmp_path / "out" / "tiny-2"
    manifests = {
        row: json.loads((out / f"{row}-1" / "checkpoint" / "manifest.json").read_text())
        for row in ("old", "taught", "labels")
    }
    teacher = out / "old-1" / "checkpoint" / "weights.safetensors"
    assert manifests["taught"]["parents"]["teacher"] == file_sha256(teacher)
    sources = manifests["labels"]["recipe"]["data"]["sources"]
    labeller = read_artifact(out / "old-1" / "checkpoint").digest  # retrained, it would label anew
    assert Path(sources["pseudo"]["train"]).name == f"pseudo-{labeller[:12]}.json"
    assert sources["pseudo"]["repeat"] == sources["labelled"]["repeat"] == pytest.approx(8 / 12)
    stored = {row: json.loads((out / f"{row}-1" / "result.json").read_text()) for row in ("plain", "labels", "old")}
    assert stored["labels"]["images"] == stored["plain"]["images"] == 8
    assert stored["old"]["images"] == 0
    said = capsys.readouterr().out
    assert "| old | as it ships | 1 | " in said  # one network, however many seeds
    assert "| labels | its labels | 2 | " in said


def test_labels_for_nothing_are_refused(shipped, tmp_path, capsys):
    options = [word for word in shipped if word not in ("--unlabelled", str(tmp_path / "others"))]
    assert ablations.main([*options, "--rows", "old", "labels"]) == 1
    assert "row labels needs images that nobody labelled: --unlabelled FOLDER" in capsys.readouterr().out


@pytest.mark.parametrize(("row", "needed"), [("few", "big"), ("small", "big")])
def test_a_row_whose_network_is_missing_fails_and_says_so(tiny, capsys, row, needed):
    assert ablations.main([*tiny, "--rows", row]) == 1
    assert f"row {needed}, seed 0, is not there" in capsys.readouterr().out
