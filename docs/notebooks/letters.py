# %% [markdown]
# # What should the letter offer?
#
# A charity wrote to 50,083 earlier donors. One third got its usual letter. The others got a letter that promised:
# *for every dollar you give, a sponsor gives another one (or two, or three)*. That offer had three parts, all
# combined at random: the **ratio** of the match (1:1, 2:1, 3:1), its **maximum size** (25,000, 50,000, 100,000
# dollars, or unstated) and the **example** amount that the letter suggested (the highest earlier gift, 1.25 or 1.5
# times as much).
#
# **The question:** does the offer pay, and which of its 36 forms should the next letter have? A form was sent to
# about 930 people, of whom 2 % gave: about 20 gifts. That is too few to compare 36 forms one by one.
#
# The experiment is Karlan & List (2007), *Does Price Matter in Charitable Giving?*, American Economic Review 97(5).
# Its data are published by the authors; give the path of the table with one row a person as CSV below. Without it,
# this notebook makes people of the same layout, with a known truth.

# %% tags=["parameters"]
PATH = None  # the table of Karlan & List as CSV, compressed or not; None makes one
QUICK = False  # fewer bootstrap replicates, for a first look

# %%
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from crosschannel import evaluation
from crosschannel.core import ActionSpace, Module
from crosschannel.evaluation.ladder import ladder_weights

RATIOS, SIZES, EXAMPLES = ("1:1", "2:1", "3:1"), ("25,000", "50,000", "100,000", "unstated"), ("1", "1.25", "1.5")
FORMS = list(product(range(3), range(4), range(3)))
REPLICATES = 100 if QUICK else 400
rng = np.random.default_rng(0)

# %% [markdown]
# ## The people
#
# In the data made here the offer raises the share of givers from 1.8 % to 2.2 %, and its parts change that by a tenth
# of a percentage point at most, whatever the other parts are.

# %%
COLUMNS = {
    "ratio": [None, "treat_ratio2", "treat_ratio3"],
    "size": ["treat_size25", "treat_size50", "treat_size100", "treat_sizeno"],
    "example": ["treat_askd1", "treat_askd2", "treat_askd3"],
}
BY_RATIO, BY_EXAMPLE = np.array([-0.0013, 0.0006, 0.0007]), np.array([-0.001, 0.0, 0.001])
BY_SIZE = np.array([-0.0005, 0.0004, 0.0, 0.0001])


def make_people(n=50_083):
    offered = (rng.random(n) < 2 / 3) * 1
    parts = np.array(FORMS)[rng.integers(36, size=n)]
    chance = 0.022 + BY_RATIO[parts[:, 0]] + BY_SIZE[parts[:, 1]] + BY_EXAMPLE[parts[:, 2]]
    table = {"treatment": offered, "out_gavedum": (rng.random(n) < np.where(offered, chance, 0.018)) * 1}
    for (_, names), part in zip(COLUMNS.items(), parts.T, strict=True):
        table |= {name: offered * (part == k) for k, name in enumerate(names) if name}
    return pd.DataFrame(table)


if PATH is None:
    people = make_people()
    print(f"Made {len(people):,} people in the layout of Karlan & List; the truth is known.")
else:
    people = pd.read_csv(PATH)
    print(f"Read {len(people):,} people from {PATH}.")
offered = people["treatment"].to_numpy(dtype=np.int64)
gave = people["out_gavedum"].to_numpy(dtype=np.float64)
parts = np.column_stack(
    [sum(k * people[name] for k, name in enumerate(names) if name) for names in COLUMNS.values()]
).astype(np.int64)
parts *= offered[:, None]

# %% [markdown]
# ## Does the offer pay?
#
# Two groups that were drawn at random: their difference needs no further assumption.

# %%
sizes = np.bincount(offered)
print(f"without the offer {sizes[0]:,}, with it {sizes[1]:,}: p of the planned shares", end=" ")
print(f"{evaluation.sample_ratio_p_value(sizes, np.array([1 / 3, 2 / 3])):.2f}")
lift, _ = evaluation.contrast(evaluation.arm_means(gave, offered, 2), 1, 0)
low, high = lift.interval(1.96).low, lift.interval(1.96).high
print(f"gave without it {lift.control:.2%}", end="; ")
print(f"the offer adds {lift.difference:+.2%}, 95 % interval {low:+.2%} to {high:+.2%}")

# %% [markdown]
# ## The letters as a log
#
# The letter is the channel, its parts are modules. Each was drawn with a known probability, so that these are the
# exact propensities of the design.

# %%
modules = ActionSpace(
    [
        Module("letter", ("usual", "offer"), nothing="usual"),
        Module("ratio", RATIOS),
        Module("size", SIZES),
        Module("example", EXAMPLES),
    ]
)
of_parts = np.where(offered[:, None] == 1, [1 / 3, 1 / 4, 1 / 3], 1.0)
propensity = np.column_stack([np.where(offered, 2 / 3, 1 / 3), of_parts])
log = evaluation.LoggedDecisions(
    modules=modules,
    actions=np.column_stack([offered, parts]),
    propensity=propensity,
    joint=propensity.prod(1),
    user=np.arange(len(gave)),
    propensity_source="by design",
    name="letters",
)


def everybody_gets(form):
    """Return the probabilities of the policy that sends one form to everybody."""
    chosen = [np.arange(2) == 1, *(np.arange(k) == part for k, part in zip((3, 4, 3), form, strict=True))]
    return [np.tile(row * 1.0, (len(gave), 1)) for row in chosen]


