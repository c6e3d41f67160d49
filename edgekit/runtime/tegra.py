"""What NVIDIA's tools print on a Jetson, as values: tegrastats, nvpmodel, jetson_clocks. Text in, JSON values out.

Formats differ between releases and boards, so every part is optional and unknown words are passed over. What is not in
the text is not in the answer, or None: never 0. Nothing here raises, whatever the text.
"""

import re

_STAMP = re.compile(r"^(\d\d-\d\d-\d{4} \d\d:\d\d:\d\d)\s")
_RAM = re.compile(r"\bRAM (\d+)/(\d+)MB(?: \(lfb (\d+)x(\d+)(MB|kB)\))?")
_SWAP = re.compile(r"\bSWAP (\d+)/(\d+)MB(?: \(cached (\d+)MB\))?")
_CPU = re.compile(r"\bCPU \[([^\]]*)\]")
# EMC_FREQ 4%@1600, GR3D_FREQ 0%, GR3D_FREQ 12%@[1300,1300], GR3D_FREQ @[1000,1000], and GR3D2_FREQ for a second cluster
_LOAD = r"\b{}_FREQ (?:(\d+)%)?(?:@(?:\[([\d,]+)\]|(\d+)))?"
_EMC = re.compile(_LOAD.format("EMC"))
_GPU = re.compile(_LOAD.format(r"GR3D\d*"))
_TEMPERATURE = re.compile(r"(?:^|\s)([A-Za-z][\w.-]*)@(-?\d+(?:\.\d+)?)C")
# VDD_IN 3056/3056, VDD_GPU_SOC 5139mW/5139mW, and a third value on JetPack 7: now, average, ...
_RAIL = re.compile(r"(?:^|\s)([A-Z][A-Z0-9_]*)\s(\d+)(?:mW)?/(\d+)(?:mW)?(?:/\d+(?:mW)?)?(?=\s|$)")
_MEMORY_WORDS = ("RAM", "SWAP", "IRAM", "NC")
SENSOR_OFF = -256.0
DUMMY_SENSORS = ("PMIC",)  # PMIC@100C, and PMIC-Die in sysfs, is a constant


def parse_tegrastats(line):
    """One line of ``tegrastats``.

    Returns {"time": text, "ram": {"used_mb", "total_mb", "largest_free_mb"}, "swap": {"used_mb", "total_mb"},
    "cpu": [{"load", "mhz"} or None for a core that is off], "emc": {"load", "mhz"}, "gpu": {"load", "mhz": [of each
    cluster]}, "temperatures": {name: degrees Celsius, or None when the sensor is off}, "rails": {name: {"mw",
    "average_mw"}}}. Loads are per cent. A part that the line does not have is None, or empty.
    """
    line = line.strip()
    stamp = _STAMP.match(line)
    return {
        "time": stamp.group(1) if stamp else None,
        "ram": _ram(_RAM.search(line)),
        "swap": _swap(_SWAP.search(line)),
        "cpu": _cores(_CPU.search(line)),
        "emc": _memory_clock(_EMC.search(line)),
        "gpu": _graphics(list(_GPU.finditer(line))),
        "temperatures": _temperatures(line),
        "rails": {
            name: {"mw": int(now), "average_mw": int(average)}
            for name, now, average in _RAIL.findall(line)
            if name not in _MEMORY_WORDS
        },
    }


def _ram(match):
    if match is None:
        return None
    used, total, _, size, unit = match.groups()
    largest = None if size is None else int(size) / (1024.0 if unit == "kB" else 1.0)
    return {"used_mb": int(used), "total_mb": int(total), "largest_free_mb": largest}


def _swap(match):
    return None if match is None else {"used_mb": int(match.group(1)), "total_mb": int(match.group(2))}


def _cores(match):
    if match is None or not match.group(1).strip():
        return []
    cores = []
    for text in match.group(1).split(","):
        core = re.match(r"^\s*(\d+)%(?:@(\d+))?\s*$", text)
        cores.append(None if core is None else {"load": int(core.group(1)), "mhz": _number(core.group(2))})
    return cores


def _memory_clock(match):
    if match is None:
        return None
    clocks = _clocks(match)
    return {"load": _number(match.group(1)), "mhz": clocks[0] if clocks else None}


