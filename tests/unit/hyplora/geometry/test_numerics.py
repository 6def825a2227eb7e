import math
from collections.abc import Callable

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hyplora.errors import GeometryError
from hyplora.geometry.numerics import (
    arsinh,
    arsinh_scaled_exp,
    arsinhc,
    log_sinhc,
    require_full_precision,
    sinhc,
)

SCALE = 0.25
Function = Callable[[Tensor], Tensor]

# Below, at and above the seams between series and closed form.
POINTS = [1e-30, 1e-8, 1e-3, 0.1, 0.199999, 0.2, 0.200001, 0.499999, 0.5, 0.500001, 1.0, 7.0, 80.0]
TOLERANCE = {torch.float32: 5e-7, torch.float64: 1e-15}
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def exact(function: str, x: float) -> float:
    """Evaluate a formula with 120 digits."""
    with mpmath.workdps(120):
        return float(FORMULAS[function](mpmath.mpf(x)))


FORMULAS: dict[str, Callable[[mpmath.mpf], mpmath.mpf]] = {
    "sinhc": lambda x: mpmath.sinh(x) / x,
    "arsinhc": lambda x: mpmath.asinh(x) / x,
    "arsinh": mpmath.asinh,
    "log_sinhc": lambda x: mpmath.log(mpmath.sinh(x) / x),
    "arsinh_scaled_exp": lambda exponent: mpmath.asinh(SCALE * mpmath.exp(exponent)),
    "sinhc'": lambda x: (x * mpmath.cosh(x) - mpmath.sinh(x)) / x**2,
    "arsinhc'": lambda x: (x / mpmath.sqrt(1 + x**2) - mpmath.asinh(x)) / x**2,
    "x * arsinh'": lambda x: x / mpmath.sqrt(1 + x**2),
    "x * arsinhc'": lambda x: 1 / mpmath.sqrt(1 + x**2) - mpmath.asinh(x) / x,
    "arsinh'": lambda x: 1 / mpmath.sqrt(1 + x**2),
    "log_sinhc'": lambda x: mpmath.coth(x) - 1 / x,
    "arsinh_scaled_exp'": lambda exponent: 1 / mpmath.hypot(1, mpmath.exp(-exponent) / SCALE),
}
FUNCTIONS: dict[str, Function] = {
    "sinhc": sinhc,
    "arsinhc": arsinhc,
    "arsinh": arsinh,
    "log_sinhc": log_sinhc,
    "arsinh_scaled_exp": lambda exponent: arsinh_scaled_exp(
        torch.full_like(exponent, SCALE), exponent
    ),
}


@DTYPES
@pytest.mark.parametrize("x", POINTS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_value_is_exact_to_the_last_digits(name: str, x: float, dtype: torch.dtype) -> None:
    argument = torch.tensor(x, dtype=dtype)
    value = FUNCTIONS[name](argument).item()
    # log_sinhc is used in an exponent, where the absolute error counts.
    magnitude = max(1.0, abs(exact(name, argument.item())))
    assert value == pytest.approx(
        exact(name, argument.item()), rel=0, abs=TOLERANCE[dtype] * magnitude
    )


@DTYPES
@pytest.mark.parametrize("x", POINTS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradient_keeps_its_digits_near_zero(name: str, x: float, dtype: torch.dtype) -> None:
    argument = torch.tensor(x, dtype=dtype, requires_grad=True)
    (gradient,) = torch.autograd.grad(FUNCTIONS[name](argument), argument)
    expected = exact(f"{name}'", argument.item())
    assert gradient.item() == pytest.approx(expected, rel=100 * TOLERANCE[dtype], abs=1e-37)


@pytest.mark.parametrize(
    ("dtype", "x"), [(torch.float32, 1e30), (torch.float64, 1e30), (torch.float64, 1e300)]
)
@pytest.mark.parametrize("name", ["arsinh", "arsinhc"])
def test_gradient_holds_where_squares_overflow(name: str, x: float, dtype: torch.dtype) -> None:
    argument = torch.tensor(x, dtype=dtype, requires_grad=True)
    value = FUNCTIONS[name](argument)
    # A length is given as gradient, as the maps do: arsinhc' alone is below the smallest number.
    (gradient,) = torch.autograd.grad(value, argument, argument.detach())
    expected = exact(name, argument.item())
    slope = exact(f"x * {name}'", argument.item())
    assert value.item() == pytest.approx(expected, rel=4 * TOLERANCE[dtype])
    assert gradient.item() == pytest.approx(slope, rel=4 * TOLERANCE[dtype])


@pytest.mark.parametrize("name", ["sinhc", "arsinhc", "log_sinhc"])
def test_zero_is_a_smooth_point(name: str) -> None:
    zero = torch.zeros((), dtype=torch.float64, requires_grad=True)
    value = FUNCTIONS[name](zero)
    (gradient,) = torch.autograd.grad(value, zero)
    assert value.item() == (0.0 if name.startswith("log") else 1.0)
    assert gradient.item() == 0.0


def test_arsinh_is_odd() -> None:
    x = torch.tensor([*POINTS, 1e12, 1e200], dtype=torch.float64)
    torch.testing.assert_close(arsinh(-x), -arsinh(x), rtol=0, atol=0)


@pytest.mark.parametrize("function", [sinhc, arsinhc])
def test_sinhc_and_arsinhc_are_even(function: Function) -> None:
    x = torch.tensor(POINTS, dtype=torch.float64)
    torch.testing.assert_close(function(-x), function(x), rtol=0, atol=0)


@settings(deadline=None, max_examples=50)
@given(x=st.floats(0, 1e30, allow_nan=False))
def test_log_sinhc_never_overflows(x: float) -> None:
    argument = torch.tensor(x, dtype=torch.float32, requires_grad=True)
    value = log_sinhc(argument)
    (gradient,) = torch.autograd.grad(value, argument)
    assert math.isfinite(value.item())
    assert 0 <= gradient.item() <= 1


@pytest.mark.parametrize("function", [sinhc, arsinhc, arsinh, log_sinhc])
def test_gradients_agree_with_finite_differences(function: Function) -> None:
    x = torch.linspace(0.05, 3, 17, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64], ids=str)
def test_other_dtypes_than_float32_and_float64_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(GeometryError, match="cast the tensor first"):
        require_full_precision(torch.ones(2, dtype=dtype))
