"""Machines by what their kernels show of GPUs and NPUs, from the drivers' documentation."""

from __future__ import annotations

from tests.probes.given import FOLDER, Files, Link

GIB = 2**30
PCI = "/sys/bus/pci/devices"
DRM = "/sys/class/drm"


def pci(bus: str, class_code: int, vendor: int, device: int, driver: str | None = None, **more: object) -> Files:
    at = f"/sys/devices/pci0000:00/{bus}"
    files: Files = {
        f"{at}/class": f"0x{class_code:06x}",
        f"{at}/vendor": f"0x{vendor:04x}",
        f"{at}/device": f"0x{device:04x}",
        f"{at}/power/runtime_status": "active",
        f"{PCI}/{bus}": Link(f"../../../devices/pci0000:00/{bus}"),
    }
    uevent = [f"PCI_CLASS={class_code:X}", f"PCI_ID={vendor:04X}:{device:04X}", f"PCI_SLOT_NAME={bus}"]
    if driver is not None:
        files[f"{at}/driver"] = Link(f"../../../bus/pci/drivers/{driver}")
        uevent.insert(0, f"DRIVER={driver}")
    files[f"{at}/uevent"] = "\n".join(uevent)
    for path, content in more.items():
        files[f"{at}/{path.replace('__', '/')}"] = content
    return files


def soc(name: str, driver: str | None, compatible: str = "", **more: object) -> Files:
    at = f"/sys/devices/platform/{name}"
    uevent = [f"OF_COMPATIBLE_0={compatible}"] if compatible else [f"MODALIAS=platform:{name}"]
    files: Files = {f"{at}/uevent": "\n".join([*([f"DRIVER={driver}"] if driver else []), *uevent])}
    if driver:
        files[f"{at}/driver"] = Link(f"../../../bus/platform/drivers/{driver}")
    for path, content in more.items():
        files[f"{at}/{path.replace('__', '/')}"] = content
    return files


def card(number: int, device: str, render: int | None = None, *, node: bool = True) -> Files:
    """A card, with a connector beside it; `device` is a PCI address or a platform device's name."""
    where = "pci0000:00" if device.count(":") == 2 else "platform"
    files: Files = {
        f"{DRM}/card{number}/device": Link(f"../../../devices/{where}/{device}"),
        f"{DRM}/card{number}-HDMI-A-1/status": "connected",
    }
    if render is not None:
        files[f"{DRM}/renderD{render}/device"] = Link(f"../../../devices/{where}/{device}")
        if node:
            files[f"/dev/dri/renderD{render}"] = ""
    return files


def accel(number: int, device: str) -> Files:
    where = "pci0000:00" if device.count(":") == 2 else "platform"
    return {
        f"/sys/class/accel/accel{number}/device": Link(f"../../../devices/{where}/{device}"),
        f"/dev/accel/accel{number}": "",
    }


def vulkan(*names: str) -> Files:
    return {f"/usr/share/vulkan/icd.d/{name}": "{}" for name in names}


HOST_BRIDGE = pci("0000:00:00.0", 0x060000, 0x8086, 0x1237)
LAVAPIPE = vulkan("lvp_icd.x86_64.json")

NVIDIA = {
    **HOST_BRIDGE,
    **pci("0000:01:00.0", 0x030000, 0x10DE, 0x2684, "nvidia"),
    **pci("0000:01:00.1", 0x040300, 0x10DE, 0x22BA, "snd_hda_intel"),
    **card(0, "0000:01:00.0", 128),
    **vulkan("nvidia_icd.json"),
    **LAVAPIPE,
    "/dev/nvidiactl": "",
}
NVIDIA_DRIVERLESS = {
    **pci("0000:01:00.0", 0x030000, 0x10DE, 0x2684),
    **soc("simple-framebuffer.0", "simple-framebuffer"),
    **card(0, "simple-framebuffer.0"),
    **LAVAPIPE,
}

NVIDIA_NO_CARD = {**pci("0000:01:00.0", 0x030200, 0x10DE, 0x20B5, "nvidia"), "/dev/nvidiactl": ""}
NVIDIA_VFIO = pci("0000:01:00.0", 0x030000, 0x10DE, 0x2684, "vfio-pci")
VIRTUAL_FUNCTIONS = {
    **pci("0000:17:00.0", 0x030200, 0x10DE, 0x2235, "nvidia"),
    **pci("0000:17:00.4", 0x030200, 0x10DE, 0x2235),
    **pci("0000:17:01.0", 0x030200, 0x10DE, 0x2235, physfn=Link("../0000:17:00.0")),
}
#: As a copy that did not keep links has it.
FLAT_INTEL: Files = {
    f"{DRM}/card0/device/vendor": "0x8086",
    f"{DRM}/card0/device/device": "0x46a6",
    f"{DRM}/card0/device/uevent": "DRIVER=i915\nPCI_CLASS=30000\nPCI_ID=8086:46A6\nPCI_SLOT_NAME=0000:00:02.0",
    f"{DRM}/renderD128/device/uevent": "DRIVER=i915\nPCI_SLOT_NAME=0000:00:02.0",
    f"{PCI}/0000:00:02.0/uevent": "DRIVER=i915\nPCI_CLASS=30000\nPCI_ID=8086:46A6\nPCI_SLOT_NAME=0000:00:02.0",
    "/dev/dri/renderD128": "",
}
INSTINCT = pci("0000:05:00.0", 0x120000, 0x1002, 0x74A1, "amdgpu") | card(0, "0000:05:00.0", 128)
ARM_S_OWN_DRIVER = {
    **soc("fb000000.gpu", "mali", "arm,mali-bifrost"),
    "/sys/class/devfreq/fb000000.gpu/device": Link("../../../devices/platform/fb000000.gpu"),
    "/sys/class/devfreq/fb000000.gpu/load": "0@300000000Hz",
    "/sys/class/devfreq/soc:qcom,gpubw/cur_freq": 1,
    "/dev/mali0": "",
}

