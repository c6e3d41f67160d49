"""Sensors read between frames: scripted ones, and files as the kernel has them."""

import pytest

from edgekit.runtime import telemetry
from edgekit.runtime.telemetry import RaplCounter, Source, Telemetry, rapl_counters, temperature_sources


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def play(values, times, period=0.5):
    """Poll at ``times`` a sensor that gives ``values`` one after the other."""
    clock, left = Clock(), list(values)
    found = Telemetry(None, [Source("clock", "MHz", "script", lambda: left.pop(0))], [], period, clock)
    with found:
        for clock.now in times:
            found.poll()
    return found.told()


def test_it_reads_at_the_beginning_and_once_a_period():
    told = play([100, 200, 300], [0.1, 0.49, 0.5, 0.6, 0.99, 1.0, 1.2])
    (track,) = told["tracks"]
    assert track["values"] == [100, 200, 300]
    assert track["seconds"] == [0.0, 0.5, 1.0]
    assert (track["name"], track["unit"], track["source"]) == ("clock", "MHz", "script")
    assert told["seconds"] == 1.2


def test_what_lies_between_two_parts_is_in_no_sample_no_joule_and_no_second(powercap):
    """The machine's reference runs there: another power, another clock."""
    clock, counter, mhz = Clock(), RaplCounter(str(powercap / "intel-rapl:0")), [1000]
    found = Telemetry(None, [Source("clock", "MHz", "script", lambda: mhz[0])], [counter], 0.5, clock)
    for joules, until in ((1.0, 0.4), (100.0, 50.0), (2.0, 50.3)):
        used = int((powercap / "intel-rapl:0" / "energy_uj").read_text()) + int(joules * 1e6)
        if joules == 100.0:  # nobody looks
            mhz[0], clock.now = 20, until
            (powercap / "intel-rapl:0" / "energy_uj").write_text(str(used % 5_000_000))
            continue
        mhz[0] = 1000
        with found:
            clock.now = until
            (powercap / "intel-rapl:0" / "energy_uj").write_text(str(used % 5_000_000))
            found.poll()
    told = found.told()
    assert told["seconds"] == pytest.approx(0.7)
    assert told["energy"] == [{"source": "RAPL package-0", "joules": pytest.approx(3.0)}]
    assert told["tracks"][0]["values"] == [1000, 1000]
    assert told["tracks"][0]["seconds"] == pytest.approx([0.0, 0.7])


def test_first_and_last_are_the_means_of_the_outer_thirds():
    (track,) = play([10, 20, 30, 40, 50, 60], [1, 2, 3, 4, 5])["tracks"]
    assert (track["first"], track["last"], track["min"], track["max"]) == (15, 55, 10, 60)


def test_what_cannot_be_read_is_left_out_and_never_zero():
    assert play(["unknown"] * 3, [1])["tracks"] == []
    assert play(["unknown", 5, "unknown"], [1, 2])["tracks"][0]["values"] == [5]


def write(folder, **files):
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text + "\n")


@pytest.fixture
def powercap(tmp_path):
    write(tmp_path / "intel-rapl:0", name="package-0", energy_uj="1000000", max_energy_range_uj="5000000")
    write(tmp_path / "intel-rapl:0:0", name="core", energy_uj="1", max_energy_range_uj="5")
    write(tmp_path / "intel-rapl:1", name="package-1", max_energy_range_uj="5000000")  # energy_uj: root only
    write(tmp_path / "intel-rapl:2", name="psys", energy_uj="9000000", max_energy_range_uj="50000000")
    return tmp_path


def test_packages_that_may_be_read_are_counted_and_their_parts_are_not(powercap):
    assert [c.source for c in rapl_counters(str(powercap))] == ["RAPL package-0"]
    assert rapl_counters(str(powercap / "nowhere")) == []


def test_a_counter_that_runs_over(powercap):
    counter = RaplCounter(str(powercap / "intel-rapl:0"))
    counter.start()
    for microjoules in ("4000000", "500000", "700000"):  # + 3 J, + 1.5 J over the end, + 0.2 J
        (powercap / "intel-rapl:0" / "energy_uj").write_text(microjoules)
        counter.poll()
    assert counter.joules == pytest.approx(4.7)


def test_a_counter_that_goes_away_is_unknown(powercap):
    counter = RaplCounter(str(powercap / "intel-rapl:0"))
    counter.start()
    (powercap / "intel-rapl:0" / "energy_uj").unlink()
    counter.poll()
    counter.poll()
    assert counter.joules is None
    clock = Clock()
    found = Telemetry(None, [], [counter], 0.5, clock)
    with found:
        pass
    assert found.told()["energy"] == []


def test_without_one_of_its_packages_a_machine_has_no_energy(tmp_path):
    for n in range(2):
        write(tmp_path / f"intel-rapl:{n}", name=f"package-{n}", energy_uj="1", max_energy_range_uj="9")
    found = Telemetry(None, [], rapl_counters(str(tmp_path)), 0.5, Clock())
    with found:
        pass
    assert len(found.told()["energy"]) == 2
    with found:
        (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    assert found.told()["energy"] == []


def test_the_processors_own_sensor_comes_before_the_zones(tmp_path):
    hwmon, zones = tmp_path / "hwmon", tmp_path / "zones"
    write(zones / "thermal_zone0", type="GPU-therm", temp="41500")
    write(zones / "thermal_zone1", type="broken")
    write(zones / "thermal_zone2", type="PMIC-Die", temp="100000")  # a constant
    write(zones / "thermal_zone3", type="CV0-therm", temp="-256000")  # switched off
    (board,) = temperature_sources(str(hwmon), str(zones))
    assert (board.name, board.unit, board.read()) == ("GPU-therm temperature", "C", 41.5)
    (zones / "thermal_zone0" / "temp").write_text("-256000\n")
    assert board.read() == "unknown"
    write(hwmon / "hwmon0", name="nvme", temp1_input="30000")
    write(hwmon / "hwmon1", name="k10temp", temp1_input="55250")
    (processor,) = temperature_sources(str(hwmon), str(zones))
    assert (processor.name, processor.read()) == ("cpu temperature", 55.25)


def test_this_machine_is_read_without_an_error():
    found = Telemetry(period=0.0)
    with found:
        found.poll()
    told = found.told()
    assert told["seconds"] >= 0
    for track in told["tracks"]:
        assert track["min"] <= track["first"] <= track["max"]
        assert track["unit"] in ("MHz", "C")


def test_the_clock_of_a_machine_that_shows_it(monkeypatch, tmp_path):
    (tmp_path / "khz").write_text("3400000\n")
    monkeypatch.setattr(telemetry.machine, "frequency_file", lambda core: str(tmp_path / "khz"))
    clock = next(s for s in telemetry.machine_sources([0]) if s.name == "cpu clock")
    assert (clock.unit, clock.read()) == ("MHz", 3400.0)
    (tmp_path / "khz").unlink()
    assert clock.read() == "unknown"
