# SPDX-License-Identifier: Apache-2.0
__all__ = ["register"]

def register(name: str = "fattn") -> None: ...
