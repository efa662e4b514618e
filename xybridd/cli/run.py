"""``xybridd run``: the daemon in the foreground, as units call it."""

from __future__ import annotations

import click


@click.command()
@click.option("--config", "config_name", metavar="FILE", help="The config file (default: see `xybridd config path`).")
def run(config_name: str | None) -> None:
    """Run the daemon in the foreground.

    Logs a line with `ready` on standard error once it accepts connections. SIGTERM and Ctrl-C bring everything to
    disk and end it within 5 s; SIGHUP reads the config again.

    \b
    Example:  xybridd run --config /etc/xdg/xybridd/config.toml
    """
    from xybridd.daemon.lean import import_asyncio_without_ssl

    import_asyncio_without_ssl()

    from xybridd.config import load
    from xybridd.daemon.app import run as run_daemon

    run_daemon(load(config_name), config_name)
