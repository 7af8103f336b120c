"""Configurations are read strictly: what is wrong is named with its file, line and key."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import yaml

from sparsefeat.io.config import config_from_dict, load_config, save_config, to_dict


@dataclass
class Optimizer:
    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.8
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self):
        if self.lr <= 0:
            raise ValueError(f"lr is {self.lr}, expected more than 0")


@dataclass
class Stage:
    angle_deg: float
    steps: int = 100


@dataclass
class Run:
    known: ClassVar[int] = 3
    seed: int = 0
    resume: bool = False
    output: Path = Path("runs")
    scenes: list[str] | None = None
    channels: tuple[int, ...] = (32, 64)
    optimizer: Optimizer = field(default_factory=Optimizer)
    stages: list[Stage] = field(default_factory=list)
    voxel_size: float | Literal["auto"] = "auto"
    validation: Optimizer | None = None
    extra: dict[str, float] = field(default_factory=dict)
    anything: Any = None


@pytest.fixture
def write(tmp_path):
    def write_text(text: str) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return path

    return write_text


def test_an_empty_file_gives_the_defaults(write):
    assert load_config(Run, write("")) == Run()
    assert load_config(Run, write("# only a comment\n")) == Run()


def test_values_become_the_annotated_types(write):
    run = load_config(
        Run,
        write(
            "seed: 3\noutput: a/b\nscenes: [x, on, 'no']\nchannels: [1, 2, 3]\n"
            "optimizer: {name: adamw, lr: 1, betas: [0.5, 1e-1]}\n"
            "stages: [{angle_deg: 35}, {angle_deg: 180, steps: 1e4}]\n"
            "voxel_size: 5e-2\nextra: {a: 1}\n"
        ),
    )
    assert (
        run.output == Path("a/b") and run.scenes == ["x", "on", "no"] and run.channels == (1, 2, 3)
    )
    assert run.optimizer == Optimizer("adamw", 1.0, betas=(0.5, 0.1)) and isinstance(
        run.optimizer.lr, float
    )
    assert run.stages == [Stage(35.0), Stage(180.0, 10000)] and isinstance(run.stages[1].steps, int)
    assert run.voxel_size == 0.05 and run.extra == {"a": 1.0} and isinstance(run.extra["a"], float)


def test_exponents_without_a_point_are_numbers_even_when_another_reader_left_them_text(write):
    assert load_config(Run, write("optimizer:\n  lr: 1e-3\n")).optimizer.lr == 1e-3
    assert yaml.safe_load("lr: 1e-3") == {"lr": "1e-3"}
    assert config_from_dict(Run, {"optimizer": {"lr": "1e-3"}, "seed": "1e2"}).optimizer.lr == 1e-3


def test_a_section_with_all_lines_commented_out_keeps_its_defaults(write):
    assert load_config(Run, write("optimizer:\n  # lr: 1\nseed: 1\n")) == Run(seed=1)


def test_overrides_are_applied_in_order_and_parsed_as_yaml(write):
    path = write("optimizer:\n  lr: 0.5\nstages: [{angle_deg: 35}]\n")
    overrides = [
        "optimizer.lr=1e-2",
        "optimizer.lr=0.2",
        "scenes=[a, b]",
        "stages.0.steps=7",
        "validation.lr=3",
        "seed=4",
    ]
    run = load_config(Run, path, overrides)
    assert run.optimizer.lr == 0.2 and run.scenes == ["a", "b"] and run.stages == [Stage(35.0, 7)]
    assert run.validation == Optimizer(lr=3.0) and run.seed == 4
    assert load_config(Run, path, ["scenes="]).scenes is None
    assert load_config(Run, path, ["output=a=b"]).output == Path("a=b")


def test_an_override_leaves_the_given_dictionary_and_aliased_sections_alone(write):
    data = {"optimizer": {"lr": 0.5}}
    assert config_from_dict(Run, data, overrides=["optimizer.lr=1"]).optimizer.lr == 1
    assert data == {"optimizer": {"lr": 0.5}}
    run = load_config(Run, write("optimizer: &o {lr: 0.5}\nvalidation: *o\n"), ["optimizer.lr=1"])
    assert (run.optimizer.lr, run.validation.lr) == (1.0, 0.5)


def test_saving_and_loading_gives_the_same_configuration_and_plain_yaml(tmp_path):
    run = Run(
        seed=2,
        output=Path("x"),
        scenes=["on", "1e-3", "010", "null", "é", "1:30", ""],
        channels=(1,),
        optimizer=Optimizer(lr=1e-7, betas=(1e16, float("inf"))),
        stages=[Stage(1.0)],
        validation=Optimizer(),
    )
    save_config(tmp_path / "saved.yaml", run)
    assert load_config(Run, tmp_path / "saved.yaml") == run
    assert config_from_dict(Run, yaml.safe_load((tmp_path / "saved.yaml").read_text())) == run
    assert [path.name for path in tmp_path.iterdir()] == ["saved.yaml"]
    assert to_dict(run)["channels"] == [1]


def test_a_file_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ValueError, match="absent.*saved.yaml"):
        save_config(tmp_path / "absent" / "saved.yaml", Run())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "seed: 1\noptimizer:\n  momentun: 0.9\n",
            "run.yaml:3: optimizer.momentun: unknown key; did you mean 'momentum'?",
        ),
        ("sede: 1\n", "run.yaml:1: sede: unknown key; did you mean 'seed'?"),
        ("lr: 1\n", "did you mean 'optimizer.lr'?"),
        ("known: 1\n", "known: unknown key"),
        (
            "stages:\n- {angle_deg: 1}\n- {angle: 1}\n",
            "run.yaml:3: stages[1].angle: unknown key; did you mean 'angle_deg'?",
        ),
        ("stages: [{steps: 1}]\n", "stages[0]: the key 'angle_deg' is required (a number)"),
        ("seed: fast\n", "run.yaml:1: seed: expected an integer, got the text 'fast'"),
        ("seed: 1.5\n", "seed: expected an integer, got 1.5"),
        ("seed: true\n", "seed: expected an integer, got true"),
        ("seed: 010\n", "seed: expected an integer, got the text '010'"),
        ("seed:\n", "seed: expected an integer, got nothing (null)"),
        ("resume: yes\n", "resume: expected true or false, got the text 'yes'"),
        ("resume: 1\n", "resume: expected true or false, got 1"),
        ("optimizer: {lr: .nan}\n", "optimizer.lr: expected a number, got nan"),
        (f"optimizer: {{lr: 1{'0' * 400}}}\n", "optimizer.lr: expected a number, got 1000"),
        ("optimizer: {lr: '0.1'}\n", "optimizer.lr: expected a number, got the text '0.1'"),
        (
            "optimizer: {name: adam}\n",
            "expected one of 'sgd', 'adamw', got the text 'adam'; did you mean 'adamw'?",
        ),
        (
            "optimizer: {betas: [1]}\n",
            "optimizer.betas: expected a list of 2 values (a number, a number), got 1 values: [1]",
        ),
        ("optimizer: {betas: [1, x]}\n", "optimizer.betas[1]: expected a number, got the text 'x'"),
        ("optimizer: 3\n", "optimizer: expected a section with keys, got 3"),
        ("scenes: kitchen\n", "scenes: expected a list (of text each), got the text 'kitchen'"),
        ("output: 3\n", "output: expected a path, got 3"),
        (
            "voxel_size: small\n",
            "voxel_size: expected a number or one of 'auto', got the text 'small'",
        ),
        ("extra: [1]\n", "extra: expected a mapping, got the list [1]"),
        ("optimizer:\n  lr: -1\n", "run.yaml:1: optimizer: lr is -1.0, expected more than 0"),
        ("- 1\n", "run.yaml: expected a section with keys, got the list [1]"),
        ("seed: 1\nseed: 2\n", "run.yaml:2: not valid YAML: the key 'seed' is given twice"),
        ("seed: [1\n", "run.yaml:2: not valid YAML"),
        ("seed: 1\n---\nseed: 2\n", "run.yaml:2: not valid YAML"),
        (
            "seed: !!python/object/apply:os.system ['true']\n",
            "run.yaml:1: not valid YAML: could not determine a constructor",
        ),
        ("1: 2\n", "1: unknown key"),
        ("seed: \x00\n", "run.yaml: not valid YAML"),
    ],
)
def test_wrong_files_say_where_and_what(write, text, said):
    with pytest.raises(ValueError) as error:
        load_config(Run, write(text))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "optimizer.lrr=1",
            "override 'optimizer.lrr=1': optimizer.lrr: unknown key; did you mean 'lr'?",
        ),
        (
            "optimizer.lr=fast",
            "override 'optimizer.lr=fast': optimizer.lr: expected a number, got the text 'fast'",
        ),
        ("optimizer={lr: x}", "override 'optimizer={lr: x}': optimizer.lr: expected a number"),
        ("optimizer.lr", "expected key=value"),
        ("=1", "expected key=value"),
        ("seed.x=1", "override 'seed.x=1': seed is 1, not a section"),
        ("stages.2.steps=1", "stages is a list of 1 items, numbered from 0; '2' is none of them"),
        ("seed=[1", "override 'seed=[1':1: not valid YAML"),
    ],
)
def test_wrong_overrides_are_named(write, override, said):
    path = write("seed: 1\noptimizer:\n  lr: 0.1\nstages: [{angle_deg: 1}]\n")
    with pytest.raises(ValueError) as error:
        load_config(Run, path, [override])
    assert said in str(error.value)


def test_files_that_are_not_there_or_not_text_are_named(tmp_path):
    with pytest.raises(ValueError, match="absent.yaml: cannot read the configuration"):
        load_config(Run, tmp_path / "absent.yaml")
    with pytest.raises(ValueError, match="cannot read the configuration"):
        load_config(Run, tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"seed: \xff")
    with pytest.raises(ValueError, match="not a text file in UTF-8"):
        load_config(Run, tmp_path / "binary.yaml")


def test_values_that_yaml_cannot_hold_are_named():
    with pytest.raises(ValueError, match="anything.a: object values cannot be written"):
        to_dict(Run(anything={"a": object()}))
    with pytest.raises(ValueError, match="expected an instance of a dataclass"):
        to_dict(Run)
