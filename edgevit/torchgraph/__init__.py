"""The canonical operators in PyTorch: the same graph, with gradients (extra ``[torch]``).

No module here imports torch when it is loaded: the library is an argument, ``t``, as the array
namespace is in ``sim4f``.
"""
