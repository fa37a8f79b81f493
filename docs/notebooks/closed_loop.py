# %% [markdown]
# # Did the policy help, and when did we know?
#
# A policy starts without any log. Every morning it decides what each user gets, every evening it learns from what
# came. One user in ten is in the arm *business as usual*, where the marketers' rules decide, and one in ten is in the
# *holdout*, which gets nothing. Somebody looks at the trial every day.
#
# **The question:** is the policy worth more than business as usual, how sure is that, and on which day could the
# trial have been stopped?
#
# The users are simulated, so that the truth is known. All commands are those of a real deployment: [run a policy
# every day](../operations.md).

# %% tags=["parameters"]
QUICK = False  # 200 users for 5 days instead of 3,000 for 28 days, for a first look

# %%
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import crosschannel
from crosschannel import evaluation

USERS, DAYS = (200, 5) if QUICK else (3_000, 28)

# %% [markdown]
# ## Four weeks
#
# `simulate` decides and learns day by day, with the same files and programs as a deployment. It writes a run folder
# with a log, the decisions of each day and `days.csv`.

# %%
size = ["--history.market.users", str(USERS), "--history.market.days", str(DAYS), "--trial.days", str(DAYS)]
# In a terminal: crosschannel simulate --history.market.users ... --out loop
command = [sys.executable, "-m", "crosschannel", "simulate", *size, "--out", "loop"]
print(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

# %% [markdown]
# What happened each day, by arm: the true incremental value of the messages, which only a simulation knows, and how
# many were sent.

# %%
days = pd.read_csv("loop/days.csv")
fig, (left, right) = plt.subplots(1, 2, figsize=(8, 2.6), layout="constrained")
for arm, colour in (("agent", "C0"), ("business_as_usual", "C7")):
    left.plot(days["day"] + 1, days[f"value/{arm}"].cumsum(), color=colour, label=arm)
    right.plot(days["day"] + 1, days[f"sent/{arm}"].rolling(3, min_periods=1).mean(), color=colour, label=arm)
left.set(xlabel="day", ylabel="true value per user", title="what messages earned, in sum")
right.set(xlabel="day", ylabel="messages per user", title="sent a day, mean of three days", ylim=(0, None))
left.legend(frameon=False)
plt.show()

# %% [markdown]
# ## The trial
#
# The trial compares users by the arm that they were drawn into, whatever they got. Its boundaries hold however often
# somebody looks: a plain test repeated every day finds differences where there are none in about a quarter of trials.

# %%
config = crosschannel.load_config("loop/config.yaml")
history = crosschannel.load_history(config)
arms = evaluation.read_arms(Path("loop/decisions"))
declared = replace(config.trial, shares={"agent": 0.8, "business_as_usual": 0.1, "holdout": 0.1})
trial = evaluation.read_trial(history, declared, config.reward.goals, arms=arms, costs=("unsubscribed",))
for check in trial.checks:
    print({True: "passed", False: "failed", None: "not checked"}[check.passed], "-", check.name)

# %% [markdown]
# The difference to business as usual at each look, and what it had to reach there. Early looks can stop the trial only
# with an overwhelming difference; the boundary falls to about two standard errors at the end.

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3), layout="constrained")
evaluation.plot_time_course(trial, ax=left)
evaluation.plot_looks(trial, ax=right)
plt.show()

# %% [markdown]
# All outcomes, with intervals over all looks:

# %%
fig, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
evaluation.plot_lifts(trial, ax=axes)
plt.show()

# %% [markdown]
# ## The answer

# %%
truth = days["value/agent"].sum() - days["value/business_as_usual"].sum()
value = trial.comparisons[0].outcomes[0]
lift = value.lift
print(f"Verdict after {DAYS} days: {trial.verdict}")
print(f"The policy adds {lift.point:+.3f} per user ({lift.low:+.3f} to {lift.high:+.3f}, over all looks).")
if value.since is None:
    print("At no look could the trial have been stopped.")
else:
    first = pd.Timestamp(value.since, unit="us") - pd.Timestamp(trial.start, unit="us")
    print(f"It could have been stopped on day {first.total_seconds() / 86_400:.0f}.")
for arm in ("agent", "business_as_usual"):
    print(f"Unsubscribed in {arm}: {days[f'unsubscribed/{arm}'].sum():.1%} of the users")
print(f"The truth, which only a simulation knows: {truth:+.3f} per user.")
