"""The shipped profiles: every board of the table is there, whole, and recognised by its device tree."""

import pytest
import yaml

from edgekit.board import Board, board_names, load_board, recognise
from edgekit.conversion.operators import load_operators, operator_tables
from edgekit.hardware import CameraSection, StackSection
from edgekit.runtime.errors import BadConfig, BoardLacks
from edgekit.runtime.onboard import identity

BOARDS = [load_board(name) for name in board_names()]
JETSONS = [board for board in BOARDS if board.kind == "jetson"]


def test_the_boards_that_ship():
    assert {board.name for board in BOARDS} >= {
        "x86-1t",
        "x86",
        "jetson-tx2",
        "jetson-nano",
        "jetson-xavier-nx",
        "jetson-agx-xavier",
        "jetson-orin-nano",
        "jetson-agx-orin",
        "desktop-gpu",
        "raspberry-pi-4",
        "raspberry-pi-5",
    }


@pytest.mark.parametrize("board", JETSONS, ids=lambda b: b.name)
def test_a_jetson_says_everything_that_lint_build_and_bench_ask_for(board):
    assert board.stacks
    assert board.gpu is not None
    assert board.gpu.sm in (53, 62, 72, 87)
    assert board.memory is not None
    assert board.memory.idle_mb + board.memory.overhead_mb + board.memory.workspace_mb < board.memory.total_mb
    assert board.power is not None
    assert board.power.total
    assert board.clocks is not None
    assert board.clocks.gpu
    assert board.camera is not None
    assert board.identity.modules
    assert board.peaks is not None
    assert board.peaks.gflops["fp16"] > board.peaks.gflops["fp32"]
    assert board.input_layouts == ("nchw_float",)  # TensorRT does not transpose UINT8, and before 8.5 has no such input


@pytest.mark.parametrize("board", BOARDS, ids=lambda b: b.name)
def test_what_is_exported_for_a_board_its_first_runtime_takes(board):
    """An export has the first layout. TensorRT refuses the Transpose of raw pixels; a CPU is quicker with them."""
    engines = board.runtimes[0].startswith("tensorrt")
    assert board.input_layouts[0] == ("nchw_float" if engines else "nhwc_uint8")


@pytest.mark.parametrize("runtime", ["cuda", "onnxruntime"])
def test_a_desktop_gpu_without_tensorrt_takes_raw_pixels(runtime):
    load_board("desktop-gpu").require(runtime, "fp32", "nhwc_uint8")


@pytest.mark.parametrize(
    ("name", "int8", "sm"), [("jetson-tx2", False, 62), ("jetson-nano", False, 53), ("jetson-xavier-nx", True, 72)]
)
def test_int8_is_where_the_hardware_has_it(name, int8, sm):
    board = load_board(name)
    assert ("int8" in board.precisions, board.gpu.fast_int8, board.gpu.sm) == (int8, int8, sm)
    if not int8:
        with pytest.raises(BoardLacks, match="no precision 'int8'; it has: fp32, fp16"):
            board.require("tensorrt8", "int8")


@pytest.mark.parametrize("board", BOARDS, ids=lambda b: b.name)
def test_stacks_agree_with_their_operator_tables(board):
    for stack in board.stacks:
        table = load_operators(stack.operators)
        assert stack.runtime in board.runtimes
        assert stack.opset_max >= table.opset_max
        assert board.opset_max <= stack.opset_max
        assert ("uint8" in stack.io_types) == (stack.tensorrt_version >= (8, 5))
        assert (stack.int64_io == "int64") == (stack.tensorrt_version >= (9,)) == table.native_int64
        assert stack.tensorrt_version[:2] >= tuple(int(part) for part in table.tensorrt.split("."))[:2]


