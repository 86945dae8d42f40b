# SPDX-License-Identifier: Apache-2.0
"""torch.nn.functional.scaled_dot_product_attention by its signature: fattn.sdpa(q, k, v, is_causal=True), or by its name
in this module."""

import sys

from .torch import scaled_dot_product_attention

# The function stands for the module, because torch.compile traces calls of functions and not of modules.
scaled_dot_product_attention.scaled_dot_product_attention = scaled_dot_product_attention
sys.modules[__name__] = scaled_dot_product_attention
