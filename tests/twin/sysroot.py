"""The twin's files: device tree, L4T release and sysfs of a Jetson TX2, with a device tree that says it is a twin."""

from __future__ import annotations

from pathlib import Path

GPU = "sys/devices/17000000.gp10b/devfreq/17000000.gp10b"
_TREE = {
    "tx2": (
        "quill EdgeKit TX2 twin (simulated)",
        ["edgekit,twin", "nvidia,p2597-0000+p3310-1000", "nvidia,tegra186"],
        "tegra186-quill-p3310-1000-c03-00-base",
        "# R32 (release), REVISION: 7.4, GCID: 33514132, BOARD: t186ref, EABI: aarch64",
    ),
    "nano": (
        "EdgeKit Nano twin (simulated)",
        ["edgekit,twin", "nvidia,p3449-0000-b00+p3448-0000-b00", "nvidia,tegra210"],
        "tegra210-p3448-0000-p3449-0000-b00",
        "# R32 (release), REVISION: 7.4, GCID: 33514132, BOARD: t210ref, EABI: aarch64",
    ),
}
# driver's address, IIO device -> rails in order, with milliwatts
_RAILS = {
    ("0-0041", "iio:device1"): (("VDD_IN", 4312), ("VDD_SYS_CPU", 611), ("VDD_SYS_DDR", 883)),
    ("0-0040", "iio:device0"): (("VDD_SYS_GPU", 1374), ("VDD_SYS_SOC", 687), ("VDD_4V0_WIFI", 38)),
}
_ZONES = (("BCPU-therm", 37500), ("MCPU-therm", 37500), ("GPU-therm", 36000), ("PLL-therm", 37500))
_ZONES += (("Tboard_tegra", 32000), ("Tdiode_tegra", 34250), ("PMIC-Die", 100000), ("thermal-fan-est", 36900))
_MEMINFO = (
    "MemTotal: 8039156 kB\nMemFree: 5800000 kB\nMemAvailable: 6500000 kB\nSwapTotal: 4019568 kB\nSwapFree: 4019568 kB\n"
)
# JetPack's: half of the memory, a part for each core, and all of it zram
_SWAPS = "Filename\t\t\t\tType\t\tSize\tUsed\tPriority\n" + "".join(
    f"/dev/zram{core}                              partition\t669928\t0\t5\n" for core in range(6)
)


def make_sysroot(root: Path, kind: str = "tx2") -> Path:
    """Write the tree of a "tx2" or a "nano" below ``root``."""
    model, compatible, dts, release = _TREE[kind]
    files = {
        "proc/device-tree/model": model + "\0",
        "proc/device-tree/compatible": "".join(entry + "\0" for entry in compatible),
        "proc/device-tree/nvidia,dtsfilename": dts + "\0",
        "proc/meminfo": _MEMINFO,
        "proc/swaps": _SWAPS,
        "etc/nv_tegra_release": release + "\n",
        "usr/local/cuda/version.txt": "CUDA Version 10.2.300\n",
        "usr/src/tensorrt/bin/trtexec": "",
        "var/nvpmodel": "0\n",
        "sys/devices/gpu.0/load": "120\n",
    }
    files |= {f"{GPU}/{name}": f"{hz}\n" for name, hz in _clocks().items()}
    files |= {f"sys/devices/virtual/thermal/thermal_zone{i}/type": f"{n}\n" for i, (n, _) in enumerate(_ZONES)}
    files |= {f"sys/devices/virtual/thermal/thermal_zone{i}/temp": f"{t}\n" for i, (_, t) in enumerate(_ZONES)}
    for (address, device), rails in _RAILS.items():
        files |= _monitor(f"sys/bus/i2c/drivers/ina3221x/{address}", device, rails)
    for core in range(6):
        place = f"sys/devices/system/cpu/cpu{core}"
        files |= {f"{place}/online": "1\n", f"{place}/cpufreq/scaling_cur_freq": "2035200\n"}
        files |= {f"{place}/cpufreq/scaling_governor": "schedutil\n"}
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    _links(root)
    return root


def _clocks() -> dict[str, int | str]:
    steps = [114750000, 318750000, 624750000, 854250000, 1122000000, 1300500000]
    table = " ".join(map(str, steps))
    return {"cur_freq": 114750000, "min_freq": 114750000, "max_freq": 1300500000, "available_frequencies": table}


def _monitor(folder: str, device: str, rails: tuple[tuple[str, int], ...]) -> dict[str, str]:
    files = {f"{folder}/name": "ina3221x\n"}
    for number, (rail, milliwatts) in enumerate(rails):
        values = {"power": milliwatts, "voltage": 19000, "current": milliwatts // 19}
        files |= {f"{folder}/{device}/in_{what}{number}_input": f"{value}\n" for what, value in values.items()}
        files[f"{folder}/{device}/rail_name_{number}"] = f"{rail}\n"
    return files


def _links(root: Path) -> None:
    links = {
        "sys/class/devfreq/17000000.gp10b": root / GPU,
        **{
            f"sys/class/thermal/thermal_zone{i}": root / f"sys/devices/virtual/thermal/thermal_zone{i}"
            for i in range(8)
        },
        **{f"sys/bus/i2c/devices/{a}": root / f"sys/bus/i2c/drivers/ina3221x/{a}" for a, _ in _RAILS},
    }
    for name, target in links.items():
        link = root / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