# %% [markdown]
# ## 36 forms, one by one and by their parts
#
# The value of a form *without an assumption* rests on the 930 people who got exactly it. If what the parts of a
# letter earn **adds up**, everybody who got the same ratio tells something about the ratio, and so on: that is order
# 1 of the interaction ladder. Both for each form, with 95 % intervals:

# %%
weights = [ladder_weights(log, everybody_gets(form), ((1,), (2,), (3,))).orders[[3, 1]] for form in FORMS]
ess = [np.mean([evaluation.effective_sample_size(w[k]) for w in weights]) for k in range(2)]
stacked, centred = np.concatenate(weights), gave - gave.mean()


def values_of(counts):
    return gave.mean() + stacked @ (counts * centred) / counts.sum()


point = values_of(np.ones(len(gave))).reshape(36, 2)
draws = evaluation.user_bootstrap(values_of, log.user, REPLICATES, rng).reshape(-1, 36, 2)
error = 1.96 * draws.std(0)
order = np.argsort(point[:, 1])
fig, axes = plt.subplots(figsize=(7.5, 3.2), layout="constrained")
for k, (name, colour, shift) in enumerate([("one by one", "C7", -0.15), ("if parts add up", "C0", 0.15)]):
    label = f"{name}: effective sample {ess[k]:,.0f}"
    x, y = np.arange(36) + shift, point[order, k] * 100
    axes.errorbar(x, y, yerr=error[order, k] * 100, fmt="o", ms=3, lw=1, color=colour, label=label)
if PATH is None:
    chance = np.array([0.022 + BY_RATIO[r] + BY_SIZE[s] + BY_EXAMPLE[e] for r, s, e in FORMS])
    axes.plot(chance[order] * 100, "_", color="black", label="truth")
axes.axhline(gave[offered == 0].mean() * 100, color="grey", ls="--", lw=1, label="usual letter")
axes.set(xlabel="the 36 forms, by their value", ylabel="gave [%]", xticks=[])
axes.legend(frameon=False, fontsize=8, ncols=2)
plt.show()
print(f"error of a form: {error[:, 0].mean() / 1.96:.3%} one by one, {error[:, 1].mean() / 1.96:.3%} if parts add up")

# %% [markdown]
# ## May we assume that the parts add up?
#
# The log itself tests it: what do pairs of parts add beyond their sum? p-values are adjusted for the number of tests.
# A test that finds nothing does not prove that there is nothing; its interval says how much there could be.

# %%
best = FORMS[int(point[:, 1].argmax())]
settings = evaluation.EvaluationSettings(bootstrap_replicates=REPLICATES)
result = evaluation.evaluate(
    log, everybody_gets(best), gave, rng=np.random.default_rng(1), settings=settings, policy="the best form"
)
for pair in result.ladder.pairs:
    v = pair.value
    print(f"{pair.label:16} adds {v.point:+.2%} ({v.low:+.2%} to {v.high:+.2%}), p {pair.p_value:.2f}")

# %% [markdown]
# From the letters as they were sent to this form, step by step:

# %%
fig, axes = plt.subplots(figsize=(8, 2.8), layout="constrained")
evaluation.plot_waterfall(result, ax=axes)
plt.show()

# %% [markdown]
# ## Choose on one half, estimate on the other
#
# The best of 36 estimates is too high by construction. So one half of the people chooses the form, and the other half
# says what it is worth.

# %%
of_form = dict(zip([str(form) for form in FORMS], weights, strict=True))


def value(form, rows):
    w, r = of_form[form][1][rows], gave[rows]
    found = r.mean() + float(w @ (r - r.mean())) / len(r)
    influence = (w * (r - r.mean()) + r.mean() - found) / len(r)
    half = 1.96 * float(np.sqrt(influence @ influence))
    return evaluation.Interval(found, found - half, found + half, half / 1.96)


chosen = evaluation.select_best(log.user, list(of_form), value, np.random.default_rng(2))
form = FORMS[list(of_form).index(chosen.name)]
print(f"chosen: match {RATIOS[form[0]]}, up to {SIZES[form[1]]}, example {EXAMPLES[form[2]]} of the highest gift")
print(f"half that chose: {chosen.candidates[chosen.name]:.2%}; the other half: {chosen.value.point:.2%}")

# %% [markdown]
# ## The answer

# %%
v, usual = chosen.value, gave[offered == 0].mean()
print(f"The offer raises the share of givers by {lift.difference:+.2%} ({low:+.2%} to {high:+.2%}).", end=" ")
print("That is shown." if low > 0 else "That is not shown.")
print(f"The chosen form: {v.point:.2%} give ({v.low:.2%} to {v.high:.2%}), the usual letter {usual:.2%}.")
(ratio,) = [step.value for step in result.ladder.waterfall if step.name == "ratio"]
print(f"The ratio changes {ratio.point:+.2%} ({ratio.low:+.2%} to {ratio.high:+.2%}) against a ratio at random.")
if ratio.low <= 0:
    print("So: make the offer; 1:1 will do as far as this experiment can tell.", end=" ")
    print("The forms differ by less than its error.")
else:
    print("So: make the offer, with the larger ratio.")
if PATH is None:
    truth = 0.022 + BY_RATIO[form[0]] + BY_SIZE[form[1]] + BY_EXAMPLE[form[2]]
    print(f"The truth of the chosen form is {truth:.2%}, {'inside' if v.contains(truth) else 'outside'} the interval.")
