"""Findings of analyses in words that claim no more than the numbers show."""

from collections.abc import Mapping
from statistics import fmean

from hyplora.analysis.adapter_effect import AdapterEffect
from hyplora.analysis.hyperbolicity import HyperbolicitySummary
from hyplora.analysis.power_law import LEVEL, PowerLawFit, Verdict
from hyplora.analysis.prompt_hyperbolicity import PromptHyperbolicity
from hyplora.analysis.token_norms import NormsByFrequency


def about_hyperbolicity(found: PromptHyperbolicity) -> list[str]:
    """Relative deltas, and whether the adapter changes them."""
    sentences = [
        f"Relative delta of token embeddings: {mean_sd(found.embeddings)}; of final hidden "
        f"states: {mean_sd(found.hidden)}. 0 is a tree; a circle has 0.59."
    ]
    skipped = found.embeddings.num_skipped
    if skipped:
        sentences.append(f"{skipped} prompts have fewer than two distinct tokens and are left out.")
    effect = found.adapter_effect
    if effect is None:
        return sentences
    without = found.hidden_without_adapter
    assert without is not None
    change = f"{effect.mean:+.4f}"
    if effect.low is None or effect.high is None:
        return [*sentences, f"With the adapter delta changes by {change}, on a single prompt."]
    interval = f"{effect.low:+.4f} to {effect.high:+.4f}"
    if effect.low <= 0 <= effect.high:
        verdict = "no change that could be told from none"
    else:
        verdict = "closer to a tree" if effect.mean < 0 else "further from a tree"
    sentences.append(
        f"Without the adapter it is {mean_sd(without)}; the adapter changes it by {change} "
        f"(95 % interval {interval} over {effect.num_prompts} prompts): {verdict}."
    )
    return sentences


def about_power_law(fit: PowerLawFit) -> list[str]:
    """The exponent, and what the tests make of it."""
    tail = f"{fit.num_tail} of {fit.num_values} tokens"
    sentences = [
        f"Token counts of at least {fit.x_min} ({tail}) are fitted best by an exponent of "
        f"{fit.exponent:.2f} (95 % interval {fit.exponent_low:.2f} to {fit.exponent_high:.2f})."
    ]
    plausible = "implausible" if fit.goodness_p < LEVEL else "plausible"
    reasons = [f"goodness of fit p = {fit.goodness_p:.2f} ({plausible})"]
    for each in fit.comparisons:
        better = "power law" if each.log_likelihood_ratio > 0 else str(each.alternative)
        sure = "" if each.is_significant else ", not significantly"
        reasons.append(
            f"against {each.alternative} the {better} is likelier{sure} "
            f"(log likelihood ratio {each.log_likelihood_ratio:.1f}, p = {each.p_value:.2g})"
        )
    claim = {
        Verdict.SUPPORTED: "A power law is supported",
        Verdict.NOT_DISTINGUISHED: "A power law is possible, but so is an alternative",
        Verdict.NOT_SUPPORTED: "A power law is not supported",
    }[fit.verdict]
    return [*sentences, f"{claim}: {'; '.join(reasons)}."]


def about_norms(norms: NormsByFrequency) -> list[str]:
    """Whether frequent tokens lie nearer the origin."""
    if norms.spearman is None or norms.spearman_low is None or norms.spearman_high is None:
        return ["All embedding norms or all counts are the same: nothing correlates."]
    numbers = (
        f"Spearman's rho of norm and count {norms.spearman:+.2f}, 95 % interval "
        f"{norms.spearman_low:+.2f} to {norms.spearman_high:+.2f}, {norms.num_tokens} tokens"
    )
    if norms.spearman_low <= 0 <= norms.spearman_high:
        return [f"Embedding norms do not go with frequency ({numbers})."]
    side = "further out than" if norms.spearman > 0 else "nearer the origin than"
    return [f"Frequent tokens lie {side} rare ones ({numbers})."]


def about_adapter(effect: AdapterEffect) -> list[str]:
    """Curvatures, gains and displacements over the layers."""
    layers = effect.layers
    curvatures = sorted(layer.geometry.curvature for layer in layers)
    medians = sorted(layer.gain.median for layer in layers)
    furthest = max(layers, key=lambda layer: layer.displacement.median)
    capped = fmean(layer.geometry.cap_rate for layer in layers)
    return [
        f"Over {len(layers)} adapted layers and {effect.num_tokens} tokens, K lies between "
        f"{curvatures[0]:.4g} and {curvatures[-1]:.4g}, and the median gain between "
        f"{medians[0]:.3g} and {medians[-1]:.3g} (1 is LoRA); the radius cap clips "
        f"{100 * capped:.2g} % of the tokens.",
        f"{short_name(furthest.name)} moves its outputs furthest: its update is "
        f"{100 * furthest.displacement.median:.2g} % of them for the median token.",
    ]


def about_left_out(reasons: Mapping[str, str]) -> list[str]:
    """What was asked for and is missing, and why."""
    return [
        f"{part.replace('_', ' ').capitalize()} is left out: {reason}."
        for part, reason in reasons.items()
    ]


def short_name(layer: str) -> str:
    """A layer's name in the base model, without what PEFT puts before it."""
    return layer.removeprefix("base_model.model.")


def mean_sd(summary: HyperbolicitySummary) -> str:
    """Mean and standard deviation of the relative deltas."""
    if summary.mean_relative is None:
        return "not measured"
    if summary.sd_relative is None:
        return f"{summary.mean_relative:.3f} (one prompt)"
    return f"{summary.mean_relative:.3f} ± {summary.sd_relative:.3f}"
