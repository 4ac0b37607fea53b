"""Studies of fusion networks: each trial meta-learns a network on many users."""

from metarec.study.networks._objective import NetworkObjective, network_config
from metarec.study.networks._stages import NetworkInput, PreparedNetworks, SearchedNetworks

__all__ = ["NetworkInput", "NetworkObjective", "PreparedNetworks", "SearchedNetworks", "network_config"]