@pytest.mark.parametrize(
    ("board", "release", "tensorrt", "name"),
    [
        ("jetson-agx-orin", "35.6.2", "", "JetPack 5.1.3 - 5.1.6"),
        ("jetson-xavier-nx", "35.6.5", "8.5.2.2", "JetPack 5.1.3 - 5.1.6"),
        ("jetson-tx2", "32.7.9", "", "JetPack 4.6.1 - 4.6.6"),
        ("jetson-tx2", "32.6.2", "", "JetPack 4.6"),
        ("jetson-xavier-nx", "35.7.0", "8.5.2.2", "JetPack 5.1.3 - 5.1.6"),
        ("jetson-orin-nano", "36.9.0", "8.6.2.3", "JetPack 6.0"),
    ],
)
def test_a_release_that_is_not_listed_is_taken_for_the_nearest(board, release, tensorrt, name):
    stack, note = load_board(board).stack_for(release, tensorrt)
    assert stack.name == name
    assert note == f"L4T {release} is not among the releases of board {board!r}; taken for {name}"


def test_a_listed_release_has_no_note():
    board = load_board("jetson-xavier-nx")
    assert board.stack_for("35.6.4", "9.9") == (board.stack("35.6.4"), "")
    assert board.stack_for(None)[1] == ""


@pytest.mark.parametrize(
    ("release", "tensorrt"),
    [("35.7.0", ""), ("35.7.0", "8.6.2"), ("35.7.0", "unknown"), ("unknown", ""), ("40.1.0", "8.5.2")],
)
def test_a_release_that_is_near_to_none_is_an_error(release, tensorrt):
    with pytest.raises(BoardLacks, match="has no software stack"):
        load_board("jetson-xavier-nx").stack_for(release, tensorrt)


@pytest.mark.parametrize("release", ["35.6.4", "5.1.6", "35.5.0", "5.1.3"])
@pytest.mark.parametrize("name", ["jetson-xavier-nx", "jetson-agx-xavier", "jetson-orin-nano", "jetson-agx-orin"])
def test_the_last_jetpack_5_is_known_and_called_unconfirmed(name, release):
    stack = load_board(name).stack(release)
    assert (stack.tensorrt, stack.runtime) == ("8.5.2", "tensorrt10")
    assert {"tensorrt", "cuda"} <= set(stack.unconfirmed)


def test_a_stack_is_found_by_release_jetpack_and_name():
    board = load_board("jetson-tx2")
    assert board.stack().tensorrt == "8.2.1.8"
    assert board.stack("32.6.1").tensorrt == "8.0.1.6"
    assert board.stack("4.6.2") is board.stack("32.7.2") is board.stack("JetPack 4.6.1 - 4.6.6")
    assert board.stack("JetPack 4.6.2") is board.stack("R32.7.2") is board.stack("l4t 32.7.2") is board.stack("4.6.2")
    newest = r"JetPack 4\.6\.1 - 4\.6\.6 \(L4T 32\.7\.6, .*\)"
    told = rf"has no software stack '36\.4\.0'; it has: {newest}; JetPack 4\.6 \(L4T 32\.6\.1\)$"
    with pytest.raises(BoardLacks, match=told):
        board.stack("36.4.0")
    with pytest.raises(BoardLacks, match="it has: none"):
        load_board("x86").stack()