_SYSTEM_HWMON = {"hwmon__hwmon4__temp1_input": 48000, "hwmon__hwmon4__power1_input": 9_031_000}
STRIX_POINT = {
    **pci(
        "0000:c4:00.0", 0x038000, 0x1002, 0x150E, "amdgpu",
        mem_info_vram_total=4 * GIB, mem_info_vram_used=1 * GIB, mem_info_gtt_total=14 * GIB,
        mem_info_gtt_used=2 * GIB, gpu_busy_percent=7, hwmon__hwmon4__in1_label="vddnb", **_SYSTEM_HWMON,
    ),
    **pci("0000:c4:00.2", 0x108000, 0x1022, 0x17E0, "ccp"),
    **pci("0000:c5:00.1", 0x118000, 0x1022, 0x17F0, "amdxdna"),
    **card(1, "0000:c4:00.0", 128),
    **accel(0, "0000:c5:00.1"),
    **vulkan("radeon_icd.x86_64.json"),
}  # fmt: skip
RADEON_CARD = {
    **pci(
        "0000:03:00.0", 0x030000, 0x1002, 0x744C, "amdgpu", mem_info_vram_total=24 * GIB,
        mem_info_vram_used=3 * GIB, mem_info_gtt_total=16 * GIB, gpu_busy_percent=99, mem_info_vram_vendor="samsung",
        hwmon__hwmon2__temp1_input=71000, hwmon__hwmon2__power1_average=300_000_000, hwmon__hwmon2__fan1_input=1200,
    ),
    **card(0, "0000:03:00.0", 128),
    "/etc/OpenCL/vendors/amdocl64.icd": "libamdocl64.so",
}  # fmt: skip

CORE_ULTRA = {
    **pci(
        "0000:00:02.0", 0x030000, 0x8086, 0x64A0, "xe",
        tile0__gt0__freq0__act_freq=1200, tile0__gt0__freq0__throttle__status=1,
        tile0__gt0__freq0__throttle__reason_thermal=1, tile0__gt0__freq0__throttle__reason_pl1=0,
    ),
    **pci("0000:00:0b.0", 0x120000, 0x8086, 0x643E, "intel_vpu"),
    **card(0, "0000:00:02.0", 128),
    **accel(0, "0000:00:0b.0"),
    **vulkan("intel_icd.x86_64.json"),
}  # fmt: skip
CORE_ULTRA_NO_VPU = {**pci("0000:00:0b.0", 0x120000, 0x8086, 0x7D1D)}
OLD_INTEL = {
    **pci("0000:00:02.0", 0x030000, 0x8086, 0x2A42, "i915"),
    **pci("0000:00:02.1", 0x038000, 0x8086, 0x2A43),
    **card(0, "0000:00:02.0", 128),
    f"{DRM}/card0/gt/gt0/throttle_reason_status": 0,
    f"{DRM}/card0/gt/gt0/throttle_reason_pl1": 0,
    "/etc/OpenCL/vendors/intel.icd": "libigdrcl.so",
    "/etc/OpenCL/vendors/pocl.icd": "libpocl.so",
}

JETSON_ORIN = {
    **soc("17000000.gpu", "gk20a", "nvidia,ga10b", load=437),
    **soc("13800000.display", "nv_platform", "nvidia,tegra234-display"),
    **soc("13e00000.host1x", "tegra-host1x", "nvidia,tegra234-host1x"),
    **card(0, "13e00000.host1x", 128),
    **card(1, "13800000.display", 129),
    "/sys/class/devfreq/17000000.gpu/device": Link("../../../devices/platform/17000000.gpu"),
    "/sys/class/devfreq/17000000.gpu/cur_freq": 306000000,
    "/sys/class/thermal/thermal_zone0/type": "CPU-therm",
    "/sys/class/thermal/thermal_zone0/temp": 51000,
    "/sys/class/thermal/thermal_zone1/type": "GPU-therm",
    "/sys/class/thermal/thermal_zone1/temp": 47500,
    "/dev/nvhost-gpu": "",
    **vulkan("nvidia_icd.json"),
}
JETSON_GPU_OFF = {**JETSON_ORIN, "/sys/class/thermal/thermal_zone1/temp": -256000}

