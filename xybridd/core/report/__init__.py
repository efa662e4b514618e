"""Facts about a device become the figures of a report; nothing here reads or draws.

`facts` is what was read from a daemon. `sums` adds minutes up in one pass, whatever the report asks of them. `figures`
is the report itself, a tree of structs that ``xybridd report --format json`` prints as it is. `make` builds it, with
the help of `conditions` (how latency changes with heat, power and hardware) and `device` (its history, its energy).
"""
