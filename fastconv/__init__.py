"""Convolution layers for NumPy, written as nested loops and compiled by Numba.

Functions ``conv{1,2,3}d`` and ``conv_transpose{1,2,3}d`` with their gradients ``_grad_input``,
``_grad_weight``, ``_grad_bias``, ``_backward`` and ``_double_backward``; layers
``Conv{1,2,3}d`` and ``ConvTranspose{1,2,3}d``; ``gradcheck`` for gradients of your own.
"""

from .double_backward import (
    conv1d_double_backward,
    conv2d_double_backward,
    conv3d_double_backward,
    conv_transpose1d_double_backward,
    conv_transpose2d_double_backward,
    conv_transpose3d_double_backward,
)
from .explain import Explanation, explain
from .functional import (
    conv1d,
    conv1d_backward,
    conv1d_grad_bias,
    conv1d_grad_input,
    conv1d_grad_weight,
    conv2d,
    conv2d_backward,
    conv2d_grad_bias,
    conv2d_grad_input,
    conv2d_grad_weight,
    conv3d,
    conv3d_backward,
    conv3d_grad_bias,
    conv3d_grad_input,
    conv3d_grad_weight,
)
from .gradcheck import GradCheck, gradcheck
from .layers import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from .memory import free_workspace
from .transposed import (
    conv_transpose1d,
    conv_transpose1d_backward,
    conv_transpose1d_grad_input,
    conv_transpose1d_grad_weight,
    conv_transpose2d,
    conv_transpose2d_backward,
    conv_transpose2d_grad_input,
    conv_transpose2d_grad_weight,
    conv_transpose3d,
    conv_transpose3d_backward,
    conv_transpose3d_grad_input,
    conv_transpose3d_grad_weight,
)

__version__ = "0.1.0"

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Explanation",
    "GradCheck",
    "conv1d",
    "conv1d_backward",
    "conv1d_double_backward",
    "conv1d_grad_bias",
    "conv1d_grad_input",
    "conv1d_grad_weight",
    "conv2d",
    "conv2d_backward",
    "conv2d_double_backward",
    "conv2d_grad_bias",
    "conv2d_grad_input",
    "conv2d_grad_weight",
    "conv3d",
    "conv3d_backward",
    "conv3d_double_backward",
    "conv3d_grad_bias",
    "conv3d_grad_input",
    "conv3d_grad_weight",
    "conv_transpose1d",
    "conv_transpose1d_backward",
    "conv_transpose1d_double_backward",
    "conv_transpose1d_grad_input",
    "conv_transpose1d_grad_weight",
    "conv_transpose2d",
    "conv_transpose2d_backward",
    "conv_transpose2d_double_backward",
    "conv_transpose2d_grad_input",
    "conv_transpose2d_grad_weight",
    "conv_transpose3d",
    "conv_transpose3d_backward",
    "conv_transpose3d_double_backward",
    "conv_transpose3d_grad_input",
    "conv_transpose3d_grad_weight",
    "explain",
    "free_workspace",
    "gradcheck",
]
