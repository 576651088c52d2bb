"""The results of the CPU benchmarks as Markdown tables and as a plot.

As a program it updates docs/explanation/benchmarks.md and README.md.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from record import RESULTS, ROOT

from prototxt_gen.files import atomic_write, atomic_write_text

CPU, CONV = RESULTS / "cpu.json", RESULTS / "conv.json"
DENSE, PARALLEL = RESULTS / "dense.json", RESULTS / "parallel.json"
LMDB = RESULTS / "lmdb_open.json"
ARCHITECTURE = RESULTS / "architecture.json"


def table(rows: list[dict[str, Any]]) -> str:
    """The ratios with their targets, one row each."""
    lines = [
        "| work | verydeep | best peer | ratio | aim |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        ours, peer = row["values"]["verydeep"], row["values"][row["against"]]
        unit = row["unit"]
        lines.append(
            f"| {row['title']} | {_figure(ours)} {unit} | {row['against']}: {_figure(peer)} {unit}"
            f" | {row['ratio']:.2f} x | {row['at_least']:.2f} x |"
        )
    return "\n".join(lines)


def conv_table(results: dict[str, Any]) -> str:
    """Every convolution of net D: times, rates, and the share of sgemm's rate."""
    lines = [
        "| convolution | algorithm | forward | share of sgemm | backward | share of sgemm |",
        "|---|---|---|---|---|---|",
    ]
    for layer in results["layers"]:
        forward, backward = layer["median"]["forward"], layer["median"]["backward"]
        gflop, sgemm = layer["gflop"], layer["sgemm_rate"]
        # The first layer of a net needs no gradient of its input.
        passes = 1 if layer["geometry"].startswith(f"{results['batch']}x3x") else 2
        lines.append(
            f"| {layer['geometry']} | {layer['algorithm'].removeprefix('native:')} "
            f"| {forward:.1f} ms | {1e3 * gflop / forward / sgemm:.2f} "
            f"| {backward:.1f} ms | {1e3 * passes * gflop / backward / sgemm:.2f} |"
        )
    return "\n".join(lines)


def dense_table(results: dict[str, Any]) -> str:
    """The cost of a multiply-add on uncropped images relative to that on crops."""
    plain = list(next(iter(results["ratios"].values())))
    lines = [
        "| " + " | ".join(["whole images", *(f"cost, of {name}" for name in plain)]) + " |",
        "|---" * (1 + len(plain)) + "|",
    ]
    for name, ratios in results["ratios"].items():
        lines.append("| " + " | ".join([name, *(f"{ratios[p]:.2f}" for p in plain)]) + " |")
    return "\n".join(lines)


