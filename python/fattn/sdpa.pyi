# SPDX-License-Identifier: Apache-2.0
from .torch import scaled_dot_product_attention as scaled_dot_product_attention

__all__ = ["scaled_dot_product_attention"]
