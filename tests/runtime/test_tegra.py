"""Parsers of NVIDIA's tools. The lines are made up, in the formats that tegrastats has from L4T 28 to 39."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.runtime.tegra import (
    parse_jetson_clocks,
    parse_nvpmodel_caps,
    parse_nvpmodel_conf,
    parse_nvpmodel_modes,
    parse_tegrastats,
)

LINES = {
    "tx2, root": (
        "RAM 2101/7852MB (lfb 1033x4MB) SWAP 1/3926MB (cached 0MB) CPU [11%@345,off,off,12%@499,0%@345,3%@346] "
        "EMC_FREQ 5%@1600 GR3D_FREQ 61%@1134 APE 150 PLL@38.5C MCPU@38.5C PMIC@100C Tboard@31C GPU@36C BCPU@38.5C "
        "thermal@37.2C Tdiode@33.75C VDD_SYS_GPU 1524/980 VDD_SYS_SOC 687/691 VDD_4V0_WIFI 0/19 VDD_IN 6056/5101 "
        "VDD_SYS_CPU 305/299 VDD_SYS_DDR 1383/1201"
    ),
    "tx2, fan curve of the memory": (
        "RAM 1111/7852MB (lfb 8x2MB) CPU [1%@350,4%@345,2%@499,1%@341,1%@349,0%@345] EMC_FREQ 17%@40 GR3D_FREQ 0%@114 "
        "APE 150 MTS fg 0% bg 1% PLL@34C PMIC@50C GPU@32C VDD_IN 1901/1888"
    ),
    "tx2, no root": (
        "RAM 6000/7860MB (lfb 1x1MB) CPU [21%@345,off,off,15%@345,15%@345,19%@345] EMC_FREQ 0% GR3D_FREQ 3% "
        "PLL@52C GPU@51.5C VDD_SYS_GPU 194/194 VDD_IN 2144/2145"
    ),
    "nano": (
        "RAM 601/3964MB (lfb 98x4MB) SWAP 6/1982MB (cached 1MB) IRAM 0/252kB(lfb 252kB) CPU [16%@204,9%@204,0%@204] "
        "EMC_FREQ 1%@204 GR3D_FREQ 0%@76 APE 25 PLL@34C CPU@36.5C PMIC@100C GPU@36C AO@39.5C thermal@36.25C "
        "POM_5V_IN 1022/1023 POM_5V_GPU 0/0 POM_5V_CPU 204/205"
    ),
    "orin, jetpack 5": (
        "02-03-2024 06:07:08 RAM 2300/30536MB (lfb 5000x4MB) SWAP 0/15268MB (cached 0MB) CPU [0%@729,3%@729,off,off] "
        "EMC_FREQ 0%@204 GR3D_FREQ 2%@306 GR3D2_FREQ 1%@305 NVJPG1 729 VIC_FREQ 115 APE 233 CV0@-256C CPU@41.437C "
        "Tboard@29C SOC2@39.062C VDD_GPU_SOC 2390mW/2391mW VDD_CPU_CV 796mW/797mW NC 0mW/0mW "
        "VDDQ_VDD2_1V8AO 301mW/302mW"
    ),
    "orin, jetpack 6": (
        "11-12-2024 12:34:56 RAM 3100/30536MB (lfb 6x4MB) SWAP 0/15268MB (cached 0MB) CPU [1%@729,off] "
        "EMC_FREQ 2%@2133 GR3D_FREQ 4%@[305] cpu@47.968C soc0@46.906C tj@47.968C VDD_GPU_SOC 3175mW/3176mW"
    ),
    "orin, jetpack 7": (
        "07-08-2026 09:10:11 RAM 20000/62817MB (lfb 1x2MB) CPU [23%@2201,10%@2201] EMC_FREQ 3%@3199 "
        "GR3D_FREQ 12%@[1300,1301] NVENC0 off VIC off PVA0_FREQ off APE 174 cpu@52.968C/52.968C gpu@47.625C/47.625C "
        "VDD_GPU_SOC 5139mW/5140mW/5141mW VIN_SYS_5V0 5500mW/5501mW/5502mW"
    ),
    "thor": "RAM 9/9MB CPU [1%@10] GR3D_FREQ @[1000,1001,1002] gpu@40C VIN 20000mW/20001mW",
    "kilobytes": "RAM 100/200MB (lfb 512x512kB)",
}


@pytest.mark.parametrize(
    ("name", "path", "expected"),
    [
        ("tx2, root", "ram", {"used_mb": 2101, "total_mb": 7852, "largest_free_mb": 4.0}),
        ("tx2, root", "swap", {"used_mb": 1, "total_mb": 3926}),
        ("tx2, root", "time", None),
        ("tx2, root", "emc", {"load": 5, "mhz": 1600}),
        ("tx2, root", "gpu", {"load": 61, "mhz": [1134]}),
        ("tx2, root", "rails.VDD_IN", {"mw": 6056, "average_mw": 5101}),
        ("tx2, root", "rails.VDD_4V0_WIFI", {"mw": 0, "average_mw": 19}),
        ("tx2, root", "temperatures.Tdiode", 33.75),
        ("tx2, fan curve of the memory", "swap", None),
        ("tx2, fan curve of the memory", "temperatures", {"PLL": 34.0, "GPU": 32.0}),
        ("tx2, no root", "emc", {"load": 0, "mhz": None}),
        ("tx2, no root", "gpu", {"load": 3, "mhz": []}),
        ("nano", "rails.POM_5V_IN", {"mw": 1022, "average_mw": 1023}),
        ("nano", "temperatures.AO", 39.5),
        ("orin, jetpack 5", "time", "02-03-2024 06:07:08"),
        ("orin, jetpack 5", "gpu", {"load": 2, "mhz": [306, 305]}),
        ("orin, jetpack 5", "temperatures.CV0", None),
        ("orin, jetpack 5", "rails.VDDQ_VDD2_1V8AO", {"mw": 301, "average_mw": 302}),
        ("orin, jetpack 6", "gpu", {"load": 4, "mhz": [305]}),
        ("orin, jetpack 6", "temperatures.soc0", 46.906),
        ("orin, jetpack 7", "gpu", {"load": 12, "mhz": [1300, 1301]}),
        ("orin, jetpack 7", "temperatures", {"cpu": 52.968, "gpu": 47.625}),
        ("orin, jetpack 7", "rails.VIN_SYS_5V0", {"mw": 5500, "average_mw": 5501}),
        ("thor", "gpu", {"load": None, "mhz": [1000, 1001, 1002]}),
        ("thor", "rails.VIN", {"mw": 20000, "average_mw": 20001}),
        ("kilobytes", "ram", {"used_mb": 100, "total_mb": 200, "largest_free_mb": 0.5}),
        ("kilobytes", "gpu", None),
        ("kilobytes", "emc", None),
        ("kilobytes", "cpu", []),
    ],
)
def test_tegrastats(name, path, expected):
    value = parse_tegrastats(LINES[name])
    for part in path.split("."):
        value = value[part]
    assert value == expected


def test_cores_that_are_off_keep_their_place():
    cores = parse_tegrastats(LINES["tx2, root"])["cpu"]
    assert [c and c["load"] for c in cores] == [11, None, None, 12, 0, 3]
    assert cores[3] == {"load": 12, "mhz": 499}


@pytest.mark.parametrize("name", LINES)
def test_only_rails_are_rails(name):
    rails = set(parse_tegrastats(LINES[name])["rails"])
    assert not rails & {"RAM", "SWAP", "IRAM", "NC", "APE", "CPU", "EMC_FREQ"}
    assert all(r.startswith(("VDD", "POM", "VIN")) for r in rails)


@given(st.text(max_size=200))
def test_any_text_is_survived_and_invents_no_rail(text):
    found = parse_tegrastats(text)
    assert set(found) == {"time", "ram", "swap", "cpu", "emc", "gpu", "temperatures", "rails"}
    for parse in (parse_nvpmodel_conf, parse_nvpmodel_modes, parse_nvpmodel_caps, parse_jetson_clocks):
        parse(text)


@given(st.integers(0, 300))
def test_a_line_that_is_cut_off_gives_what_is_whole(length):
    whole, cut = parse_tegrastats(LINES["tx2, root"]), parse_tegrastats(LINES["tx2, root"][:length])
    for rail, values in list(cut["rails"].items())[:-1]:
        assert values == whole["rails"][rail]


CONF = """\
# comment
< PARAM TYPE=FILE NAME=CPU_ONLINE >
CORE_1 /sys/devices/system/cpu/cpu1/online
< POWER_MODEL ID=0 NAME=MAXN >
CPU_ONLINE CORE_1 1
CPU_A57 MAX_FREQ 2100000
GPU MAX_FREQ 1400000000   # above what the clock has

