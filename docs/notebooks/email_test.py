# %% [markdown]
# # Which of two e-mails should a customer get, if any?
#
# A shop has tested two e-mails, one with men's clothes and one with women's. Customers were drawn at random into
# three groups of equal size, and the third group got nothing. Everybody's visits of the next two weeks are known.
#
# **The question:** should all customers get the same e-mail, or should each get the one that suits them, or nothing?
# And how sure can we be of the answer?
#
# The file has the layout of Kevin Hillstrom's *E-Mail Analytics and Data Mining Challenge* (2008). Give its path
# below. Without a file, this notebook makes 64,000 customers of the same layout, whose true answer is known, so that
# the answer from the data can be compared with it.

# %% tags=["parameters"]
PATH = None  # a file in Hillstrom's layout; None makes one
QUICK = False  # fewer customers, for a first look

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from crosschannel import evaluation
from crosschannel.agents import Batch, Observations, make_agent
from crosschannel.core import ActionSpace, Module

EMAILS = ["No E-Mail", "Mens E-Mail", "Womens E-Mail"]
PRICE = 0.03  # visits that an e-mail must bring to be worth sending: its cost, and the risk of an unsubscribe
rng = np.random.default_rng(0)

# %% [markdown]
# ## The customers
#
# In the data made here the men's e-mail works best for those who bought men's clothes before, the women's e-mail for
# those who bought women's, and neither does much for those who have not bought anything for most of a year.


# %%
def make_customers(n):
    mens = rng.random(n) < 0.55
    womens = ~mens | (rng.random(n) < 0.2)
    t = pd.DataFrame({"recency": rng.integers(1, 13, n), "mens": mens * 1, "womens": womens * 1})
    t["history"] = rng.gamma(1.2, 200, n).round(2)
    t["newbie"] = (rng.random(n) < 0.5) * 1
    t["zip_code"] = rng.choice(["Urban", "Surburban", "Rural"], n, p=[0.4, 0.45, 0.15])
    t["channel"] = rng.choice(["Web", "Phone", "Multichannel"], n, p=[0.44, 0.44, 0.12])
    t["segment"] = rng.choice(EMAILS, n)
    fresh = t["recency"] <= 8
    effect = pd.DataFrame({"No E-Mail": np.zeros(n)})
    effect["Mens E-Mail"] = np.where(fresh, np.where(mens, 0.11, 0.04), 0.015)
    effect["Womens E-Mail"] = np.where(fresh, np.where(womens, 0.09, 0.01), 0.01)
    received = effect.to_numpy()[np.arange(n), pd.Categorical(t["segment"], EMAILS).codes]
    t["visit"] = (rng.random(n) < 0.16 - 0.008 * t["recency"] + received) * 1
    return t, effect


if PATH is None:
    customers, true_effect = make_customers(8_000 if QUICK else 64_000)
    print(f"Made {len(customers):,} customers in Hillstrom's layout; the true effects are known.")
else:
    customers, true_effect = pd.read_csv(PATH), None
    print(f"Read {len(customers):,} customers from {PATH}.")
customers.head()

# %% [markdown]
# ## Was the test fair?
#
# The groups must have the size that was planned, and must have been alike before the e-mails. Otherwise no comparison
# below means anything.

# %%
email = pd.Categorical(customers["segment"], EMAILS).codes.astype(np.int64)
sizes = np.bincount(email, minlength=3)
print(f"sizes {sizes.tolist()}: p = {evaluation.sample_ratio_p_value(sizes, np.full(3, 1 / 3)):.2f}")
for before in ("recency", "history", "mens", "womens", "newbie"):
    means = evaluation.arm_means(customers[before].to_numpy(float), email, 3)
    z = [evaluation.contrast(means, k, 0)[0].z for k in (1, 2)]
    print(f"{before:8} men's e-mail z = {z[0]:+.1f}, women's e-mail z = {z[1]:+.1f}")

# %% [markdown]
# ## What each e-mail did, on average
#
# The difference of visits between those who got an e-mail and those who got nothing, with a 95 % interval.

# %%
visit = customers["visit"].to_numpy(float)
means = evaluation.arm_means(visit, email, 3)
lifts = [evaluation.contrast(means, k, 0)[0] for k in (1, 2)]
ranges = [lift.interval(1.96) for lift in lifts]
fig, axes = plt.subplots(figsize=(6, 2), layout="constrained")
errors = [[r.point - r.low for r in ranges], [r.high - r.point for r in ranges]]
axes.errorbar([r.point for r in ranges], EMAILS[1:], xerr=errors, fmt="o", capsize=4)
axes.axvline(PRICE, color="grey", ls="--", label="price of an e-mail")
axes.set(xlabel="additional visits per customer", ylim=(-0.6, 1.6))
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## A policy for each customer
#
# Half of the customers teach a policy, and the other half, which it has never seen, shows what it is worth. What an
# e-mail earns is the customer's visits, minus the mean of those who got nothing, minus the price of the e-mail. The
# agent is Thompson sampling with Bayesian linear regression, used greedily.

