"""Which run next: information per price of every batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.axes import Axes

from cbsbayes.plots import scales, style

if TYPE_CHECKING:
    from cbsbayes.decisions.next_runs import Plan

__all__ = ["plot_plan"]


@style.styled
def plot_plan(plan: Plan, *, ax: Axes | None = None, title: str = "") -> Axes:
    """Plot what a run of every batch is expected to tell for its price, at its best length.

    Colours and numbers are information per price, relative to the best, with the length below; no
    colour where it is below twice its Monte Carlo error, a cross where a run is beyond the budget.
    Dots above stand for runs made so far, orange rings for planned runs with their place in the
    order; batches outside the ranges tried are squares.

    Parameters
    ----------
    plan : Plan
    ax : Axes, optional
        Drawn into; by default a new figure's axes.
    title : str
        What the runs are to tell.

    Returns
    -------
    Axes
    """
    best = plan.table.sort_values("rank").drop_duplicates(["n_prompts", "n_rollouts"])
    top = float(plan.table.loc[plan.table["resolved"], "per_cost"].max())
    relative = (best["per_cost"] / (top if top > 0 else 1.0)).where(best["resolved"])
    best = best.assign(relative=relative)
    one_axis = plan.tried.one_axis
    x_name, y_name = ("total_batch", "relative") if one_axis else ("n_prompts", "n_rollouts")
    ax = style.new_axes(ax, (5.6, 4.4))
    shown = best[best["affordable"] & (best["resolved"] | (not one_axis))]
    for outside, part in shown.groupby("extrapolated"):
        ax.scatter(part[x_name], part[y_name], c=part["relative"].fillna(0.0), s=90, vmin=0, vmax=1,
                   cmap="viridis_r", marker="s" if outside else "o", edgecolors=style.GREY,
                   gid="extrapolated" if outside else "inside", zorder=3)
    beyond = best[~best["affordable"]]
    if not one_axis:
        ax.plot(beyond[x_name], beyond[y_name], "x", color=style.GREY, gid="beyond-budget")
    for _, row in shown.iterrows():
        number = f"{row['relative']:.2f}" if row["resolved"] else "~0"
        made = int(row["runs_tried"])
        for text, up, size in ((f"{number}\n{row['updates']:g} updates", -8, 6.5),
                               ("•" * made if made <= 6 else f"• × {made}", 14, 7)):
            ax.annotate(text, (row[x_name], row[y_name]), xytext=(0, up), va="top", ha="center",
                        textcoords="offset points", fontsize=size)
    for (prompts, rollouts), runs in plan.runs.groupby(["n_prompts", "n_rollouts"]):
        same = (best["n_prompts"] == prompts) & (best["n_rollouts"] == rollouts)
        at = best.loc[same, [x_name, y_name]].iloc[0]
        ax.plot(*at, "o", ms=15, mfc="none", mec=style.ORANGE, mew=2, gid="planned")
        ax.annotate(", ".join(f"{order:g}" for order in runs["order"]), tuple(at), xytext=(9, 3),
                    textcoords="offset points", color=style.ORANGE, fontsize=8)
    scales.log_axis(ax, "x" if one_axis else "xy")
    ax.margins(0.12, 0.16)
    ax.set_xlabel("Samples per update" if one_axis else "Prompts per update")
    ax.set_ylabel("Information per price" if one_axis else "Rollouts per prompt")
    ax.set_title(style.plain_text(title or "Information per price, relative to the best"))
    style.legend_below(ax, [
        style.entry("planned, in this order", style.ORANGE, marker="o", mfc="none", ms=9),
        style.entry("outside the ranges tried", marker="s", mfc="none"),
        style.entry("beyond the budget", marker="x")], 3)
    return ax
