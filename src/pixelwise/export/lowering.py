"""Operations of a converted graph in forms that OpenVINO computes faster, or in int8."""

from __future__ import annotations

import openvino as ov
from openvino import opset1, opset13

ROUNDING = {"floor": "floor", "ceil": "ceil", "ceil_torch": "ceil"}


def lower_max_pools(model: ov.Model) -> None:
    """Write max pools as operations of opset 1, in place, where they are the same.

    PyTorch's become those of opset 14, which also give indices and may be dilated. OpenVINO's
    quantized graphs do not see through them: the convolution behind such a pool stays in float.
    """
    for pool in model.get_ops():
        if pool.get_type_name() != "MaxPool" or pool.get_type_info().version_id == "opset1":
            continue
        form = pool.get_attributes()
        if set(form.get("dilations", ())) - {1} or pool.output(1).get_target_inputs():
            continue
        padded = any((*form["pads_begin"], *form["pads_end"]))
        overlapping = all(
            step <= side for step, side in zip(form["strides"], form["kernel"], strict=True)
        )
        # Otherwise PyTorch may leave out a last window that begins beyond the map.
        if form["rounding_type"] == "ceil_torch" and (padded or not overlapping):
            continue
        lowered = opset1.max_pool(
            pool.input_value(0),
            strides=form["strides"],
            pads_begin=form["pads_begin"],
            pads_end=form["pads_end"],
            kernel_shape=form["kernel"],
            rounding_type=ROUNDING[form["rounding_type"]],
            auto_pad=form["auto_pad"],
        )
        lowered.set_friendly_name(pool.get_friendly_name())
        for user in pool.output(0).get_target_inputs():
            user.replace_source_output(lowered.output(0))


def lower_argmax(model: ov.Model) -> None:
    """Let the choice of the largest give indices of 32 bits, in place: half the time of 64."""
    for chosen in model.get_ops():
        form = chosen.get_attributes()
        if chosen.get_type_name() != "TopK" or form["index_element_type"] != "i64":
            continue
        if chosen.output(0).get_target_inputs():  # the values are used, too
            continue
        lowered = opset13.topk(
            chosen.input_value(0),
            chosen.input_value(1),
            form["axis"],
            form["mode"],
            form["sort"],
            index_element_type="i32",
            stable=form["stable"],
        )
        wide = opset13.convert(lowered.output(1), "i64")
        for user in chosen.output(1).get_target_inputs():
            user.replace_source_output(wide.output(0))