@pytest.mark.parametrize(
    ("model", "compatible", "dts", "name"),
    [
        (
            "quill",
            ["nvidia,p2597-0000+p3310-1000", "nvidia,tegra186"],
            "tegra186-quill-p3310-1000-c03-00-base",
            "jetson-tx2",
        ),
        ("quill", [], "", "jetson-tx2"),
        ("NVIDIA Jetson TX2 Developer Kit", ["nvidia,p2771-0000", "nvidia,tegra186"], "", "jetson-tx2"),
        ("", [], "tegra210-p3448-0000-p3449-0000-b00", "jetson-nano"),
        ("", [], "tegra234-p3767-0005-p3768-0000", "jetson-orin-nano"),
        ("", [], "tegra234-p3701-0000-p3737-0000", "jetson-agx-orin"),
        ("", ["nvidia,p3668-0001"], "", "jetson-xavier-nx"),
        ("", [], "tegra194-p2888-0001-p2822-0000", "jetson-agx-xavier"),
        ("Raspberry Pi 4 Model B Rev 1.4", ["raspberrypi,4-model-b", "brcm,bcm2711"], "", "raspberry-pi-4"),
        ("Raspberry Pi 5 Model B Rev 1.0", [], "", "raspberry-pi-5"),
        ("Raspberry Pi 3 Model B", ["raspberrypi,3-model-b"], "", None),
        ("", [], "", None),
        ("quill", [], "tegra186-quill-p3489-1000-a00-00-ucm1", "jetson-tx2"),
        ("quill", ["nvidia,p3489-0000", "nvidia,storm"], "", "jetson-tx2"),
        ("", [], "tegra210-p3448-0002-p3449-0000-b00", "jetson-nano"),
        ("", ["nvidia,p3509-0000+p3668-0000"], "tegra194-p3668-all-p3509-0000", "jetson-xavier-nx"),
        ("", ["nvidia,p3768-0000+p3767-0005-super", "nvidia,tegra234"], "", "jetson-orin-nano"),
        ("", ["nvidia,p3768-0000+p3767-0003", "nvidia,tegra234"], "", "jetson-orin-nano"),
        ("", ["nvidia,p3737-0000+p3701-0005", "nvidia,tegra234"], "", "jetson-agx-orin"),
        ("NVIDIA Jetson AGX Xavier Developer Kit", ["nvidia,p2972-0000", "nvidia,tegra194"], "", "jetson-agx-xavier"),
    ],
)
def test_boards_are_recognised(model, compatible, dts, name):
    found = recognise(model, compatible, dts)
    assert (found.name if found else None) == name


@pytest.mark.parametrize(
    ("model", "compatible", "dts"),
    [
        (
            "NVIDIA Jetson Nano 2GB Developer Kit",
            ["nvidia,p3542-0000+p3448-0003", "nvidia,jetson-nano-2gb", "nvidia,tegra210"],
            "tegra210-p3448-0003-p3542-0000",
        ),
        ("quill", ["nvidia,p2597-0000+p3489-0888", "nvidia,tegra186"], "tegra186-quill-p3489-0888-a00-00-base"),
        ("NVIDIA Jetson TX2 NX Developer Kit", ["nvidia,p3509-0000+p3636-0001"], ""),
        ("NVIDIA Jetson AGX Orin Developer Kit", ["nvidia,p3737-0000+p3701-0004", "nvidia,p3701-0004"], ""),
        ("NVIDIA Jetson Orin Nano Developer Kit", ["nvidia,p3768-0000+p3767-0004", "nvidia,tegra234"], ""),
    ],
)
def test_other_modules_with_the_words_of_a_listed_board_are_none(model, compatible, dts):
    """They have less memory or other clocks, whatever their model's words."""
    assert recognise(model, compatible, dts) is None
    found = {"model": model, "compatible": compatible, "dts": dts, "l4t": "32.7.4"}
    assert [board.name for board in BOARDS if identity.fits(board.identity.model_dump(), found)] == []


def test_one_module_is_of_one_board():
    modules = [module for board in BOARDS for module in board.identity.modules]
    assert len(modules) == len(set(modules))


@pytest.mark.parametrize("board", JETSONS, ids=lambda b: b.name)
def test_camera_strings_take_their_values(board):
    values = {
        "width": 1280,
        "height": 720,
        "size": "",
        "fps": 30,
        "rate": "30/1",
        "sensor_id": 0,
        "device": "/dev/video1",
        "uri": "rtsp://a",
        "flip": 0,
    }
    for text, sized in ((board.camera.csi, True), (board.camera.usb, True), (board.camera.rtsp, False)):
        made = text.format(**values)
        assert "{" not in made
        assert "appsink" in made
        assert ("1280" in made) == sized  # a stream that nobody asked for a size keeps its own
    assert "width=640,height=360,format" in board.camera.rtsp.format(**dict(values, size="width=640,height=360,"))


