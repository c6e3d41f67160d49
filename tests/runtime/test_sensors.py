"""Sensors, read from trees of files as boards have them; what cannot be read is None, never 0."""

import os
import time

import pytest

from edgekit.runtime import sensors
from edgekit.runtime.sensors import Course, Sampler, clocks, find_rails, gpu_folder, temperatures, total_rails


def tree(root, files):
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            file.mkdir()  # cannot be read as a file: what EAGAIN and EINVAL are on a board
        else:
            file.write_text(text)
    return str(root)


IIO = "sys/bus/i2c/drivers/ina3221x/0-004{}/iio:device{}/"
TX2 = {
    IIO.format(1, 1) + "rail_name_0": "VDD_IN\n",
    IIO.format(1, 1) + "in_power0_input": "6056\n",
    IIO.format(1, 1) + "rail_name_1": "VDD_SYS_CPU\n",
    IIO.format(1, 1) + "in_voltage1_input": "19000\n",  # no power file: volts times amperes
    IIO.format(1, 1) + "in_current1_input": "16\n",
    IIO.format(0, 0) + "rail_name_0": "VDD_SYS_GPU\n",
    IIO.format(0, 0) + "in_power0_input": "1524\n",
    IIO.format(0, 0) + "rail_name_1": "VDD_SYS_SOC\n",
    IIO.format(0, 0) + "in_power1_input": "garbage\n",
    IIO.format(0, 0) + "rail_name_2": "NC\n",
    IIO.format(0, 0) + "in_power2_input": "5\n",
    "sys/devices/virtual/thermal/thermal_zone0/type": "GPU-therm\n",
    "sys/devices/virtual/thermal/thermal_zone0/temp": "36500\n",
    "sys/devices/virtual/thermal/thermal_zone1/type": "PMIC-Die\n",
    "sys/devices/virtual/thermal/thermal_zone1/temp": "100000\n",
    "sys/devices/virtual/thermal/thermal_zone2/type": "CV0-therm\n",
    "sys/devices/virtual/thermal/thermal_zone2/temp": "-256000\n",
    "sys/devices/virtual/thermal/thermal_zone3/type": "AO-therm\n",
    "sys/devices/virtual/thermal/thermal_zone3/temp": None,
    "sys/devices/17000000.gp10b/devfreq/17000000.gp10b/cur_freq": "624750000\n",
    "sys/devices/17000000.gp10b/devfreq/17000000.gp10b/max_freq": "1134750000\n",
    "sys/devices/gpu.0/load": "612\n",
    "sys/kernel/debug/bpmp/debug/clk/emc/rate": "1600000000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2035200\n",
    "sys/devices/system/cpu/cpu1/online": "0\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "345600\n",
    "sys/devices/system/cpu/cpu2/online": "1\n",
}
HWMON = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/"
ORIN = {
    HWMON + "name": "ina3221\n",
    **{HWMON + f"in{i}_label": f"{name}\n" for i, name in enumerate(("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), 1)},
    **{HWMON + f"in{i}_input": "5000\n" for i in (1, 2, 3)},
    **{HWMON + f"curr{i}_input": f"{i}00\n" for i in (1, 2, 3)},
    HWMON + "in7_label": "sum of shunt voltages\n",
    HWMON + "in7_input": "12\n",
    "sys/class/devfreq/17000000.ga10b/cur_freq": "306000000\n",
    "sys/class/thermal/thermal_zone0/type": "gpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "47625\n",
}


# -- rails ------------------------------------------------------------------------------------------------------------
def test_rails_of_jetpack_4(tmp_path):
    rails = {rail.name: rail.milliwatts() for rail in find_rails(tree(tmp_path, TX2))}
    assert rails == {"VDD_IN": 6056.0, "VDD_SYS_CPU": 304.0, "VDD_SYS_GPU": 1524.0, "VDD_SYS_SOC": None}


def test_rails_of_jetpack_5(tmp_path):
    rails = {rail.name: rail.milliwatts() for rail in find_rails(tree(tmp_path, ORIN))}
    assert rails == {"VDD_GPU_SOC": 500.0, "VDD_CPU_CV": 1000.0, "VIN_SYS_5V0": 1500.0}


def test_a_monitor_that_is_found_by_two_paths_counts_once(tmp_path):
    root = tree(tmp_path, TX2)
    os.makedirs(tmp_path / "sys/bus/i2c/devices")
    os.symlink(tmp_path / "sys/bus/i2c/drivers/ina3221x/0-0041", tmp_path / "sys/bus/i2c/devices/0-0041")
    assert [rail.name for rail in find_rails(root)].count("VDD_IN") == 1


def test_other_hwmon_drivers_are_no_rails(tmp_path):
    files = {"sys/class/hwmon/hwmon0/name": "nvme\n", "sys/class/hwmon/hwmon0/in1_label": "VDD\n"}
    assert find_rails(tree(tmp_path, {**files, "sys/class/hwmon/hwmon0/curr1_input": "1\n"})) == []


@pytest.mark.parametrize("text", ["", "\n", "abc", "-5", "1.5", "\x00\x00"])
def test_a_rail_that_shows_garbage_is_not_measured(tmp_path, text):
    files = {IIO.format(1, 1) + "rail_name_0": "VDD_IN\n", IIO.format(1, 1) + "in_power0_input": text}
    assert [rail.milliwatts() for rail in find_rails(tree(tmp_path, files))] == [None]


@pytest.mark.parametrize(
    ("names", "wanted", "expected"),
    [
        (["VDD_IN", "VDD_CPU"], (), ["VDD_IN"]),
        (["POM_5V_IN", "POM_5V_GPU"], (), ["POM_5V_IN"]),
        (["A", "B", "C"], ("A", "B"), ["A", "B"]),
        (["A", "B"], ("A", "X"), ["A", "B"]),
        ([], (), []),
    ],
)
def test_what_makes_the_whole_module(names, wanted, expected):
    assert total_rails(names, wanted) == expected


# -- temperatures and clocks ------------------------------------------------------------------------------------------
def test_temperatures(tmp_path):
    assert temperatures(tree(tmp_path, TX2)) == {"GPU-therm": 36.5, "CV0-therm": None, "AO-therm": None}


def test_clocks_of_a_tx2(tmp_path):
    assert clocks(tree(tmp_path, TX2)) == {
        "cpu_mhz": {0: pytest.approx(2035.2), 1: None, 2: None},
        "gpu_mhz": pytest.approx(624.75),
        "gpu_max_mhz": pytest.approx(1134.75),
        "gpu_load": pytest.approx(61.2),
        "emc_mhz": pytest.approx(1600),
    }


def test_the_gpu_is_known_by_the_device_trees_name(tmp_path):
    files = {
        "sys/class/devfreq/devfreq0/device/of_node/name": "gpu\0",
        "sys/class/devfreq/devfreq0/cur_freq": "5",
        "sys/class/devfreq/15340000.vic/cur_freq": "7",
    }
    assert gpu_folder(tree(tmp_path, files)).endswith("devfreq0")


def test_a_machine_that_tells_nothing(tmp_path):
    root = str(tmp_path)
    assert (find_rails(root), temperatures(root), gpu_folder(root)) == ([], {}, None)
    assert clocks(root) == {"cpu_mhz": {}, "gpu_mhz": None, "gpu_max_mhz": None, "gpu_load": None, "emc_mhz": None}


def test_the_root_is_the_environments_where_none_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv(sensors.SYSROOT, tree(tmp_path, ORIN))
    assert temperatures() == {"gpu-thermal": 47.625}


def test_this_machine_can_be_read_whatever_it_is():
    assert isinstance(clocks("/")["cpu_mhz"], dict)
    assert all(value is None or value > 0 for value in clocks("/")["cpu_mhz"].values())


# -- sampling ---------------------------------------------------------------------------------------------------------
def test_a_course_is_integrated_by_trapezoids():
    course = Course()
    for moment, value in ((0.0, 1000.0), (1.0, 3000.0), (3.0, 3000.0)):
        course.add(moment, value)
    assert course.integral() == pytest.approx(8000)
    assert course.summary() == {
        "mean": pytest.approx(8000 / 3),
        "min": 1000.0,
        "max": 3000.0,
        "first": 1000.0,
        "last": 3000.0,
        "samples": 3,
    }


def test_first_and_last_are_the_means_of_the_outer_thirds():
    course = Course()
    for moment, value in enumerate([10.0, 20.0, 30.0, 40.0, 50.0, 60.0]):
        course.add(moment, value)
    assert (course.summary()["first"], course.summary()["last"]) == (15.0, 55.0)


def test_a_single_sample_has_a_mean_and_no_energy(tmp_path):
    sampler = Sampler(10, tree(tmp_path, TX2))
    sampler.sample()
    found = sampler.result()
    assert found["power_mw"]["VDD_IN"]["mean"] == 6056
    assert found["energy_j"] == {}


def test_energy_is_power_over_time(tmp_path):
    """2 W for one second, then 4 W: the clock is turned by hand, and the thread's period is too long to matter."""
    root = tree(tmp_path, {IIO.format(1, 1) + "rail_name_0": "VDD_IN", IIO.format(1, 1) + "in_power0_input": "2000"})
    now = [0.0]
    with Sampler(1000, root, clock=lambda: now[0]) as sampler:
        sampler.sample()
        now[0] = 1.0
        sampler.sample()
        (tmp_path / IIO.format(1, 1) / "in_power0_input").write_text("4000")
        now[0] = 2.0
        sampler.sample()
    found = sampler.result()
    assert found["energy_j"] == {"VDD_IN": pytest.approx(2 + 3), "total": pytest.approx(5)}
    assert found["power_mw"]["total"]["mean"] == pytest.approx(2500)
    assert (found["seconds"], found["total_rails"]) == (2.0, ["VDD_IN"])


def test_a_pause_is_in_no_sample_no_joule_and_no_second(tmp_path):
    """4 W before and after ten seconds with 1 W, which are not looked at, nor is what lies at their ends."""
    root = tree(tmp_path, {IIO.format(1, 1) + "rail_name_0": "VDD_IN", IIO.format(1, 1) + "in_power0_input": "1000"})
    power, now = tmp_path / IIO.format(1, 1) / "in_power0_input", [0.0]
    sampler = Sampler(1000, root, clock=lambda: now[0])
    for _ in range(2):
        sampler.resume()
        sampler.resume()  # once is enough
        now[0] += 1.0
        power.write_text("4000")
        sampler.sample()
        power.write_text("1000")
        sampler.pause()
        sampler.pause()
        now[0] += 10.0
        sampler.sample()
    found = sampler.result()
    assert found["power_mw"]["total"] == dict(dict.fromkeys(("mean", "min", "max", "first", "last"), 4000), samples=2)
    assert (found["seconds"], found["energy_j"]["total"]) == (2.0, pytest.approx(8.0))


def test_the_period_is_one_of_the_time_that_is_watched(tmp_path):
    """Parts that are shorter than a period have their samples too, and none is owed to a pause."""
    sampler = Sampler(0.05, tree(tmp_path, TX2))
    for _ in range(10):
        sampler.resume()
        time.sleep(0.02)
        sampler.pause()
        time.sleep(0.02)
    found = sampler.result()
    assert 0.2 <= found["seconds"] < 0.4
    assert 1 <= found["power_mw"]["VDD_IN"]["samples"] <= found["seconds"] / 0.05


def test_the_total_needs_all_of_its_rails(tmp_path):
    files = dict(ORIN)
    with Sampler(1000, tree(tmp_path, files), total=("VDD_GPU_SOC", "VDD_CPU_CV")) as sampler:
        sampler.sample()
    assert sampler.result()["power_mw"]["total"]["mean"] == pytest.approx(1500)
    (tmp_path / HWMON / "curr2_input").write_text("broken")
    with Sampler(1000, str(tmp_path), total=("VDD_GPU_SOC", "VDD_CPU_CV")) as sampler:
        sampler.sample()
    found = sampler.result()
    assert "total" not in found["power_mw"]
    assert set(found["power_mw"]) == {"VDD_GPU_SOC", "VIN_SYS_5V0"}


def test_the_thread_samples_by_itself_and_ends_with_the_block(tmp_path):
    with Sampler(0.01, tree(tmp_path, TX2)) as sampler:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            seen = sampler.result()["power_mw"].get("VDD_IN", {"samples": 0})["samples"]
            if seen >= 4:
                break
            time.sleep(0.01)
    assert seen >= 4
    after = sampler.result()["power_mw"]["VDD_IN"]["samples"]
    time.sleep(0.05)
    assert sampler.result()["power_mw"]["VDD_IN"]["samples"] == after


def test_a_sensor_that_goes_away_keeps_what_it_told(tmp_path):
    with Sampler(1000, tree(tmp_path, TX2)) as sampler:
        sampler.sample()
        (tmp_path / IIO.format(1, 1) / "in_power0_input").unlink()
        sampler.sample()
    found = sampler.result()
    assert found["power_mw"]["VDD_IN"]["samples"] == 1
    assert found["power_mw"]["VDD_SYS_GPU"]["samples"] == 2


def test_what_is_not_measured_is_named(tmp_path):
    with Sampler(1000, str(tmp_path), clock=lambda: 7.0) as sampler:
        sampler.sample()
    found = sampler.result()
    assert found["not_measured"] == ["power_mw", "temperatures_c", "cpu_mhz", "gpu_mhz", "gpu_load", "emc_mhz"]
    assert (found["power_mw"], found["energy_j"], found["seconds"]) == ({}, {}, 0.0)


@pytest.mark.parametrize("period", [0, -1, float("nan")])
def test_a_period_must_be_positive(period):
    with pytest.raises(ValueError, match="period"):
        Sampler(period)