def _graphics(matches):
    if not matches:
        return None
    loads = [int(m.group(1)) for m in matches if m.group(1) is not None]
    return {"load": max(loads) if loads else None, "mhz": [mhz for m in matches for mhz in _clocks(m)]}


def _clocks(match):
    text = match.group(2) or match.group(3) or ""
    return [int(part) for part in text.split(",") if part]


def _temperatures(line):
    found = {}
    for name, value in _TEMPERATURE.findall(line):
        if not name.startswith(DUMMY_SENSORS):
            found[name] = None if float(value) <= SENSOR_OFF else float(value)
    return found


def _number(text):
    return None if text is None else int(text)


# -- nvpmodel ---------------------------------------------------------------------------------------------------------
def parse_nvpmodel_conf(text):
    """``/etc/nvpmodel.conf``: {"default": id or None, "modes": [{"id", "name", "limits": {"GPU MAX_FREQ": value}}]}.

    Values are integers where they are numbers (Hz, kHz or counts, as the file has them), else text.
    """
    modes = []  # type: list[dict]
    for line in text.splitlines():
        line = line.split("#", 1)[0].strip()
        head = re.match(r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>$", line)
        if head:
            modes.append({"id": int(head.group(1)), "name": head.group(2), "limits": {}})
            continue
        if line.startswith("<"):
            continue
        limit = re.match(r"^(\w+)\s+(\w+)\s+(\S+)$", line)
        if limit and modes:
            modes[-1]["limits"]["{} {}".format(limit.group(1), limit.group(2))] = _value(limit.group(3))
    default = re.search(r"<\s*PM_CONFIG\s+DEFAULT=(\d+)\s*>", text)
    return {"default": int(default.group(1)) if default else None, "modes": modes}


def parse_nvpmodel_modes(text):
    """``nvpmodel -p --verbose``: {"default": id or None, "modes": [{"id", "name"}]}."""
    modes = re.findall(r"POWER_MODEL:\s*ID=(\d+)\s+NAME=(\S+)", text)
    default = re.search(r"PM_CONFIG:\s*DEFAULT=[^(\s]*\((\d+)\)", text)
    return {
        "default": int(default.group(1)) if default else None,
        "modes": [{"id": int(number), "name": name} for number, name in modes],
    }


def parse_nvpmodel_caps(text):
    """``nvpmodel -q --verbose``: {"GPU MAX_FREQ": {"path", "real", "configured"}}.

    The real cap may lie above the configured one, where the clock has no step in between.
    """
    pattern = r"PARAM (\w+): ARG (\w+): PATH (\S+): REAL_VAL: (\S+) CONF_VAL: (\S+)"
    return {
        "{} {}".format(name, argument): {"path": path, "real": _value(real), "configured": _value(configured)}
        for name, argument, path, real, configured in re.findall(pattern, text)
    }


def _value(text):
    return int(text) if re.match(r"^-?\d+$", text) else text


# -- jetson_clocks ----------------------------------------------------------------------------------------------------
def parse_jetson_clocks(text):
    """``jetson_clocks --show``.

    Returns {"soc", "machine", "online": core list, "mode", "fan", "cpu": {core: fields}, "gpu": fields, "emc": fields};
    fields are those of the line in lower case (minfreq, maxfreq, currentfreq, governor, ...): kHz for CPUs, Hz for GPU
    and EMC. What is not in the text is None or empty.
    """
    machine = re.search(r"^SOC family:\s*(\S+)\s+Machine:\s*(.*?)\s*$", text, re.MULTILINE)
    cores = re.findall(r"^cpu(\d+):\s*(.*)$", text, re.MULTILINE)
    return {
        "soc": machine.group(1) if machine else None,
        "machine": machine.group(2) if machine else None,
        "online": _after(text, "Online CPUs"),
        "mode": _after(text, "NV Power Mode"),
        "fan": _after(text, "Fan"),
        "cpu": {int(number): _fields(rest) for number, rest in cores},
        "gpu": _fields(_after(text, "GPU", " ") or ""),
        "emc": _fields(_after(text, "EMC", " ") or ""),
    }


def _after(text, word, separator=":"):
    match = re.search(r"^{}{}\s*(.*?)\s*$".format(re.escape(word), separator), text, re.MULTILINE)
    return match.group(1) if match else None


def _fields(text):
    return {name.lower(): _value(value) for name, value in re.findall(r"(\w+)=(\S+)", text)}