def parallel_table(results: dict[str, Any]) -> str:
    """The speedup by replicas, and the cost of shards."""
    replicas, mpi, shards = results["replicas"], results.get("mpi"), results["shards"]
    title = f"net {replicas['net']}, batch {replicas['batch']}"
    rows = [("2 replicas of 1 thread against 1", title, _times(replicas))]
    if mpi is not None:
        rows.append(("2 processes under mpirun against 1", title, _times(mpi)))
    rows.append(("predicted by `verydeep plan`", title, f"{results['model']['speedup']:.2f} x"))
    low, high = (100 * value for value in shards["between"])
    cost = 100 * shards["cost_of_8_shards_at_batch_256"]
    interval = f"{cost:.1f} % ({low:.1f} to {high:.1f})"
    rows.append(("8 shards on one device cost", f"net {shards['net']}, batch 256", interval))
    lines = ["| | net | measured |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines)


def lmdb_table(results: dict[str, Any]) -> str:
    """Time and memory for opening a database, by its number of records."""
    lines = [
        "| records | file | opened in | of the processor | memory | a record read in |",
        "|---|---|---|---|---|---|",
    ]
    for row in results["databases"]:
        cells = (
            f"{row['records']:,}",
            f"{row['file_mib']:,.1f} MiB",
            f"{row['seconds']:.2f} s",
            f"{row['processor_seconds']:.2f} s",
            f"{row['peak_mib']:.0f} MiB",
            f"{row['read_us']:.1f} us",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


_FIGURES = (
    ("files at the top level of `runtime`", "files_at_the_top_of_runtime"),
    ("folders of `runtime`; a file at its top level counts as one", "folders_of_runtime"),
    ("longest chain of imports between them", "floors"),
    ("imports between them, each pair once", "arrows"),
    ("groups of files that import each other", "cycles"),
    ("Python files", "files"),
    ("functions", "functions"),
    ("lines of Python without blank lines, comments and docstrings", "lines_of_code"),
    ("functions with a complexity above 15", "complex_functions"),
    ("methods that only forward to another object", "forwarding_methods"),
    ("pairs of places with 6 or more equal lines of code", "duplicate_pairs"),
    ("mannerisms in the product", "mannerisms product"),
    ("mannerisms in the documentation", "mannerisms documentation"),
    ("mannerisms in tests", "mannerisms tests"),
    ("files between a record and the first convolution", "hops batch files"),
    ("functions between a record and the first convolution", "hops batch functions"),
    ("calls from `Net.backward` to the gradient of a convolution", "hops gradient calls"),
)


def architecture_table(results: dict[str, Any]) -> str:
    """Figures of the source code in two revisions."""
    before, after = results["before"], results["after"]
    return "\n".join(
        [
            f"| figure | {before['revision'][:7]} | {after['revision'][:7]} |",
            "|---|---|---|",
            *(
                f"| {title} | {_at(before, key):,} | {_at(after, key):,} |"
                for title, key in _FIGURES
            ),
        ]
    )


def _at(figures: dict[str, Any], path: str) -> int:
    value: Any = figures
    for key in path.split():
        value = value[key]
    return int(value)


def _times(result: dict[str, Any]) -> str:
    """A ratio with the 95 % confidence interval of its median."""
    low, high = result["between"]
    return f"{result['speedup']:.2f} x ({low:.2f} to {high:.2f})"


def with_section(text: str, name: str, content: str) -> str:
    """The text with the part between <!-- name --> and <!-- /name --> replaced."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    return pattern.sub(lambda match: f"{match[1]}{content}\n{match[2]}", text)


def sections() -> dict[str, str]:
    """The tables of the committed results, by section of the documents."""
    cpu, conv = (json.loads(path.read_text()) for path in (CPU, CONV))
    machine = cpu["machine"]
    environment_text = (
        f"Measured on {machine['processor']}, {machine['cores']} cores, {cpu['threads']} threads, "
        f"commit {machine['revision']}, {cpu['date']}."
    )
    dense, parallel = (json.loads(path.read_text()) for path in (DENSE, PARALLEL))
    return {
        "cpu": f"{environment_text}\n\n{table(cpu['rows'])}",
        "conv": conv_table(conv),
        "dense": dense_table(dense),
        "parallel": parallel_table(parallel),
        "lmdb": lmdb_table(json.loads(LMDB.read_text())),
        "architecture": architecture_table(json.loads(ARCHITECTURE.read_text())),
    }


def _figure(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw each ratio as a bar, with a mark at its target."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.5 * len(rows) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    places = list(range(len(rows)))[::-1]
    reached = [row["ratio"] >= row["at_least"] for row in rows]
    colours = [mpl.colormaps["tab10"](0 if ok else 1) for ok in reached]
    axes.barh(places, [row["ratio"] for row in rows], color=colours, height=0.6)
    for place, row in zip(places, rows):
        target = row["at_least"]
        axes.plot([target, target], [place - 0.4, place + 0.4], color="black", linewidth=2)
        axes.text(max(row["ratio"], target) + 0.03, place, f"{row['ratio']:.2f}", va="center")
    axes.set_yticks(places, [f"{row['title']}\nagainst {row['against']}" for row in rows])
    axes.tick_params(axis="y", labelsize=8)
    axes.axvline(1.0, color="grey", linewidth=0.8, linestyle="--")
    axes.set_xlim(0, max(row["ratio"] for row in rows) * 1.12)
    axes.set_xlabel("times the best peer (dashed: as fast; black mark: the aim)")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as stream:
        figure.savefig(stream, format=path.suffix[1:], dpi=110)


def main() -> int:
    contents = sections()
    for path in (ROOT / "README.md", ROOT / "docs" / "explanation" / "benchmarks.md"):
        text = path.read_text()
        for name, content in contents.items():
            text = with_section(text, name, content)
        atomic_write_text(path, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