RASPBERRY_PI_5 = {
    **soc("1002000000.v3d", "v3d", "brcm,2712-v3d"),
    **soc("axi:gpu", "vc4-drm", "brcm,bcm2712-vc6"),
    **card(0, "1002000000.v3d", 128),
    **card(1, "axi:gpu"),
    **pci("0001:01:00.0", 0x0B4000, 0x1E60, 0x2864, "hailo"),
    "/sys/class/hailo_chardev/hailo0/device": Link("../../../devices/pci0000:00/0001:01:00.0"),
    "/dev/hailo0": "",
    **vulkan("broadcom_icd.aarch64.json"),
}
RK3588 = {
    **soc("fb000000.gpu", "panthor", "rockchip,rk3588-mali"),
    **soc("fdab0000.npu", "RKNPU", "rockchip,rk3588-rknpu"),
    **soc("display-subsystem", "rockchip-drm", "rockchip,display-subsystem"),
    **card(0, "display-subsystem"),
    **card(1, "fb000000.gpu", 128),
    **card(2, "fdab0000.npu", 129),
    "/sys/class/devfreq/fb000000.gpu/device": Link("../../../devices/platform/fb000000.gpu"),
    "/sys/class/devfreq/fb000000.gpu/load": "37@300000000Hz",
    "/sys/class/devfreq/fdab0000.npu/device": Link("../../../devices/platform/fdab0000.npu"),
    "/sys/class/devfreq/dmc/load": "9@528000000Hz",
}


def coral_usb(vendor: str, product: str) -> Files:
    at = f"{'/sys/bus/usb/devices'}/2-1"
    return {
        f"{at}/idVendor": vendor,
        f"{at}/idProduct": product,
        f"{at}/busnum": 2,
        f"{at}/devnum": 7,
        "/sys/bus/usb/devices/2-1:1.0/bInterfaceClass": "fe",
        "/dev/bus/usb/002/007": "",
    }


CORAL_BEFORE, CORAL_AFTER = coral_usb("1a6e", "089a"), coral_usb("18d1", "9302")
CORAL_PCI = {
    **pci("0000:02:00.0", 0x088000, 0x1AC1, 0x089A, "apex"),
    "/sys/class/apex/apex_0/device": Link("../../../devices/pci0000:00/0000:02:00.0"),
    "/dev/apex_0": "",
}
CORAL_PCI_DRIVERLESS = pci("0000:02:00.0", 0x088000, 0x1AC1, 0x089A)

EIGHT_BUSES = [f"0000:{bus:02x}:00.0" for bus in (0x17, 0x3D, 0x60, 0x70, 0x98, 0xBB, 0xDD, 0xED)]
EIGHT_GPUS: Files = {
    **pci("0000:03:00.0", 0x030000, 0x1A03, 0x2000, "ast"),
    **card(0, "0000:03:00.0"),
    "/dev/nvidiactl": "",
}
for _i, _bus in enumerate(EIGHT_BUSES):
    EIGHT_GPUS |= {**pci(_bus, 0x030200, 0x10DE, 0x2335, "nvidia"), **card(_i + 1, _bus, 128 + _i)}

VM_WITH_NONE = {
    **HOST_BRIDGE,
    **pci("0000:00:01.0", 0x030000, 0x1234, 0x1111, "bochs-drm"),
    **card(0, "0000:00:01.0"),
    **soc("vgem", None),
    **card(1, "vgem", 128),
    **LAVAPIPE,
}


def virtio(features: str) -> Files:
    return {
        **pci("0000:00:02.0", 0x030000, 0x1AF4, 0x1050, "virtio-pci"),
        **soc("virtio0", "virtio_gpu", features=features),
        **card(0, "virtio0", 128),
        **vulkan("virtio_icd.x86_64.json"),
    }


WSL = {
    "/sys/bus/pci/devices": FOLDER,
    **soc("vgem", None),
    **card(0, "vgem", 128),
    "/dev/dxg": "",
    **vulkan("dzn_icd.x86_64.json"),
}
CONTAINER = {
    **pci("0000:00:02.0", 0x030000, 0x8086, 0x9A49, "i915"),
    **card(0, "0000:00:02.0", 128, node=False),
}
SLEEPING = {
    **pci("0000:00:02.0", 0x030000, 0x8086, 0x46A6, "i915"),
    **pci(
        "0000:01:00.0", 0x030000, 0x1002, 0x73EF, "amdgpu", power__runtime_status="suspended", gpu_busy_percent=1,
        mem_info_vram_total=8 * GIB, hwmon__hwmon3__temp1_input=40000,
    ),
    **card(0, "0000:00:02.0", 128),
    **card(1, "0000:01:00.0", 129),
    **vulkan("intel_icd.x86_64.json"),
}  # fmt: skip
SLEEPING_NVIDIA = {
    **pci("0000:01:00.0", 0x030000, 0x10DE, 0x2684, "nvidia", power__runtime_status="suspended"),
    "/dev/nvidiactl": "",
}