< POWER_MODEL ID=3 NAME=MAXP_CORE_ARM >
CPU_ONLINE CORE_1 0
GPU MAX_FREQ 1120000000
EMC MAX_FREQ max
< PM_CONFIG DEFAULT=3 >
"""


def test_nvpmodel_conf():
    found = parse_nvpmodel_conf(CONF)
    assert found["default"] == 3
    assert [(m["id"], m["name"]) for m in found["modes"]] == [(0, "MAXN"), (3, "MAXP_CORE_ARM")]
    assert found["modes"][0]["limits"] == {
        "CPU_ONLINE CORE_1": 1,
        "CPU_A57 MAX_FREQ": 2100000,
        "GPU MAX_FREQ": 1400000000,
    }
    assert found["modes"][1]["limits"]["EMC MAX_FREQ"] == "max"


def test_nvpmodel_lists_its_modes():
    text = "NVPM VERB: ...\nPM_CONFIG: DEFAULT=MAXN(0)\nPOWER_MODEL: ID=0 NAME=MAXN\nPOWER_MODEL: ID=1 NAME=MAXQ\n"
    assert parse_nvpmodel_modes(text) == {"default": 0, "modes": [{"id": 0, "name": "MAXN"}, {"id": 1, "name": "MAXQ"}]}


def test_the_real_cap_is_told_beside_the_configured_one():
    text = (
        "NVPM VERB: PARAM GPU: ARG MAX_FREQ: PATH /sys/devices/17000000.gp10b/devfreq/x/max_freq: "
        "REAL_VAL: 1134750000 CONF_VAL: 1120000000\nNV Power Mode: MAXP_CORE_ARM\n3\n"
    )
    cap = parse_nvpmodel_caps(text)["GPU MAX_FREQ"]
    assert (cap["real"], cap["configured"]) == (1134750000, 1120000000)
    assert cap["path"].endswith("/max_freq")


CLOCKS = """\
SOC family:tegra186  Machine:quill
Online CPUs: 0,3-5
cpu0: Online=1 Governor=schedutil MinFreq=345600 MaxFreq=2035200 CurrentFreq=1881600 IdleStates: C1=1 c7=1
cpu1: Online=0 Governor=schedutil MinFreq=345600 MaxFreq=2035200 CurrentFreq=345600
GPU MinFreq=114750000 MaxFreq=1134750000 CurrentFreq=318750000
EMC MinFreq=40800000 MaxFreq=1600000000 CurrentFreq=1600000000 FreqOverride=0
Fan: speed=80
NV Power Mode: MAXP_CORE_ARM
"""


def test_jetson_clocks():
    found = parse_jetson_clocks(CLOCKS)
    assert (found["soc"], found["machine"], found["online"], found["mode"]) == (
        "tegra186",
        "quill",
        "0,3-5",
        "MAXP_CORE_ARM",
    )
    assert found["cpu"][0]["governor"] == "schedutil"
    assert found["cpu"][1]["online"] == 0
    assert found["gpu"] == {"minfreq": 114750000, "maxfreq": 1134750000, "currentfreq": 318750000}
    assert found["emc"]["freqoverride"] == 0
    assert found["fan"] == "speed=80"


def test_jetson_clocks_that_say_nothing():
    assert parse_jetson_clocks("permission denied") == {
        **dict.fromkeys(("soc", "machine", "online", "mode", "fan")),
        "cpu": {},
        "gpu": {},
        "emc": {},
    }
