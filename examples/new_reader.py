"""A reader of your own: any source becomes three tables, and these a history that every program reads.

    python examples/new_reader.py --folder calls

A call centre's system writes one JSON object for each customer, with all offers and all purchases in it. No mapping
reads that layout, and it logs each offer with the probability of its campaign, also where nobody was called.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import tyro

from crosschannel.core import ActionSpace, Fault, InputError, Module
from crosschannel.histories import History, write_history

MODULES = ActionSpace([Module("channel", ("none", "call")), Module("offer", ("phone", "tariff"))])


def read_calls(path: Path) -> History:
    """Read the customers of a call centre.

    Raises:
        InputError: If a line is not a customer; or a time, an action or a probability is wrong.
    """
    decisions, events, users = [], [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            customer = json.loads(line)
            user = {"user_id": customer["id"]}
            users.append({**user, "region": customer["region"]})
            decisions += [
                {**user, **slot, "decision_id": f"{customer['id']}-{slot['time']}"} for slot in customer["slots"]
            ]
            events += [{**user, **purchase, "event": "purchase"} for purchase in customer["purchases"]]
        except (ValueError, KeyError, TypeError) as error:
            problem, remedy = f"is not a customer: {error}", "Export the file again."
            raise InputError([Fault(str(path), problem, remedy, row=number)]) from None
    columns = {"chance": "propensity", "done": "channel"}
    tables = [pd.DataFrame(rows).rename(columns=columns) for rows in (decisions, events, users)]
    # The rest is checked there: times, actions and probabilities, all faults at once, each with its row and a remedy.
    return History.from_tables(tables[0], tables[1], MODULES, tables[2], propensity_source="logged", name=path.name)


def write_calls(path: Path, customers: int, days: int = 28, seed: int = 0) -> None:
    """Write such a file: a call by chance on 30 % of the days, which makes 0.2 purchases, and 0.4 about a phone."""
    rng = np.random.default_rng(seed)
    start = pd.Timestamp("2024-03-04T09:00Z")
    lines = []
    for customer in range(customers):
        called, phone = rng.random(days) < 0.3, rng.random(days) < 0.5
        bought = rng.poisson(0.2 + called * np.where(phone, 0.4, 0.2))
        slots = [
            {
                "time": str(start + pd.Timedelta(days=day)),
                "done": "call" if called[day] else "none",
                "offer": ("phone" if phone[day] else "tariff") if called[day] else None,
                "chance": 0.15 if called[day] else 0.7,
            }
            for day in range(days)
        ]
        times = np.repeat(np.arange(days), bought) + rng.uniform(0.01, 0.9, bought.sum())
        purchases = [{"time": str((start + pd.Timedelta(days=t)).floor("s")), "value": 30.0} for t in times]
        row = {
            "id": f"c{customer}",
            "region": str(rng.choice(["north", "south"])),
            "slots": slots,
            "purchases": purchases,
        }
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(folder: Path = Path("calls"), customers: int = 400) -> History:
    """Write a file of customers, read it, and write it as a folder that `history.path` names.

    Args:
        folder: Where the history goes.
        customers: Number of customers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_calls(folder / "customers.jsonl", customers)
    history = read_calls(folder / "customers.jsonl")
    print(history.summary())
    write_history(history, folder / "log")
    print(f"next: crosschannel effects --config FILE --history.source folder --history.path {folder / 'log'}")
    return history


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
