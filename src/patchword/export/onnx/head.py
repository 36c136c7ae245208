"""The words' side of the graph: patch vectors and word vectors to a class and a confidence for every pixel.

Written in ONNX's own text: unlike a trace it has a loop, so that the scores of a strip of rows are in memory and never
those of all pixels. Bilinear upsampling is two products with matrices of weights max(0, 1 - |place - patch|).
"""

from __future__ import annotations

from string import Template
from typing import Any

from patchword.export.onnx.facts import IMAGES, PATCHES, import_onnx_package

_LOWEST = -1e4  # score of a class without words: never the best, and nothing in the softmax
_IR_VERSION = 10
_TEXT = Template("""
<ir_version: $ir_version, opset_import: ["" : $opset]>
head (float[batch, dim, rows, cols] patches, float[words, dim] vectors, int64[words] class_of, int64[2] size)
  => (int32[batch, height, width] classes, float[batch, height, width] confidence,
      float[batch, count, rows, cols] scores)
  <int64 zero = {0}, int64 one = {1}, int64[1] at_0 = {0}, int64[1] at_1 = {1}, int64[1] at_2 = {2},
   int64[1] rest = {-1}, double nothing = {0}, double half = {0.5}, double whole = {1}, bool always = {1},
   float temperature = {$temperature}, float[1] lowest = {$lowest}, int64[1] most = {$values_at_once}>
{
  batch = Shape <start = 0, end = 1> (patches)
  batch_dim = Shape <start = 0, end = 2> (patches)
  grid = Shape <start = 2> (patches)
  rows = Shape <start = 2, end = 3> (patches)
  cols = Shape <start = 3, end = 4> (patches)

  flat_shape = Concat <axis = 0> (batch_dim, rest)
  flat = Reshape (patches, flat_shape)
  similarity = MatMul (vectors, flat)
  similarity_shape = Shape (similarity)
  class_column = Unsqueeze (class_of, at_1)
  class_of_all = Expand (class_column, similarity_shape)
  last_class = ReduceMax (class_of)
  count = Add (last_class, at_1)
  places = Shape <start = 2> (flat)
  empty_shape = Concat <axis = 0> (batch, count, places)
  empty = Expand (lowest, empty_shape)
  best_words = ScatterElements <axis = 1, reduction = "max"> (empty, class_of_all, similarity)
  score_shape = Concat <axis = 0> (batch, count, grid)
  scores = Reshape (best_words, score_shape)

  height = Slice (size, at_0, at_1)
  width = Slice (size, at_1, at_2)
  width_number = Squeeze (width)
  x = Range (zero, width_number, one)
  x_double = Cast <to = 11> (x)
  x_centre = Add (x_double, half)
  cols_double = Cast <to = 11> (cols)
  width_double = Cast <to = 11> (width)
  x_scale = Div (cols_double, width_double)
  x_scaled = Mul (x_centre, x_scale)
  x_free = Sub (x_scaled, half)
  x_above = Max (x_free, nothing)
  last_col = Sub (cols_double, whole)
  x_place = Min (x_above, last_col)
  cols_number = Squeeze (cols)
  col = Range (zero, cols_number, one)
  col_double = Cast <to = 11> (col)
  col_column = Unsqueeze (col_double, at_1)
  x_offset = Sub (x_place, col_column)
  x_distance = Abs (x_offset)
  x_near = Sub (whole, x_distance)
  x_weight = Max (x_near, nothing)
  across = Cast <to = 1> (x_weight)

  rows_double = Cast <to = 11> (rows)
  height_double = Cast <to = 11> (height)
  y_scale = Div (rows_double, height_double)
  last_row = Sub (rows_double, whole)
  rows_number = Squeeze (rows)
  row = Range (zero, rows_number, one)
  row_double = Cast <to = 11> (row)

  batch_count = Mul (batch, count)
  values_of_row = Mul (batch_count, width)
  rows_that_fit = Div (most, values_of_row)
  at_least_one = Max (rows_that_fit, at_1)
  strip = Min (at_least_one, height)
  strip_number = Squeeze (strip)
  height_and_strip = Add (height, strip)
  last_start = Sub (height_and_strip, at_1)
  strips = Div (last_start, strip)
  strips_number = Squeeze (strips)
  class_strips, confidence_strips = Loop (strips_number, always) <body =
    one_strip (int64 number, bool before) => (bool after, int32[b, s, w] strip_classes, float[b, s, w] strip_sure) {
      after = Identity (before)
      start = Mul (number, strip_number)
      end = Add (start, strip_number)
      y = Range (start, end, one)
      y_double = Cast <to = 11> (y)
      y_centre = Add (y_double, half)
      y_scaled = Mul (y_centre, y_scale)
      y_free = Sub (y_scaled, half)
      y_above = Max (y_free, nothing)
      y_place = Min (y_above, last_row)
      y_column = Unsqueeze (y_place, at_1)
      y_offset = Sub (y_column, row_double)
      y_distance = Abs (y_offset)
      y_near = Sub (whole, y_distance)
      y_weight = Max (y_near, nothing)
      down = Cast <to = 1> (y_weight)
      between = MatMul (down, scores)
      full = MatMul (between, across)
      best = ArgMax <axis = 1, keepdims = 0> (full)
      strip_classes = Cast <to = 6> (best)
      highest = ReduceMax <keepdims = 1> (full, at_1)
      behind = Sub (full, highest)
      scaled = Div (behind, temperature)
      shares = Exp (scaled)
      total = ReduceSum <keepdims = 0> (shares, at_1)
      strip_sure = Reciprocal (total)
    }>
  class_rows = Transpose <perm = [1, 0, 2, 3]> (class_strips)
  confidence_rows = Transpose <perm = [1, 0, 2, 3]> (confidence_strips)
  full_shape = Concat <axis = 0> (batch, rest, width)
  class_padded = Reshape (class_rows, full_shape)
  confidence_padded = Reshape (confidence_rows, full_shape)
  classes = Slice (class_padded, at_0, height, at_1)
  confidence = Slice (confidence_padded, at_0, height, at_1)
}
""")


def parse_head(*, opset: int, temperature: float, values_at_once: int) -> Any:
    """The words' side as a model of its own, with `patches` as its first input."""
    parser = import_onnx_package("onnx.parser")
    text = _TEXT.substitute(
        ir_version=_IR_VERSION,
        opset=opset,
        temperature=f"{temperature:.9g}",
        lowest=f"{_LOWEST:.1f}",
        values_at_once=values_at_once,
    )
    return parser.parse_model(text)


def attach_head(model: Any, *, head: Any) -> None:
    """Put the words' side behind an image side, in place."""
    ir = import_onnx_package("onnx_ir")
    words = ir.from_proto(head).graph
    interface = {value.name for value in (*words.inputs, *words.outputs)}
    initializers = list(words.initializers.values())
    values = [*initializers, *(value for node in words.all_nodes() for value in node.outputs)]
    values += [value for part in words.subgraphs() for value in part.inputs]
    for value in values:
        if value.name not in interface:
            value.name = f"words/{value.name}"
    graph = model.graph
    patches = graph.outputs[0]
    own_patches, *inputs = words.inputs
    own_patches.replace_all_uses_with(patches)
    outputs = list(words.outputs)
    nodes = list(words)
    words.outputs.clear()
    words.inputs.clear()
    words.initializers.clear()
    words.remove(nodes)
    graph.extend(nodes)
    for initializer in initializers:
        graph.register_initializer(initializer)
    graph.inputs.extend(inputs)
    graph.outputs[:] = [*outputs, patches]
    graph.inputs[0].name, patches.name = IMAGES, PATCHES
