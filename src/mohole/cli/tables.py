"""Forecasts, certificates and batteries as tables for a terminal."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mohole.progress import quantity
from mohole.store.forecast import Forecast
from mohole.store.store import Store
from mohole.store.uniformity import Battery
from mohole.store.verify import Certificate
from mohole.visible import visible

_UNITS = ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def print_forecast(forecast: Forecast, console: Console) -> None:
    """One line for each step, and the whole."""
    prices = forecast.prices
    console.print(
        f"{quantity(forecast.n_rows)} rows of {forecast.row_bytes} bytes at {', '.join(forecast.hookpoints)}: "
        f"{_bytes(forecast.payload_bytes)} with their keys",
        highlight=False,
    )
    table = Table(box=SIMPLE_HEAD, border_style="dim", padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("step", "tasks", "piles", "memory", "read", "written", "time"):
        is_long = name in ("read", "written")  # broken in two lines in a narrow terminal, never cut
        table.add_column(name, justify="left" if name == "step" else "right", no_wrap=not is_long)
    for step in forecast.steps:
        traffic = step.traffic
        table.add_row(
            step.name,
            quantity(step.n_tasks),
            quantity(step.n_piles),
            _bytes(step.memory_bytes),
            _moved(traffic.bytes_read, traffic.n_reads),
            _moved(traffic.bytes_written, traffic.n_writes),
            _time(prices.seconds(traffic, step.n_tasks)),
        )
    whole = forecast.total()
    table.add_section()
    read, written = _moved(whole.bytes_read, whole.n_reads), _moved(whole.bytes_written, whole.n_writes)
    table.add_row("all", "", "", "", read, written, "")
    console.print(table)
    reads = [f"{step.name} {_bytes(step.segment_bytes)}" for step in forecast.steps if step.segment_bytes]
    console.print(
        f"one read is on average: {', '.join(reads)}; its requests to an object store cost "
        f"${forecast.dollars:,.2f} at ${prices.get_dollars:g} and "
        f"${prices.put_dollars:g} a million",
        style="dim",
        highlight=False,
    )
    moved = (whole.bytes_read + whole.bytes_written) / max(forecast.payload_bytes, 1)
    console.print(
        f"each byte is moved {moved:.1f} times; times are those of the disk or network at {prices.gbps:g} GB/s each way on "
        f"{prices.hosts} host{'s' if prices.hosts > 1 else ''}, the model's own time is not in them",
        style="dim",
        highlight=False,
    )
    if forecast.needs_shuffle:
        console.print("the loader's reads would be short: set shuffle.stored = true, or give machine.memory more")


def print_certificate(store: Store, certificate: Certificate, console: Console) -> None:
    """What was proved; or each fault on a line."""
    for fault in (*(str(error) for error in certificate.damaged), *certificate.wrong):
        console.print(Text(visible(fault), "red"))
    if not certificate.holds:
        return
    order = f", order {certificate.order_hash}" if certificate.order_hash else ""
    console.print(
        f"{store.url}: {certificate.n_rows:,} rows of {', '.join(store.hookpoints)} in {certificate.n_shards} shards: every "
        f"checksum, key and range is right, no row is lost, doubled or changed{order}",
        highlight=False,
    )


def print_battery(battery: Battery, console: Console) -> None:
    """Every statistic with its p-value, and the verdict."""
    table = Table(box=SIMPLE_HEAD, border_style="dim")
    for name in ("statistic", "z", "p"):
        table.add_column(name, justify="left" if name == "statistic" else "right")
    suspicious = battery.suspicious()
    for finding in battery.findings:
        table.add_row(
            finding.name, f"{finding.z:.2f}", f"{finding.p_value:.3g}", style="red" if finding in suspicious else ""
        )
    console.print(table)
    for finding in suspicious:
        console.print(f"{finding.name}: {finding.observed:g}, {finding.expected:g} expected; {finding.catches}")
    verdict = "not a uniform shuffle" if suspicious else "nothing that chance does not explain"
    console.print(f"{battery.n_rows:,} training rows, {len(battery.findings)} statistics: {verdict}", highlight=False)


def _bytes(n: float) -> str:
    for size, unit in _UNITS:
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n:.0f} B"


def _moved(n_bytes: int, n_requests: int) -> str:
    return f"{_bytes(n_bytes)} in {quantity(n_requests)}" if n_requests else ""


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.2g} s"
    if seconds < 5400:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h" if seconds < 259_200 else f"{seconds / 86_400:.3g} days"
