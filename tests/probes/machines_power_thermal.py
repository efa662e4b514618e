"""The power and thermal parts of machines, from documented facts: path → content. Units are the kernel's.

Sources: sysfs-class-power and sysfs-class-thermal of the kernel's ABI documentation, the drivers' documentation under
Documentation/hwmon (coretemp, k10temp), device trees of the boards, NVIDIA's Jetson guide, Raspberry Pi's
documentation.
"""

from __future__ import annotations

from tests.probes.given import FOLDER

Machine = dict[str, object]


def supply(name: str, **attributes: object) -> Machine:
    return {f"/sys/class/power_supply/{name}/{attribute}": value for attribute, value in attributes.items()}


def zone(number: int, kind: object, temp: object, **trips_c: float) -> Machine:
    """A thermal zone with trip points such as ``passive=95, critical=105``; a second of a kind: ``passive_2=85``."""
    folder = f"/sys/class/thermal/thermal_zone{number}"
    out: Machine = {f"{folder}/type": kind, f"{folder}/temp": temp}
    for place, (trip, at_c) in enumerate(trips_c.items()):
        out[f"{folder}/trip_point_{place}_type"] = trip.partition("_")[0]
        out[f"{folder}/trip_point_{place}_temp"] = int(at_c * 1000)
    return out


def cooling(number: int, kind: str, cur: object, most: int = 10) -> Machine:
    folder = f"/sys/class/thermal/cooling_device{number}"
    return {f"{folder}/type": kind, f"{folder}/cur_state": cur, f"{folder}/max_state": most}


def hwmon(number: int, name: str, **attributes: object) -> Machine:
    folder = f"/sys/class/hwmon/hwmon{number}"
    return {f"{folder}/name": name} | {f"{folder}/{attribute}": value for attribute, value in attributes.items()}


def throttle_counts(*counts: tuple[int, int]) -> Machine:
    """Core and package count of each processor."""
    out: Machine = {}
    for cpu, (core, package) in enumerate(counts):
        folder = f"/sys/devices/system/cpu/cpu{cpu}/thermal_throttle"
        out |= {f"{folder}/core_throttle_count": core, f"{folder}/package_throttle_count": package}
    return out


ADAPTER = supply("AC", type="Mains", online=1)
UNPLUGGED = supply("AC", type="Mains", online=0)
MOUSE = supply("hidpp_battery_0", type="Battery", scope="Device", present=1, online=1, status="Discharging", capacity=5)
UPS = supply("ups0", type="UPS", scope="System", status="Discharging", capacity=40, online=1)

DESKTOP: Machine = (
    zone(0, "acpitz", 27800, critical=119)
    | zone(1, "x86_pkg_temp", 41000, passive=0)
    | cooling(0, "Processor", 0)
    | cooling(1, "Fan", 1, 1)
    | cooling(2, "intel_powerclamp", -1, 50)
    | hwmon(
        0,
        "coretemp",
        temp1_label="Package id 0",
        temp1_input=42000,
        temp1_max=80000,
        temp1_crit=100000,
        temp2_label="Core 0",
        temp2_input=39000,
        temp2_max=80000,
        temp2_crit=100000,
    )
    | throttle_counts((0, 0), (0, 0))
)

RYZEN_LAPTOP: Machine = (
    supply(
        "BAT1",
        type="Battery",
        present=1,
        status="Discharging",
        capacity=62,
        charge_now=3_038_000,
        charge_full=4_900_000,
        charge_full_design=5_100_000,
        voltage_min_design=15_480_000,
        voltage_now=15_900_000,
        current_now=1_000_000,
    )
    | supply("ACAD", type="Mains", online=0)
    | supply("ucsi-source-psy-USBC000:001", type="USB", online=0, usb_type="[C] PD PD_PPS")
    | {
        "/sys/firmware/acpi/platform_profile": "balanced",
        "/sys/firmware/acpi/platform_profile_choices": "low-power balanced performance",
    }
    | zone(0, "acpitz", 50050, critical=105)
    | zone(1, "mt7921_phy0", 44000)
    | cooling(0, "Processor", 0)
    | cooling(1, "amdgpu_bl1", 100, 255)
    | hwmon(0, "k10temp", temp1_label="Tctl", temp1_input=51250)
    | hwmon(1, "nvme", temp1_label="Composite", temp1_input=83850, temp1_max=83850, temp1_crit=87850)
    | hwmon(2, "amdgpu", temp1_label="edge", temp1_input=49000)
)

CORE_ULTRA_LAPTOP: Machine = (
    supply(
        "BAT0",
        type="Battery",
        present=1,
        status="Not charging",
        capacity=80,
        energy_now=57_600_000,
        energy_full=72_000_000,
        energy_full_design=75_000_000,
        voltage_min_design=15_400_000,
        voltage_now=16_100_000,
        power_now=0,
    )
    | supply("AC", type="Mains", online=1)
    | supply("ucsi-source-psy-USBC000:001", type="USB", online=1, scope="System")
    | {"/sys/firmware/acpi/platform_profile": "performance"}
    | zone(0, "INT3400 Thermal", 20000)
    | zone(1, "SEN1", 48050, passive=55, critical=100)
    | zone(2, "TCPU", 58000, passive=100, critical=105)
    | zone(3, "iwlwifi_1", 51000)
    | zone(4, "x86_pkg_temp", 59000, passive=52)  # thermald's threshold, near the present temperature
    | cooling(0, "Processor", 0)
    | cooling(1, "TCC Offset", 10, 63)
    | throttle_counts((812, 90211), (0, 90211))
)

