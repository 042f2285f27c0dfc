"""Prints, as JSON, what the real TensorBoard reads from a folder: {tag: [[step, value], ...]}.

The value of a histogram is a list of [left, right, count]. Reading checks framing and checksums.
"""

import json
import sys

from tensorboard.backend.event_processing import plugin_event_accumulator as accumulator
from tensorboard.util import tensor_util

events = accumulator.EventAccumulator(sys.argv[1], size_guidance={accumulator.TENSORS: 0})
events.Reload()
tags = {
    tag: [[e.step, tensor_util.make_ndarray(e.tensor_proto).tolist()] for e in events.Tensors(tag)]
    for tag in events.Tags()[accumulator.TENSORS]
}
plugins = {tag: events.SummaryMetadata(tag).plugin_data.plugin_name for tag in tags}
print(json.dumps({"tags": tags, "plugins": plugins}))
