"""Every probe there is, in the order in which they run: the quick and certain first."""

from xybridd.probes.cpu import CPU
from xybridd.probes.gpu import GPU
from xybridd.probes.memory import MEMORY
from xybridd.probes.network import NETWORK
from xybridd.probes.npu import NPU
from xybridd.probes.platform import PLATFORM
from xybridd.probes.power import POWER
from xybridd.probes.probe import Probe
from xybridd.probes.thermal import THERMAL

PROBES: tuple[Probe, ...] = (PLATFORM, CPU, MEMORY, NETWORK, POWER, THERMAL, GPU, NPU)
