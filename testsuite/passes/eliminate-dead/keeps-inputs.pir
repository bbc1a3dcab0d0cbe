; run: eliminate-dead
; expect: nodes == 1
planish-ir 1
graph @"main"(v0 "x": f32[2], v1 "unused": f32[3]) {
  v2 = unary{kind=abs} v0 : f32[2]
  return v2 "y"
}
