"""Margins: how far a classifier is from erring, in outputs, in weights and in inputs; plain functions of tensors."""

from .direction import angle_degrees, linear_rule, signed_rows
from .distance import boundary_distance, first_order_margin
from .homogeneity import Homogeneity, homogeneity
from .kkt import KKTResidual, kkt_residual, kkt_residual_least_squares, margin_gradients
from .linear import linear_margin, parse_norm, rule_margin, weight_norm
from .normalized import (
    log_product_norm,
    margin_growth,
    normalized_margin,
    parameter_norm,
    sandwich_violation,
    smoothed_margin,
)
from .order_statistics import Summary, order_statistics, summaries
from .output import output_margin
from .spectral import row_norm_sum, spectral_complexity, spectral_norm, spectrally_normalized_margin

__all__ = [
    "Homogeneity",
    "KKTResidual",
    "Summary",
    "angle_degrees",
    "boundary_distance",
    "first_order_margin",
    "homogeneity",
    "kkt_residual",
    "kkt_residual_least_squares",
    "linear_margin",
    "linear_rule",
    "log_product_norm",
    "margin_gradients",
    "margin_growth",
    "normalized_margin",
    "order_statistics",
    "output_margin",
    "parameter_norm",
    "parse_norm",
    "row_norm_sum",
    "rule_margin",
    "sandwich_violation",
    "signed_rows",
    "smoothed_margin",
    "spectral_complexity",
    "spectral_norm",
    "spectrally_normalized_margin",
    "summaries",
    "weight_norm",
]
