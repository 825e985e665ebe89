"""What people wear: kinds of garments, and the families that are drawn from.

The ranges are set so that everyday clothes stand off as far as books on pattern making add ease:
fitted to classic shirts 4 to 8 cm round the chest, trousers 4 to 5 through the seat, 5 to 7 where
a top hangs over the hips, 2.5 and more round the thigh (Robinson, "Ease in clothing", Central
Washington University; McCunn, "How to make sewing patterns": 5 to 10 round the bust).  Drawn:
chest 7.2 ± 2.9, hip 9.8 ± 1.9, thigh 9.0 ± 2.9 cm of girth, so rather more than less.  Tight and
loose ones are our judgement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Garment:
    """One kind of garment; ranges are drawn from for each wearer."""

    name: str
    thickness_m: Range
    hang: Range
    """0: follows the body; 1: falls straight from the fullest place above."""
    hem_slack_m: Range
    """Further room at the hem, growing from nothing at the top."""
    hem: float
    """Height of the hem: of tops below the hip joint, of bottoms above the ankle, in statures."""
    sleeve: float = 0.0
    """Share of the arm, shoulder to wrist, that it covers."""
    sleeve_slack_m: Range = (0.0, 0.0)
    """Further room in the sleeve, growing from nothing at the shoulder."""
    spans_legs: bool = False
    waist: float = 0.058
    """Height of a bottom's upper edge above the hip joint, in statures."""
    legless: bool = False
    """Ends in the crotch, as briefs do."""


TIGHT_TOP = Garment("tight top", (0.001, 0.003), (0.0, 0.0), (0.0, 0.001), 0.01, 0.3, (0.0, 0.001))
T_SHIRT = Garment("T-shirt", (0.001, 0.003), (0.3, 0.85), (0.0, 0.005), 0.025, 0.32, (0.004, 0.014))
SHIRT = Garment("shirt", (0.001, 0.003), (0.4, 0.85), (0.001, 0.007), 0.035, 1.0, (0.004, 0.015))
SWEATER = Garment("sweater", (0.005, 0.012), (0.5, 0.95), (0.0, 0.02), 0.03, 1.0, (0.0, 0.02))
COAT = Garment(
    "coat", (0.010, 0.020), (0.8, 1.0), (0.01, 0.04), 0.22, 1.0, (0.01, 0.04), spans_legs=True
)
BRA = Garment("sports bra", (0.0005, 0.0015), (0.0, 0.0), (0.0, 0.0), -0.175, 0.08)
VEST = Garment("vest", (0.0005, 0.0015), (0.0, 0.0), (0.0, 0.0), -0.10, 0.08)
BRIEFS = Garment("briefs", (0.0005, 0.0015), (0.0, 0.0), (0.0, 0.0), 0.0, waist=0.03, legless=True)
LEGGINGS = Garment("leggings", (0.001, 0.002), (0.0, 0.0), (0.0, 0.001), 0.0)
JEANS = Garment("jeans", (0.001, 0.002), (0.12, 0.3), (0.001, 0.009), -0.01)
CHINOS = Garment("chinos", (0.001, 0.003), (0.15, 0.45), (0.003, 0.016), -0.01)
WIDE_TROUSERS = Garment("wide trousers", (0.002, 0.005), (0.7, 1.0), (0.02, 0.06), -0.015)
SKIRT = Garment("skirt", (0.002, 0.004), (0.8, 1.0), (0.01, 0.06), 0.22, spans_legs=True)

Choice = tuple[tuple[Garment, ...], tuple[Garment, ...]]
"""Tops and bottoms that may be drawn."""

FAMILIES: Final[dict[str, Choice]] = {
    "underwear": ((BRA, VEST), (BRIEFS,)),
    "tight": ((TIGHT_TOP,), (LEGGINGS,)),
    "everyday": ((T_SHIRT, SHIRT), (JEANS, CHINOS)),
    "loose": ((SWEATER, COAT), (WIDE_TROUSERS, SKIRT)),
}
"""Tops and bottoms; one of each is drawn."""
TEST_ONLY = ("loose",)
"""Families that the development split never sees."""