STACK = {
    "name": "s",
    "tensorrt": "8.2.1",
    "runtime": "tensorrt8",
    "opset_max": 13,
    "operators": "tensorrt-8.2",
    "io_types": ["float32"],
    "int64_io": "int32",
}
BOARD = {
    "name": "b",
    "title": "t",
    "kind": "jetson",
    "runtimes": ["tensorrt8"],
    "precisions": ["fp32"],
    "input_layouts": ["nchw_float"],
}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"runtime": "tensorrt10"}, "TensorRT 8.2.1 is built and run by tensorrt8, not tensorrt10"),
        ({"tensorrt": "8.5.2"}, "by tensorrt10"),
        ({"tensorrt": "11.0", "runtime": "tensorrt10"}, "by tensorrt11"),
        ({"tensorrt": "8.x"}, "pattern"),
        ({"unconfirmed": ["colour"]}, "no such fields: colour"),
        ({"io_types": ["float8"]}, "float32"),
    ],
)
def test_a_stack_that_is_wrong(change, told):
    with pytest.raises(ValueError, match=told):
        StackSection(**{**STACK, **change})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"stacks": [STACK], "runtimes": ["onnxruntime"]}, "a stack runs in tensorrt8; list it in runtimes"),
        (
            {
                "precisions": ["int8"],
                "int8_flavour": "trt",
                "gpu": {"name": "g", "fast_fp16": True, "fast_int8": False},
            },
            "no fast INT8",
        ),
        ({"power": {"driver": "ina3221", "root": "/", "total": ["VDD_IN"]}}, "not among the rails: VDD_IN"),
        ({"camera": {"csi": "x {widht} !"}}, "unknown placeholders widht"),
        ({"camera": {"csi": "x {width !"}}, "not a template"),
    ],
)
def test_a_board_that_is_wrong(change, told):
    with pytest.raises(ValueError, match=told):
        Board(**{**BOARD, **change})


def test_nested_typing_errors_name_the_nearest_key(tmp_path):
    file = tmp_path / "b.yaml"
    file.write_text(yaml.safe_dump({**BOARD, "memory": {"totl_mb": 5}}))
    with pytest.raises(BadConfig, match=r"memory\.totl_mb: unknown key; did you mean total_mb"):
        load_board(file)


# -- operator tables --------------------------------------------------------------------------------------------------
def test_every_table_loads():
    assert {"tensorrt-8.0", "tensorrt-8.2", "tensorrt-8.5", "tensorrt-8.6", "tensorrt-10.1"} <= set(operator_tables())
    for name in operator_tables():
        assert load_operators(name).name == name


@pytest.mark.parametrize(
    ("operator", "since"),
    [("HardSwish", "8.4"), ("GridSample", "8.5"), ("NonZero", "8.5"), ("LayerNormalization", "8.6"), ("Mish", "10.1")],
)
def test_operators_arrive_when_the_documents_say(operator, since):
    tables = [load_operators(name) for name in operator_tables()]
    for table in tables:
        version = tuple(int(part) for part in table.tensorrt.split("."))
        assert (operator in table.operators) == (version >= tuple(int(part) for part in since.split(".")))


def test_class_agnostic_exists_from_8_6_on():
    for name in operator_tables():
        table = load_operators(name)
        known = "class_agnostic" in (table.plugins["EfficientNMS_TRT"] or ())
        assert known == (tuple(int(part) for part in table.tensorrt.split(".")) >= (8, 6))


def test_an_unknown_table_offers_the_nearest():
    with pytest.raises(BadConfig, match=r"no operator table named 'tensorrt-8\.3'\. Did you mean tensorrt-8"):
        load_operators("tensorrt-8.3")


def test_a_camera_section_may_be_empty():
    assert CameraSection().csi is None
