"""The IPython terminal.

* :mod:`prompt`: the notebook's loop runs while the prompt waits.
* :mod:`prompt_ctrl_c`: Ctrl-C at a prompt while a background callback blocks its thread.
"""
