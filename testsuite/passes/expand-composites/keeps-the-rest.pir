; run: expand-composites
; expect: nodes == 2
planish-ir 1
graph @"main"(v0 "x": f32[2,3]) {
  v1 = softmax{kind=softmax, axis=1} v0 : f32[2,3]
  v2 = unary{kind=gelu} v1 : f32[2,3]
  return v2 "y"
}
