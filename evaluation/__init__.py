"""Off-policy evaluation: a policy's value from a log of another policy's decisions, if the log identifies it.

`evaluate` estimates the value of the whole action and of each module ("this module's policy, the others as logged"), by
several estimators, each with a user-clustered interval, the effective sample size and the policy's mass without
support. A value that the log does not identify is reported as not identified, with the reason. The value that is
reported first is that of the interaction ladder (`crosschannel.evaluation.ladder`), which names what it assumes about
the parts of a message. `compare_policies` is for two policies on one log.

    p = agent.action_probabilities(observations)
    outcomes = CrossFittedOutcomes.fit(modules, context, actions, rewards, user)
    q = outcomes.q_values(context, actions, p)
    result = evaluate(LoggedDecisions.from_history(history), p, refit(reward_model, outcomes), q_values=q, rng=rng)
    print(text_table(result))

`evaluate_trajectories` estimates the value of a policy that chooses at several slots of a user in a row, where effects
outlast a slot (`crosschannel.evaluation.sequential`).
"""

if not __name__.startswith("crosschannel."):
    raise ImportError(
        "import `crosschannel.evaluation` instead of `evaluation`: a second copy of its classes would not fit the first"
    )


import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
