"""The numbers under the judge: normalising constants and e-values, all in natural logarithms.

Sources are named in docs/judge.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

ALTERNATIVES = (1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0, 1000.0)  # odds ratios, in units of the tolerated one
SAFER = (0.0, 0.1, 0.25, 0.5, 0.75)  # failure rates, in units of the largest one allowed

_NEGLIGIBLE = 1e-17  # of the largest term; below what a double can add
_SMOOTH = 24.0  # standard deviations (in steps of u) above which the sum may be taken with a stride


def logsumexp(values: Sequence[float]) -> float:
    top = max(values)
    if top == -math.inf:
        return top
    return top + math.log(math.fsum(math.exp(v - top) for v in values))


def logmeanexp(values: Sequence[float]) -> float:
    """ln of the mean of e-values given as logarithms. The mean of e-values is an e-value (Vovk & Wang 2021)."""
    return logsumexp(values) - math.log(len(values))


def log_comb(n: int, k: int) -> float:
    """ln of the binomial coefficient C(n, k)."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _mode(n_c: int, n_b: int, e: int, w: float, low: int, high: int) -> int:
    """The u with the largest term: where the ratio of neighbours, (n_c-u)(e-u)w / ((u+1)(n_b-e+u+1)), passes 1."""
    # (1-w)u^2 + (s + w(n_c+e))u + (s - 1 - w n_c e) = 0 with s = n_b - e + 2, the sign of u+1 and so on kept.
    a = 1.0 - w
    b = (n_b - e + 2) + w * (n_c + e)
    c = (n_b - e + 1) - w * n_c * e
    # Stable root: b > 0 in the range of interest, so -2c / (b + sqrt(b^2 - 4ac)) does not cancel.
    root = -2.0 * c / (b + math.sqrt(max(b * b - 4.0 * a * c, 0.0)))
    return min(max(math.ceil(root), low), high)


def log_z(n_c: int, n_b: int, e: int, w: float) -> float:
    """ln Z(w), Z(w) = sum over u = max(0, e-n_b)..min(e, n_c) of C(n_c, u) C(n_b, e-u) w^u.

    The normalising constant of Fisher's noncentral hypergeometric law (Fisher 1935; Fog 2008). The terms are
    log-concave in u, so the sum starts at the largest and walks out both ways until nothing more counts. A wide and
    smooth bump well inside the range is summed with a stride of half a standard deviation: by Poisson summation the
    relative error is about exp(-2 pi^2 (sd/stride)^2) < 1e-30 for a Gaussian.
    """
    low, high = max(0, e - n_b), min(e, n_c)
    mode = _mode(n_c, n_b, e, w, low, high)
    log_w = math.log(w)
    top = log_comb(n_c, mode) + log_comb(n_b, e - mode) + mode * log_w
    if low == high:
        return top
    curvature = 1 / (n_c - mode + 1) + 1 / (e - mode + 1) + 1 / (mode + 1) + 1 / (n_b - e + mode + 1)
    deviation = 1.0 / math.sqrt(curvature)
    reach = 10.0 * deviation
    if deviation > _SMOOTH and mode - reach > low and mode + reach < high:
        stride = int(deviation / 2)
        steps = int(reach / stride)
        total = 0.0
        for j in range(-steps, steps + 1):
            u = mode + j * stride
            total += math.exp(log_comb(n_c, u) + log_comb(n_b, e - u) + u * log_w - top)
        return top + math.log(total * stride)
    total, term, u = 1.0, 1.0, mode
    while u < high:
        term *= (n_c - u) * (e - u) * w / ((u + 1) * (n_b - e + u + 1))
        total += term
        u += 1
        if term < _NEGLIGIBLE:
            break
    term, u = 1.0, mode
    while u > low:
        term *= u * (n_b - e + u) / ((n_c - u + 1) * (e - u + 1) * w)
        total += term
        u -= 1
        if term < _NEGLIGIBLE:
            break
    return top + math.log(total)


def harm_steps(n_c: int, e_c: int, n_b: int, e_b: int, w0: float = 1.0) -> tuple[float, ...] | None:
    """What one window adds to each log M_k, or None where it says nothing.

    ``n`` requests and ``e`` failures of canary (c) and baseline (b). Given e = e_c + e_b, e_c follows Fisher's
    noncentral hypergeometric law, whose only parameter is the odds ratio w; the baseline's own rate is gone. Each step
    is the log likelihood ratio of w_k = w0 * ALTERNATIVES[k] against w0, of expectation 1 at w0 and at most 1 below.
    """
    e = e_c + e_b
    if not e or not n_c or not n_b or e == n_c + n_b:
        return None
    z0 = log_comb(n_c + n_b, e) if w0 == 1.0 else log_z(n_c, n_b, e, w0)  # Vandermonde's identity at w0 = 1
    return tuple(e_c * math.log(r) - log_z(n_c, n_b, e, w0 * r) + z0 for r in ALTERNATIVES)


def log_safe(n_c: int, e_c: int, p1: float) -> float:
    """ln E against "the canary fails at a rate of p1 or more": the mean of likelihood ratios of rates below p1.

    L_k = (q_k/p1)^e_c ((1-q_k)/(1-p1))^(n_c-e_c), with q_k = p1 * SAFER[k] (Wald 1945; Robbins 1970).
    """
    good = n_c - e_c
    values = []
    for share in SAFER:
        value = good * (math.log1p(-p1 * share) - math.log1p(-p1))
        if e_c:
            value = -math.inf if share == 0.0 else value + e_c * math.log(share)
        values.append(value)
    return logmeanexp(values)
