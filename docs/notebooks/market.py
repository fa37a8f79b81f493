# %% [markdown]
# # Would a learned policy do better than our rules?
#
# An app sends its users push messages, e-mails, SMS and in-app messages by the rules of its marketers: who, when, on
# which channel, about which service, with which offer. Everything is logged, with the probability of each choice.
#
# **The question:** if a policy that is learned from this log decided instead, how many more orders and visits would
# there be, at no more unsubscribes? And does the log tell us this well enough to deploy it?
#
# The app is simulated, so that the truth is known. The policy sees only the log.

# %% tags=["parameters"]
QUICK = False  # 400 users instead of 6,000, for a first look

# %%
import matplotlib.pyplot as plt
import numpy as np

import crosschannel
from crosschannel.agents import plot_policy
from crosschannel.core import DAY
from crosschannel.evaluation import headline, plot_ladder, plot_waterfall

small = {
    "history.market.users": 400,
    "history.market.days": 8,
    "evaluation.market_users": 50,
    "evaluation.bootstrap_replicates": 40,
    "train.offline_updates": 5,
    "agent.settings.members": 3,
    "agent.settings.hidden": [8],
}
settings = small if QUICK else {"history.market.users": 6_000}
config = crosschannel.load_config("market", settings)

# %% [markdown]
# ## The log
#
# Every user has a slot every morning, and each slot is a decision: one channel or none, and with a message its time,
# service, offer, tone and greeting.

# %%
history = crosschannel.load_history(config)
print(history.summary())

# %%
decisions = history.decisions
channels = history.modules[0].actions
per_channel = np.bincount(decisions.actions[:, 0], minlength=len(channels)) / len(decisions)
day = (decisions.time - decisions.time.min()) // DAY
sent = decisions.actions[:, 0] > 0
fig, (left, right) = plt.subplots(1, 2, figsize=(8, 2.4), layout="constrained")
left.barh(channels, 100 * per_channel, color="C0")
left.set(xlabel="decisions [%]", title="what the rules chose")
right.plot(np.bincount(day, sent) / np.bincount(day) * 100)
right.set(xlabel="day", ylabel="sent [%]", ylim=(0, None), title="decisions with a message")
plt.show()

# %% [markdown]
# ## What a message earns
#
# A message is worth only what would not have happened without it. Its reward is a **difference in differences**: the
# change of the user's goal events from the two days before to the day after, minus the same change of users who got
# nothing on the same day. One reward is mostly noise, and the mean over a channel's messages is the channel's effect
# in the log.

# %%
rewards = crosschannel.compute_rewards(history, config)
action = decisions.actions[:, 0]
fig, (left, right) = plt.subplots(1, 2, figsize=(8, 2.4), layout="constrained")
left.hist(rewards.reward[rewards.identified & sent], bins=60, range=(-3, 3), color="C0")
left.set(xlabel="reward of one message", ylabel="messages", title="single rewards: noise")
for y in range(len(channels) - 1):
    r = rewards.reward[rewards.identified & (action == y + 1)]
    right.errorbar(r.mean(), y, xerr=1.96 * r.std() / np.sqrt(len(r)), fmt="o", color="C0", capsize=3)
right.axvline(0, color="grey", lw=1)
right.set_yticks(range(len(channels) - 1), channels[1:])
right.set(xlabel="mean reward, 95 %", title="by channel: an effect")
plt.show()

# %% [markdown]
# ## A policy
#
# `train` gives part of the users to the agent, an ensemble of networks that explores by Thompson sampling. The others
# are kept for the evaluation. The command `crosschannel train` does the same.

# %%
run = crosschannel.train(config)
result = crosschannel.evaluate(run)
print(run.path)

# %% [markdown]
# What the policy does differently, module by module:

# %%
of_channels = result.policy_table[result.policy_table["module"] == "channel"]
fig, axes = plt.subplots(figsize=(7, 2.6), layout="constrained")
plot_policy(of_channels, ax=axes)
plt.show()

# %% [markdown]
# ## What the log says about its value
#
# The policy differs from the rules in six modules at once, so that hardly any logged decision is exactly its own.
# Without an assumption (the whole action) the log does not identify its value. If what the parts of a message earn
# **adds up** given the channel, it may: that is order 1 of the interaction ladder, and the first number that is
# reported.

# %%
fig, axes = plt.subplots(figsize=(8, 3), layout="constrained")
plot_ladder(result.evaluation, truth=result.truth[0].per_decision, ax=axes)
plt.show()

# %% [markdown]
# The steps from the rules to the policy, and, because the app is simulated, the truth:

# %%
found = headline(result.evaluation)
truth = result.truth[0].per_decision
fig, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
plot_waterfall(result.evaluation, truth=truth, ax=axes)
plt.show()

# %% [markdown]
# ## The answer
#
# `report.html` in the run's folder has all of this with every estimate, its support and what contradicts it. The
# verdict is by rules that were fixed before: [plan, gate and comparators](../planning.md).

# %%
print(result.gate)
if found.identified:
    v, d = found.value, found.difference
    print(f"The policy earns {v.point:.3f} per decision ({v.low:.3f} to {v.high:.3f}), {found.assumption}.")
    print(f"That is {d.point:+.3f} more than the rules ({d.low:+.3f} to {d.high:+.3f}).")
else:
    print(f"The log does not identify the policy's value: {found.reason}.")
    print("\n".join(result.advice))
print(f"The truth, which only a simulation knows: {truth:.3f} per decision. For new users over all days:")
for row in result.truth:
    print(f"  {row.policy:20} {row.per_user:+.2f} a new user, {row.unsubscribed:.1%} unsubscribed")