# %%
modules = ActionSpace([Module("email", ("none", "mens", "womens"))])
facts = ["recency", "history", "mens", "womens", "newbie"]
context = customers[facts].to_numpy(float)
context = np.column_stack([(context - context.mean(0)) / context.std(0), customers["recency"] > 8])
seen = Observations(context.astype(np.float32), np.ones((len(context), 3), dtype=bool))
train = rng.random(len(customers)) < 0.5


def rewards(rows):
    """Return a function from how often each customer counts to what each one earned, minus the controls' mean."""
    sent = email[rows] > 0
    return lambda counts: visit[rows] - np.average(visit[rows][~sent], weights=counts[~sent]) - PRICE * sent


learned = rewards(train)(np.ones(train.sum()))
agent = make_agent("linear_thompson", modules, context.shape[1], {"exploration_scale": 0.0, "floor": 0.0}, seed=0)
agent.observe(
    Batch(
        observations=seen[train],
        actions=email[train][:, None],
        rewards=learned,
        se=np.full(len(learned), visit.std()),
        keys=np.flatnonzero(train).astype(np.uint64),
    )
)
agent.update(1)
(personal,) = agent.action_probabilities(seen[~train])
for name, share in zip(EMAILS, personal.mean(0), strict=True):
    print(f"{name:14} {share:.0%} of the test customers")

# %%
table = customers[~train].assign(choice=np.array(EMAILS)[personal.argmax(1)])
table["bought"] = np.where(table["mens"] & table["womens"], "both", np.where(table["mens"], "men's", "women's"))
shares = pd.crosstab([table["bought"], table["recency"] > 8], table["choice"], normalize="index")
shares.index = [f"{bought}, {'long ago' if old else 'lately'}" for bought, old in shares.index]
axes = shares[[name for name in EMAILS if name in shares]].plot.barh(stacked=True, figsize=(7, 2.6), width=0.8)
axes.set(xlabel="share of customers", title="What the policy would send, by what was bought and when")
axes.legend(frameon=False, bbox_to_anchor=(1, 1))
plt.tight_layout()
plt.show()

# %% [markdown]
# ## What the policy is worth
#
# The log gave each e-mail with probability 1/3, so that the value of any policy follows from the customers who
# happened to get what the policy would have sent them. The control group's error is in the intervals.

# %%
third = np.full((int((~train).sum()), 1), 1 / 3)
log = evaluation.LoggedDecisions(
    modules=modules,
    actions=email[~train][:, None],
    propensity=third,
    joint=third[:, 0],
    user=np.arange(len(third)),
    propensity_source="by design",
)
policies = {
    "nothing": np.tile([1.0, 0.0, 0.0], (len(third), 1)),
    "men's to all": np.tile([0.0, 1.0, 0.0], (len(third), 1)),
    "women's to all": np.tile([0.0, 0.0, 1.0], (len(third), 1)),
    "personal": personal,
}
values, truth = {}, {}
for name, p in policies.items():
    result = evaluation.evaluate(log, [p], rewards(~train), rng=np.random.default_rng(1), policy=name)
    values[name] = result.get("snips").value
    if true_effect is not None:
        truth[name] = float((p * (true_effect[~train] - PRICE * np.array([0, 1, 1]))).to_numpy().sum(1).mean())

# %%
fig, axes = plt.subplots(figsize=(6, 2.4), layout="constrained")
for y, (name, v) in enumerate(values.items()):
    axes.errorbar(v.point, y, xerr=[[v.point - v.low], [v.high - v.point]], fmt="o", color="C0", capsize=4)
    if name in truth:
        axes.plot(truth[name], y, "x", color="black", label="truth" if y == 0 else None)
axes.set(yticks=range(len(values)), xlabel="visits per customer, net of the price of e-mails")
axes.set_yticklabels(list(values))
if truth:
    axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## The answer

# %%
both = evaluation.compare_policies(
    log,
    [policies["personal"]],
    [policies["men's to all"]],
    rewards(~train),
    rng=np.random.default_rng(2),
    names=("personal", "men's to all"),
)
gain = both.difference
v = values["personal"]
print(f"The personal policy earns {v.point:+.3f} visits per customer, 95 % interval {v.low:+.3f} to {v.high:+.3f}.")
print(f"That is {gain.point:+.4f} more than the men's e-mail to all ({gain.low:+.4f} to {gain.high:+.4f}).")
if gain.low > 0:
    print("So: send each customer the e-mail that suits them. The test shows that this is better.")
elif v.low > 0:
    print("So: sending pays. Whether choosing by customer pays more, this test does not show: run a larger one.")
else:
    print("So: this test does not show that sending pays.")
if truth:
    inside = "inside" if v.low <= truth["personal"] <= v.high else "outside"
    print(f"The truth is {truth['personal']:+.3f}, {inside} the interval.")