#: 20 Wh of 40 Wh, and 1.8 Ah of 2 Ah at 10 V nominal: 18 Wh of 20 Wh. Together 38 of 60 Wh.
OLD_INTEL_LAPTOP: Machine = (
    supply(
        "BAT0",
        type="Battery",
        present=1,
        status="Unknown",
        capacity=50,
        energy_now=20_000_000,
        energy_full=40_000_000,
        power_now=0,
        voltage_now=11_500_000,
    )
    | supply(
        "BAT1",
        type="Battery",
        present=1,
        status="Charging",
        capacity=90,
        charge_now=1_800_000,
        charge_full=2_000_000,
        voltage_min_design=10_000_000,
        voltage_now=12_000_000,
        current_now=500_000,
    )
    | supply("AC", type="Mains", online=1)
    | zone(0, "acpitz", 61000, critical=100, passive=95)
    | zone(1, "x86_pkg_temp", 68000)
    | cooling(0, "Processor", 0)
    | hwmon(0, "coretemp", temp1_label="Package id 0", temp1_input=68000, temp1_max=87000, temp1_crit=105000)
    | throttle_counts((15, 15), (0, 15))
)

JETSON_ORIN: Machine = (
    zone(0, "cpu-thermal", 51843, passive=99, hot=101, critical=104.5)
    | zone(1, "gpu-thermal", 49406, passive=99, critical=104.5)
    | zone(2, "cv0-thermal", -256000, passive=99, critical=104.5)
    | zone(3, "cv1-thermal", -256000, passive=99, critical=104.5)
    | zone(4, "cv2-thermal", -256000, passive=99, critical=104.5)
    | zone(5, "soc0-thermal", 49750, passive=99)
    | zone(6, "tj-thermal", 51843, active=51, critical=104.5)
    | cooling(0, "pwm-fan", 1, 3)
    | cooling(1, "cpufreq-cpu0", 0)
    | cooling(2, "devfreq-17000000.gpu", 0)
    | cooling(3, "cpu-throttle-alert", 0, 1)
)

RASPBERRY_PI_5: Machine = (
    zone(0, "cpu-thermal", 55100, critical=110, active=50)
    | cooling(0, "pwm-fan", 1, 4)
    | hwmon(0, "cpu_thermal", temp1_input=55100)
    | hwmon(1, "rp1_adc", temp1_input=48000)
    | {
        "/sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": "0",
    }
)

RK3588: Machine = (
    zone(0, "package-thermal", 46230, critical=115)
    | zone(1, "bigcore0-thermal", 46230, passive=85, critical=115)
    | zone(2, "gpu-thermal", 45307, passive=85, critical=115)
    | zone(3, "npu-thermal", 44384, critical=115)
    | cooling(0, "cpufreq-cpu0", 0)
    | cooling(1, "devfreq-fb000000.gpu", 0)
    | cooling(2, "pwm-fan", 2, 4)
)

SERVER: Machine = hwmon(
    3,
    "coretemp",
    temp1_label="Package id 0",
    temp1_input=55000,
    temp1_max=93000,
    temp1_crit=103000,
    temp2_label="Core 0",
    temp2_input=54000,
) | throttle_counts((0, 0), (0, 0), (0, 0), (0, 0))

VIRTUAL_MACHINE: Machine = {"/sys/class/thermal": FOLDER, "/sys/class/power_supply": FOLDER}

LAPTOP_WITH_MOUSE_AND_UPS: Machine = (
    MOUSE
    | UPS
    | supply(
        "BAT0",
        type="Battery",
        scope="System",
        present=1,
        status="Full",
        capacity=100,
        energy_now=50_000_000,
        energy_full=50_000_000,
    )
    | ADAPTER
)

#: Energies say 30 %, `capacity` says 97 %.
LYING_CAPACITY: Machine = (
    supply(
        "BAT0",
        type="Battery",
        present=1,
        status="Discharging",
        capacity=97,
        energy_now=15_000_000,
        energy_full=50_000_000,
    )
    | UNPLUGGED
)

#: FOLDER answers a read with an error, as EIO would; the last zone counts.
BROKEN_SENSORS: Machine = (
    zone(0, "cpu0-thermal", FOLDER, passive=95)
    | zone(1, "cpu1-thermal", b"\xff\xfe\x00\x80", passive=95)
    | zone(2, "cpu2-thermal", -44000, passive=95)
    | zone(3, "cpu3-thermal", 65261850, passive=95)
    | zone(4, "cpu4-thermal", 0, passive=95)
    | zone(5, "cpu5-thermal", 45, passive=95)
    | {"/sys/class/thermal/thermal_zone6/type": "cpu6-thermal"}
    | zone(7, b"\x80\x81", 99000, passive=95)
    | zone(8, "cpu8-thermal", 88000, passive=95)
)

MACHINES = {
    "desktop": DESKTOP,
    "ryzen laptop": RYZEN_LAPTOP,
    "core ultra laptop": CORE_ULTRA_LAPTOP,
    "old intel laptop": OLD_INTEL_LAPTOP,
    "jetson orin": JETSON_ORIN,
    "raspberry pi 5": RASPBERRY_PI_5,
    "rk3588": RK3588,
    "server": SERVER,
    "virtual machine": VIRTUAL_MACHINE,
    "mouse and ups": LAPTOP_WITH_MOUSE_AND_UPS,
    "lying capacity": LYING_CAPACITY,
    "broken sensors": BROKEN_SENSORS,
}
